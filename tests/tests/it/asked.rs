//! Commands say what became of what they were asked for, and `diff` sees all that differs.

use std::collections::BTreeSet;
use std::fs;

use regatta_tests::{Daemon, IDLE};
use serde_json::Value;

use crate::modules::module;

/// A policy that wants `capacity`, or traps.
fn constant(capacity: Option<u32>) -> Vec<u8> {
    let body = match capacity {
        Some(capacity) => format!("(i32.store (i32.const 264) (i32.const {capacity})) (i32.const 256)"),
        None => "(unreachable)".to_owned(),
    };
    module(&format!(
        r#"(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param $args i32) (result i32) {body})"#
    ))
}

fn write(daemon: &Daemon, file: &str, capacity: Option<u32>) {
    fs::write(daemon.home().join(file), constant(capacity)).expect("a module");
}

fn diff(daemon: &Daemon) -> (i32, String) {
    let diff = daemon.run(&["diff", "-f", "set.yaml", "--exit-code"]);
    (diff.code, diff.out)
}

fn stored_images(daemon: &Daemon) -> BTreeSet<String> {
    let entries = fs::read_dir(daemon.data().join("images")).expect("the image store").flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn a_request_that_did_not_last_or_is_held_back_fails_with_the_reason() {
    let daemon = Daemon::start();
    write(&daemon, "two.wasm", Some(2));
    let manifest = |capacity| daemon.manifest("web", capacity, "", "policy: { module: ./two.wasm }");
    daemon.apply_ok(&manifest("{ min: 1, max: 4 }"));
    daemon.wait_in_service("web", 2);
    let undone = daemon.run(&["scale", "web", "4", "--wait"]);
    assert_eq!(undone.code, 6, "{}", undone.err);
    assert!(undone.err.contains("capacity 4 did not last"), "{}", undone.err);
    daemon.wait_in_service("web", 2);

    for id in ["1", "2", "3", "4"] {
        let _ = daemon.run(&["protect", "web", id]);
    }
    fs::write(daemon.home().join("set.yaml"), manifest("{ min: 1, max: 1 }")).expect("a manifest");
    let held = daemon.run(&["apply", "-f", "set.yaml", "--wait", "--timeout", "3s"]);
    assert_eq!(held.code, 7, "{}", held.err);
    assert!(
        held.err.lines().last().is_some_and(|line| line.contains("protected from scale-in")),
        "{}",
        held.err
    );
}

#[test]
fn an_apply_waits_until_probes_would_have_found_a_fault() {
    let daemon = Daemon::start();
    let good = daemon.manifest("web", "{ min: 2, max: 2 }", "", IDLE);
    daemon.apply_ok(&good);
    daemon.wait_in_service("web", 2);
    let wrong_port = good.replace("http: /healthz", "tcp: { port: 1 }");
    assert_ne!(wrong_port, good);
    fs::write(daemon.home().join("set.yaml"), wrong_port).expect("a manifest");
    let applied = daemon.run(&["apply", "-f", "set.yaml", "--wait", "--timeout", "6s"]);
    assert_eq!(applied.code, 7, "{}", applied.err);
    assert!(applied.err.contains("unhealthy"), "{}", applied.err);
}

#[test]
fn content_that_changed_at_its_path_and_a_swapped_policy_are_differences() {
    let daemon = Daemon::start();
    write(&daemon, "mine.wasm", Some(1));
    write(&daemon, "other.wasm", Some(2));
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", "policy: { module: ./mine.wasm }"));
    daemon.wait_in_service("web", 1);
    assert_eq!(diff(&daemon).0, 0, "{}", diff(&daemon).1);

    // A swap is drift until it is rolled back.
    let _ = daemon.json(&["policy", "swap", "web", "./other.wasm"]);
    let (code, out) = diff(&daemon);
    assert!(code == 8 && out.contains("policies[mine].digest"), "{code} {out}");
    let _ = daemon.json(&["policy", "rollback", "web"]);
    assert_eq!(diff(&daemon).0, 0, "{}", diff(&daemon).1);

    // A rebuilt module is one, too, and is applied.
    write(&daemon, "mine.wasm", Some(3));
    assert_eq!(diff(&daemon).0, 8);
    assert_eq!(daemon.run(&["apply", "-f", "set.yaml"]).code, 0);
    daemon.wait_in_service("web", 3);
    assert_eq!(diff(&daemon).0, 0);

    // So is a rebuilt image; to look at it writes nothing.
    let golden = daemon.home().join("golden.raw");
    let mut disk = fs::read(&golden).expect("an image");
    disk[0] ^= 1;
    fs::write(&golden, disk).expect("an image");
    let before = stored_images(&daemon);
    let (code, out) = diff(&daemon);
    assert!(code == 8 && out.contains("image.disk"), "{code} {out}");
    assert_eq!(stored_images(&daemon), before);
    assert_eq!(daemon.run(&["apply", "-f", "set.yaml"]).code, 0);
    assert_eq!(stored_images(&daemon).len(), before.len() + 2, "the file and what is known of it");
    assert_eq!(diff(&daemon).0, 0);
}

#[test]
fn an_apply_refuses_what_a_swap_refuses_and_can_be_rolled_back() {
    let daemon = Daemon::start();
    write(&daemon, "good.wasm", Some(2));
    write(&daemon, "traps.wasm", None);
    let manifest = |module: &str| {
        let policy = format!("policy: {{ module: ./{module}.wasm, params: {{}} }}");
        daemon.manifest("web", "{ min: 1, max: 3 }", "", &policy)
    };
    daemon.apply_ok(&manifest("good"));
    daemon.wait_in_service("web", 2);
    let refused = daemon.apply(&manifest("traps"));
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains("--force"), "{}", refused.err);
    assert_eq!(daemon.run(&["apply", "-f", "set.yaml", "--force"]).code, 0);

    // Another module without a name: the same slot, so there is something to go back to.
    let back = daemon.json(&["policy", "rollback", "web", "--to", "1"]);
    assert_eq!(back["slot"], "good");
    assert!(back["to"]["source"].as_str().is_some_and(|it| it.ends_with("good.wasm")), "{back}");
    assert_eq!(daemon.run(&["policy", "rollback", "web"]).code, 6, "never back to the bad one");
    let history = daemon.json(&["policy", "history", "web"]);
    let entries: Vec<(&str, Option<u64>, &Value)> = history
        .as_array()
        .expect("a history")
        .iter()
        .map(|entry| (entry["kind"].as_str().unwrap_or(""), entry["activation"].as_u64(), &entry["params"]))
        .filter(|(kind, ..)| *kind != "policy-failed")
        .collect();
    let none = serde_json::json!({});
    let expected = [
        ("policy-applied", Some(1), &none),
        ("policy-applied", Some(2), &none),
        ("policy-rolled-back", Some(3), &none),
    ];
    assert_eq!(entries, expected);
}
