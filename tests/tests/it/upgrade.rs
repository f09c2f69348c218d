//! Upgrades of running sets.

use regatta_tests::{Clients, Daemon, IDLE, wait_for};
use serde_json::Value;

fn file(daemon: &Daemon, name: &str, manifest: &str) -> String {
    let path = daemon.home().join(name);
    std::fs::write(&path, manifest).expect("written");
    path.to_str().expect("text").to_owned()
}

fn upgrade(daemon: &Daemon, set: &str) -> Value {
    daemon.json(&["upgrade", "status", set])
}

fn wait_for_status(daemon: &Daemon, set: &str, status: &str) {
    wait_for(status, || {
        let info = upgrade(daemon, set);
        if info["upgrade"]["status"] == status { Ok(()) } else { Err(info.to_string()) }
    });
}

#[test]
fn fifty_instances_are_upgraded_and_every_request_is_served() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\nupgrade: {{ mode: rolling }}\n{IDLE}");
    let manifest = daemon.manifest("web", "{ min: 50, max: 50 }", "sim.service=1ms", &extra);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 50);
    let clients = Clients::start(lb);
    clients.serves(50);
    let file = file(&daemon, "new.yaml", &manifest.replace("sim.service=1ms", "sim.service=2ms"));
    let difference = daemon.run(&["diff", "-f", &file]);
    assert!(
        difference.out.contains(
            "replaced in this order, 10 at a time, with up to 10 more and 0 fewer in service: web-1, web-2,"
        ),
        "{}",
        difference.out
    );
    let applied = daemon.run(&["apply", "-f", &file, "--wait", "--timeout", "2m"]);
    assert_eq!(applied.code, 0, "{}{}", applied.out, applied.err);
    let info = upgrade(&daemon, "web");
    assert_eq!(
        (info["upgrade"]["status"].as_str(), info["upgrade"]["total"].as_u64()),
        (Some("completed"), Some(50))
    );
    assert_eq!(info["outdated"].as_array().map(Vec::len), Some(0));
    let instances = daemon.json(&["instances", "web"]);
    assert!(instances.as_array().expect("instances").iter().all(|it| it["generation"] == 2), "{instances}");
    clients.serves(50);
    clients.finish();
}

#[test]
fn an_upgrade_survives_its_daemon_and_goes_back_when_new_instances_fail() {
    let mut daemon = Daemon::start();
    let extra = format!("upgrade: {{ mode: rolling, pause: 500ms }}\n{IDLE}");
    let manifest = daemon.manifest("web", "{ min: 4, max: 4 }", "", &extra);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 4);
    daemon.apply_ok(&manifest.replace("sim.boot=30ms", "sim.boot=31ms"));
    wait_for("the first of them to be replaced", || {
        let info = upgrade(&daemon, "web");
        if info["upgrade"]["replaced"].as_u64() >= Some(1) { Ok(()) } else { Err(info.to_string()) }
    });
    daemon.kill();
    daemon.launch();
    wait_for_status(&daemon, "web", "completed");
    daemon.wait_in_service("web", 4);

    let before = daemon.vm_pids("web");
    let broken = manifest.replace("sim.boot=30ms", "sim.boot=31ms sim.fault=crash-after=1ms");
    let applied =
        daemon.run(&["apply", "-f", &file(&daemon, "broken.yaml", &broken), "--wait", "--timeout", "1m"]);
    assert_ne!(applied.code, 0, "what was asked for did not come to be: {}{}", applied.out, applied.err);
    assert!(applied.err.contains("rolled back"), "{}", applied.err);
    wait_for_status(&daemon, "web", "rolled-back");
    daemon.wait_in_service("web", 4);
    assert_eq!(daemon.vm_pids("web"), before, "nobody who served was touched");
    let described = daemon.json(&["describe", "web"]);
    let cmdline = described["manifest"]["image"]["cmdline"].as_str().unwrap_or_default();
    assert!(cmdline.contains("sim.boot=31ms") && !cmdline.contains("fault"), "{cmdline}");
}
