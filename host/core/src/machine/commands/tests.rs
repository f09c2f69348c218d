//! Every command: refused while the set is deleted, without a trace when it is not stored, answered once.

use super::super::testing::{Refusal, Rig, manifest, policy, update};
use super::super::{CommandError, Done, Effect, Input};
use super::*;
use crate::phase::Phase;

const LB: &str = "load_balancer: { listen: \"127.0.0.1:8000\" }";

/// One of each, all of which a set with a canary #2, a shadow #3, a previous policy a held size, other limits and a freeze would carry out.
fn commands() -> Vec<Command> {
    let new = || Box::new(policy("step", 2));
    vec![
        update(manifest("capacity: { min: 1, max: 4 }")),
        update(manifest(LB)),
        Command::Update(Box::new(Update { policies: vec![Some(*new())], ..moved() })),
        Command::Scale { capacity: 3 },
        Command::Protect { id: 1, protection: Protection::ScaleIn },
        Command::Instance { id: 1, action: super::super::InstanceAction::Restart },
        Command::Processes { suspend: crate::set_process::SetProcess::ALL.into(), resume: [].into() },
        Command::Hold { capacity: Some(4), for_ms: Some(60_000), reason: "load test".to_owned() },
        Command::Resume,
        Command::Limits { min: Some(1), max: Some(12), for_ms: None, reason: String::new() },
        Command::ClearLimits,
        Command::Freeze { for_ms: Some(60_000), reason: String::new() },
        Command::Thaw,
        Command::Swap { slot: None, policy: new() },
        Command::Rollback { slot: None, to: None },
        Command::Shadow { slot: None, policy: new() },
        Command::Canary { slot: None, policy: new(), within: 2 },
        Command::Promote { number: Some(3) },
        Command::Drop { number: 4 },
        Command::Delete,
    ]
}

fn moved() -> Update {
    match update(manifest("tick: 2s")) {
        Command::Update(update) => *update,
        _ => unreachable!(),
    }
}

fn rig() -> Rig {
    let mut rig = Rig::serving("");
    for command in [
        Command::Swap { slot: None, policy: Box::new(policy("step", 1)) },
        Command::Canary { slot: None, policy: Box::new(policy("new", 1)), within: 1 },
        Command::Shadow { slot: None, policy: Box::new(policy("new", 1)) },
        Command::Hold { capacity: None, for_ms: None, reason: String::new() },
        Command::Limits { min: None, max: Some(9), for_ms: None, reason: String::new() },
        Command::Freeze { for_ms: None, reason: String::new() },
    ] {
        rig.command(command).expect("done");
    }
    rig.tick();
    rig.effects.clear();
    rig
}

#[test]
fn each_is_stored_with_its_event_before_it_is_answered() {
    for command in commands() {
        let mut rig = rig();
        let (events, revision) = (rig.store.events.len(), rig.store.revision);
        rig.command(command.clone()).unwrap_or_else(|error| panic!("{command:?}: {error:?}"));
        assert_eq!(rig.store.revision, revision + 1, "{command:?}");
        assert!(rig.store.events.len() > events);
        let event = rig.store.events.last().expect("it").clone();
        assert_eq!((event.actor.as_str(), event.at_ms), ("ann", rig.now.wall_ms));
        assert_eq!(rig.store.state(), rig.machine.state());
        rig.tick();
        assert_eq!(rig.store.last_record().operator, [format!("{} (ann)", event.text)]);
        rig.tick();
        assert!(rig.store.last_record().operator.is_empty(), "once");
    }
}

#[test]
fn one_that_is_not_stored_leaves_no_trace() {
    for refusal in [Refusal::Failed, Refusal::Conflict, Refusal::AnswerLost] {
        for command in commands() {
            let mut rig = rig();
            let known = |rig: &Rig| {
                let records: Vec<_> = rig.machine.instances().cloned().collect();
                (rig.machine.state().clone(), rig.machine.manifest().clone(), records)
            };
            let before = known(&rig);
            rig.refusals.push_back(refusal);
            let error = rig.command(command.clone()).expect_err("not stored");
            assert!(matches!(error, CommandError::Store(_)), "{error:?}");
            assert_eq!(known(&rig), before, "{command:?}");
            assert!(rig.effects.iter().all(|effect| !matches!(effect, Effect::Updated | Effect::Want(_))));
            assert_eq!(rig.reload.is_some(), refusal == Refusal::Conflict);
            if refusal == Refusal::Conflict {
                assert!(matches!(rig.effects.last(), Some(Effect::Reload(_))), "the last word");
                continue;
            }
            rig.tick();
            assert_eq!(rig.reload.is_some(), refusal == Refusal::AnswerLost, "{command:?}");
            if refusal == Refusal::Failed {
                assert!(rig.store.last_record().operator.is_empty());
                rig.command(command).expect("now it is");
            }
        }
    }
}

#[test]
fn while_a_set_is_deleted_only_its_deletion_may_be_asked_for_again() {
    for command in commands() {
        let mut rig = rig();
        rig.command(Command::Delete).expect("begun");
        match command {
            Command::Delete => assert_eq!(rig.command(command), Ok(Done::Ok)),
            _ => assert_eq!(rig.refused(command), CommandError::Conflict("set web is being deleted".into())),
        }
    }
}

#[test]
fn a_capacity_lies_within_the_limits() {
    let mut rig = Rig::serving("capacity: { min: 1, max: 4, initial: 2 }");
    for capacity in [0, 5] {
        let why = format!(
            "capacity {capacity} is outside the set's limits, 1 to 4; change them in the manifest, or for a while with `regatta limits web`"
        );
        assert_eq!(rig.refused(Command::Scale { capacity }), CommandError::Conflict(why));
    }
    for capacity in [4, 1] {
        assert_eq!(rig.command(Command::Scale { capacity }), Ok(Done::Ok));
        assert_eq!(rig.store.state().desired, capacity);
    }
    let told = ["capacity 2 → 4 (set by an operator)", "capacity 4 → 1 (set by an operator)"];
    assert_eq!(rig.store.told(EventKind::ScaledByHand), told);
}

#[test]
fn a_protected_instance_is_not_scaled_in() {
    let mut rig = Rig::serving("");
    rig.command(Command::Protect { id: 2, protection: Protection::ScaleIn }).expect("done");
    assert_eq!(rig.store.instances[&2].protection, Protection::ScaleIn);
    rig.wish = 1;
    rig.tick();
    assert_eq!(rig.record(2).phase, Phase::InService);
    rig.command(Command::Protect { id: 2, protection: Protection::None }).expect("done");
    assert_eq!(rig.store.instances[&2].protection, Protection::None);
    let told = ["web-2 is protected from scale-in", "web-2 is no longer protected"];
    assert_eq!(rig.store.told(EventKind::Protection), told);
}

#[test]
fn only_an_instance_that_is_there_can_be_protected() {
    let mut rig = Rig::serving("");
    let missing = |id: u32| CommandError::NotFound(format!("there is no instance web-{id}"));
    assert_eq!(rig.refused(Command::Protect { id: 9, protection: Protection::ScaleIn }), missing(9));
    rig.wish = 1;
    rig.tick();
    rig.tick();
    rig.report(2, crate::agent::Report::Cleaned { note: None });
    assert_eq!(rig.record(2).phase, Phase::Gone);
    assert_eq!(rig.refused(Command::Protect { id: 2, protection: Protection::ScaleIn }), missing(2));
}

#[test]
fn what_became_of_instances_is_stored_along() {
    let mut rig = Rig::serving("");
    rig.report(1, crate::agent::Report::GuestRebooted);
    rig.command(Command::Protect { id: 2, protection: Protection::ScaleIn }).expect("done");
    let phases: Vec<_> = rig.store.instances.values().map(|it| (it.phase, it.protection)).collect();
    assert_eq!(phases, [(Phase::Booting, Protection::None), (Phase::InService, Protection::ScaleIn)]);
    assert_eq!(rig.store.state().clock.lived_ms, rig.store.instances[&1].phase_since_lived_ms);
}

#[test]
fn another_manifest_is_listened_for_before_it_is_stored() {
    let mut rig = Rig::serving("");
    rig.listened = Err("address in use".into());
    assert_eq!(rig.refused(update(manifest(LB))), CommandError::Conflict("address in use".into()));
    rig.listened = Ok(());
    rig.effects.clear();
    rig.command(update(manifest(LB))).expect("applied");
    let order: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Listen(wanted) => Some(if wanted.is_some() { "listen" } else { "close" }),
            Effect::Commit(_) => Some("commit"),
            Effect::Updated => Some("updated"),
            Effect::Reply { .. } => Some("reply"),
            _ => None,
        })
        .collect();
    assert_eq!(order, ["listen", "commit", "updated", "reply"]);
    assert_eq!(rig.store.told(EventKind::ManifestApplied), ["generation 2 applied"]);
    assert_eq!(rig.store.state().manifests.len(), 2);
    rig.effects.clear();
    rig.command(update(manifest(""))).expect("applied");
    let closed = rig.effects.iter().position(|effect| matches!(effect, Effect::Listen(None)));
    let stored = rig.effects.iter().position(|effect| matches!(effect, Effect::Commit(_)));
    assert!(stored < closed, "a listener that is no longer wanted stays until that is stored");
}

#[test]
fn a_listener_moves_back_when_the_manifest_is_not_stored() {
    let mut rig = Rig::serving(LB);
    rig.refusals.push_back(Refusal::Failed);
    let other = "load_balancer: { listen: \"127.0.0.1:9000\" }";
    rig.command(update(manifest(other))).expect_err("not stored");
    let ports: Vec<_> = rig
        .effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Listen(wanted) => wanted.as_ref().map(|it| it.listen.port()),
            _ => None,
        })
        .collect();
    assert_eq!(ports, [9000, 8000]);
    rig.effects.clear();
    rig.tick();
    assert!(rig.effects.iter().all(|effect| !matches!(effect, Effect::Listen(_))), "it listens");
}

#[test]
fn another_manifest_asks_the_image_anew() {
    let mut rig = Rig::serving("");
    let start =
        super::super::Start { image_problem: Some("no kernel".into()), ..Rig::start(&rig.store, true) };
    rig.machine = SetMachine::new(start, rig.now);
    rig.run(Input::InventoryComplete);
    assert!(!rig.machine.image_is_usable());
    rig.command(update(manifest(""))).expect("applied");
    assert!(rig.machine.image_is_usable() && rig.machine.problems().is_empty());
}

#[test]
fn the_least_busy_instance_goes_by_what_the_record_holds() {
    let more = "load_balancer: { listen: \"127.0.0.1:8000\" }\ncapacity: { min: 0, max: 9, initial: 3 }\nscale_in: { order: least-busy }";
    let mut rig = Rig::serving(more);
    let open = [(1, 4), (2, 1), (3, 2)].into();
    rig.facts.traffic = Some(super::super::TrafficReading { open, ..Default::default() });
    rig.wish = 2;
    rig.tick();
    assert_eq!(rig.record(2).phase, Phase::Draining, "the rig decides each record again");
}
