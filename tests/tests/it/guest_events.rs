//! What a guest does by itself leads to a defined state and action.

use regatta_tests::{Daemon, IDLE, wait_for};
use serde_json::{Value, json};

/// The texts of a set's events of one kind.
fn told(daemon: &Daemon, kind: &str) -> Vec<String> {
    let events = daemon.json(&["events"]);
    let of_kind = events.as_array().expect("events").iter().filter(|event| event["kind"] == kind);
    of_kind.map(|event| event["text"].as_str().expect("a text").to_owned()).collect()
}

fn wait_for_event(daemon: &Daemon, kind: &str) -> String {
    wait_for(&format!("an event {kind}"), || told(daemon, kind).pop().ok_or_else(|| "none".to_owned()))
}

fn one_in_service(set: &str) -> (Daemon, u64, u32) {
    let daemon = Daemon::start_with(&[("REGATTA_CHSIM_CONTROL", "1")]);
    daemon.apply_ok(&daemon.manifest(set, "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service(set, 1);
    let (id, pid) = daemon.vm_pids(set)[0];
    (daemon, id, pid)
}

/// Waits until another instance has taken the place of `id`.
fn wait_replaced(daemon: &Daemon, set: &str, id: u64) {
    wait_for("a replacement in service", || {
        let instances = daemon.json(&["instances", set]);
        let instances = instances.as_array().expect("instances");
        match instances.as_slice() {
            [one] if one["id"].as_u64() > Some(id) && one["state"] == "in-service" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    });
}

fn kept_logs(daemon: &Daemon) -> Vec<String> {
    let Ok(kept) = std::fs::read_dir(daemon.data().join("failed")) else { return Vec::new() };
    let reason = |dir: std::fs::DirEntry| std::fs::read_to_string(dir.path().join("reason.txt")).ok();
    kept.flatten().filter_map(reason).collect()
}

#[test]
fn a_guest_that_panics_is_replaced_and_its_logs_are_kept() {
    let (daemon, id, _) = one_in_service("panics");
    daemon.order("panics", id, &json!({ "do": "panic" }));
    let told = wait_for_event(&daemon, "guest-panicked");
    assert_eq!(told, format!("panics-{id}: guest panicked"));
    wait_replaced(&daemon, "panics", id);
    assert_eq!(kept_logs(&daemon), ["the guest panicked\n"]);
}

#[test]
fn a_guest_that_panics_while_no_daemon_runs_is_noticed_afterwards() {
    let (mut daemon, id, _) = one_in_service("alone");
    daemon.kill();
    daemon.order("alone", id, &json!({ "do": "panic" }));
    daemon.launch();
    wait_for_event(&daemon, "guest-panicked");
    wait_replaced(&daemon, "alone", id);
}

#[test]
fn a_guest_that_reboots_itself_keeps_its_vmm_and_is_out_of_service_meanwhile() {
    let (mut daemon, id, pid) = one_in_service("reboots");
    daemon.order("reboots", id, &json!({ "do": "reset" }));
    wait_for_event(&daemon, "guest-rebooted");
    daemon.wait_in_service("reboots", 1);
    assert_eq!(daemon.vm_pids("reboots"), [(id, pid)]);
    wait_for("it to be in service once more", || {
        let told = told(&daemon, "in-service");
        if told.len() == 2 { Ok(()) } else { Err(format!("{told:?}")) }
    });

    // Told once, even to a daemon that reads the same events again.
    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("reboots", 1);
    let last = daemon.json(&["describe", "reboots"])["summary"]["last_tick"].as_u64();
    wait_for("a tick of the new daemon", || {
        let now = daemon.json(&["describe", "reboots"])["summary"]["last_tick"].as_u64();
        if now > last.map(|last| last + 1) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    assert_eq!(told(&daemon, "guest-rebooted").len(), 1);
    assert_eq!(daemon.vm_pids("reboots"), [(id, pid)]);
}

#[test]
fn a_guest_that_powers_itself_off_is_replaced_and_not_taken_for_a_crash() {
    let (daemon, id, _) = one_in_service("off");
    daemon.order("off", id, &json!({ "do": "power-off" }));
    let told = wait_for_event(&daemon, "instance-died");
    assert!(told.contains("the guest powered itself off (the VMM ended with exit code 0)"), "{told}");
    wait_replaced(&daemon, "off", id);
}

#[test]
fn a_guest_that_hangs_is_found_by_its_probes_and_repaired() {
    let daemon = Daemon::start_with(&[("REGATTA_CHSIM_CONTROL", "1")]);
    let manifest =
        daemon.manifest("hangs", "{ min: 1, max: 1 }", "", &format!("repair: {{ grace: 0s }}\n{IDLE}"));
    daemon.apply_ok(&manifest.replace("timeout: 2s", "timeout: 300ms"));
    daemon.wait_in_service("hangs", 1);
    let (id, _) = daemon.vm_pids("hangs")[0];
    daemon.order("hangs", id, &json!({ "do": "hang" }));
    wait_for_event(&daemon, "unhealthy");
    wait_for_event(&daemon, "repair");
    wait_replaced(&daemon, "hangs", id);
    let kept = daemon.json(&["logs", "hangs"]);
    assert_eq!((&kept[0]["id"], kept.as_array().map(Vec::len)), (&id.into(), Some(1)));
    assert!(kept[0]["reason"].as_str().is_some_and(|why| why.starts_with("unhealthy: ")), "{kept}");
    let gone = daemon.json(&["logs", "hangs", &id.to_string()]);
    assert_eq!(gone["kept_because"], kept[0]["reason"]);
    assert!(gone["text"].as_str().is_some_and(|text| !text.is_empty()), "{gone}");
    // Of one that runs, too; of what never was there is nothing.
    let (new, _) = daemon.vm_pids("hangs")[0];
    let runs = daemon.json(&["logs", "hangs", &new.to_string()]);
    assert!(runs["kept_because"].is_null() && runs["text"] != "", "{runs}");
    assert_eq!(daemon.run(&["logs", "hangs", "99"]).code, 4);
    // The daemon's log has each event once, troubles as warnings.
    let log = daemon.log();
    let lines = |kind: &str| log.lines().filter(|line| line.contains(&format!(" {kind} set="))).count();
    assert_eq!([lines("unhealthy"), lines("repair"), lines("set-created")], [1, 1, 1], "{log}");
    assert!(log.lines().any(|line| line.contains("WARN") && line.contains(" repair set=")), "{log}");
}

/// Keeps also a size of 0, where every load would be too much for target tracking.
const FAR_STEP: &str =
    "policy: { module: step, params: { metric: cpu, scale_out: [ { above: 1000, add: 1 } ] } }";

#[test]
fn a_guest_that_ignores_its_power_button_is_stopped_and_that_is_told() {
    let daemon = Daemon::start();
    let manifest =
        daemon.manifest("deaf", "{ min: 0, max: 1, initial: 1 }", "sim.fault=ignore-power-button", FAR_STEP);
    daemon.apply_ok(&manifest.replace("boot_timeout: 20s", "boot_timeout: 20s, shutdown_timeout: 1s"));
    daemon.wait_in_service("deaf", 1);
    let scaled = daemon.run(&["scale", "deaf", "0"]);
    assert_eq!(scaled.code, 0, "{}", scaled.err);
    let told = wait_for_event(&daemon, "instance-gone");
    assert!(told.contains("did not shut down within 1s; killed"), "{told}");
    let none: Vec<Value> = Vec::new();
    assert_eq!(daemon.json(&["instances", "deaf"]).as_array(), Some(&none));
}
