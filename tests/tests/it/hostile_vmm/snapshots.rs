//! What the VMM of a template leaves as a snapshot.

use super::*;

fn apply(daemon: &Daemon) {
    daemon.apply_ok(&format!(
        "version: regatta/v1\n\
         name: web\n\
         tick: 200ms\n\
         capacity: {{ min: 2, max: 2 }}\n\
         image: {{ disk: golden.raw, kernel: vmlinux, cmdline: \"console=ttyS0 sim.boot=30ms\" }}\n\
         instance: {{ vcpus: 1, memory: 64MiB, boot_timeout: 20s, start: snapshot }}\n\
         network: {{ mode: none }}\n\
         {IDLE}\n"
    ));
    daemon.wait_in_service("web", 2);
}

/// Without a snapshot that can be used, instances boot; and it is said why.
fn boots_instead(daemon: &Daemon, why: &str) {
    let told = daemon.json(&["events"]).to_string();
    assert!(told.contains(why), "no `{why}` in {told}");
    let instances = daemon.json(&["instances", "web"]);
    let instances = instances.as_array().expect("instances");
    assert!(instances.iter().all(|it| !it["start"].as_str().unwrap_or("").starts_with("restored")));
    assert!(peak_bytes(daemon) < PEAK_BYTES, "{} bytes", peak_bytes(daemon));
}

#[test]
fn a_configuration_of_a_gigabyte_and_a_half_is_refused_unread() {
    let daemon = attacked("sparse-config@template");
    apply(&daemon);
    boots_instead(&daemon, "config.json");
}

#[test]
fn a_link_in_a_snapshot_leads_nowhere() {
    let daemon = attacked("linked-config@template");
    let precious = daemon.home().join("precious");
    fs::write(&precious, "root's").expect("written");
    apply(&daemon);
    boots_instead(&daemon, "config.json");
    let found = fs::metadata(&precious).expect("there");
    assert_eq!((found.uid(), found.len()), (rustix::process::geteuid().as_raw(), 6));
}

#[test]
fn a_link_where_the_snapshot_belongs_is_not_written_through() {
    let daemon = attacked("links@template");
    let victim = daemon.home().join("victim");
    fs::write(&victim, "untouched").expect("written");
    apply(&daemon);
    assert_eq!(fs::read_to_string(&victim).expect("read"), "untouched");
    for name in ["config.json", "state.json", "memory-ranges"] {
        assert!(!daemon.home().join(name).exists(), "{name} was written beside the data directory");
    }
}
