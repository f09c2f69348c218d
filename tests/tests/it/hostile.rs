//! All hostile modules that can be loaded, each in charge of a set of its own at once, beside a set that must not notice.

use std::fs;
use std::time::Duration;

use regatta_tests::{Daemon, IDLE, wait_within};
use regatta_util::percentiles;
use serde_json::Value;

use crate::modules::{Fate, fates, hostile};

const TICK_MS: u64 = 100;
/// Slower, so that what is measured is what the policies do, and not how many ticks a debug build gets through.
const HOSTILE_TICK_MS: u64 = 500;
const MEASURED_TICKS: u64 = 100;
/// What the hostile ones may add to the lateness of a tick, in the middle: one epoch, the exactness of deadlines.
const EPOCH_MS: u64 = 10;
/// Beyond that the sets are not kept apart at all, however busy the machine.
const GROSS_MS: u64 = 1_500;
const PATIENCE: Duration = Duration::from_secs(150);

fn records(daemon: &Daemon, set: &str, after: u64) -> Vec<Value> {
    let records = daemon.run(&["records", set, "--after", &after.to_string()]);
    assert_eq!(records.code, 0, "{}", records.err);
    records.out.lines().map(|line| serde_json::from_str(line).expect("a record")).collect()
}

fn last_tick(daemon: &Daemon, set: &str) -> u64 {
    daemon.json(&["describe", set])["summary"]["last_tick"].as_u64().expect("a tick")
}

fn wait_for_tick(daemon: &Daemon, set: &str, tick: u64) {
    wait_within(PATIENCE, &format!("tick {tick} of {set}"), || match last_tick(daemon, set) {
        last if last >= tick => Ok(()),
        last => Err(format!("tick {last}")),
    });
}

/// How late the ticks of a set began, milliseconds, sorted; and how many there were of those that were due.
fn lateness(daemon: &Daemon, set: &str) -> (Vec<u64>, u64) {
    let from = last_tick(daemon, set);
    wait_for_tick(daemon, set, from + MEASURED_TICKS);
    let records = records(daemon, set, from);
    let at: Vec<u64> =
        records.iter().map(|record| record["observation"]["now_ms"].as_u64().expect("a time")).collect();
    assert!(records.iter().all(|record| record["runs"][0]["result"]["Ok"].is_object()), "{set} fails");
    // Ticks are due at one phase of the clock, which is the one that fits best: none begins early.
    let late = |phase: u64| at.iter().map(move |at| (at + TICK_MS - phase) % TICK_MS);
    let phase = (0..TICK_MS).min_by_key(|&phase| late(phase).sum::<u64>()).expect("phases");
    // Ticks that were skipped for lateness count for the one that came in their place.
    let skipped = at.windows(2).map(|pair| ((pair[1] - pair[0]) / TICK_MS).saturating_sub(1) * TICK_MS);
    let mut late: Vec<u64> =
        late(phase).zip(std::iter::once(0).chain(skipped)).map(|(late, skipped)| late + skipped).collect();
    late.sort_unstable();
    let due = (at[at.len() - 1] - at[0]) / TICK_MS + 1;
    (late, due)
}

/// The set of a fixture: as much of its name as a set's may have.
fn set_of(fate: &Fate) -> &str {
    fate.name[..fate.name.len().min(32)].trim_end_matches('-')
}

fn manifest(daemon: &Daemon, set: &str, tick_ms: u64, capacity: &str, policy: &str) -> String {
    daemon.manifest(set, capacity, "", policy).replace("tick: 200ms", &format!("tick: {tick_ms}ms"))
}

#[test]
fn all_of_them_at_once_leave_a_healthy_set_alone() {
    let mut daemon = Daemon::start();
    // Compiling all of them again takes minutes.
    daemon.without_replay();
    daemon.apply_ok(&manifest(&daemon, "good", TICK_MS, "{ min: 1, max: 3 }", IDLE));
    daemon.wait_in_service("good", 1);
    let (alone, _) = lateness(&daemon, "good");

    let loads = |fate: &Fate| fate.record.starts_with("decides") || fate.record.starts_with("fails");
    let (loaded, refused): (Vec<Fate>, Vec<Fate>) = fates().into_iter().partition(loads);
    assert!(loaded.len() >= 40 && refused.len() >= 40, "{} load, {} do not", loaded.len(), refused.len());
    for fate in &refused {
        fs::write(daemon.home().join("refused.wasm"), hostile(&fate.name)).expect("a module");
        let output = daemon.run(&["policy", "swap", "good", "./refused.wasm"]);
        assert_eq!(output.code, 3, "{}: {}", fate.name, output.err);
    }
    for fate in &loaded {
        fs::write(daemon.home().join(format!("{}.wasm", fate.name)), hostile(&fate.name)).expect("a module");
        let policy = format!("policy: {{ module: ./{}.wasm }}", fate.name);
        daemon.apply_ok(&manifest(&daemon, set_of(fate), HOSTILE_TICK_MS, "{ min: 0, max: 1 }", &policy));
    }
    let (beside, due) = lateness(&daemon, "good");

    let [before, after] = [&alone, &beside].map(|late| percentiles(late, [0.5, 0.9, 0.99]).expect("ticks"));
    println!(
        "late by, ms, at p50, p90, p99: {before:?} alone, {after:?} beside {} hostile sets; {} of {due} ticks",
        loaded.len(),
        beside.len()
    );
    assert!(after[0] <= before[0] + EPOCH_MS, "{before:?} → {after:?}");
    assert!(after[2] < before[2] + GROSS_MS, "{before:?} → {after:?}");

    for fate in &loaded {
        wait_for_tick(&daemon, set_of(fate), 5);
        let records = records(&daemon, set_of(fate), 0);
        let wanted = fate.record.rsplit_once(": ").map(|(_, kind)| kind);
        // Those that bide their time may not have come to it.
        let decides = wanted.is_none() || fate.record.starts_with("fails from ");
        let mut named = decides || fate.name == "unknown-victims";
        for record in &records {
            let failure = &record["runs"][0]["result"]["Err"];
            // Instances that the fixture names may not have been made yet.
            if failure["message"].as_str().is_some_and(|message| message.starts_with("it names instance ")) {
                continue;
            }
            let kind = failure["kind"].as_str();
            // What never ends meets its fuel or its deadline first, as fast as the machine is; which of them it is
            // where the other is far away, the tests of the sandbox prove.
            let overruns = |kind: Option<&str>| matches!(kind, Some("deadline" | "out-of-fuel"));
            let meets = kind == wanted || (overruns(kind) && overruns(wanted));
            // On a machine that is busy enough, any of them runs past its deadline.
            let expected = meets || kind == Some("deadline") || (kind.is_none() && decides);
            assert!(expected, "{}: {record}", fate.name);
            named |= meets;
            let [granted, desired] = [&record["guards"]["granted"], &record["observation"]["desired"]];
            assert!(
                granted == desired || kind.is_none(),
                "{}: a failure changes the size: {record}",
                fate.name
            );
        }
        assert!(named, "{}: {} records, none says {wanted:?}", fate.name, records.len());
    }
    // What a policy says is shown as text, and obeyed by no terminal.
    for args in
        [["why", "escape-sequences"], ["describe", "escape-sequences"], ["events", "escape-sequences"]]
    {
        let output = daemon.run(&args);
        assert!(!output.out.contains(['\u{1b}', '\u{7}']), "{args:?}: {:?}", output.out);
    }
}
