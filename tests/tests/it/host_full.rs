//! A host that is full: what is there stays, what cannot be made is told.

use regatta_tests::{Daemon, IDLE, wait_for};

fn events(daemon: &Daemon, kind: &str) -> usize {
    let events = daemon.json(&["events"]);
    events.as_array().expect("events").iter().filter(|event| event["kind"] == kind).count()
}

#[test]
fn a_set_that_cannot_grow_says_so_and_keeps_what_it_has() {
    let cpus = std::thread::available_parallelism().expect("a count of CPUs").get();
    let ratio = format!("{}", 2.5 / cpus as f64);
    let mut daemon = Daemon::start_with(&[("REGATTA_CPU_OVERCOMMIT", &ratio)]);
    let applied = daemon.apply(&daemon.manifest("web", "{ min: 1, max: 5, initial: 1 }", "", IDLE));
    assert_eq!(applied.code, 0, "{}", applied.err);
    let warned = "the host has 2 virtual CPUs for instances, capacity.max 5 would need 5 (--cpu-overcommit)";
    assert!(applied.err.contains(warned), "{}{}", applied.out, applied.err);
    daemon.wait_in_service("web", 1);
    let scaled = daemon.run(&["scale", "web", "4"]);
    assert_eq!(scaled.code, 0, "{}", scaled.err);
    daemon.wait_in_service("web", 2);

    let says = |text: &str| {
        let told = text.contains(
            "2 instances short: not enough CPUs on the host: an instance needs 1 virtual CPUs, 0 of 2 are free",
        );
        if told { Ok(()) } else { Err(text.to_owned()) }
    };
    wait_for("the set to say what is missing", || says(&daemon.run(&["describe", "web"]).out));
    wait_for("the answer to why", || says(&daemon.run(&["why", "web"]).out));
    wait_for("an event", || if events(&daemon, "host-full") == 1 { Ok(()) } else { Err("none".into()) });

    // The sums outlive the daemon: they are done anew from what runs.
    daemon.kill();
    daemon.launch();
    wait_for("the restarted daemon to say the same", || says(&daemon.run(&["describe", "web"]).out));
    daemon.wait_in_service("web", 2);

    let scaled = daemon.run(&["scale", "web", "2"]);
    assert_eq!(scaled.code, 0, "{}", scaled.err);
    wait_for("room again", || {
        if events(&daemon, "host-has-room") == 1 { Ok(()) } else { Err("no event".into()) }
    });
    daemon.wait_in_service("web", 2);
}

#[test]
fn a_vm_that_is_larger_than_the_host_is_not_even_begun() {
    let daemon = Daemon::start_with(&[("REGATTA_MEMORY_OVERCOMMIT", "1")]);
    let manifest =
        daemon.manifest("huge", "{ min: 1, max: 1 }", "", IDLE).replace("memory: 64MiB", "memory: 1TiB");
    daemon.apply_ok(&manifest);
    wait_for("the set to say what is missing", || {
        let text = daemon.run(&["describe", "huge"]).out;
        if text.contains("1 instance short: not enough memory on the host: an instance needs 1TiB") {
            Ok(())
        } else {
            Err(text)
        }
    });
    assert!(daemon.vmm_processes().is_empty());
    assert_eq!(daemon.json(&["instances", "huge"]).as_array().map(Vec::len), Some(0));
}
