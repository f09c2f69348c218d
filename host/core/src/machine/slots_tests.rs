//! Policies that are swapped, tried, judged and taken back.

use super::testing::{Rig, activation, manifest, policy};
use super::*;
use crate::agent::{Found, Running};
use crate::decision::{FailureKind, PolicyFailure};
use crate::event::EventKind;
use crate::phase::Phase;
use crate::state::PolicyActivation;

fn swap(new: NewPolicy) -> Command {
    Command::Swap { slot: None, policy: Box::new(new) }
}

fn shadow(new: NewPolicy) -> Command {
    Command::Shadow { slot: None, policy: Box::new(new) }
}

fn canary(new: NewPolicy, within: u32) -> Command {
    Command::Canary { slot: None, policy: Box::new(new), within }
}

fn switched(done: Result<Done, CommandError>) -> Switched {
    match done {
        Ok(Done::Switched(switched)) => *switched,
        other => panic!("no switch: {other:?}"),
    }
}

fn placed(done: Result<Done, CommandError>) -> PolicyActivation {
    match done {
        Ok(Done::Placed(placed)) => placed.activation,
        other => panic!("not placed: {other:?}"),
    }
}

/// A set whose policy has left a state behind.
fn rig() -> Rig {
    let mut rig = Rig::serving("");
    rig.states.insert(1, "lived".to_owned());
    rig.tick();
    rig
}

fn active(rig: &Rig) -> &PolicyActivation {
    &rig.store.state().policies[0].active
}

#[test]
fn a_state_is_carried_over_migrated_or_built_anew() {
    let (carried, anew) = ("carried over", "built in the rehearsal");
    let no_migration = Err("it has no migration".to_owned());
    let cases = [
        (policy("step", 1), Ok("moved".to_owned()), "lived", carried.to_owned()),
        (policy("step", 2), Ok("moved".to_owned()), "moved", "migrated from version 1".to_owned()),
        (
            policy("step", 2),
            no_migration,
            "rehearsed 2",
            format!("not migrated from version 1: it has no migration; {anew}"),
        ),
        (policy("other", 1), Ok("moved".to_owned()), "rehearsed 1", anew.to_owned()),
    ];
    for (new, migrated, state, origin) in cases {
        let mut rig = rig();
        rig.migrated = migrated;
        let (name, version) = (new.activation.name.clone(), new.activation.version.clone());
        let told = switched(rig.command(swap(new)));
        assert_eq!((told.to.state.as_str(), &told.state_origin), (state, &origin));
        assert_eq!(active(&rig), &told.to);
        assert_eq!((told.to.number, told.from.number, told.after_tick), (2, 1, 3));
        assert_eq!(told.to.since_ms, rig.now.wall_ms);
        let text = format!("step 1.0 → {name} {version}, state {origin}");
        assert_eq!(rig.store.told(EventKind::PolicySwapped), [text]);
        let event = rig.store.events.last().expect("it");
        assert_eq!(event.policy.as_ref().map(|it| &it.digest), Some(&told.to.digest));
        rig.tick();
        assert_eq!(rig.store.last_record().runs[0].state_in, state);
    }
}

#[test]
fn nothing_is_migrated_from_an_empty_state() {
    let mut rig = Rig::serving("");
    rig.states.insert(1, String::new());
    rig.tick();
    assert_eq!(switched(rig.command(swap(policy("step", 2)))).state_origin, "built in the rehearsal");
}

#[test]
fn an_answer_that_lacks_a_state_is_no_migration() {
    let mut rig = rig();
    let token = rig.send(swap(policy("step", 2)));
    rig.waiting.clear();
    rig.run(Input::Migrated(Vec::new()));
    let told = switched(rig.replies[&token].clone());
    assert_eq!(told.state_origin, "not migrated from version 1; built in the rehearsal");
}

fn back(to: Option<u64>) -> Command {
    Command::Rollback { slot: None, to }
}

#[test]
fn rolling_back_twice_goes_further_back_and_never_to_what_was_rolled_back() {
    let mut rig = rig();
    let none = "no previous policy in slot step: nothing to roll back to";
    assert_eq!(rig.refused(back(None)), CommandError::Conflict(none.into()));
    assert_eq!(rig.refused(back(Some(1))), CommandError::Conflict(none.into()), "it is active");
    rig.command(swap(policy("other", 1))).expect("swapped");
    rig.command(swap(policy("bad", 1))).expect("swapped");
    let first = switched(rig.command(back(None)));
    assert_eq!((first.from.name.as_str(), first.to.name.as_str(), first.to.number), ("bad", "other", 4));
    assert_eq!(first.state_origin, "as it was when the policy was replaced");
    let further = switched(rig.command(back(None)));
    assert_eq!(
        (further.to.name.as_str(), further.to.state.as_str(), further.to.number),
        ("step", "lived", 5)
    );
    assert_eq!(rig.refused(back(None)), CommandError::Conflict(none.into()), "never to the bad one");
    assert_eq!(rig.store.told(EventKind::PolicyRolledBack).len(), 2);
}

#[test]
fn a_rollback_to_a_number_forgets_what_came_after_it() {
    let mut rig = rig();
    for name in ["b", "c", "d"] {
        rig.command(swap(policy(name, 1))).expect("swapped");
    }
    let unknown = "slot step does not keep policy #9; it can roll back to #3, #2, #1; `regatta policy history web` shows \
                   digests, and `regatta policy swap web NAME@DIGEST` takes any of them";
    assert_eq!(rig.refused(back(Some(9))), CommandError::Conflict(unknown.into()));
    assert_eq!(switched(rig.command(back(Some(2)))).to.name, "b");
    assert_eq!(switched(rig.command(back(None))).to.name, "step");
}

#[test]
fn a_slot_keeps_a_bounded_past() {
    let mut rig = rig();
    for version in 2..20 {
        rig.command(swap(policy("step", version))).expect("swapped");
    }
    let kept: Vec<u64> = rig.store.state().policies[0].past().map(|it| it.number).collect();
    assert_eq!(kept, [18, 17, 16, 15, 14, 13, 12, 11]);
    assert!(rig.store.state().activations_kept().any(|it| it.number == 11), "its module is kept as well");
}

#[test]
fn the_end_of_a_canary_is_told_by_whatever_ends_it() {
    let mut rig = rig();
    rig.command(canary(policy("new", 1), 1)).expect("a canary");
    let next = match rig.command(canary(policy("new", 2), 1)) {
        Ok(Done::Placed(placed)) => placed,
        other => panic!("not placed: {other:?}"),
    };
    assert_eq!(next.ended, ["canary new 1.0 (#2) ended: another canary took its place"]);
    let swapped = switched(rig.command(swap(policy("other", 1))));
    assert_eq!(swapped.ended, ["canary new 2.0 (#3) ended: slot step now has other 1.0"]);
    rig.command(canary(policy("new", 1), 1)).expect("a canary");
    let promoted = switched(rig.command(Command::Promote { number: None }));
    assert_eq!(promoted.ended, Vec::<String>::new(), "it did not end, it took over");
    rig.command(canary(policy("new", 3), 1)).expect("a canary");
    let update = Update {
        set: manifest(""),
        image: crate::state::ImageDigests::default(),
        policies: vec![Some(policy("step", 2))],
        rolls_back: false,
    };
    let text = "canary new 3.0 (#7) ended: slot step now has step 2.0".to_owned();
    assert_eq!(rig.command(Command::Update(Box::new(update))), Ok(Done::Applied(vec![text.clone()])));
    let told = rig.store.told(EventKind::PolicyDropped);
    assert_eq!(told, [next.ended[0].as_str(), swapped.ended[0].as_str(), text.as_str()]);
    let applied = ["step 1.0 from the manifest", "new 1.0 → step 2.0 from the manifest"];
    assert_eq!(rig.store.told(EventKind::PolicyApplied), applied);
}

#[test]
fn a_slot_is_named_where_there_are_several() {
    let mut rig = Rig::serving("policies: [{ module: a, name: load }, { module: b, name: night }]");
    let several = "set web has several policy slots (load, night): choose one with --policy";
    assert_eq!(rig.refused(swap(policy("c", 1))), CommandError::Conflict(several.into()));
    let slot = Some("noon".to_owned());
    let missing = "set web has no policy slot noon; it has: load, night";
    assert_eq!(rig.refused(Command::Rollback { slot, to: None }), CommandError::NotFound(missing.into()));
    let new = Box::new(policy("c", 1));
    let told = switched(rig.command(Command::Swap { slot: Some("night".to_owned()), policy: new }));
    assert_eq!((told.slot.as_str(), told.from.number, told.to.number), ("night", 2, 3));
    assert_eq!(rig.store.state().policies[0].active.number, 1);
}

#[test]
fn a_canary_acts_within_its_bounds() {
    let mut rig = rig();
    let trial = placed(rig.command(canary(policy("new", 1), 1)));
    assert_eq!(
        rig.store.told(EventKind::PolicyCanary),
        ["new 1.0 runs as canary #2, within 1 of the active policy"]
    );
    rig.wishes.insert(trial.number, Ok(9));
    rig.states.insert(trial.number, "tried".into());
    rig.tick();
    let record = rig.store.last_record();
    assert_eq!((record.guards.granted, record.canaries.len(), record.runs.len()), (3, 1, 1));
    let slot = &rig.store.state().policies[0];
    assert_eq!(slot.canary.as_ref().map(|it| it.activation.state.as_str()), Some("tried"));
    assert_eq!(slot.active.state, "lived");
}

#[test]
fn a_canary_that_fails_is_removed() {
    let mut rig = rig();
    let trial = placed(rig.command(canary(policy("new", 1), 1)));
    rig.wishes.insert(trial.number, Err("trapped".into()));
    rig.tick();
    assert_eq!(rig.store.state().policies[0].canary, None);
    assert_eq!(rig.store.told(EventKind::PolicyDemoted).len(), 1);
    rig.tick();
    assert!(rig.store.last_record().canaries.is_empty());
    assert_eq!(rig.store.told(EventKind::PolicyDemoted).len(), 1);
}

#[test]
fn a_canary_goes_with_the_policy_that_it_stands_beside() {
    let mut rig = rig();
    placed(rig.command(canary(policy("new", 1), 1)));
    placed(rig.command(canary(policy("newer", 1), 1)));
    let slot = &rig.store.state().policies[0];
    assert_eq!(slot.canary.as_ref().map(|it| it.activation.name.as_str()), Some("newer"), "one at a time");
    rig.command(swap(policy("other", 1))).expect("swapped");
    assert_eq!(rig.store.state().policies[0].canary, None);
}

#[test]
fn a_shadow_is_asked_after_the_tick_and_what_it_says_stands_in_the_next_record() {
    let mut rig = rig();
    let judged = placed(rig.command(shadow(policy("new", 1))));
    assert_eq!(rig.store.told(EventKind::PolicyShadowed), ["new 1.0 runs as shadow #2"]);
    rig.wishes.insert(judged.number, Ok(9));
    rig.states.insert(judged.number, "judged".into());
    rig.tick();
    let tick = rig.store.last_record().observation.tick;
    assert_eq!((rig.shadows.len(), rig.store.last_record().shadows.len()), (1, 0));
    rig.tick();
    assert_eq!(rig.shadows.len(), 1, "one that is still busy skips a tick");
    rig.shadow_answers();
    rig.tick();
    let record = rig.store.last_record();
    assert_eq!(record.guards.granted, 2, "it is never applied");
    assert_eq!(record.shadows.iter().map(|it| (it.tick, it.number)).collect::<Vec<_>>(), [(tick, 2)]);
    assert_eq!(rig.store.state().shadows[0].activation.state, "judged");
    rig.tick();
    assert!(rig.store.last_record().shadows.is_empty(), "once");
    assert_eq!(rig.shadows.len(), 1);
}

#[test]
fn what_a_shadow_said_waits_for_a_record_that_is_stored() {
    let mut rig = rig();
    placed(rig.command(shadow(policy("new", 1))));
    rig.tick();
    rig.shadow_answers();
    rig.refusals.push_back(super::testing::Refusal::Failed);
    rig.tick();
    rig.tick();
    assert_eq!(rig.store.last_record().shadows.len(), 1);
}

#[test]
fn a_shadow_that_fails_is_told_when_it_begins_and_ends() {
    let mut rig = rig();
    let [fails, other] = ["new", "other"].map(|name| placed(rig.command(shadow(policy(name, 1)))));
    let failure = PolicyFailure { kind: FailureKind::Trap, message: "unreachable".into() };
    let traps = || Err("unreachable".into());
    rig.wishes.insert(other.number, Ok(2));
    let judged = |rig: &mut Rig, said: Result<u32, String>| {
        rig.wishes.insert(fails.number, said);
        rig.tick();
        rig.shadow_answers();
        rig.tick();
        rig.store.state().shadows.iter().map(|it| it.failure.clone()).collect::<Vec<_>>()
    };
    assert_eq!(judged(&mut rig, traps()), [Some(failure.clone()), None]);
    assert_eq!(judged(&mut rig, traps()), [Some(failure.clone()), None]);
    let told = ["shadow #2 new returned no decision (trap): unreachable"];
    assert_eq!(rig.store.told(EventKind::PolicyFailed), told, "once");
    rig.restart_after(1_000, |_| Found::Running(Running::default()));
    rig.shadow_answers();
    assert_eq!(judged(&mut rig, traps()).len(), 2);
    assert_eq!(rig.store.told(EventKind::PolicyFailed), told, "also over a restart of the daemon");
    assert_eq!(judged(&mut rig, Ok(2)), [None, None]);
    assert_eq!(rig.store.told(EventKind::PolicyRecovered), ["shadow #2 new returns decisions again"]);
}

#[test]
fn there_are_at_most_eight_shadows() {
    let mut rig = rig();
    for _ in 0..SHADOWS_MAX {
        placed(rig.command(shadow(policy("new", 1))));
    }
    let full = "set web already has 8 shadows; remove one first with `regatta policy drop web NUMBER`";
    assert_eq!(rig.refused(shadow(policy("new", 1))), CommandError::Conflict(full.into()));
    rig.tick();
    assert_eq!(rig.shadows.len(), 8);
    placed(rig.command(Command::Drop { number: 2 }));
    placed(rig.command(shadow(policy("new", 1))));
}

#[test]
fn a_shadow_is_promoted_with_its_own_state() {
    let mut rig = rig();
    let judged = placed(rig.command(shadow(policy("new", 1))));
    rig.states.insert(judged.number, "judged".into());
    rig.tick();
    rig.shadow_answers();
    rig.tick();
    let told = switched(rig.command(Command::Promote { number: None }));
    assert_eq!(
        (told.to.number, told.to.state.as_str(), told.state_origin.as_str()),
        (3, "judged", "its own")
    );
    assert!(rig.store.state().shadows.is_empty());
    assert_eq!(rig.store.told(EventKind::PolicyPromoted), ["step 1.0 → new 1.0, state its own"]);
    // What it says late, as a shadow, is dropped.
    rig.shadow_answers();
    rig.tick();
    assert!(rig.store.last_record().shadows.is_empty());
    let back = switched(rig.command(Command::Rollback { slot: None, to: None }));
    assert_eq!(back.to.name, "step");
}

#[test]
fn what_is_promoted_or_dropped_must_be_there_and_be_meant() {
    let mut rig = rig();
    let promote = |number| Command::Promote { number };
    assert_eq!(
        rig.refused(promote(None)),
        CommandError::Conflict("set web has no shadow and no canary".into())
    );
    let missing = CommandError::NotFound("set web has no shadow or canary #9".into());
    assert_eq!(rig.refused(promote(Some(9))), missing);
    assert_eq!(rig.refused(Command::Drop { number: 9 }), missing);
    placed(rig.command(shadow(policy("new", 1))));
    placed(rig.command(canary(policy("new", 1), 1)));
    let several = "set web has several shadows and canaries: choose one of #3, #2";
    assert_eq!(rig.refused(promote(None)), CommandError::Conflict(several.into()));
    assert_eq!(placed(rig.command(Command::Drop { number: 2 })).number, 2);
    assert_eq!(rig.store.told(EventKind::PolicyDropped), ["new 1.0 (#2) removed"]);
    assert_eq!(switched(rig.command(promote(None))).to.number, 4);
    assert_eq!(rig.store.state().policies[0].canary, None);
}

#[test]
fn another_manifest_keeps_replaces_and_removes_policies() {
    let mut rig = Rig::serving("policies: [{ module: a, name: load }, { module: b, name: night }]");
    rig.states.extend([(1, "load".to_owned()), (2, "night".to_owned())]);
    rig.tick();
    let beside = |rig: &mut Rig, slot: &str| {
        let (slot, policy) = (Some(slot.to_owned()), Box::new(policy("new", 1)));
        placed(rig.command(Command::Shadow { slot: slot.clone(), policy: policy.clone() }));
        placed(rig.command(Command::Canary { slot, policy, within: 1 }));
    };
    beside(&mut rig, "load");
    beside(&mut rig, "night");
    let set = manifest("policies: [{ module: a, name: load }, { module: c, name: noon }]");
    let policies = vec![Some(policy("load", 2)), Some(policy("noon", 1))];
    let image = crate::state::ImageDigests::default();
    rig.command(Command::Update(Box::new(Update { set, image, policies, rolls_back: false })))
        .expect("applied");
    let state = rig.store.state();
    let [load, noon] = state.policies.as_slice() else { panic!("two slots") };
    assert_eq!((load.active.state.as_str(), load.active.number), ("migrated", 7));
    assert_eq!(load.previous.as_ref().map(|it| it.state.as_str()), Some("load"));
    assert_eq!((noon.active.state.as_str(), noon.active.number, &noon.previous), ("rehearsed 1", 8, &None));
    assert_eq!((&load.canary, &noon.canary), (&None, &None));
    assert_eq!(state.shadows.iter().map(|it| it.slot.as_str()).collect::<Vec<_>>(), ["load"]);

    let set = manifest("policies: [{ module: c, name: noon }, { module: a, name: load }]");
    let policies = vec![None, None];
    let image = crate::state::ImageDigests::default();
    rig.command(Command::Update(Box::new(Update { set, image, policies, rolls_back: false })))
        .expect("applied");
    let numbers: Vec<u64> = rig.store.state().policies.iter().map(|slot| slot.active.number).collect();
    assert_eq!(numbers, [8, 7], "each keeps its slot");
}

#[test]
fn a_policy_that_fails_holds_the_size_and_is_a_problem() {
    let mut rig = rig();
    rig.wishes.insert(1, Err("unreachable".into()));
    rig.tick();
    rig.tick();
    assert_eq!(rig.phases(), [(1, Phase::InService), (2, Phase::InService)]);
    assert_eq!(rig.machine.problems()[0], "policy step failed (trap): unreachable");
    assert_eq!(rig.store.told(EventKind::PolicyFailed).len(), 1, "told once");
    assert_eq!(active(&rig).state, "lived");
}

#[test]
fn each_slot_tells_when_its_policy_begins_to_fail_and_when_it_no_longer_does() {
    let mut rig = Rig::serving("policies: [{ module: a, name: load }, { module: b, name: night }]");
    let told = |rig: &Rig, kind| rig.store.told(kind).len();
    let [load, night] = [0, 1].map(|at: usize| rig.store.state().policies[at].active.number);
    rig.wishes.insert(load, Err("unreachable".into()));
    rig.tick();
    rig.tick();
    assert_eq!(told(&rig, EventKind::PolicyFailed), 1);
    rig.wishes.insert(night, Err("unreachable".into()));
    rig.tick();
    assert_eq!(told(&rig, EventKind::PolicyFailed), 2, "while another one fails");
    rig.wishes.remove(&load);
    rig.tick();
    assert_eq!(told(&rig, EventKind::PolicyRecovered), 1);
    rig.command(Command::Swap { slot: Some("night".into()), policy: Box::new(policy("worse", 1)) })
        .expect("swapped");
    let worse = rig.store.state().policies[1].active.number;
    rig.wishes.insert(worse, Err("unreachable".into()));
    rig.tick();
    assert_eq!(told(&rig, EventKind::PolicyFailed), 3, "another policy fails in the same slot");
    rig.command(Command::Delete).expect("deleted");
    rig.tick();
    assert_eq!(told(&rig, EventKind::PolicyRecovered), 1, "one that is no longer asked has not recovered");
}

#[test]
fn metrics_are_kept_as_far_back_as_any_policy_looks() {
    let mut rig = rig();
    let mut far = activation("far", 1);
    far.wishes = vec![crate::metrics::MetricWish { name: "cpu".into(), window_ms: 60_000 }];
    let new = NewPolicy { activation: far, state_origin: String::new() };
    rig.command(swap(new)).expect("swapped");
    rig.tick();
    assert_eq!(rig.store.last_record().wanted_metrics, ["cpu"]);
}
