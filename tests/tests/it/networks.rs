//! Sets in networks of their own, on the stand-in: its guests answer over real taps, through real translation.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use regatta_tests::{Daemon, IDLE, enter_own_network, get, traces_in_own_network, wait_for};
use rustix::process::{Pid, Signal};

const BRIDGE: &str =
    "network: { mode: bridge, bridge: { name: rgtest0, address: 10.99.0.1/24 }, pool: 10.99.0.0/24 }";

fn nothing_is_left(daemon: &Daemon) {
    wait_for("nothing to be left", || {
        let (traces, vmms) = (traces_in_own_network(), daemon.vmm_processes());
        let dirs = std::fs::read_dir(daemon.data().join("instances")).expect("instances").count();
        let clean = traces.is_empty() && vmms.is_empty() && dirs == 0;
        if clean { Ok(()) } else { Err(format!("{traces:?}, VMMs {vmms:?}, {dirs} directories")) }
    });
}

/// A manifest of a set on the stand-in in this network.
fn manifest(daemon: &Daemon, name: &str, capacity: &str, network: &str) -> String {
    let loopback = daemon.manifest(name, capacity, "", IDLE);
    let line = loopback.lines().find(|line| line.starts_with("network:")).expect("a network").to_owned();
    loopback.replace(&line, network)
}

fn addresses(daemon: &Daemon, set: &str) -> Vec<SocketAddr> {
    let instances = daemon.json(&["instances", set]);
    let address = |instance: &serde_json::Value| {
        instance["address"].as_str().expect("one").parse().expect("an address")
    };
    instances.as_array().expect("instances").iter().map(address).collect()
}

fn serves(daemon: &Daemon, set: &str, count: usize) {
    let addresses = addresses(daemon, set);
    assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), count, "{addresses:?}");
    for address in addresses {
        wait_for(&format!("an answer from {address}"), || {
            let answer = get(address, "/healthz")?;
            if answer.status == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        });
    }
}

fn each_network_serves_survives_and_goes(network: &str) {
    if let Err(why) = enter_own_network() {
        return println!("skipped: {why}");
    }
    let mut daemon = Daemon::start();
    daemon.apply_ok(&manifest(&daemon, "net", "{ min: 1, max: 4, initial: 3 }", network));
    daemon.wait_in_service("net", 3);
    serves(&daemon, "net", 3);

    let vms = daemon.vm_pids("net");
    daemon.kill();
    daemon.launch();
    // What was not stored yet when it was killed is found out again.
    daemon.wait_in_service("net", 3);
    assert_eq!(daemon.vm_pids("net"), vms, "the same VMs, in the same networks");
    serves(&daemon, "net", 3);

    let (victim, pid) = vms[0];
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, Signal::KILL).expect("kill");
    wait_for("the killed VMM to be replaced", || {
        let ids: Vec<u64> = daemon
            .json(&["instances", "net"])
            .as_array()
            .expect("instances")
            .iter()
            .filter_map(|i| i["id"].as_u64())
            .collect();
        if ids.len() == 3 && !ids.contains(&victim) { Ok(()) } else { Err(format!("{ids:?}")) }
    });
    daemon.wait_in_service("net", 3);
    serves(&daemon, "net", 3);

    assert_eq!(daemon.run(&["scale", "net", "1"]).code, 0);
    daemon.wait_in_service("net", 1);
    assert_eq!(daemon.run(&["delete", "net", "--yes", "--wait"]).code, 0);
    nothing_is_left(&daemon);
}

#[test]
fn an_isolated_set_serves_survives_and_goes() {
    each_network_serves_survives_and_goes("network: { mode: isolated, pool: 10.98.0.0/24 }");
}

#[test]
fn a_set_on_a_managed_bridge_serves_survives_and_goes() {
    each_network_serves_survives_and_goes(BRIDGE);
}

/// The daemon is killed at random moments while sets in both kinds of network grow and shrink.
#[test]
fn kills_at_any_moment_leave_no_link_no_rule_and_no_namespace() {
    const KILLS: u32 = 6;
    if let Err(why) = enter_own_network() {
        return println!("skipped: {why}");
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let given = std::env::var("REGATTA_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(now.subsec_nanos()));
    println!("REGATTA_TEST_SEED={seed} repeats the choices of this test");
    let mut random = SmallRng::seed_from_u64(seed);
    let mut daemon = Daemon::start();
    daemon.apply_ok(&manifest(
        &daemon,
        "iso",
        "{ min: 0, max: 5, initial: 2 }",
        "network: { pool: 10.98.0.0/24 }",
    ));
    daemon.apply_ok(&manifest(&daemon, "bri", "{ min: 0, max: 5, initial: 2 }", BRIDGE));
    for _ in 0..KILLS {
        for set in ["iso", "bri"] {
            let size = random.random_range(0..=5u32).to_string();
            assert_eq!(daemon.run(&["scale", set, &size]).code, 0);
        }
        // Somewhere within the work of the next ticks: set-up, launch, removal.
        std::thread::sleep(Duration::from_millis(random.random_range(0..600)));
        daemon.kill();
        daemon.launch();
    }
    for set in ["iso", "bri"] {
        assert_eq!(daemon.run(&["scale", set, "2"]).code, 0);
        daemon.wait_in_service(set, 2);
        serves(&daemon, set, 2);
    }
    let veths = traces_in_own_network().iter().filter(|line| line.contains("@if")).count();
    assert_eq!(
        veths,
        4,
        "one link for each instance, isolated or on the bridge: {:?}",
        traces_in_own_network()
    );
    for set in ["iso", "bri"] {
        assert_eq!(daemon.run(&["delete", set, "--yes", "--wait"]).code, 0);
    }
    nothing_is_left(&daemon);
}
