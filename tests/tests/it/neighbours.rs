//! Policies that misbehave harm their own set little, and no other set at all.

use std::fs;

use regatta_tests::{Daemon, IDLE, wait_for};
use serde_json::Value;

use crate::modules::hostile;

const TICK_MS: u64 = 200;

/// The set, its module, its limits, and the kind of failure that its records must name.
const BAD: [(&str, &str, &str, &str); 5] = [
    ("loops", "infinite-loop", "{ fuel: 1000000, deadline: 200ms }", "out-of-fuel"),
    // Only the clock stops this one.
    ("hogs", "infinite-loop", "{ fuel: 1000000000000, deadline: 150ms }", "deadline"),
    ("eats", "memory-growth", "{ deadline: 200ms }", "memory"),
    ("grabs", "four-billion-instances", "{ deadline: 200ms }", "output"),
    ("traps", "trap-in-decide", "{ deadline: 200ms }", "trap"),
];

fn records(daemon: &Daemon, set: &str, after: u64) -> Vec<Value> {
    let records = daemon.run(&["records", set, "--after", &after.to_string()]);
    assert_eq!(records.code, 0, "{}", records.err);
    records.out.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

#[test]
fn hostile_policies_hold_their_sets_and_delay_no_other() {
    let daemon = Daemon::start();
    daemon.apply_ok(&daemon.manifest("good", "{ min: 1, max: 3, initial: 2 }", "", IDLE));
    daemon.wait_in_service("good", 2);
    for (set, module, limits, _) in BAD {
        fs::write(daemon.home().join(format!("{module}.wasm")), hostile(module)).expect("a module");
        let policy = format!("policy: {{ module: ./{module}.wasm, limits: {limits} }}");
        daemon.apply_ok(&daemon.manifest(set, "{ min: 1, max: 4, initial: 2 }", "", &policy));
    }
    let (good_from, from) = (last_tick(&daemon, "good"), BAD.map(|(set, ..)| last_tick(&daemon, set)));
    for (set, ..) in BAD {
        daemon.wait_in_service(set, 2);
    }
    wait_for("25 ticks of each", || {
        let ticks = BAD.map(|(set, ..)| last_tick(&daemon, set));
        let enough = ticks.iter().zip(from).all(|(tick, from)| *tick >= from + 25);
        if enough { Ok(()) } else { Err(format!("{from:?} → {ticks:?}")) }
    });

    for ((set, _, _, kind), from) in BAD.into_iter().zip(from) {
        let mut named = 0;
        for record in records(&daemon, set, from) {
            let failure = &record["runs"][0]["result"]["Err"];
            // On a machine that is busy enough, any of them runs past its deadline.
            let expected = failure["kind"] == kind || failure["kind"] == "deadline";
            assert!(expected && failure["message"].as_str() > Some(""), "{set}: {record}");
            named += u32::from(failure["kind"] == kind);
            let sizes = (&record["guards"]["granted"], &record["observation"]["desired"]);
            assert_eq!(sizes, (&2.into(), &2.into()), "{set}: {record}");
        }
        assert!(named > 0, "{set} never failed with {kind}");
        let why = daemon.run(&["why", set]);
        assert!(
            why.out.contains("hostile") && why.out.contains("keeping current capacity"),
            "{set}: {}",
            why.out
        );
        let problems = daemon.json(&["describe", set])["summary"]["problems"].to_string();
        assert!(problems.contains("policy hostile failed"), "{set}: {problems}");
        daemon.wait_in_service(set, 2);
    }

    // The good one: as many ticks as its own clock says, less what a busy machine takes.
    let good = records(&daemon, "good", good_from);
    let at = |record: &Value| record["observation"]["now_ms"].as_u64().expect("a time");
    let took_ms = at(good.last().expect("records")) - at(&good[0]);
    let due = took_ms / TICK_MS;
    println!("the good set: {} of {due} ticks", good.len());
    assert!(good.len() as u64 * 3 >= due, "{} ticks in {took_ms} ms, {due} were due", good.len());
    assert!(good.iter().all(|record| record["runs"][0]["result"]["Ok"].is_object()));

    // And a good policy puts a bad set right again.
    let swapped = daemon.run(&[
        "policy",
        "swap",
        "loops",
        "target-tracking",
        "--params",
        r#"{"metric":"cpu","target":1000000}"#,
    ]);
    assert_eq!(swapped.code, 0, "{}", swapped.err);
    wait_for("no problem", || {
        let problems = daemon.json(&["describe", "loops"])["summary"]["problems"].to_string();
        if problems == "[]" { Ok(()) } else { Err(problems) }
    });
    // The other way round it is refused: the new one is tried first.
    let output = daemon.run(&["policy", "swap", "good", "./trap-in-decide.wasm"]);
    assert_eq!(output.code, 3, "{}", output.err);
}
