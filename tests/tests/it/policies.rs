//! Policies that are swapped while they run, and policies that misbehave.

use std::fs;
use std::path::Path;

use regatta_tests::{Daemon, IDLE, policies_dir, wait_for};
use serde_json::Value;

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

/// A policy with no tools, from text, that calls itself so.
fn text_policy(name: &str) -> Vec<u8> {
    let text = fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/languages/wat/policy.wat"),
    );
    let text =
        text.expect("the example is there").replace("\"tolerant-target\\00\"", &format!("\"{name}\\00\""));
    wat::parse_str(text).expect("valid")
}

#[test]
fn a_policy_does_not_pass_for_a_built_in_one() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("own", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("own", 1);
    let module = text_policy("target-tracking");
    fs::write(daemon.home().join("mine.wasm"), &module).expect("written");
    let told = "calls itself target-tracking, which is the name of a built-in policy";
    for command in ["swap", "shadow"] {
        let output = daemon.run(&["policy", command, "own", "./mine.wasm"]);
        assert!(output.code == 3 && output.err.contains(told), "{command}: {}", output.err);
    }
    let manifest = daemon.manifest(
        "other",
        "{ min: 1, max: 3 }",
        "",
        &IDLE.replace("module: target-tracking", "module: ./mine.wasm"),
    );
    let output = daemon.apply(&manifest);
    assert!(output.code == 3 && output.err.contains(told), "{}", output.err);
    fs::write(daemon.home().join("mine.wasm"), text_policy("mine")).expect("written");
    let renamed =
        daemon.run(&["policy", "shadow", "own", "./mine.wasm", "--params", r#"{"metric":"cpu","target":1}"#]);
    assert_eq!(renamed.code, 0, "{}", renamed.err);
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

#[test]
fn a_recorded_tick_becomes_a_vector_of_the_policy() {
    let daemon = Daemon::start();
    let lb = Daemon::free_port();
    let policy = format!(
        "load_balancer: {{ listen: \"{lb}\" }}\n\
         policy: {{ module: target-tracking, params: {{ metric: connections, target: 20 }} }}"
    );
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", &policy));
    daemon.wait_in_service("web", 1);
    let tick = daemon.json(&["describe", "web"])["summary"]["last_tick"].as_u64().expect("a tick");
    let file = daemon.run(&["policy", "vectors", "web", "--tick", &tick.to_string()]);
    assert_eq!(file.code, 0, "{}", file.err);
    fs::write(daemon.home().join("vectors.json"), &file.out).expect("written");
    let module = policies_dir().join("target-tracking.wasm").display().to_string();
    let check = |vectors: &str| {
        let params = r#"{"metric": "connections", "target": 20}"#;
        let properties =
            ["answers", "stays-in-bounds", "monotonic-in-load", "no-oscillation", "waits-for-samples"];
        let properties = properties.iter().chain(&["recovers-after-gap", "deterministic"]);
        let skip = properties.flat_map(|property| ["--skip", property]);
        let args = ["policy", "check", &module, "--params", params, "--vectors", vectors];
        daemon.run(&args.into_iter().chain(skip).collect::<Vec<_>>())
    };
    let same = check("vectors.json");
    assert!(same.code == 0 && same.out.contains("all 1 agree"), "{}{}", same.out, same.err);
    // It asks for what happened, and not for anything.
    let mut other: Value = serde_json::from_str(&file.out).expect("json");
    let capacity = &mut other["vectors"][0]["expect"]["capacity"];
    *capacity = (capacity.as_u64().expect("a number") + 1).into();
    fs::write(daemon.home().join("other.json"), other.to_string()).expect("written");
    assert_eq!(check("other.json").code, 3);
    let unknown = daemon.run(&["policy", "vectors", "web", "--policy", "night"]);
    assert!(unknown.code == 3 && unknown.err.contains("night"), "{}", unknown.err);
}

#[test]
fn parameters_are_held_to_the_schema_of_a_policy_that_checks_nothing() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let contract = include_str!("../../../docs/policy-contract.md");
    let (_, text) = contract.split_once("```wat\n").expect("a complete policy");
    let module = wat::parse_str(text.split("\n```").next().expect("it ends")).expect("valid");
    fs::write(daemon.home().join("three.wasm"), module).expect("written");
    let list = daemon.run(&["policy", "swap", "web", "./three.wasm", "--params", "[]"]);
    assert!(list.code == 3 && list.err.contains("must be an object"), "{}", list.err);
    let object = daemon.run(&["policy", "swap", "web", "./three.wasm", "--params", "{}"]);
    assert_eq!(object.code, 0, "{}", object.err);
}
