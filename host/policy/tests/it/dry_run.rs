//! What a policy shows before it takes over.

use regatta_core::decision::FailureKind;
use regatta_policy_host::{PrepareError, dry_run};

use crate::fixtures::{compiled, engine, hostile, limits, observation};

const STEP: &str = r#"{"metric": "utilization", "scale_out": [{"above": 0.7, "add": 2}],
    "scale_in": [{"below": 0.3, "remove": 1}], "for_ticks": 1}"#;

#[test]
fn what_does_not_run_on_recorded_ticks_is_refused() {
    let recorded = [observation(4, 0.8)];
    let tried = |name: &str| dry_run(&engine().load(&hostile(name)).unwrap(), "{}", &recorded, &limits());
    let verdict = |name: &str| tried(name).unwrap().verdict();
    for (name, wanted) in [
        ("trap-in-decide", FailureKind::Trap),
        ("infinite-loop", FailureKind::OutOfFuel),
        ("four-billion-instances", FailureKind::Output),
    ] {
        match verdict(name) {
            Err(PrepareError::DryRun { tick: 7, failure, .. }) => assert_eq!(failure.kind, wanted, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(matches!(tried("loop-in-validate"), Err(PrepareError::Params(_))));
    assert!(matches!(tried("refuses-all-parameters"), Err(PrepareError::Params(_))));
}

#[test]
fn what_answers_no_recorded_tick_is_refused_and_what_answers_one_is_not() {
    let recorded = [observation(4, 0.8), observation(4, 0.8)];
    let policy = engine().load(&hostile("own-error")).unwrap();
    let dry = dry_run(&policy, "{}", &recorded, &limits()).unwrap();
    assert_eq!((dry.decided(), dry.runs.len()), (0, 2));
    match dry.verdict() {
        Err(PrepareError::Undecided { ticks: 2, failure, .. }) => {
            assert_eq!(failure.kind, FailureKind::Refused);
        }
        other => panic!("{other:?}"),
    }
    // Where there is no history, nothing speaks against it.
    assert!(dry_run(&policy, "{}", &[], &limits()).unwrap().verdict().is_ok());

    // A demand beyond all numbers is refused, the next one is not.
    let recorded = [observation(1, 1e308), observation(4, 0.8)];
    let params = r#"{ "metric": "utilization", "target": 0.5 }"#;
    let dry = dry_run(&compiled("target-tracking"), params, &recorded, &limits()).unwrap();
    assert_eq!((dry.decided(), dry.runs.len()), (1, 2), "{:?}", dry.runs);
    assert!(dry.verdict().is_ok());
}

#[test]
fn it_gives_one_run_per_tick_and_builds_the_state() {
    let recorded: Vec<_> = (0..5).map(|_| observation(4, 0.8)).collect();
    let policy = compiled("step");
    let dry = dry_run(&policy, STEP, &recorded, &limits()).unwrap();
    assert_eq!(dry.runs.len(), 5);
    assert_eq!(dry.runs[0].state_in, "");
    let mut state = Vec::new();
    for (observation, run) in recorded.iter().zip(&dry.runs) {
        let call = policy.decide(observation, STEP, &state, &limits());
        assert_eq!((&call.run.state_in, &call.run.result), (&run.state_in, &run.result));
        state = call.state.unwrap();
    }
    assert_eq!(dry.state, state);
    assert!(!state.is_empty());
}
