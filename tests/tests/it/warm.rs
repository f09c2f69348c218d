//! Instances that go on from a snapshot: made once, used by all, and done without when it cannot be had.

use std::path::PathBuf;

use regatta_tests::{Daemon, IDLE, enter_own_network, get, traces_in_own_network, wait_for};
use serde_json::Value;

const FAULTS: &str = "REGATTA_CHSIM_FAULTS";

/// A set without a network, whose instances are in service once they run.
fn manifest(start: &str, capacity: &str, memory: &str) -> String {
    format!(
        "version: regatta/v1\n\
         name: warm\n\
         tick: 200ms\n\
         capacity: {capacity}\n\
         image: {{ disk: golden.raw, kernel: vmlinux, cmdline: \"console=ttyS0 sim.boot=30ms\" }}\n\
         instance: {{ vcpus: 1, memory: {memory}, boot_timeout: 20s, start: {start} }}\n\
         network: {{ mode: none }}\n\
         {IDLE}\n"
    )
}

/// How the instances came to run, by id.
fn starts(daemon: &Daemon) -> Vec<String> {
    let instances = daemon.json(&["instances", "warm"]);
    let start = |instance: &Value| instance["start"].as_str().unwrap_or("unknown").to_owned();
    instances.as_array().expect("instances").iter().map(start).collect()
}

fn events(daemon: &Daemon, kind: &str) -> usize {
    let events = daemon.json(&["events"]);
    events.as_array().expect("events").iter().filter(|event| event["kind"] == kind).count()
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

fn snapshots(daemon: &Daemon) -> Vec<String> {
    names(daemon.data().join("snapshots/warm"))
}

/// Directories and processes are those of the instances in service, and no others.
fn assert_only(daemon: &Daemon, count: usize) {
    let dirs = names(daemon.data().join("instances/warm"));
    assert_eq!(dirs.len(), count, "{dirs:?}");
    assert!(dirs.iter().all(|dir| dir.parse::<u32>().is_ok()), "{dirs:?}");
    assert_eq!(daemon.vmm_processes().len(), count);
}

#[test]
fn instances_go_on_from_a_snapshot_that_outlives_the_daemon_and_goes_with_the_set() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&manifest("snapshot", "{ min: 2, max: 6 }", "64MiB"));
    daemon.wait_in_service("warm", 2);
    let all_restored = |daemon: &Daemon| {
        let starts = starts(daemon);
        assert!(starts.iter().all(|start| start.starts_with("restored (")), "{starts:?}");
    };
    all_restored(&daemon);
    assert_only(&daemon, 2);
    assert_eq!(events(&daemon, "snapshot-ready"), 1);
    let first = snapshots(&daemon);
    assert_eq!(first.len(), 1, "{first:?}");
    let table = daemon.run(&["instances", "warm"]).out;
    assert!(table.contains("START") && table.contains("restored ("), "{table}");

    let pids = daemon.vm_pids("warm");
    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("warm", 2);
    assert_eq!(daemon.vm_pids("warm"), pids);
    all_restored(&daemon);
    assert_eq!(daemon.run(&["scale", "warm", "4"]).code, 0);
    daemon.wait_in_service("warm", 4);
    all_restored(&daemon);
    assert_eq!(events(&daemon, "snapshot-ready"), 1, "the one that was there served again");
    assert_eq!(snapshots(&daemon), first);

    // Another machine needs another snapshot; what runs on the old one runs on.
    daemon.apply_ok(&manifest("snapshot", "{ min: 2, max: 6 }", "72MiB"));
    wait_for("the next snapshot", || {
        if events(&daemon, "snapshot-ready") == 2 { Ok(()) } else { Err(daemon.log()) }
    });
    assert_eq!(daemon.run(&["scale", "warm", "5"]).code, 0);
    daemon.wait_in_service("warm", 5);
    all_restored(&daemon);
    let second = snapshots(&daemon);
    assert!(second.len() == 1 && second != first, "{first:?}, then {second:?}");

    assert_eq!(daemon.run(&["delete", "warm", "--yes"]).code, 0);
    wait_for("nothing to be left", || {
        let left = (names(daemon.data().join("snapshots")), names(daemon.data().join("instances")));
        if left == (Vec::new(), Vec::new()) && daemon.vmm_processes().is_empty() {
            Ok(())
        } else {
            Err(format!("{left:?}"))
        }
    });
}

#[test]
fn a_daemon_that_dies_while_the_template_boots_begins_anew() {
    let mut daemon = Daemon::prepare(&[(FAULTS, "hang:vm.boot")]);
    daemon.launch();
    daemon.apply_ok(&manifest("snapshot", "{ min: 2, max: 2 }", "64MiB"));
    wait_for("the template's VMM", || {
        let dirs = names(daemon.data().join("instances/warm"));
        let running = daemon.vmm_processes();
        if dirs == ["template"] && running.len() == 1 { Ok(()) } else { Err(format!("{dirs:?} {running:?}")) }
    });
    wait_for("a tick to say what it waits for", || {
        let notes = daemon.json(&["describe", "warm"])["notes"].to_string();
        let said = notes.contains("2 instances short: the snapshot that instances start from is being made");
        if said { Ok(()) } else { Err(notes) }
    });
    daemon.kill();
    let half = daemon.data().join("snapshots/warm/.making-0");
    std::fs::create_dir_all(&half).expect("as if it had died a moment later");
    daemon.set_environment(FAULTS, "");
    daemon.launch();
    daemon.wait_in_service("warm", 2);
    let starts = starts(&daemon);
    assert!(starts.iter().all(|start| start.starts_with("restored (")), "{starts:?}");
    assert_only(&daemon, 2);
    assert!(!half.exists());
}

#[test]
fn a_set_that_is_deleted_while_the_template_boots_leaves_nothing() {
    let mut daemon = Daemon::prepare(&[(FAULTS, "hang:vm.boot")]);
    daemon.launch();
    daemon.apply_ok(&manifest("snapshot", "{ min: 1, max: 2 }", "64MiB"));
    wait_for("the template's VMM", || {
        if daemon.vmm_processes().len() == 1 { Ok(()) } else { Err("none".to_owned()) }
    });
    assert_eq!(daemon.run(&["delete", "warm", "--yes"]).code, 0);
    wait_for("nothing to be left", || {
        let left = names(daemon.data().join("instances"));
        let sets = daemon.json(&["get"]);
        let gone = left.is_empty() && daemon.vmm_processes().is_empty() && sets == Value::Array(Vec::new());
        if gone { Ok(()) } else { Err(format!("{left:?}, {sets}")) }
    });
    assert_eq!(events(&daemon, "set-deleted"), 1);
}

#[test]
fn an_instance_that_cannot_be_restored_boots_and_that_is_recorded() {
    let daemon = Daemon::start_with(&[(FAULTS, "refuse:vm.restore")]);
    daemon.apply_ok(&manifest("snapshot", "{ min: 2, max: 2 }", "64MiB"));
    daemon.wait_in_service("warm", 2);
    let starts = starts(&daemon);
    assert!(starts.iter().all(|start| start.starts_with("cold: restore failed: ")), "{starts:?}");
    assert!(starts[0].contains("vm.restore failed (500)"), "{starts:?}");
    assert_eq!(events(&daemon, "launch-failed"), 0, "it came to run all the same");
    assert_only(&daemon, 2);
}

#[test]
fn without_a_snapshot_instances_boot_and_it_is_told_once() {
    let daemon = Daemon::start_with(&[(FAULTS, "refuse:vm.snapshot")]);
    daemon.apply_ok(&manifest("snapshot", "{ min: 1, max: 2 }", "64MiB"));
    daemon.wait_in_service("warm", 1);
    let starts = starts(&daemon);
    assert!(starts[0].starts_with("cold: there is no snapshot: "), "{starts:?}");
    let problems = daemon.json(&["describe", "warm"])["summary"]["problems"].to_string();
    assert!(problems.contains("instances boot; there is no snapshot"), "{problems}");
    let tick = || daemon.json(&["describe", "warm"])["summary"]["last_tick"].as_u64().expect("a tick");
    let (begun, mut now) = (tick(), tick());
    while now < begun + 3 {
        now = wait_for("ticks to go on", || {
            let next = tick();
            if next > now { Ok(next) } else { Err(format!("{next}")) }
        });
    }
    assert_eq!(events(&daemon, "snapshot-failed"), 1);
    assert_eq!(snapshots(&daemon), Vec::<String>::new());
    assert_only(&daemon, 1);
}

#[test]
fn auto_boots_until_there_is_a_snapshot() {
    let daemon = Daemon::start_with(&[(FAULTS, "slow:vm.pause=2s")]);
    daemon.apply_ok(&manifest("auto", "{ min: 1, max: 3 }", "64MiB"));
    wait_for(
        "the snapshot",
        || {
            if events(&daemon, "snapshot-ready") == 1 { Ok(()) } else { Err(daemon.log()) }
        },
    );
    assert_eq!(starts(&daemon), ["cold: the snapshot is not made yet"], "nothing waited for it");
    assert_eq!(daemon.run(&["scale", "warm", "2"]).code, 0);
    daemon.wait_in_service("warm", 2);
    let starts = starts(&daemon);
    assert!(starts[1].starts_with("restored ("), "{starts:?}");
    assert_only(&daemon, 2);
}

/// The same address inside for all of them, which is what lets them share a memory.
#[test]
fn restored_instances_answer_in_networks_of_their_own() {
    if let Err(why) = enter_own_network() {
        return println!("skipped: {why}");
    }
    let daemon = Daemon::start();
    let probed = "health: { http: /healthz, interval: 200ms, timeout: 2s, healthy_threshold: 1 }";
    let isolated = format!("network: {{ mode: isolated, pool: 10.97.0.0/24 }}\n{probed}");
    let manifest = manifest("snapshot", "{ min: 3, max: 3 }", "64MiB");
    daemon.apply_ok(&manifest.replace("network: { mode: none }", &isolated));
    daemon.wait_in_service("warm", 3);
    let starts = starts(&daemon);
    assert!(starts.iter().all(|start| start.starts_with("restored (")), "{starts:?}");
    let instances = daemon.json(&["instances", "warm"]);
    for instance in instances.as_array().expect("instances") {
        let address = instance["address"].as_str().expect("one").parse().expect("an address");
        let answer = get(address, "/").expect("an answer");
        assert_eq!(answer.status, 200);
        // What a guest has in its memory is the template's: so much for its name.
        assert!(answer.body.starts_with("warm-0 "), "{}", answer.body);
    }
    assert_only(&daemon, 3);
    assert_eq!(daemon.run(&["delete", "warm", "--yes", "--wait"]).code, 0);
    wait_for("nothing to be left in the network", || {
        let traces = traces_in_own_network();
        if traces.is_empty() { Ok(()) } else { Err(format!("{traces:?}")) }
    });
}
