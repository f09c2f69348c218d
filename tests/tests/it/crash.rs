//! The daemon goes away, and nothing happens to the VMs.

use regatta_tests::{Daemon, IDLE, get, wait_for};
use serde_json::Value;

/// Requests that the guests say they have served: kept by a VM that was not restarted.
pub(crate) fn served(daemon: &Daemon, set: &str) -> Vec<u64> {
    let instances = daemon.json(&["instances", set]);
    let addresses = instances
        .as_array()
        .expect("instances")
        .iter()
        .map(|i| i["address"].as_str().expect("one").to_owned());
    addresses
        .map(|address| {
            let page = get(address.parse().expect("an address"), "/metrics").expect("metrics").body;
            let line = page.lines().find(|line| line.starts_with("guest_requests_total")).expect("a counter");
            line.split_whitespace().last().expect("a value").parse::<f64>().expect("a number") as u64
        })
        .collect()
}

#[test]
fn a_killed_daemon_finds_every_vm_again() {
    let mut daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("stay", "{ min: 3, max: 3 }", "", &extra));
    daemon.wait_in_service("stay", 3);
    for _ in 0..30 {
        assert_eq!(get(lb, "/").expect("an answer").status, 200);
    }
    let (pids, counts) = (daemon.vm_pids("stay"), served(&daemon, "stay"));
    let tick = daemon.json(&["describe", "stay"])["summary"]["last_tick"].as_u64().expect("a tick");

    let worker = daemon.policy_worker();
    daemon.kill();
    wait_for("the policy worker to end with its daemon", || {
        let stat = std::fs::read_to_string(format!("/proc/{worker}/stat")).unwrap_or_default();
        if stat.is_empty() || stat.contains(") Z ") { Ok(()) } else { Err(stat) }
    });
    daemon.launch();
    daemon.wait_in_service("stay", 3);
    assert_eq!(daemon.vm_pids("stay"), pids, "no VM was restarted, none lost, none twice");
    assert_eq!(daemon.vmm_processes().len(), 3);
    for (before, after) in counts.iter().zip(served(&daemon, "stay")) {
        assert!(after >= *before, "a guest began to count anew: {before} → {after}");
    }
    let again = daemon.json(&["describe", "stay"])["summary"]["last_tick"].as_u64().expect("a tick");
    assert!(again >= tick, "ticks go on where they were: {tick} → {again}");
    wait_for("the load balancer", || get(lb, "/").map(drop));

    assert!(daemon.stop().success(), "and a daemon that is told to stop ends well");
    assert_eq!(daemon.vmm_processes().len(), 3, "its VMs go on");
    daemon.launch();
    assert_eq!(daemon.vm_pids("stay"), pids);
}

#[test]
fn what_died_while_the_daemon_was_away_is_replaced() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("dead", "{ min: 2, max: 2 }", "", IDLE));
    daemon.wait_in_service("dead", 2);
    let before = daemon.vm_pids("dead");
    daemon.kill();
    let pid = rustix::process::Pid::from_raw(i32::try_from(before[0].1).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
    daemon.launch();
    let ids = wait_for("a replacement", || {
        let instances = daemon.json(&["instances", "dead"]);
        let in_service: Vec<&Value> =
            instances.as_array().expect("instances").iter().filter(|i| i["state"] == "in-service").collect();
        let ids: Vec<u64> = in_service.iter().filter_map(|i| i["id"].as_u64()).collect();
        if ids.len() == 2 && !ids.contains(&before[0].0) { Ok(ids) } else { Err(instances.to_string()) }
    });
    assert!(ids.contains(&before[1].0), "the other one is left alone");
}
