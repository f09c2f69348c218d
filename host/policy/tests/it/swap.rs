//! Live swap: between two ticks, with a way back.

use std::sync::Arc;

use regatta_core::decision::FailureKind;
use regatta_core::observation::Observation;
use regatta_policy_host::{LoadError, PolicySlot, PrepareError, Prepared, StateOrigin, dry_run};

use crate::fixtures::{TARGET_TRACKING, built_in, compiled, engine, hostile, limits, observation};

const STEP: &str = r#"{"metric": "utilization", "scale_out": [{"above": 0.7, "add": 2}],
    "scale_in": [{"below": 0.3, "remove": 1}], "for_ticks": 1}"#;

fn prepare(name: &str, params: &str, recorded: &[Arc<Observation>]) -> Prepared {
    Prepared::from_module(&engine(), &built_in(name), params, recorded, &limits())
        .unwrap_or_else(|error| panic!("{name} cannot be prepared: {error}"))
}

#[test]
fn a_swap_takes_effect_with_the_next_snapshot_and_can_be_rolled_back() {
    let recorded = [observation(4, 0.8), observation(4, 0.8)];
    let mut slot = PolicySlot::new(prepare("target-tracking", TARGET_TRACKING, &recorded));
    assert!(slot.previous().is_none());
    assert!(slot.rollback().is_none());

    let before = slot.snapshot();
    let swapped = slot.swap(prepare("step", STEP, &recorded));
    assert!(
        matches!(&swapped.state, StateOrigin::Warmed { ticks: 2, reason } if reason.contains("target-tracking"))
    );
    assert_eq!(slot.active().policy.manifest().name, "step");

    // The tick under way still works on what it took, and its state is dropped.
    let call = before.decide(&recorded[0]);
    assert_eq!(call.run.name, "target-tracking");
    assert_eq!(call.run.result.as_ref().unwrap().capacity, 7);
    assert!(!slot.commit(before.activation.id, &call));

    let after = slot.snapshot();
    let call = after.decide(&recorded[0]);
    assert_eq!(call.run.name, "step");
    assert_eq!(call.run.result.as_ref().unwrap().capacity, 6);
    assert!(slot.commit(after.activation.id, &call));
    let step_state = slot.snapshot().state;
    assert!(!step_state.is_empty());

    let back = slot.rollback().unwrap();
    assert_eq!(back.state, StateOrigin::Kept);
    assert_eq!(slot.snapshot().decide(&recorded[0]).run.name, "target-tracking");
    let forth = slot.rollback().unwrap();
    assert!(forth.now.id > back.now.id);
    assert_eq!(slot.snapshot().state, step_state, "it comes back with the state that it had");
}

#[test]
fn state_is_carried_within_a_policy_and_not_from_one_to_another() {
    let mut slot = PolicySlot::new(prepare("step", STEP, &[observation(4, 0.8)]));
    let snapshot = slot.snapshot();
    let call = snapshot.decide(&observation(4, 0.8));
    assert!(slot.commit(snapshot.activation.id, &call));
    let state = slot.snapshot().state;
    let other_params = STEP.replace("0.7", "0.9");
    assert_eq!(slot.swap(prepare("step", &other_params, &[])).state, StateOrigin::Carried);
    assert_eq!(slot.snapshot().state, state);

    let swapped = slot.swap(prepare("target-tracking", TARGET_TRACKING, &[]));
    assert!(matches!(swapped.state, StateOrigin::Empty { .. }), "{:?}", swapped.state);
    assert!(slot.snapshot().state.is_empty());
}

#[test]
fn a_call_without_a_decision_leaves_the_state_alone() {
    let mut slot = PolicySlot::new(prepare("step", STEP, &[observation(4, 0.8)]));
    let state = slot.snapshot().state;
    let failed = engine().load(&hostile("trap-in-decide")).unwrap();
    let call = failed.decide(&observation(4, 0.8), "{}", b"", &limits());
    assert!(slot.commit(slot.active().id, &call));
    assert_eq!(slot.snapshot().state, state);
}

#[test]
fn what_does_not_run_on_recorded_ticks_is_not_prepared() {
    let recorded = [observation(4, 0.8)];
    let prepare = |name: &str| Prepared::from_module(&engine(), &hostile(name), "{}", &recorded, &limits());
    for (name, wanted) in [
        ("trap-in-decide", FailureKind::Trap),
        ("infinite-loop", FailureKind::OutOfFuel),
        ("four-billion-instances", FailureKind::Output),
    ] {
        match prepare(name) {
            Err(PrepareError::DryRun { tick: 7, failure }) => assert_eq!(failure.kind, wanted, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
    assert!(matches!(prepare("undeclared-import"), Err(PrepareError::Load(LoadError::Imports { .. }))));
    assert!(matches!(prepare("loop-in-validate"), Err(PrepareError::Params(_))));
    assert!(matches!(prepare("refuses-all-parameters"), Err(PrepareError::Params(_))));
    // That it has no answer is for the policy to say.
    prepare("own-error").unwrap();
}

#[test]
fn a_dry_run_gives_one_run_per_tick_and_builds_the_state() {
    let recorded: Vec<_> = (0..5).map(|_| observation(4, 0.8)).collect();
    let policy = compiled("step");
    let dry = dry_run(&policy, STEP, &recorded, &limits()).unwrap();
    assert_eq!(dry.runs.len(), 5);
    assert_eq!(dry.runs[0].state_in, "");
    assert_ne!(dry.runs[1].state_in, "");
    assert!(!dry.state.is_empty());
}
