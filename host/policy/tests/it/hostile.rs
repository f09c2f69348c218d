//! Every fixture of `tests/hostile`: what it does is found, named and contained.

use regatta_core::decision::{FailureKind, LogLevel};
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{Call, LoadError, ParamsError};

use crate::fixtures::{engine, hostile, hostile_names, limits, observation};

/// What shall become of a fixture.
#[derive(Debug, Clone, Copy)]
enum Fate {
    /// It decides.
    Decides,
    /// Its decision fails.
    Fails(FailureKind),
    /// It fails to check parameters.
    FailsToValidate(FailureKind),
    /// It finds problems in the parameters.
    RefusesParams,
    /// It fails to describe itself.
    FailsToDescribe(FailureKind),
    /// What it says of itself is refused, with this many problems.
    BadManifest(usize),
    /// It is refused for this many imports.
    Imports(usize),
    /// It is refused for this many missing exports.
    Exports(usize),
}

const FATES: [(&str, Fate); 32] = [
    ("bad-describe", Fate::BadManifest(5)),
    ("deep-recursion", Fate::Fails(FailureKind::StackOverflow)),
    ("divide-by-zero", Fate::Fails(FailureKind::Trap)),
    ("endless-reasons", Fate::Fails(FailureKind::Output)),
    ("four-billion-instances", Fate::Fails(FailureKind::Output)),
    ("four-billion-standby", Fate::Fails(FailureKind::Output)),
    ("huge-state", Fate::Fails(FailureKind::Output)),
    ("infinite-loop", Fate::Fails(FailureKind::OutOfFuel)),
    ("invalid-discriminant", Fate::Fails(FailureKind::Output)),
    ("invalid-text", Fate::Fails(FailureKind::Output)),
    ("log-flood", Fate::Decides),
    ("log-huge-line", Fate::Decides),
    ("loop-in-describe", Fate::FailsToDescribe(FailureKind::OutOfFuel)),
    ("loop-in-validate", Fate::FailsToValidate(FailureKind::OutOfFuel)),
    ("many-reasons", Fate::Fails(FailureKind::Output)),
    ("memory-from-the-start", Fate::FailsToDescribe(FailureKind::Memory)),
    ("memory-growth", Fate::Fails(FailureKind::Memory)),
    ("memory-refused-and-survived", Fate::Decides),
    ("missing-export", Fate::Exports(2)),
    ("own-error", Fate::Fails(FailureKind::Refused)),
    ("panic-with-a-message", Fate::Fails(FailureKind::Trap)),
    ("refuses-all-parameters", Fate::RefusesParams),
    ("trap-in-decide", Fate::Fails(FailureKind::Trap)),
    ("trap-in-describe", Fate::FailsToDescribe(FailureKind::Trap)),
    ("trap-in-realloc", Fate::FailsToValidate(FailureKind::Trap)),
    ("trap-in-start", Fate::FailsToDescribe(FailureKind::Trap)),
    ("trap-in-validate", Fate::FailsToValidate(FailureKind::Trap)),
    ("undeclared-import", Fate::Imports(2)),
    ("unknown-victims", Fate::Fails(FailureKind::Output)),
    ("victims-twice", Fate::Decides),
    ("well-behaved", Fate::Decides),
    ("wild-pointer", Fate::Fails(FailureKind::Output)),
];

fn decide(name: &str, limits: &PolicyLimits) -> Call {
    let policy = engine().load(&hostile(name)).unwrap_or_else(|error| panic!("{name} is refused: {error}"));
    policy.decide(&observation(2, 0.5), "{}", b"old", limits)
}

#[test]
fn every_fixture_has_a_fate() {
    let known: Vec<&str> = FATES.iter().map(|&(name, _)| name).collect();
    assert_eq!(hostile_names(), known, "files and fates, both sorted");
}

#[test]
fn each_meets_its_fate() {
    let limits = limits();
    for (name, fate) in FATES {
        // Once more, so that a failure leaves nothing behind in the pool.
        for _ in 0..2 {
            let loaded = engine().load(&hostile(name));
            match fate {
                Fate::Decides | Fate::Fails(_) => {
                    let call = decide(name, &limits);
                    let kind = call.run.result.as_ref().map(|_| ()).map_err(|failure| failure.kind);
                    let wanted = if let Fate::Fails(kind) = fate { Err(kind) } else { Ok(()) };
                    assert_eq!(kind, wanted, "{name}: {call:?}");
                    assert_eq!(
                        call.state.is_some(),
                        wanted.is_ok(),
                        "{name}: a failure leaves the state alone"
                    );
                    assert_eq!(call.run.state_in, "b2xk", "{name}");
                }
                Fate::FailsToValidate(wanted) => match loaded.expect(name).validate("{}", &limits) {
                    Err(ParamsError::Failed(failure)) => {
                        assert_eq!(failure.kind, wanted, "{name}: {failure:?}")
                    }
                    other => panic!("{name}: {other:?}"),
                },
                Fate::RefusesParams => match loaded.expect(name).validate("{}", &limits) {
                    Err(ParamsError::Problems(problems)) => {
                        assert_eq!(problems.len(), 1);
                        assert_eq!(problems[0].to_string(), "again: true");
                    }
                    other => panic!("{name}: {other:?}"),
                },
                Fate::FailsToDescribe(wanted) => match loaded {
                    Err(LoadError::Describe(failure)) => {
                        assert_eq!(failure.kind, wanted, "{name}: {failure:?}")
                    }
                    other => panic!("{name}: {other:?}"),
                },
                Fate::BadManifest(count) => match loaded {
                    Err(LoadError::BadManifest(problems)) => {
                        assert_eq!(problems.len(), count, "{problems:?}")
                    }
                    other => panic!("{name}: {other:?}"),
                },
                Fate::Imports(count) => match loaded {
                    Err(LoadError::Imports { imports }) => assert_eq!(imports.len(), count, "{imports:?}"),
                    other => panic!("{name}: {other:?}"),
                },
                Fate::Exports(count) => match loaded {
                    Err(LoadError::Exports { missing }) => assert_eq!(missing.len(), count, "{missing:?}"),
                    other => panic!("{name}: {other:?}"),
                },
            }
        }
    }
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
