//! Every fixture of `tests/hostile`: what it does is found, named and contained.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use regatta_core::decision::{FailureKind, LogLevel, PolicyFailure};
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{Call, LoadError, ParamsError};
use regatta_util::chain;

use crate::fixtures::{engine, hostile_names, limits, observation, observation_of};
use crate::modules::{fates, hostile};

/// The words of the table for what became of a fixture, and what was said.
type Outcome = (String, String);

/// Loads a fixture, lets it check parameters, and lets it decide the ticks from 1 on until it fails, at most `ticks`.
fn became(name: &str, ticks: u64, limits: &PolicyLimits) -> Outcome {
    let failed = |how: &str, failure: PolicyFailure| {
        (format!("{how}: {}", failure.kind.as_str()), failure.message.into())
    };
    let policy = match engine().load(&hostile(name)) {
        Ok(policy) => policy,
        Err(LoadError::Describe(call)) => return failed("describe fails", call.failure),
        Err(error) => return (format!("refused: {}", refused_for(&error)), chain(&error)),
    };
    match policy.validate("{}", limits) {
        Ok(()) => {}
        Err(ParamsError::Failed(call)) => return failed("validate fails", call.failure),
        Err(ParamsError::Problems(problems)) => {
            return ("refuses parameters".to_owned(), problems[0].to_string());
        }
    }
    let (mut state, mut capacity) = (b"old".to_vec(), 0);
    for tick in 1..=ticks {
        let mut observation = observation_of(2, &[0.5, 0.5]);
        observation.tick = tick;
        let call = policy.decide(&Arc::new(observation), "{}", &state, limits);
        assert_eq!(BASE64_STANDARD.decode(&call.run.state_in).expect("base64"), state, "{name}");
        match call.run.result {
            Ok(decision) => capacity = decision.capacity,
            Err(failure) => {
                assert_eq!(call.state, None, "{name}: a failure leaves the state alone");
                let when = if tick > 1 { format!("fails from tick {tick}") } else { "fails".to_owned() };
                return failed(&when, failure);
            }
        }
        state = call.state.unwrap_or_else(|| panic!("{name}: a decision has a state"));
    }
    ("decides".to_owned(), format!("capacity {capacity}"))
}

fn refused_for(error: &LoadError) -> &'static str {
    match error {
        LoadError::TooLarge { .. } => "size",
        LoadError::Malformed(_) => "malformed",
        LoadError::ContractVersion { .. } => "contract-version",
        LoadError::Imports { .. } => "imports",
        LoadError::Exports { .. } => "exports",
        LoadError::NoComponentType => "no-component-type",
        LoadError::Componentize(_) => "componentize",
        LoadError::Compile(_) => "compile",
        LoadError::Limit(_) => "compile-limit",
        LoadError::Compiler { .. } | LoadError::Worker { .. } => "host",
        LoadError::Contract { .. } => "contract",
        LoadError::Describe(_) => "describe",
        LoadError::BadManifest(_) => "manifest",
    }
}

/// How many ticks a fixture must have lived through.
fn ticks_of(record: &str) -> u64 {
    let from = record.strip_prefix("fails from tick ").and_then(|rest| rest.split_once(':'));
    from.map_or(1, |(tick, _)| tick.parse().unwrap_or_else(|error| panic!("{record}: {error}")))
}

fn decide(name: &str, limits: &PolicyLimits) -> Call {
    let policy = engine().load(&hostile(name)).unwrap_or_else(|error| panic!("{name} is refused: {error}"));
    policy.decide(&observation(2, 0.5), "{}", b"old", limits)
}

#[test]
fn every_fixture_has_a_fate() {
    let known: Vec<String> = fates().into_iter().map(|fate| fate.name).collect();
    assert_eq!(hostile_names(), known, "the files, and the rows of tests/hostile/README.md, both sorted");
    assert!(known.len() >= 50, "{}", known.len());
}

#[test]
fn each_meets_its_fate() {
    let mut wrong = Vec::new();
    for fate in fates() {
        // What only the clock stops, it shall stop soon; what fuel stops, no clock of a slow machine shall.
        let limits = match fate.record.ends_with(": deadline") {
            true => PolicyLimits { deadline_ms: 100, fuel: 1 << 50, ..limits() },
            false => limits(),
        };
        // Once more, so that a failure leaves nothing behind in the pool.
        for _ in 0..2 {
            let (record, says) = became(&fate.name, ticks_of(&fate.record), &limits);
            assert!(says.len() < 5_000, "{}: {} bytes of message", fate.name, says.len());
            if record != fate.record || fate.says.is_empty() || !says.starts_with(&fate.says) {
                wrong.push(format!("| `{}` | {record} | `{says}` |", fate.name));
                break;
            }
        }
    }
    assert!(wrong.is_empty(), "{} fixtures became of something else:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn a_policy_cannot_tell_one_call_from_another() {
    for name in ["describe-changes-its-name", "describe-changes-its-state-version"] {
        let first = engine().load(&hostile(name)).unwrap().manifest().clone();
        assert_eq!(
            (first.name.as_str(), first.state_version),
            ("hostile", u32::from(name.ends_with("version")))
        );
        // The first load is forgotten with its policy: this one describes itself anew.
        assert_eq!(&first, engine().load(&hostile(name)).unwrap().manifest());
    }
}

#[test]
fn a_nan_has_the_same_bits_everywhere() {
    let state = decide("nan-bits-in-the-state", &limits()).state.unwrap();
    let canonical = [0x7ff8_0000_0000_0000_u64; 2];
    assert_eq!(state[..8], canonical[0].to_le_bytes());
    assert_eq!(state[8..12], 0x7fc0_0000_u32.to_le_bytes());
    assert_eq!(state[12..], canonical.map(u64::to_le_bytes).concat());
}

#[test]
fn a_loop_with_fuel_to_spare_ends_at_the_deadline() {
    let limits = PolicyLimits { fuel: u64::MAX, deadline_ms: 50, ..PolicyLimits::default() };
    let call = decide("infinite-loop", &limits);
    assert_eq!(call.run.result.unwrap_err().kind, FailureKind::Deadline);
}

#[test]
fn used_up_fuel_is_exactly_the_limit() {
    let limits = PolicyLimits { fuel: 123_456, ..limits() };
    let call = decide("infinite-loop", &limits);
    // The last straw may be an instruction of several units.
    assert!(call.run.fuel.abs_diff(123_456) < 100, "{}", call.run.fuel);
    assert_eq!(call.run.fuel, decide("infinite-loop", &limits).run.fuel);
}

#[test]
fn a_flood_of_lines_is_cut_and_counted() {
    let limits = PolicyLimits { log_lines: 10, ..limits() };
    let log = decide("log-flood", &limits).run.log;
    assert_eq!(log.len(), 11);
    assert_eq!((log[0].level, log[0].message.as_str()), (LogLevel::Info, "again"));
    assert_eq!(log[10].message, "9990 more lines dropped");
    let log = decide("log-huge-line", &limits).run.log;
    assert_eq!(log.len(), 1);
    assert!(log[0].message.len() <= 1024, "{}", log[0].message.len());
}

#[test]
fn a_victim_named_twice_is_one() {
    let decision = decide("victims-twice", &limits()).run.result.unwrap();
    assert_eq!((decision.capacity, decision.victims), (1, vec![1]));
}

#[test]
fn the_memory_limit_is_the_sets() {
    let generous = PolicyLimits { memory_bytes: 200 << 20, fuel: 1_000_000_000, ..limits() };
    let policy = engine().load(&hostile("memory-refused-and-survived")).unwrap();
    // Two pages fit, one does not.
    for (memory_bytes, decides) in [(2 << 16, true), (1 << 16, false), (generous.memory_bytes, true)] {
        let limits = PolicyLimits { memory_bytes, ..generous };
        let call = policy.decide(&observation(2, 0.5), "{}", b"", &limits);
        assert_eq!(call.run.result.is_ok(), decides, "{memory_bytes}: {call:?}");
    }
}

#[test]
fn what_a_guest_logged_last_tells_of_its_panic() {
    let failure = decide("panic-with-a-message", &limits()).run.result.unwrap_err();
    assert_eq!(failure.message, "again");
    let failure = decide("trap-in-decide", &limits()).run.result.unwrap_err();
    assert_eq!(failure.message, "wasm `unreachable` instruction executed");
}
