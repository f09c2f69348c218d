//! The state is lost, damaged or replaced, and no VM pays for it.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use regatta_tests::{Daemon, IDLE, get, wait_for};
use serde_json::Value;

use crate::crash::served;

/// A set of three instances that have served, behind a load balancer.
fn serving(daemon: &Daemon, set: &str) -> std::net::SocketAddr {
    let lb = Daemon::free_port();
    let extra = format!("load_balancer: {{ listen: \"{lb}\" }}\n{IDLE}");
    daemon.apply_ok(&daemon.manifest(set, "{ min: 1, max: 5 }", "", &extra));
    let scaled = daemon.run(&["scale", set, "3"]);
    assert_eq!(scaled.code, 0, "{}", scaled.err);
    daemon.wait_in_service(set, 3);
    for _ in 0..30 {
        assert_eq!(get(lb, "/").expect("an answer").status, 200);
    }
    lb
}

/// Stops the daemon, takes its state away and starts it again.
fn lose_state(daemon: &mut Daemon) {
    assert!(daemon.stop().success());
    fs::rename(daemon.data().join("state.redb"), daemon.home().join("lost.redb")).expect("moved away");
    daemon.launch();
}

fn orphans(daemon: &Daemon) -> Vec<Value> {
    daemon.json(&["orphans"]).as_array().expect("a list").clone()
}

/// What the daemon shows Prometheus.
fn metrics(daemon: &Daemon) -> String {
    let mut stream = UnixStream::connect(daemon.data().join("api.sock")).expect("the API");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

fn kinds(daemon: &Daemon) -> Vec<String> {
    let events = daemon.json(&["events"]);
    events
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|it| it["kind"].as_str().map(str::to_owned))
        .collect()
}

#[test]
fn a_set_whose_state_was_lost_is_recovered_with_the_same_vms() {
    let mut daemon = Daemon::start();
    let lb = serving(&daemon, "web");
    let (pids, counts) = (daemon.vm_pids("web"), served(&daemon, "web"));
    let running = daemon.vmm_processes();
    lose_state(&mut daemon);

    let found = orphans(&daemon);
    let names: Vec<&str> = found.iter().filter_map(|orphan| orphan["name"].as_str()).collect();
    assert_eq!(names, ["web/1", "web/2", "web/3"]);
    let found_pids: Vec<u64> = found.iter().filter_map(|orphan| orphan["pid"].as_u64()).collect();
    assert_eq!(found_pids, pids.iter().map(|(_, pid)| u64::from(*pid)).collect::<Vec<_>>());
    assert!(
        found.iter().all(|orphan| orphan["uid"].is_string() && orphan["address"].is_string()),
        "{found:?}"
    );
    let status = daemon.json(&["status"]);
    assert_eq!(status["conditions"][0]["kind"], "orphans", "{status}");
    assert_eq!(kinds(&daemon), ["orphan-found"; 3]);

    let again = daemon.apply(&daemon.manifest("web", "{ min: 1, max: 5 }", "", IDLE));
    assert_eq!(again.code, 6, "{}", again.err);
    for advice in ["regatta recover web", "regatta orphans delete web"] {
        assert!(again.err.contains(advice), "{}", again.err);
    }

    let would = daemon.run(&["recover", "--dry-run"]);
    assert_eq!((would.code, orphans(&daemon).len()), (0, 3), "{}", would.err);
    let recovered = daemon.run(&["recover"]);
    assert_eq!(recovered.code, 0, "{}", recovered.err);
    assert_eq!(recovered.out, "web recovered: generation 1, 3 adopted, capacity 3\n");
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web"), pids, "the same VMs");
    assert_eq!(daemon.vmm_processes(), running);
    for (before, after) in counts.iter().zip(served(&daemon, "web")) {
        assert!(after >= *before, "a guest began to count anew: {before} → {after}");
    }
    wait_for("the load balancer", || get(lb, "/").map(drop));
    assert_eq!(orphans(&daemon), Vec::<Value>::new());
    assert!(daemon.json(&["status"])["conditions"].as_array().expect("a list").is_empty());
    let kinds = kinds(&daemon);
    assert_eq!(kinds.iter().filter(|kind| *kind == "instance-adopted").count(), 3, "{kinds:?}");
    assert!(kinds.iter().any(|kind| kind == "set-recovered"), "{kinds:?}");

    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web"), pids, "it is stored again");
    assert_eq!(daemon.run(&["scale", "web", "4", "--wait"]).code, 0);
    let ids: Vec<u64> = daemon.vm_pids("web").into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 2, 3, 4], "no number is given twice");
}

#[test]
fn orphans_keep_what_they_have_until_they_are_deleted() {
    let mut daemon = Daemon::start();
    let manifest = daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 2);
    lose_state(&mut daemon);
    let taken: BTreeSet<String> =
        orphans(&daemon).iter().map(|it| it["address"].as_str().expect("one").to_owned()).collect();
    assert_eq!(taken.len(), 2);

    // On the same pool of addresses.
    daemon.apply_ok(&manifest.replace("name: web", "name: next"));
    daemon.wait_in_service("next", 2);
    for instance in daemon.json(&["instances", "next"]).as_array().expect("instances") {
        let address = instance["address"].as_str().expect("one").split(':').next().expect("a host");
        assert!(!taken.contains(address), "{address} is that of an orphan");
    }
    assert_eq!(daemon.vmm_processes().len(), 4);
    let metrics = metrics(&daemon);
    assert!(metrics.contains("regatta_orphans{set=\"web\"} 2"), "{metrics}");

    let unasked = daemon.run(&["orphans", "delete", "web"]);
    assert_eq!(unasked.code, 2, "{}", unasked.err);
    let unknown = daemon.run(&["orphans", "delete", "web/1", "next/1", "--yes"]);
    assert_eq!((unknown.code, daemon.vmm_processes().len()), (4, 4), "{}", unknown.err);
    let deleted = daemon.run(&["orphans", "delete", "web/1", "--yes"]);
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    assert_eq!(daemon.vmm_processes().len(), 3);
    assert!(!daemon.data().join("instances/web/1").exists());
    daemon.kill();
    daemon.launch();
    assert_eq!(orphans(&daemon).len(), 1, "still kept after another start");
    assert!(kinds(&daemon).iter().filter(|kind| *kind == "orphan-found").count() == 2, "told once each");

    let deleted = daemon.run(&["orphans", "delete", "web", "--yes"]);
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 2);
}

#[test]
fn instances_come_back_each_with_its_own_generation() {
    let mut daemon = Daemon::start();
    let manifest = daemon.manifest("web", "{ min: 1, max: 5 }", "", IDLE);
    daemon.apply_ok(&manifest);
    daemon.wait_in_service("web", 1);
    daemon.apply_ok(&manifest.replace("tick: 200ms", "tick: 300ms").replace("port: 8080", "port: 8081"));
    assert_eq!(daemon.run(&["scale", "web", "2", "--wait"]).code, 0);
    let ports = |daemon: &Daemon| -> Vec<String> {
        let instances = daemon.json(&["instances", "web"]);
        let addresses =
            instances.as_array().expect("instances").iter().filter_map(|it| it["address"].as_str());
        addresses.filter_map(|it| Some(it.split_once(':')?.1.to_owned())).collect()
    };
    assert_eq!(ports(&daemon), ["8080", "8081"], "each answers where it was made to");
    let generations = |daemon: &Daemon| -> Vec<u64> {
        let instances = daemon.json(&["instances", "web"]);
        instances.as_array().expect("instances").iter().filter_map(|it| it["generation"].as_u64()).collect()
    };
    let before = generations(&daemon);
    assert!(before.contains(&2), "{before:?}");
    lose_state(&mut daemon);
    assert_eq!(daemon.run(&["recover", "web"]).code, 0);
    daemon.wait_in_service("web", before.len() as u64);
    assert_eq!((generations(&daemon), ports(&daemon)), (before, vec!["8080".to_owned(), "8081".to_owned()]));
    let detail = daemon.json(&["describe", "web"]);
    assert_eq!((&detail["summary"]["generation"], &detail["manifest"]["tick"]), (&2.into(), &"300ms".into()));
}

#[test]
fn sets_that_cannot_be_recovered_are_told_at_once_and_their_vms_run_on() {
    let mut daemon = Daemon::start();
    for set in ["lost", "kept"] {
        daemon.apply_ok(&daemon.manifest(set, "{ min: 1, max: 1 }", "", IDLE));
        daemon.wait_in_service(set, 1);
    }
    assert!(daemon.stop().success());
    let birth =
        fs::read_to_string(daemon.data().join("instances/lost/1/ctl/instance.json")).expect("who it is");
    let birth: Value = serde_json::from_str(&birth).expect("JSON");
    let manifest = daemon.data().join(format!("manifests/{}.json", birth["origin"].as_str().expect("one")));
    fs::remove_file(manifest).expect("its manifest");
    fs::remove_file(daemon.data().join("state.redb")).expect("the state");
    daemon.launch();
    let recovered = daemon.run(&["recover", "lost", "kept", "never"]);
    assert_eq!(recovered.code, 1);
    assert!(recovered.out.starts_with("kept recovered"), "{}", recovered.out);
    assert!(recovered.err.contains("lost not recovered: cannot read "), "{}", recovered.err);
    assert!(recovered.err.contains("never not recovered: "), "{}", recovered.err);
    daemon.wait_in_service("kept", 1);
    assert_eq!((daemon.vmm_processes().len(), orphans(&daemon).len()), (2, 1));
}

/// Starts a daemon that must refuse to, and gives what it says.
fn refused(daemon: &mut Daemon) -> String {
    let before = daemon.log().len();
    let status = daemon.start_in_vain();
    assert!(!status.success());
    daemon.log()[before..].to_owned()
}

#[test]
fn a_damaged_state_is_refused_with_advice_that_costs_no_vm() {
    let mut daemon = Daemon::start();
    serving(&daemon, "web");
    let pids = daemon.vm_pids("web");
    // A copy is made at each start.
    assert!(daemon.stop().success());
    fs::remove_dir_all(daemon.data().join("copies"))
        .or_else(|why| match why.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(why),
        })
        .expect("no copies");
    daemon.launch();
    daemon.wait_in_service("web", 3);
    let copy = wait_for("a copy of the state", || {
        let copies = daemon.json(&["backup", "--list"]);
        copies[0]["path"].as_str().map(str::to_owned).ok_or_else(|| copies.to_string())
    });
    assert!(daemon.stop().success());
    let state = daemon.data().join("state.redb");
    let good = fs::read(&state).expect("the state");
    for damaged in [&b""[..], b"garbage", &good[..good.len() / 2]] {
        fs::write(&state, damaged).expect("damage");
        let said = refused(&mut daemon);
        for advice in
            ["is damaged", "regatta restore", &copy, "regatta recover", "VMs that run are not touched"]
        {
            assert!(said.contains(advice), "{advice}: {said}");
        }
        assert_eq!(daemon.vmm_processes().len(), 3, "no VM was touched");
    }

    // As the advice says, one way and the other.
    let restored = daemon.run(&["restore", &copy]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    daemon.launch();
    wait_for("the set", || match daemon.run(&["get", "web"]).code {
        0 => Ok(()),
        code => Err(code.to_string()),
    });
    assert_eq!(daemon.vmm_processes().len(), 3);
    assert!(daemon.stop().success());
    fs::write(&state, "garbage").expect("damage");
    refused(&mut daemon);
    fs::rename(&state, state.with_extension("redb.damaged")).expect("moved away");
    daemon.launch();
    assert_eq!(orphans(&daemon).len(), 3);
    assert_eq!(daemon.run(&["recover"]).code, 0);
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web"), pids);
}

#[test]
fn a_backup_is_taken_in_service_and_restored_when_stopped() {
    let mut daemon = Daemon::start();
    let lb = serving(&daemon, "web");
    let backup = daemon.run(&["backup", "web.redb"]);
    assert_eq!(backup.code, 0, "{}", backup.err);
    assert_eq!(daemon.run(&["backup", "web.redb"]).code, 6, "never over a file");
    let (pids, counts) = (daemon.vm_pids("web"), served(&daemon, "web"));
    let running = daemon.run(&["restore", "web.redb"]);
    assert_eq!(running.code, 1, "{}", running.out);
    assert!(running.err.contains("in use by another daemon"), "{}", running.err);

    // What came after the backup is not in it: it is an orphan, and its number is not given again.
    assert_eq!(daemon.run(&["scale", "web", "4", "--wait"]).code, 0);
    let fourth = daemon.vm_pids("web")[3];
    assert!(daemon.stop().success());
    let restored = daemon.run(&["restore", "web.redb"]);
    assert_eq!(restored.code, 0, "{}", restored.err);
    assert!(restored.out.contains("restored: web (3 instances)"), "{}", restored.out);
    daemon.launch();
    daemon.wait_in_service("web", 3);
    assert_eq!(daemon.vm_pids("web"), pids);
    for (before, after) in counts.iter().zip(served(&daemon, "web")) {
        assert!(after >= *before, "a guest began to count anew: {before} → {after}");
    }
    wait_for("the load balancer", || get(lb, "/").map(drop));
    let names: Vec<_> = orphans(&daemon).iter().map(|it| (it["name"].clone(), it["pid"].clone())).collect();
    assert_eq!(names, [("web/4".into(), fourth.1.into())]);
    assert_eq!(daemon.run(&["scale", "web", "4", "--wait"]).code, 0);
    let ids: Vec<u64> = daemon.vm_pids("web").into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids, [1, 2, 3, 5]);
    assert!(daemon.vmm_processes().contains(&fourth.1), "nobody stopped it");

    // Its set takes it back, at its number and without a pause for the others.
    let would = daemon.run(&["recover", "web", "--dry-run"]);
    assert_eq!((would.code, orphans(&daemon).len()), (0, 1), "{}", would.err);
    let recovered = daemon.run(&["recover", "web"]);
    assert_eq!(recovered.code, 0, "{}", recovered.err);
    assert_eq!(recovered.out, "web recovered: generation 1, 1 adopted, capacity 5\n");
    daemon.wait_in_service("web", 5);
    let all = daemon.vm_pids("web");
    assert_eq!(all.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [1, 2, 3, 4, 5]);
    assert_eq!((all[3], &all[..3]), (fourth, &pids[..]));
    assert_eq!(orphans(&daemon), Vec::<Value>::new());
    daemon.kill();
    daemon.launch();
    daemon.wait_in_service("web", 5);
    assert_eq!(daemon.vm_pids("web"), all, "it is stored");
    let again = daemon.run(&["recover", "web"]);
    assert!(again.code == 1 && again.err.contains("it has no orphans"), "{}", again.err);
}

#[test]
fn a_state_file_that_is_removed_under_the_daemon_is_told_and_written_back() {
    let mut daemon = Daemon::start();
    serving(&daemon, "web");
    let pids = daemon.vm_pids("web");
    let state = daemon.data().join("state.redb");
    let condition = |daemon: &Daemon| daemon.json(&["status"])["conditions"].clone();
    assert_eq!(condition(&daemon), serde_json::json!([]));
    fs::remove_file(&state).expect("removed");
    let conditions = condition(&daemon);
    assert_eq!(conditions[0]["kind"], "state-file", "{conditions}");
    assert!(conditions[0]["message"].as_str().is_some_and(|it| it.contains("SIGTERM")), "{conditions}");
    wait_for("a word in the log", || match daemon.log().contains("was removed or moved away") {
        true => Ok(()),
        false => Err("none".to_owned()),
    });
    assert!(!state.exists(), "no second truth");

    // It still manages its sets, and stores what it does.
    assert_eq!(daemon.run(&["scale", "web", "4", "--wait"]).code, 0);
    let fourth = daemon.vm_pids("web")[3];
    assert!(daemon.stop().success());
    daemon.launch();
    daemon.wait_in_service("web", 4);
    assert_eq!(daemon.vm_pids("web"), [pids, vec![fourth]].concat());
    assert_eq!(condition(&daemon), serde_json::json!([]));

    // Another file of its name is not believed, and not lost.
    fs::remove_file(&state).expect("removed");
    fs::write(&state, "another truth").expect("written");
    assert_eq!(condition(&daemon)[0]["kind"], "state-file");
    assert!(daemon.stop().success());
    daemon.launch();
    daemon.wait_in_service("web", 4);
    let kept = fs::read_dir(daemon.data()).expect("the directory").flatten().any(|entry| {
        entry.file_name().to_string_lossy().starts_with("state.redb.replaced-")
            && fs::read(entry.path()).is_ok_and(|text| text == b"another truth")
    });
    assert!(kept);
}
