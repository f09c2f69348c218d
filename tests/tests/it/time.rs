//! Time that passes without the daemon, and clocks that lie: neither may time anything out.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use regatta_tests::{Daemon, IDLE, wait_for};
use rustix::process::{Pid, Signal, kill_process};

/// What must not happen because of a clock.
const WRONG: [&str; 4] = ["boot-timed-out", "unhealthy", "repair", "instance-died"];

fn kinds(daemon: &Daemon) -> Vec<String> {
    let events = daemon.json(&["events", "--limit", "1000"]);
    let kind = |event: &serde_json::Value| event["kind"].as_str().unwrap_or_default().to_owned();
    events.as_array().expect("events").iter().map(kind).collect()
}

fn nothing_went_wrong(daemon: &Daemon) {
    let kinds = kinds(daemon);
    assert!(WRONG.iter().all(|wrong| !kinds.iter().any(|kind| kind == wrong)), "{kinds:?}\n{}", daemon.log());
}

fn signal(daemon: &Daemon, signal: Signal) {
    let pid = Pid::from_raw(daemon.pid().try_into().expect("a pid")).expect("a pid");
    kill_process(pid, signal).expect("a signal");
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a number")
}

fn ticks_pass(daemon: &Daemon, set: &str, ticks: u64) {
    let wanted = last_tick(daemon, set) + ticks;
    wait_for(&format!("{ticks} ticks of {set}"), || {
        let last = last_tick(daemon, set);
        if last >= wanted { Ok(()) } else { Err(format!("tick {last}")) }
    });
}

/// The guest boots for 12 s and has 8 s for it; of those 12 s, the daemon is stopped for 8.
#[test]
fn a_daemon_that_was_stopped_neither_times_out_a_boot_nor_loses_a_healthy_guest() {
    let daemon = Daemon::start();
    let strict = "health: { http: /healthz, interval: 100ms, timeout: 1s, healthy_threshold: 1, unhealthy_threshold: 1 }";
    let web = daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE);
    let health = web.lines().find(|line| line.starts_with("health:")).expect("a probe").to_owned();
    daemon.apply_ok(&web.replace(&health, strict));
    daemon.wait_in_service("web", 2);
    let pids = daemon.vm_pids("web");
    let slow = daemon.manifest("slow", "{ min: 1, max: 1 }", "sim.boot=12s", IDLE);
    daemon.apply_ok(&slow.replace("boot_timeout: 20s", "boot_timeout: 8s"));
    wait_for("the slow guest to boot", || {
        let instances = daemon.json(&["instances", "slow"]);
        if instances[0]["state"] == "booting" { Ok(()) } else { Err(instances.to_string()) }
    });

    signal(&daemon, Signal::STOP);
    let stopped = Instant::now();
    wait_for("8 s to pass", || {
        if stopped.elapsed() >= Duration::from_secs(8) { Ok(()) } else { Err(String::new()) }
    });
    signal(&daemon, Signal::CONT);

    daemon.wait_in_service("slow", 1);
    ticks_pass(&daemon, "web", 5);
    assert_eq!(daemon.vm_pids("web"), pids);
    nothing_went_wrong(&daemon);
}

/// Where Debian's package `faketime` puts it.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1";

#[test]
fn a_wall_clock_that_jumps_changes_nothing() {
    if !Path::new(FAKETIME).exists() {
        println!("skipped: {FAKETIME} is not there; `cargo xtask setup` installs Debian's package faketime");
        return;
    }
    let mut daemon = Daemon::prepare(&[]);
    let offset = daemon.home().join("offset");
    fs::write(&offset, "+0").expect("an offset");
    daemon.set_environment("LD_PRELOAD", FAKETIME);
    daemon.set_environment("FAKETIME_TIMESTAMP_FILE", &offset.display().to_string());
    daemon.set_environment("FAKETIME_NO_CACHE", "1");
    daemon.set_environment("FAKETIME_DONT_FAKE_MONOTONIC", "1");
    daemon.launch();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 3, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 3);
    let slow = daemon.manifest("slow", "{ min: 1, max: 1 }", "sim.boot=4s", IDLE);
    daemon.apply_ok(&slow);
    let pids = daemon.vm_pids("web");

    let seen = |daemon: &Daemon| {
        let record = daemon.json(&["why", "web"]);
        (
            record["wall_ms"].as_u64().expect("a time"),
            record["observation"]["now_ms"].as_u64().expect("a time"),
        )
    };
    let mut policies_saw = seen(&daemon).1;
    for jump in ["+3600", "-86400", "+86400"] {
        let before = seen(&daemon).0;
        fs::write(&offset, jump).expect("an offset");
        wait_for("records to show the jump", || {
            let (wall_ms, _) = seen(&daemon);
            if wall_ms.abs_diff(before) > 1_800_000 { Ok(()) } else { Err(wall_ms.to_string()) }
        });
        ticks_pass(&daemon, "web", 5);
        let (_, saw) = seen(&daemon);
        assert!(
            saw >= policies_saw && saw - policies_saw < 300_000,
            "policies saw {policies_saw}, then {saw}"
        );
        policies_saw = saw;
        assert_eq!(daemon.vm_pids("web"), pids);
    }
    daemon.wait_in_service("slow", 1);
    nothing_went_wrong(&daemon);
}
