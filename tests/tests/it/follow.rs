//! Policies that follow their file: whatever happens to the file, nothing is missed and nothing is done twice.

use std::fs;
use std::path::Path;

use regatta_tests::{Daemon, wait_for};
use serde_json::Value;

use crate::live_policies::constant;

fn put(file: &Path, capacity: u32) {
    fs::write(file, constant(capacity, u64::MAX)).expect("a module");
}

fn events(daemon: &Daemon, kind: &str) -> usize {
    let events = daemon.json(&["events", "--limit", "1000"]);
    events.as_array().expect("events").iter().filter(|event| event["kind"] == kind).count()
}

/// Waits until the daemon that runs now has looked at a file.
fn wait_looked_at(daemon: &Daemon, file: &Path) {
    let looked = format!("path={}", file.display());
    wait_for("a look at the file", || match daemon.log() {
        log if log.lines().any(|line| line.contains("a policy is available") && line.contains(&looked)) => {
            Ok(())
        }
        log => Err(log),
    });
}

fn notes(daemon: &Daemon) -> (String, String) {
    let text = |value: &Value| value["notes"].to_string();
    (text(&daemon.json(&["describe", "web"])), text(&daemon.json(&["policy", "list", "web"])))
}

#[test]
fn a_file_outside_of_the_policy_directories_is_followed_and_one_that_is_replaced_meanwhile_is_not_missed() {
    let mut daemon = Daemon::start();
    let file = daemon.home().join("mine.wasm");
    put(&file, 1);
    let follow = "policy: { module: ./mine.wasm, follow: true }";
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 5 }", "", follow));
    daemon.wait_in_service("web", 1);
    put(&file, 2);
    daemon.wait_in_service("web", 2);

    daemon.kill();
    put(&file, 3);
    daemon.launch();
    daemon.wait_in_service("web", 3);

    // Removed, and created again for another daemon than the one that knew it.
    fs::remove_file(&file).expect("removed");
    daemon.kill();
    daemon.launch();
    put(&file, 4);
    daemon.wait_in_service("web", 4);

    // What was rolled back stays so, also when the file is looked at for the first time.
    assert_eq!(daemon.run(&["policy", "rollback", "web"]).code, 0);
    daemon.wait_in_service("web", 3);
    daemon.kill();
    fs::write(daemon.home().join("daemon.log"), "").expect("an empty log");
    daemon.launch();
    wait_looked_at(&daemon, &file);
    daemon.wait_in_service("web", 3);
    assert_eq!(events(&daemon, "policy-swapped"), 3);
}

#[test]
fn a_file_that_is_refused_is_an_event_and_stays_to_be_seen_until_it_is_mended() {
    let mut daemon = Daemon::start();
    let file = daemon.home().join("mine.wasm");
    put(&file, 1);
    let follow = "policy: { module: ./mine.wasm, name: mine, follow: true }";
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 5 }", "", follow));
    daemon.wait_in_service("web", 1);
    wait_looked_at(&daemon, &file);
    fs::write(&file, "not a module").expect("written");
    wait_for("the refusal", || match notes(&daemon) {
        (set, list) if [&set, &list].iter().all(|it| it.contains("policy mine does not follow its file")) => {
            Ok(())
        }
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(events(&daemon, "policy-refused"), 1);
    assert!(daemon.run(&["describe", "web"]).out.contains("does not follow its file"));

    daemon.kill();
    daemon.launch();
    assert!(notes(&daemon).0.contains("does not follow its file"), "after a restart");
    put(&file, 2);
    daemon.wait_in_service("web", 2);
    wait_for("the end of the refusal", || match notes(&daemon) {
        (set, list) if ![&set, &list].iter().any(|it| it.contains("does not follow")) => Ok(()),
        seen => Err(format!("{seen:?}")),
    });
    assert_eq!(events(&daemon, "policy-refused"), 1, "told once");
}
