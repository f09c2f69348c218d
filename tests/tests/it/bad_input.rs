//! Whatever is handed in, it is either taken whole or refused whole.

use std::fs;
use std::process::Command;

use regatta_tests::{Daemon, IDLE, bin_dir};

#[test]
fn ten_mistakes_give_ten_messages_and_nothing_is_applied() {
    let daemon = Daemon::start();
    let manifest = r#"version: regatta/v1
name: Not_A_Name
tick: 5
capacity: { min: 4, max: 2 }
image: { disk: golden.raw, kernel: vmlinux, initramf: x }
instance: { vcpus: 0, memory: lots }
network: { mode: bridged }
health: { http: healthz }
policy: { module: target-tracking, params: {}, limits: { fule: 3 } }
repair: { max_percent: 900 }
"#;
    let output = daemon.apply(manifest);
    assert_eq!(output.code, 3, "{}", output.err);
    let places = output.err.lines().filter(|line| line.contains("set.yaml:")).count();
    assert!(places >= 10, "{places} places in:\n{}", output.err);
    assert!(output.err.contains('^'), "{}", output.err);
    assert_eq!(daemon.json(&["get"]), serde_json::json!([]));
}

#[test]
fn problems_of_image_and_policy_come_together_and_at_their_places() {
    let daemon = Daemon::start();
    let manifest = daemon
        .manifest("many", "{ min: 1, max: 2 }", "", "policy: { module: target-tracking, params: { target: high } }")
        .replace("disk: golden.raw", "disk: { path: golden.raw, sha256: 0000000000000000000000000000000000000000000000000000000000000000 }")
        .replace("kernel: vmlinux", "kernel: absent");
    let output = daemon.apply(&manifest);
    assert_eq!(output.code, 3, "{}", output.err);
    for part in ["golden.raw", "absent", "policy.params", "0000000000"] {
        assert!(output.err.contains(part), "{part} is not named in:\n{}", output.err);
    }
    assert_eq!(daemon.json(&["get"]), serde_json::json!([]));
    assert!(daemon.vmm_processes().is_empty());
}

#[test]
fn a_policy_that_does_not_exist_is_named_with_those_that_do() {
    let daemon = Daemon::start();
    let output =
        daemon.apply(&daemon.manifest("no", "{ min: 1, max: 2 }", "", "policy: { module: target-traking }"));
    assert_eq!(output.code, 3, "{}", output.err);
    assert!(
        output.err.contains("target-traking") && output.err.contains("target-tracking"),
        "{}",
        output.err
    );
}

#[test]
fn a_second_daemon_on_the_same_data_is_refused() {
    let daemon = Daemon::start();
    let second = Command::new(bin_dir().join("regatta"))
        .args(["serve", "--vmm", "sim"])
        .env("REGATTA_DATA", daemon.data())
        .output()
        .expect("regatta runs");
    assert!(!second.status.success());
    let said = String::from_utf8_lossy(&second.stderr);
    assert!(said.contains(&daemon.data().display().to_string()), "{said}");
    assert!(said.contains(&daemon.pid().to_string()), "the pid of the first one is not named: {said}");
    assert_eq!(daemon.run(&["status"]).code, 0, "the first one is untouched");
}

#[test]
fn an_address_that_is_taken_is_refused_before_anything_is_made() {
    let daemon = Daemon::start();
    let taken = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let addr = taken.local_addr().expect("an address");
    let extra = format!("load_balancer: {{ listen: \"{addr}\" }}\n{IDLE}");
    let output = daemon.apply(&daemon.manifest("port", "{ min: 1, max: 2 }", "", &extra));
    assert_eq!(output.code, 6, "{}", output.err);
    assert!(output.err.contains(&addr.to_string()), "{}", output.err);
    assert_eq!(daemon.json(&["get"]), serde_json::json!([]));
}

#[test]
fn an_image_that_cannot_boot_fails_with_the_vmms_words_and_is_tried_with_pauses() {
    let daemon = Daemon::start_with(&[("REGATTA_CHSIM_FAULTS", "refuse-boot")]);
    daemon.apply_ok(&daemon.manifest("dud", "{ min: 2, max: 2 }", "", IDLE));
    let events = regatta_tests::wait_for("a second failed launch", || {
        let events = daemon.json(&["events", "dud"]);
        let failed =
            events.as_array().expect("events").iter().filter(|e| e["kind"] == "launch-failed").count();
        if failed >= 4 { Ok(events) } else { Err(events.to_string()) }
    });
    let ticks = daemon.json(&["describe", "dud"])["summary"]["last_tick"].as_u64().expect("ticks");
    let failed = events.as_array().expect("events").iter().filter(|e| e["kind"] == "launch-failed").count();
    assert!((failed as u64) < ticks * 2, "{failed} failures in {ticks} ticks: no pause between them");
    assert!(daemon.vmm_processes().len() <= 2);
}

#[test]
fn an_unknown_field_is_refused_with_a_suggestion() {
    let daemon = Daemon::start();
    let manifest = daemon.manifest("typo", "{ min: 1, maks: 2 }", "", IDLE);
    let output = daemon.apply(&manifest);
    assert_eq!(output.code, 3);
    assert!(output.err.contains("maks") && output.err.contains("max"), "{}", output.err);
    fs::write(daemon.home().join("other.yaml"), "{").expect("a file");
    assert_eq!(daemon.run(&["apply", "-f", "other.yaml"]).code, 3);
    assert_eq!(daemon.run(&["apply", "-f", "absent.yaml"]).code, 1);
}
