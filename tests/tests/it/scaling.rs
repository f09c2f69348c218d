//! A set follows its load, serves every request, and goes without a trace.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use regatta_tests::{Daemon, IDLE, get, wait_for};

const TRACK: &str = "policy: { module: target-tracking, params: { metric: utilization, target: 0.6 } }";
const METRIC: &str = "metrics: [{ name: utilization, series: guest_utilization }]";

/// Clients that each send one request after the other until they are stopped.
struct Load {
    stop: Arc<AtomicBool>,
    served: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Result<(), String>>>,
}

impl Load {
    fn start(addr: SocketAddr, clients: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let served = Arc::new(AtomicU64::new(0));
        let client = |_| {
            let (stop, served) = (Arc::clone(&stop), Arc::clone(&served));
            std::thread::spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = get(addr, "/work")?;
                    if answer.status != 200 {
                        return Err(format!("status {}: {}", answer.status, answer.body));
                    }
                    served.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        };
        let clients = (0..clients).map(client).collect();
        Self { stop, served, clients }
    }

    /// Stops the clients; every request must have been served.
    fn finish(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        for client in self.clients {
            client.join().expect("a client").expect("every request is served");
        }
        self.served.load(Ordering::Relaxed)
    }
}

#[test]
fn a_set_follows_its_load_and_serves_every_request() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\", drain_timeout: 10s }}\n{METRIC}\n{TRACK}");
    daemon.apply_ok(&daemon.manifest(
        "web",
        "{ min: 1, max: 4 }",
        "sim.service=20ms sim.workers=2 sim.queue=500",
        &extra,
    ));
    daemon.wait_in_service("web", 1);

    let load = Load::start(lb, 8);
    wait_for("a scale-out to more than 2", || {
        let detail = daemon.json(&["describe", "web"]);
        let in_service = detail["summary"]["instances"]["in-service"].as_u64().unwrap_or(0);
        if in_service > 2 { Ok(()) } else { Err(detail["summary"].to_string()) }
    });
    assert!(load.finish() > 0);
    daemon.wait_in_service("web", 1);

    let out = daemon.json(&["why", "web", "--last", "scale-out"]);
    assert!(out["guards"]["granted"].as_u64() > out["observation"]["desired"].as_u64(), "{out}");
    assert!(!out["runs"][0]["result"]["Ok"]["reasons"].as_array().expect("reasons").is_empty());
    let explained = daemon.run(&["why", "web", "--last", "scale-in"]);
    assert!(
        explained.out.contains("scale in") && explained.out.contains("target-tracking"),
        "{}",
        explained.out
    );
    let kinds: Vec<String> = daemon
        .json(&["events", "web"])
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["kind"].as_str().map(ToOwned::to_owned))
        .collect();
    for kind in ["set-created", "in-service", "scale-out", "scale-in", "instance-gone"] {
        assert!(kinds.iter().any(|k| k == kind), "{kind} is missing in {kinds:?}");
    }
}

#[test]
fn a_deleted_set_leaves_nothing() {
    let daemon = Daemon::start();
    let extra = "policy: { module: target-tracking, params: { metric: cpu, target: 0.6 } }";
    daemon.apply_ok(&daemon.manifest("gone", "{ min: 3, max: 3 }", "", extra));
    daemon.wait_in_service("gone", 3);
    assert_eq!(daemon.vmm_processes().len(), 3);
    let output = daemon.run(&["delete", "gone", "--yes", "--wait"]);
    assert_eq!(output.code, 0, "{}", output.err);
    assert_eq!(daemon.vmm_processes(), Vec::<u32>::new());
    let left: Vec<_> = walk(&daemon.data().join("instances"));
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(daemon.run(&["describe", "gone"]).code, 4, "not found");
}

#[test]
fn scaling_by_hand_keeps_within_the_limits() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("hand", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("hand", 1);
    assert_eq!(daemon.run(&["scale", "hand", "4"]).code, 6, "outside of the limits");
    assert_eq!(daemon.run(&["scale", "hand", "3"]).code, 0);
    // Its metric has no data: the policy keeps what it finds.
    daemon.wait_in_service("hand", 3);
}

#[test]
fn a_dead_vmm_is_replaced_and_a_protected_one_is_kept() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("heal", "{ min: 1, max: 3, initial: 3 }", "", IDLE));
    daemon.wait_in_service("heal", 3);
    let before = daemon.vm_pids("heal");
    let (dead, pid) = before[1];
    kill(pid);
    wait_for("a replacement", || {
        let now: Vec<u64> = daemon
            .json(&["instances", "heal"])
            .as_array()
            .expect("instances")
            .iter()
            .filter(|i| i["state"] == "in-service")
            .filter_map(|i| i["id"].as_u64())
            .collect();
        if now.len() == 3 && !now.contains(&dead) { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let survivors: Vec<_> = daemon.vm_pids("heal");
    assert!(survivors.contains(&before[0]) && survivors.contains(&before[2]), "the others are left alone");

    let newest = survivors.iter().map(|(id, _)| *id).max().expect("instances").to_string();
    assert_eq!(daemon.run(&["protect", "heal", &newest]).code, 0);
    assert_eq!(daemon.run(&["scale", "heal", "1"]).code, 0);
    daemon.wait_in_service("heal", 1);
    let left = daemon.vm_pids("heal");
    assert_eq!(left[0].0.to_string(), newest, "the newest would go first, but it is protected");
}

#[test]
fn one_instance_is_restarted_in_place_and_another_is_replaced() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("one", "{ min: 2, max: 2 }", "", IDLE));
    daemon.wait_in_service("one", 2);
    let first = daemon.vm_pids("one")[0];
    assert_eq!(daemon.run(&["instance", "restart", "one", "1"]).code, 0);
    assert_eq!(daemon.run(&["instance", "replace", "one", "one-2"]).code, 0);
    wait_for("a restart and a replacement", || {
        let instances = daemon.json(&["instances", "one"]);
        let seen = instances.as_array().expect("instances").iter();
        let seen: Vec<_> =
            seen.map(|i| (i["id"].as_u64(), i["state"].as_str(), i["requested"].is_null())).collect();
        let serves = |id| (Some(id), Some("in-service"), true);
        let events = daemon.run(&["events", "one"]).out;
        match seen == [serves(1), serves(3)] && events.contains("one-1 was restarted") {
            true => Ok(()),
            false => Err(format!("{seen:?}\n{events}")),
        }
    });
    assert_eq!(daemon.vm_pids("one")[0], first, "the same VMM");
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("kill");
}

fn walk(dir: &std::path::Path) -> Vec<std::path::PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    entries
        .flatten()
        .flat_map(|entry| if entry.path().is_dir() { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}
