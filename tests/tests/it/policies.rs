//! Policies that are swapped while they run, and policies that misbehave.

use std::fs;

use regatta_tests::{Daemon, policies_dir, wait_for};
use serde_json::Value;

const IDLE: &str = "policy: { module: target-tracking, params: { metric: nothing, target: 0.6 } }";

fn digest_of_tick(daemon: &Daemon, set: &str, tick: u64) -> Option<String> {
    let record = daemon.run(&["-o", "json", "why", set, "--tick", &tick.to_string()]);
    let record: Value = serde_json::from_str(&record.out).ok()?;
    record["runs"][0]["digest"].as_str().map(ToOwned::to_owned)
}

fn wait_for_tick(daemon: &Daemon, set: &str, tick: u64) {
    wait_for(&format!("tick {tick} of {set}"), || {
        let last = daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().unwrap_or(0);
        if last >= tick { Ok(()) } else { Err(format!("tick {last}")) }
    });
}

#[test]
fn a_swap_happens_between_two_ticks_and_can_be_taken_back() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("swap", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("swap", 1);
    let params =
        r#"{"metric":"cpu","scale_out":[{"above":0.9,"add":1}],"scale_in":[{"below":0.1,"remove":1}]}"#;
    let swapped = daemon.json(&["policy", "swap", "swap", "step", "--params", params]);
    let (from, to) = (swapped["from"]["digest"].clone(), swapped["to"]["digest"].clone());
    assert_eq!(
        (swapped["from"]["name"].as_str(), swapped["to"]["name"].as_str()),
        (Some("target-tracking"), Some("step"))
    );
    assert!(swapped["rehearsed_ticks"].as_u64() > Some(0), "{swapped}");
    let after = swapped["after_tick"].as_u64().expect("a tick");
    wait_for_tick(&daemon, "swap", after + 2);
    assert_eq!(digest_of_tick(&daemon, "swap", after).as_deref(), from.as_str());
    assert_eq!(digest_of_tick(&daemon, "swap", after + 1).as_deref(), to.as_str());

    let back = daemon.json(&["policy", "rollback", "swap"]);
    assert_eq!(back["to"]["digest"], from);
    let after = back["after_tick"].as_u64().expect("a tick");
    wait_for_tick(&daemon, "swap", after + 1);
    assert_eq!(digest_of_tick(&daemon, "swap", after + 1).as_deref(), from.as_str());
    let list = daemon.json(&["policy", "list", "swap"]);
    let role = |role: &str| {
        let entries = list["policies"].as_array().expect("a list");
        entries.iter().find(|entry| entry["role"] == role).map(|entry| entry["policy"]["name"].clone())
    };
    assert_eq!(role("previous"), None, "a rollback goes further back, never forth");
    let available = list["available"].as_array().expect("a list");
    assert!(available.iter().any(|module| module["name"] == "step"), "{list}");
}

#[test]
fn a_bad_policy_is_refused_and_the_one_in_charge_stays() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("keep", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("keep", 1);
    fs::write(daemon.home().join("text.wasm"), "not a module").expect("a file");
    fs::write(daemon.home().join("empty.wasm"), "").expect("a file");
    let mut cut = fs::read(policies_dir().join("step.wasm")).expect("a module");
    cut.truncate(cut.len() / 2);
    fs::write(daemon.home().join("cut.wasm"), cut).expect("a file");
    for file in ["./text.wasm", "./empty.wasm", "./cut.wasm"] {
        let output = daemon.run(&["policy", "swap", "keep", file]);
        assert_eq!(output.code, 3, "{file}: {}", output.err);
    }
    assert_eq!(daemon.run(&["policy", "swap", "keep", "./absent.wasm"]).code, 1);
    assert_eq!(daemon.run(&["policy", "swap", "keep", "unheard-of"]).code, 4);
    let output = daemon.run(&["policy", "swap", "keep", "step", "--params", r#"{"metric":7,"bogus":1}"#]);
    assert_eq!(output.code, 3, "{}", output.err);
    assert_eq!(daemon.run(&["policy", "rollback", "keep"]).code, 6, "there is nothing to go back to");
    assert_eq!(daemon.json(&["describe", "keep"])["summary"]["policies"][0]["activation"], 1);
}
