//! What operators do with policies on a set that runs: shadows, trials, several at once, files that change.

use std::fs;

use regatta_tests::{Daemon, IDLE, wait_for};
use serde_json::{Value, json};

use crate::modules::{hostile, module};

/// A policy that wants `capacity`, and traps from tick `until` on.
pub(crate) fn constant(capacity: u32, until: u64) -> Vec<u8> {
    // The tick comes first among the arguments; its number is its second field.
    module(&format!(
        r#"(func $decide (export "regatta:policy/scaling@0.1.0#decide") (param $args i32) (result i32)
            (if (i64.ge_u (i64.load offset=8 (local.get $args)) (i64.const {until})) (then (unreachable)))
            (i32.store (i32.const 264) (i32.const {capacity}))
            (i32.const 256))"#
    ))
}

fn write(daemon: &Daemon, file: &str, module: &[u8]) -> String {
    fs::write(daemon.home().join(file), module).expect("a module");
    format!("./{file}")
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

/// Waits for `count` more ticks.
fn ticks_pass(daemon: &Daemon, set: &str, count: u64) -> u64 {
    let until = last_tick(daemon, set) + count;
    wait_for(&format!("tick {until} of {set}"), || match last_tick(daemon, set) {
        tick if tick >= until => Ok(tick),
        tick => Err(format!("tick {tick}")),
    })
}

fn record(daemon: &Daemon, set: &str, tick: u64) -> Value {
    daemon.json(&["why", set, "--tick", &tick.to_string()])
}

fn entries(daemon: &Daemon, set: &str, role: &str) -> Vec<Value> {
    let list = daemon.json(&["policy", "list", set]);
    let entries = list["policies"].as_array().expect("a list").iter();
    entries.filter(|entry| entry["role"] == role).map(|entry| entry["policy"].clone()).collect()
}

fn history(daemon: &Daemon, set: &str) -> Vec<(String, String)> {
    let history = daemon.json(&["policy", "history", set]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let entries = history.as_array().expect("a history").iter();
    entries.map(|entry| (text(&entry["kind"]), text(&entry["outcome"]))).collect()
}

#[test]
fn a_shadow_is_judged_survives_a_crash_and_is_promoted() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let wants_three = write(&daemon, "three.wasm", &constant(3, u64::MAX));
    let shadow = daemon.json(&["policy", "shadow", "web", &wants_three, "--params", "{}"]);
    let number = shadow["policy"]["activation"].as_u64().expect("a number");
    let fails = write(&daemon, "fails.wasm", &constant(2, last_tick(&daemon, "web") + 4));
    let _ = daemon.json(&["policy", "shadow", "web", &fails, "--params", "{}"]);
    let tick = ticks_pass(&daemon, "web", 8);

    // It is judged, and changes nothing.
    assert_eq!(daemon.json(&["describe", "web"])["summary"]["desired"], 1);
    let judged = (tick - 3..=tick)
        .flat_map(|tick| record(&daemon, "web", tick)["shadows"].as_array().cloned().unwrap_or_default());
    let judged: Vec<Value> = judged.filter(|run| run["number"] == number).collect();
    assert!(!judged.is_empty(), "no shadow run in the last records");
    assert_eq!(judged[0]["run"]["result"]["Ok"]["capacity"], 3, "{}", judged[0]);
    let comparison = daemon.json(&["policy", "compare", "web"]);
    let pairs = comparison["pairs"].as_array().expect("pairs");
    assert_eq!(pairs.len(), 2, "{comparison}");
    assert!(pairs[0]["judged"].as_u64() > Some(2) && pairs[0]["agreed"] == 0, "{comparison}");
    assert_eq!(pairs[0]["mean_difference"], 2.0, "{comparison}");
    assert!(pairs[1]["shadow"]["failures"].as_u64() > Some(0), "{comparison}");

    // It outlives the daemon.
    daemon.kill();
    daemon.launch();
    assert_eq!(entries(&daemon, "web", "shadow").len(), 2);
    ticks_pass(&daemon, "web", 3);

    // Which one is meant must be said; then it is in charge.
    assert_eq!(daemon.run(&["policy", "promote", "web"]).code, 6);
    let name = shadow["policy"]["name"].as_str().expect("a name");
    let both = daemon.run(&["policy", "drop", "web", name]);
    assert!(both.code == 6 && both.err.contains(&format!("#{number} {name}")), "{}", both.err);
    assert_eq!(daemon.run(&["policy", "promote", "web", "99"]).code, 4);
    let promoted = daemon.json(&["policy", "promote", "web", &format!("#{number}")]);
    assert_eq!(promoted["to"]["digest"], shadow["policy"]["digest"]);
    daemon.wait_in_service("web", 3);
    assert_eq!(entries(&daemon, "web", "shadow").len(), 1);
    // By name, as long as that says which one.
    let left = entries(&daemon, "web", "shadow")[0]["name"].as_str().expect("a name").to_owned();
    let unknown = daemon.run(&["policy", "drop", "web", "nobody"]);
    assert!(unknown.code == 4 && unknown.err.contains(&left), "{}", unknown.err);
    let _ = daemon.json(&["policy", "drop", "web", &left]);
    assert_eq!(entries(&daemon, "web", "shadow"), Vec::<Value>::new());
    let kinds: Vec<String> = history(&daemon, "web").into_iter().map(|(kind, _)| kind).collect();
    assert_eq!(
        kinds,
        [
            "policy-applied",
            "policy-shadowed",
            "policy-shadowed",
            "policy-failed",
            "policy-promoted",
            "policy-dropped"
        ]
    );
}

#[test]
fn a_canary_stays_within_its_bounds_and_is_demoted_when_it_fails() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 9 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let until = last_tick(&daemon, "web") + 40;
    let bold = write(&daemon, "bold.wasm", &constant(9, until));
    let placed = daemon.json(&["policy", "canary", "web", &bold, "--within", "1", "--params", "{}"]);
    let digest = placed["policy"]["digest"].clone();
    let tick = ticks_pass(&daemon, "web", 2);
    let acted = record(&daemon, "web", tick);
    // The policy in charge keeps the size in force, whatever that has become.
    let in_charge = acted["runs"][0]["result"]["Ok"]["capacity"].as_u64().expect("a capacity");
    assert_eq!(acted["combined"]["capacity"].as_u64(), Some((in_charge + 1).min(9)), "{acted}");
    assert_eq!(acted["combined"]["decided_by_digest"], digest, "{acted}");
    assert_eq!(acted["canaries"][0]["run"]["result"]["Ok"]["capacity"], 9);
    let why = daemon.run(&["why", "web", "--tick", &tick.to_string()]).out;
    assert!(why.contains("canary") && why.contains("within 1 of the active policy"), "{why}");

    // It traps: that very tick is decided by the policy in charge, and the trial is over.
    let demoted = wait_for("the end of the trial", || {
        let history = history(&daemon, "web");
        match history.iter().find(|(kind, _)| kind == "policy-demoted") {
            Some((_, outcome)) => Ok(outcome.clone()),
            None => Err(format!("{history:?}")),
        }
    });
    assert!(demoted.contains("trap"), "{demoted}");
    assert_eq!(entries(&daemon, "web", "canary"), Vec::<Value>::new());
    let fatal = record(&daemon, "web", until);
    assert_eq!(fatal["combined"]["decided_by"], "target-tracking", "{fatal}");
    let after = record(&daemon, "web", ticks_pass(&daemon, "web", 1));
    assert_eq!(after.get("canaries"), None);
}

#[test]
fn several_policies_vote_and_why_shows_each() {
    let daemon = Daemon::start();
    let two = write(&daemon, "two.wasm", &constant(2, u64::MAX));
    let three = write(&daemon, "three.wasm", &constant(3, 12));
    let policies = format!(
        "policies:\n  - {{ name: floor, module: {two} }}\n  - {{ name: peak, module: {three} }}\ncombine: any-out-all-in"
    );
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 5 }", "", &policies));
    daemon.wait_in_service("web", 3);
    ticks_pass(&daemon, "web", 5);
    let why = daemon.run(&["why", "web", "--tick", "5"]).out;
    assert!(why.contains("floor 2 · peak 3 → 3"), "{why}");
    // One traps: it abstains, and nothing scales in.
    wait_for("the failure", || match last_tick(&daemon, "web") {
        tick if tick >= 14 => Ok(()),
        tick => Err(tick.to_string()),
    });
    let why = daemon.run(&["why", "web", "--tick", "13"]).out;
    assert!(why.contains("floor 2 · peak abstains → 3"), "{why}");
    // Which one is meant must be said.
    let unclear = daemon.run(&["policy", "swap", "web", &two]);
    assert_eq!(unclear.code, 6, "{}", unclear.err);
    assert!(unclear.err.contains("floor, peak"), "{}", unclear.err);
    let swapped = daemon.json(&["policy", "swap", "web", &two, "--policy", "peak"]);
    assert_eq!((&swapped["slot"], &swapped["to"]["source"]), (&json!("peak"), &json!(two)));
    wait_for("a scale-in", || match daemon.json(&["describe", "web"])["summary"]["desired"].as_u64() {
        Some(2) => Ok(()),
        other => Err(format!("{other:?}")),
    });
    // Another manifest: one policy stays as it is, one goes.
    let one = format!("policies:\n  - {{ name: floor, module: {two} }}");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 5 }", "", &one));
    let active = entries(&daemon, "web", "active");
    assert_eq!(active.len(), 1, "{active:?}");
    assert_eq!((&active[0]["slot"], &active[0]["activation"]), (&json!("floor"), &json!(1)));
}

#[test]
fn a_module_that_was_in_charge_is_named_by_its_digest_and_refusals_are_remembered() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let two = write(&daemon, "two.wasm", &constant(2, u64::MAX));
    let swapped = daemon.json(&["policy", "swap", "web", &two]);
    let digest = swapped["to"]["digest"].as_str().expect("a digest").to_owned();
    let _ = daemon.json(&["policy", "swap", "web", "target-tracking"]);
    fs::remove_file(daemon.home().join("two.wasm")).expect("removed");
    let again = daemon.json(&["policy", "swap", "web", &format!("hostile@{}", &digest[..12])]);
    assert_eq!(again["to"]["digest"], digest.as_str());
    assert_eq!(daemon.run(&["policy", "swap", "web", "hostile@ffffffffffff"]).code, 4);
    assert_eq!(daemon.run(&["policy", "swap", "web", "step@12"]).code, 3);

    let traps = write(&daemon, "traps.wasm", &constant(1, 0));
    let refused = daemon.run(&["policy", "swap", "web", &traps]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert_eq!(daemon.run(&["policy", "rollback", "web"]).code, 0);
    let history = history(&daemon, "web");
    let kinds: Vec<&str> = history.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "policy-applied",
            "policy-swapped",
            "policy-swapped",
            "policy-swapped",
            "policy-refused",
            "policy-rolled-back"
        ]
    );
    assert!(history[4].1.contains("trap"), "{history:?}");
    let table = daemon.run(&["policy", "history", "web"]).out;
    assert!(table.contains(&digest[..12]) && table.contains("refused"), "{table}");
}

#[test]
fn a_policy_that_follows_its_file_is_swapped_when_the_file_is_whole() {
    let daemon = Daemon::start();
    let dir = daemon.data().join("policies");
    fs::create_dir_all(&dir).expect("a directory");
    fs::write(dir.join("mine.wasm"), constant(1, u64::MAX)).expect("a module");
    let extra = "policy: { module: mine, follow: true }";
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", extra));
    daemon.wait_in_service("web", 1);
    let looked_at = || {
        let list = daemon.json(&["policy", "list", "web"]);
        let available = list["available"].as_array().expect("a list").clone();
        available.into_iter().find(|module| module["name"] == "mine").unwrap_or_default()
    };
    wait_for("the first look", || match looked_at() {
        mine if mine["digest"].is_string() => Ok(()),
        mine => Err(mine.to_string()),
    });

    // Half of a module stays where it is: nobody is swapped.
    let whole = constant(2, u64::MAX);
    fs::write(dir.join("mine.wasm"), &whole[..whole.len() / 2]).expect("half a module");
    wait_for("the half file to be seen", || match looked_at() {
        mine if mine["problem"].is_string() => Ok(()),
        mine => Err(mine.to_string()),
    });
    assert_eq!(entries(&daemon, "web", "active")[0]["activation"], 1);
    fs::write(dir.join("mine.wasm"), &whole).expect("a module");
    daemon.wait_in_service("web", 2);
    let (kind, outcome) = history(&daemon, "web").pop().expect("an entry");
    assert_eq!(kind, "policy-swapped", "{outcome}");
}

/// The figures (how late ticks are) are `cargo xtask bench`'s; this is that nothing is lost or mistaken.
#[test]
fn two_hundred_swaps_while_ticks_run_lose_no_tick_and_each_record_names_who_decided() {
    let daemon = Daemon::start();
    let modules = [
        write(&daemon, "one.wasm", &constant(1, u64::MAX)),
        write(&daemon, "two.wasm", &constant(2, u64::MAX)),
    ];
    let manifest =
        daemon.manifest("web", "{ min: 1, max: 2 }", "", &format!("policy: {{ module: {} }}", modules[0]));
    let manifest = manifest.replace("tick: 200ms", "tick: 20ms");
    assert!(manifest.contains("tick: 20ms"), "{manifest}");
    daemon.apply_ok(&manifest);
    let begun = ticks_pass(&daemon, "web", 5);
    // (the last tick of the one before, digest that decides from the next tick on)
    let mut switches = Vec::new();
    let _ = daemon.json(&["policy", "swap", "web", &modules[1]]);
    for turn in 0..200 {
        let swapped = match turn % 2 {
            0 => daemon.json(&["policy", "rollback", "web"]),
            _ => daemon.json(&["policy", "swap", "web", &modules[1]]),
        };
        let digest = swapped["to"]["digest"].as_str().expect("a digest").to_owned();
        switches.push((swapped["after_tick"].as_u64().expect("a tick"), digest));
    }
    let ended = ticks_pass(&daemon, "web", 1);
    let first = switches[0].0 + 1;
    assert!(ended - first > 100, "ticks went on: {first} to {ended}, begun at {begun}");
    let mut next = first;
    while next <= ended {
        let page = daemon.run(&["records", "web", "--after", &(next - 1).to_string(), "--limit", "1000"]);
        assert_eq!(page.code, 0, "{}", page.err);
        let mut any = false;
        for line in page.out.lines() {
            let record: Value = serde_json::from_str(line).expect("a record");
            let tick = record["observation"]["tick"].as_u64().expect("a tick");
            assert_eq!(tick, next, "no tick is missing");
            let in_charge = switches.iter().rev().find(|(after, _)| *after < tick).map(|(_, digest)| digest);
            assert_eq!(
                record["combined"]["decided_by_digest"].as_str(),
                in_charge.map(String::as_str),
                "tick {tick}"
            );
            (next, any) = (next + 1, true);
        }
        assert!(any, "records end at {next}, not at {ended}");
    }
}

#[test]
fn a_policy_without_a_decision_for_any_recorded_tick_is_refused_unless_it_is_forced() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    ticks_pass(&daemon, "web", 3);
    let refuses = write(&daemon, "refuses.wasm", &hostile("own-error"));
    for command in [&["policy", "swap", "web"][..], &["policy", "canary", "web", "--within", "1"]] {
        let refused = daemon.run(&[command, &[&refuses, "--params", "{}"]].concat());
        assert_eq!(refused.code, 3, "{}", refused.err);
        let told = ["returned no decision for any of the", "again", "--force"];
        assert!(told.iter().all(|it| refused.err.contains(it)), "{}", refused.err);
    }
    assert_eq!(entries(&daemon, "web", "active")[0]["name"], "target-tracking");
    // What is only judged may be looked at all the same.
    let shadow = daemon.json(&["policy", "shadow", "web", &refuses, "--params", "{}"]);
    assert!(shadow["rehearsed_ticks"].as_u64() > Some(2) && shadow["decided_ticks"] == 0, "{shadow}");
    assert!(shadow["warnings"][0].as_str().is_some_and(|it| it.contains("no decision")), "{shadow}");
    let forced = daemon.run(&["policy", "swap", "web", &refuses, "--params", "{}", "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
    assert!(forced.out.contains("returned a decision for 0 of "), "{}", forced.out);
    assert!(forced.err.starts_with("warning: "), "{}", forced.err);
    let good = daemon.run(&["policy", "rollback", "web"]);
    assert_eq!(good.code, 0, "{}", good.err);
}

#[test]
fn what_a_failed_run_logged_is_shown_below_it() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    ticks_pass(&daemon, "web", 1);
    let module = module(
        r#"(import "regatta:policy/log@0.1.0" "log" (func $log (param i32 i32 i32)))
        (data (i32.const 1200) "in decide(), line 7\1b[2J")
        (func $answer
            (call $log (i32.const 4) (i32.const 1200) (i32.const 23))
            (call $log (i32.const 4) (i32.const 1088) (i32.const 5))
            (unreachable))"#,
    );
    let traps = write(&daemon, "traps.wasm", &module);
    let line = r"error: in decide(), line 7\u{1b}[2J";
    let refused = daemon.run(&["policy", "swap", "web", &traps, "--params", "{}"]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    assert!(refused.err.contains(&format!("\n  {line}\n")), "{}", refused.err);
    assert_eq!(daemon.run(&["policy", "swap", "web", &traps, "--params", "{}", "--force"]).code, 0);
    ticks_pass(&daemon, "web", 2);
    for command in [["why", "web"], ["describe", "web"]] {
        let shown = daemon.run(&command).out;
        assert!(shown.contains(line) && shown.contains("error: again"), "{command:?}: {shown}");
        assert!(!shown.contains('\u{1b}'), "{shown}");
    }
    let checked = daemon.run(&["policy", "check", &traps]);
    assert_eq!(checked.code, 3, "{}", checked.err);
    assert!(checked.out.contains("error: in decide(), line 7"), "{}", checked.out);
}

#[test]
fn a_metric_that_the_set_does_not_measure_is_refused_with_what_was_meant_unless_forced() {
    let daemon = Daemon::start();
    let typo = daemon.manifest("web", "{ min: 1, max: 3 }", "", &IDLE.replace("cpu", "memori"));
    let file = daemon.home().join("typo.yaml");
    fs::write(&file, typo.replace("name: web", "name: typo")).expect("a manifest");
    let place = "params: { metric: memori";
    let told = "asks for metric memori, which set typo does not have; did you mean memory?";
    for command in ["diff", "apply"] {
        let refused = daemon.run(&[command, "-f", "typo.yaml"]);
        assert_eq!(refused.code, 3, "{command}: {}", refused.err);
        assert!(refused.err.contains(place) && refused.err.contains(told), "{command}: {}", refused.err);
    }
    let forced = daemon.run(&["apply", "-f", "typo.yaml", "--force"]);
    assert!(forced.code == 0 && forced.err.contains(told), "{}", forced.err);

    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    let asks = |command: &[&str], name: &str, force: bool| {
        let params = format!(r#"{{"metric": "{name}", "target": 1}}"#);
        let force = if force { &["--force"][..] } else { &[] };
        daemon.run(&[command, &["web", "target-tracking", "--params", &params], force].concat())
    };
    let told = told.replace("typo", "web");
    for command in [&["policy", "shadow"][..], &["policy", "canary", "--within", "1"], &["policy", "swap"]] {
        let refused = asks(command, "memori", false);
        assert_eq!(refused.code, 3, "{command:?}: {}", refused.err);
        assert!(refused.err.contains(&told), "{command:?}: {}", refused.err);
        let forced = asks(command, "memori", true);
        assert!(forced.code == 0 && forced.err.contains(&told), "{command:?}: {}", forced.err);
    }
    assert_eq!(asks(&["policy", "swap"], "memory", false).code, 0);
    ticks_pass(&daemon, "web", 3);
    let compared = daemon.run(&["policy", "compare", "web"]);
    let told = "shadow target-tracking asks for metrics that the set does not have: memori";
    assert!(compared.out.contains(told), "{}{}", compared.out, compared.err);
}

#[test]
fn a_manifest_that_takes_a_metric_away_from_a_policy_that_stays_is_refused_unless_forced() {
    let daemon = Daemon::start();
    let apply = |metric: &str, max: u32, force: &[&str]| {
        let metrics =
            format!("metrics: [{{ name: {metric}, series: load }}]\n{}", IDLE.replace("cpu", "load"));
        let manifest = daemon.manifest("web", &format!("{{ min: 1, max: {max} }}"), "", &metrics);
        fs::write(daemon.home().join("web.yaml"), manifest).expect("a manifest");
        daemon.run(&[&["apply", "-f", "web.yaml"], force].concat())
    };
    let applied = apply("load", 3, &[]);
    assert_eq!(applied.code, 0, "{}", applied.err);
    let canary = ["policy", "canary", "web", "step", "--within", "1", "--params"];
    let canary = daemon
        .run(&[&canary[..], &[r#"{"metric": "load", "scale_out": [{"above": 5, "add": 1}]}"#]].concat());
    assert_eq!(canary.code, 0, "{}", canary.err);

    let refused = apply("laod", 3, &[]);
    assert_eq!(refused.code, 3, "{}", refused.err);
    let told = "asks for metric load, which set web does not have; did you mean laod?";
    for policy in ["policy target-tracking", "canary policy step"] {
        assert!(refused.err.contains(&format!("{policy} {told}")), "{}", refused.err);
    }
    assert!(refused.err.contains("params: { metric: load"), "{}", refused.err);
    let forced = apply("laod", 3, &["--force"]);
    assert!(forced.code == 0 && forced.err.contains(told), "{}", forced.err);
    // It is lost already: another change is not refused for that.
    let changed = apply("laod", 4, &[]);
    assert!(changed.code == 0 && changed.err.contains(told), "{}", changed.err);
}

#[test]
fn a_restart_with_an_empty_cache_loses_no_policy() {
    let mut daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("web", "{ min: 1, max: 3 }", "", IDLE));
    daemon.wait_in_service("web", 1);
    daemon.kill();
    fs::remove_dir_all(daemon.data().join("compiled")).expect("removed");
    daemon.launch();
    wait_for("a decision", || {
        let tick = last_tick(&daemon, "web");
        match record(&daemon, "web", tick)["runs"][0]["result"].get("Ok") {
            Some(_) => Ok(()),
            None => Err(format!("tick {tick}")),
        }
    });
}

#[test]
fn a_swap_after_which_nothing_could_start_is_refused_unless_forced() {
    let daemon = Daemon::start();
    let by_no_metric = write(&daemon, "none.wasm", &constant(0, u64::MAX));
    let extra = format!("policy: {{ module: {by_no_metric:?}, params: {{}} }}");
    daemon.apply_ok(&daemon.manifest("web", "{ min: 0, max: 3 }", "", &extra));
    let params = r#"{"metric":"cpu","target":0.5}"#;
    for command in [&["policy", "swap"][..], &["policy", "canary", "--within", "1"]] {
        let asked = [command, &["web", "target-tracking", "--params", params]].concat();
        let refused = daemon.run(&asked);
        assert_eq!(refused.code, 3, "{command:?}: {}", refused.err);
        for part in ["nothing starts an instance once the set has none", "load_balancer", "--force"] {
            assert!(refused.err.contains(part), "{command:?}: {part}: {}", refused.err);
        }
    }
    let forced = daemon.run(&["policy", "swap", "web", "target-tracking", "--params", params, "--force"]);
    assert_eq!(forced.code, 0, "{}", forced.err);
}
