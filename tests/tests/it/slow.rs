//! VMMs that are slow, hung or broken delay nobody: not the ticks of their set,
//! not those of others, and not the daemon's return.

use std::io::Write;

use regatta_tests::{Daemon, IDLE, wait_for};
use rustix::process::Signal;
use serde_json::Value;

/// Gives a running stand-in faults.
fn set_faults(daemon: &Daemon, set: &str, id: u64, list: &str) {
    daemon.order(set, id, &serde_json::json!({ "do": "fault", "list": list }));
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

/// Waits for `more` ticks of each set.
fn wait_for_ticks(daemon: &Daemon, sets: &[&str], more: u64) {
    let wanted: Vec<u64> = sets.iter().map(|set| last_tick(daemon, set) + more).collect();
    wait_for(&format!("{more} more ticks of {sets:?}"), || {
        let now: Vec<u64> = sets.iter().map(|set| last_tick(daemon, set)).collect();
        if now.iter().zip(&wanted).all(|(now, wanted)| now >= wanted) {
            Ok(())
        } else {
            Err(format!("{now:?}"))
        }
    });
}

fn is_there(pid: u32) -> bool {
    // A killed child of the daemon that was not waited for yet has no command line.
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

fn signal(pid: u32, signal: Signal) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, signal).expect("signal");
}

#[test]
fn a_hung_or_broken_api_delays_no_tick_and_costs_no_vm() {
    let mut daemon = Daemon::start_with(&[("REGATTA_CHSIM_CONTROL", "1")]);
    daemon.apply_ok(&daemon.manifest("hung", "{ min: 1, max: 3, initial: 3 }", "", IDLE));
    daemon.apply_ok(&daemon.manifest("other", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("hung", 3);
    daemon.wait_in_service("other", 1);
    let vms = daemon.vm_pids("hung");
    let (broken, hung) = (vms[1], vms[2]);
    set_faults(
        &daemon,
        "hung",
        hung.0,
        "hang:vmm.ping, hang:vm.info, hang:vm.power-button, hang:vm.shutdown",
    );
    set_faults(&daemon, "hung", broken.0, "refuse:vmm.ping, refuse:vm.info");

    // The daemon comes back: it has to ask each of them.
    daemon.kill();
    daemon.launch();
    wait_for_ticks(&daemon, &["hung", "other"], 5);
    daemon.wait_in_service("hung", 3);
    assert_eq!(daemon.vm_pids("hung"), vms, "no answer, or a wrong one, is not a death");

    // The newest goes first: the hung one, which has to be ended by force.
    assert_eq!(daemon.run(&["scale", "hung", "2"]).code, 0);
    wait_for_ticks(&daemon, &["hung", "other"], 5);
    daemon.wait_in_service("hung", 2);
    assert_eq!(daemon.vm_pids("hung"), vms[..2]);
    assert!(!is_there(hung.1));
}

#[test]
fn a_stopped_vmm_is_replaced_and_its_end_is_bounded() {
    let daemon = Daemon::start();
    let extra = format!("{IDLE}\nrepair: {{ grace: 0s, max_percent: 100 }}");
    daemon.apply_ok(&daemon.manifest("halt", "{ min: 2, max: 2 }", "", &extra));
    daemon.apply_ok(&daemon.manifest("other", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("halt", 2);
    daemon.wait_in_service("other", 1);
    let vms = daemon.vm_pids("halt");
    signal(vms[0].1, Signal::STOP);
    wait_for_ticks(&daemon, &["halt", "other"], 5);
    wait_for("the stopped VMM to be gone", || {
        if is_there(vms[0].1) { Err("it is there".to_owned()) } else { Ok(()) }
    });
    daemon.wait_in_service("halt", 2);
    let now = daemon.vm_pids("halt");
    assert!(now.contains(&vms[1]) && now[1].0 > vms[1].0, "{vms:?} → {now:?}");
}

#[test]
fn a_launch_that_hangs_ends_in_time_and_delays_nobody() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("other", "{ min: 1, max: 1 }", "", IDLE));
    daemon.wait_in_service("other", 1);
    let vms = daemon.vm_pids("other");
    daemon.stop();
    // What is launched from now on hangs while it boots.
    daemon.set_environment("REGATTA_CHSIM_FAULTS", "hang:vm.boot");
    daemon.launch();
    let manifest = daemon.manifest("dud", "{ min: 2, max: 2 }", "", IDLE);
    daemon.apply_ok(&manifest.replace("boot_timeout: 20s", "boot_timeout: 2s"));
    wait_for_ticks(&daemon, &["dud", "other"], 5);
    wait_for("the launch to be given up", || {
        let events = daemon.json(&["events", "dud"]);
        let failed = |e: &&Value| {
            e["kind"] == "launch-failed" && e["text"].as_str().is_some_and(|t| t.contains("boot"))
        };
        let failed = events.as_array().expect("events").iter().filter(failed).count();
        if failed >= 2 { Ok(()) } else { Err(events.to_string()) }
    });
    // A deletion does not wait for launches under way.
    assert_eq!(daemon.run(&["delete", "dud", "--yes", "--wait"]).code, 0);
    assert_eq!(daemon.vm_pids("other"), vms);
    assert_eq!(daemon.vmm_processes().len(), 1);
}

#[test]
fn a_vm_that_ends_while_it_drains_is_removed() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\", drain_timeout: 60s }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest("drain", "{ min: 1, max: 2, initial: 2 }", "sim.service=30s", &extra));
    daemon.wait_in_service("drain", 2);
    let vms = daemon.vm_pids("drain");
    // A request on each, so that neither drains before it has ended.
    let mut open: Vec<_> = (0..8)
        .map(|_| {
            let mut stream = std::net::TcpStream::connect(lb).expect("the load balancer");
            stream.write_all(b"GET /work HTTP/1.1\r\nHost: test\r\n\r\n").expect("a request");
            stream
        })
        .collect();
    wait_for("connections on both", || {
        let instances = daemon.json(&["instances", "drain"]);
        let busy =
            instances.as_array().expect("instances").iter().all(|i| i["connections"].as_u64() > Some(0));
        if busy { Ok(()) } else { Err(instances.to_string()) }
    });
    assert_eq!(daemon.run(&["scale", "drain", "1"]).code, 0);
    let id = wait_for("one to drain", || {
        let instances = daemon.json(&["instances", "drain"]);
        let draining = instances.as_array().expect("instances").iter().find(|i| i["state"] == "draining");
        draining.and_then(|i| i["id"].as_u64()).ok_or_else(|| instances.to_string())
    });
    let (_, pid) = vms.iter().find(|vm| vm.0 == id).expect("one of them");
    signal(*pid, Signal::KILL);
    daemon.wait_in_service("drain", 1);
    assert!(daemon.vm_pids("drain").iter().all(|vm| vm.0 != id));
    open.clear();
}

#[test]
fn the_end_of_a_terminal_does_not_end_the_daemon() {
    let daemon = Daemon::start();
    signal(daemon.pid(), Signal::HUP);
    wait_for("the daemon to say so", || {
        let log = daemon.log();
        if log.contains("SIGHUP: the policy directories are read again") { Ok(()) } else { Err(log) }
    });
    assert_eq!(daemon.run(&["status"]).code, 0);
    assert!(!daemon.log().contains('\u{1b}'), "no escape codes in a file: {}", daemon.log());
}
