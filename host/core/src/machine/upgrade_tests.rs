//! Upgrades, as an operator lives through them.

use std::collections::BTreeSet;

use super::testing::{Rig, manifest, update};
use super::{Command, CommandError, Done, Effect, Update, UpgradeAction};
use crate::agent::{Found, Report, Running};
use crate::event::EventKind;
use crate::phase::{InstanceEvent, Phase};
use crate::state::ImageDigests;
use crate::upgrade::UpgradeStatus;

const SET: &str = "capacity: { min: 0, max: 10, initial: 5 }";

fn model(more: &str) -> Command {
    update(manifest(&format!("{SET}\ninstance: {{ memory: 64MiB }}\n{more}")))
}

fn status(rig: &Rig) -> UpgradeStatus {
    rig.machine.state().upgrade.as_ref().expect("an upgrade").status
}

fn of_generation(rig: &Rig, generation: u64) -> usize {
    let serves = |phase: Phase| phase.counts_as_capacity();
    rig.machine.instances().filter(|it| it.generation == generation && serves(it.phase)).count()
}

fn in_service(rig: &Rig) -> usize {
    rig.machine.instances().filter(|it| it.phase == Phase::InService).count()
}

/// A tick later: what was created serves, or fails; what was to go is gone.
fn turn(rig: &mut Rig, fails: &BTreeSet<u64>) {
    rig.tick();
    for (id, phase) in rig.phases() {
        let generation = rig.record(id).generation;
        match phase {
            Phase::Pending if fails.contains(&generation) => {
                rig.report(id, Report::LaunchFailed { why: "no such kernel".into() });
            }
            Phase::Pending => rig.serve(id),
            Phase::Terminating => rig.report(id, Report::Cleaned { note: None }),
            _ => {}
        }
    }
}

fn turns(rig: &mut Rig, until: impl Fn(&Rig) -> bool) -> usize {
    let none = BTreeSet::new();
    for turns in 0..100 {
        if until(rig) {
            return turns;
        }
        turn(rig, &none);
        assert!(in_service(rig) >= 5, "never below the capacity: {:?}", rig.phases());
    }
    panic!("never: {:?} {:?}", rig.machine.state().upgrade, rig.phases());
}

#[test]
fn a_rolling_upgrade_replaces_all_and_never_serves_with_fewer() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    rig.command(model("upgrade: { mode: rolling }")).expect("applied");
    assert_eq!(rig.store.told(EventKind::ManifestApplied), ["generation 2 applied, instances to replace: 5"]);
    turns(&mut rig, |rig| status(rig) == UpgradeStatus::Completed);
    assert_eq!((of_generation(&rig, 1), of_generation(&rig, 2)), (0, 5));
    assert_eq!(
        rig.store.told(EventKind::UpgradeCompleted),
        ["upgrade to generation 2 completed, instances replaced: 5"]
    );
    assert_eq!(rig.store.told(EventKind::UpgradeBatch).len(), 4, "five batches of one");
    let upgrade = rig.machine.state().upgrade.clone().expect("it is still told");
    assert_eq!((upgrade.from, upgrade.to, upgrade.ended_ms), (1, 2, Some(rig.store.last_record().wall_ms)));
    rig.tick();
    assert_eq!(rig.machine.state().manifests.keys().copied().collect::<Vec<_>>(), [2]);
}

#[test]
fn manual_waits_for_an_operator_and_what_matches_is_left_alone() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    rig.command(update(manifest(&format!("{SET}\ntick: 2s")))).expect("applied");
    let refused = rig.refused(Command::Upgrade(UpgradeAction::Start));
    assert_eq!(refused, CommandError::Conflict("no instance of web is outdated".into()));
    rig.command(model("")).expect("applied");
    assert_eq!(rig.machine.state().upgrade, None);
    assert_eq!(rig.machine.outdated().len(), 5);
    assert_eq!(
        (rig.machine.outdated()[0].0, &*rig.machine.outdated()[0].1),
        (1, &["instance.memory".to_owned()][..])
    );
    rig.command(Command::Upgrade(UpgradeAction::Start)).expect("started");
    turns(&mut rig, |rig| status(rig) == UpgradeStatus::Completed);
    // Back to a model that some still had would replace nothing of theirs.
    assert!(rig.machine.outdated().is_empty());
    rig.command(update(manifest(&format!("{SET}\nupgrade: {{ mode: rolling }}")))).expect("applied");
    assert_eq!(rig.machine.outdated().len(), 5);
    rig.command(model("upgrade: { mode: rolling }")).expect("applied");
    assert_eq!((rig.machine.outdated().len(), status(&rig)), (0, UpgradeStatus::Canceled));
}

#[test]
fn a_canary_bakes_and_an_operator_pauses_and_goes_on() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    let canary = "upgrade: { mode: rolling, max_batch: 100, checkpoints: [{ percent: 5, bake: 30s }] }";
    rig.command(model(canary)).expect("applied");
    turns(&mut rig, |rig| of_generation(rig, 2) == 1 && in_service(rig) == 5);
    let since = rig.now.mono_ms;
    turns(&mut rig, |rig| of_generation(rig, 2) > 1);
    assert!((30_000..34_000).contains(&(rig.now.mono_ms - since)), "{}", rig.now.mono_ms - since);
    rig.command(Command::Upgrade(UpgradeAction::Pause)).expect("paused");
    let refused = rig.refused(Command::Upgrade(UpgradeAction::Pause));
    assert_eq!(refused, CommandError::Conflict("the upgrade of web is paused".into()));
    for _ in 0..5 {
        turn(&mut rig, &BTreeSet::new());
    }
    assert!(of_generation(&rig, 1) > 0, "nothing goes on");
    rig.command(Command::Upgrade(UpgradeAction::Resume)).expect("resumed");
    turns(&mut rig, |rig| status(rig) == UpgradeStatus::Completed);
}

#[test]
fn an_upgrade_whose_instances_fail_goes_back() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    rig.command(model("tick: 2s\nupgrade: { mode: rolling }")).expect("applied");
    let fails = BTreeSet::from([2]);
    turn(&mut rig, &fails);
    rig.effects.clear();
    turn(&mut rig, &fails);
    assert_eq!(status(&rig), UpgradeStatus::RollbackDue);
    assert_eq!(in_service(&rig), 5, "nothing that served was touched");
    assert_eq!(
        rig.store.told(EventKind::UpgradeRollback),
        [
            "upgrade to generation 2 is rolled back: 1 new instance failed or unhealthy, at most 0 of 1 may be (upgrade.max_unhealthy_upgraded)"
        ]
    );
    let asked = |rig: &Rig| rig.effects.iter().filter(|it| matches!(it, Effect::RollBack(_))).count();
    assert_eq!(asked(&rig), 1);
    turn(&mut rig, &fails);
    assert_eq!(asked(&rig), 2, "until it is done");
    let back = rig.effects.iter().find_map(|effect| match effect {
        Effect::RollBack(back) => Some(back.clone()),
        _ => None,
    });
    let back = back.expect("asked for");
    assert_eq!(back.set.tick_ms, 2_000, "only what instances are made of goes back");
    assert_eq!(back.set.instance.memory_bytes, 512 << 20);
    let update = Update { set: back.set, image: back.image, policies: vec![None], rolls_back: true };
    let update = Command::Update(Box::new(update));
    assert_eq!(rig.command(update.clone()), Ok(Done::Applied(Vec::new())));
    assert_eq!(status(&rig), UpgradeStatus::RollingBack);
    assert!(matches!(rig.refused(update), CommandError::Conflict(_)), "once");
    turns(&mut rig, |rig| status(rig) == UpgradeStatus::RolledBack);
    assert_eq!(rig.machine.outdated(), [], "those of generation 1 are what they shall be");
    assert_eq!(of_generation(&rig, 1), 5);
}

#[test]
fn new_instances_that_turn_unhealthy_while_they_bake_are_noticed() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    rig.command(model(
        "upgrade: { mode: rolling, rollback: false, checkpoints: [{ percent: 5, bake: 1h }] }",
    ))
    .expect("applied");
    turns(&mut rig, |rig| of_generation(rig, 2) == 1 && in_service(rig) == 5);
    rig.probed(6, InstanceEvent::BecameUnhealthy, None);
    rig.tick();
    assert_eq!(status(&rig), UpgradeStatus::Paused);
    rig.command(Command::Upgrade(UpgradeAction::RollBack)).expect("asked for");
    rig.tick();
    let give_up = UpgradeAction::GiveUp { why: "the image is gone".into() };
    rig.command(Command::Upgrade(give_up)).expect("given up");
    assert_eq!(status(&rig), UpgradeStatus::Failed);
    assert_eq!(
        rig.store.told(EventKind::UpgradeFailed),
        ["upgrade to generation 2 cannot be rolled back: the image is gone"]
    );
}

#[test]
fn an_upgrade_survives_the_daemon_and_another_manifest() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    rig.command(model("upgrade: { mode: rolling }")).expect("applied");
    turns(&mut rig, |rig| of_generation(rig, 2) == 2 && in_service(rig) == 5);
    let before = rig.machine.state().upgrade.clone();
    rig.restart_after(60_000, |record| match record.phase {
        Phase::Draining => Found::Nothing,
        _ => Found::Running(Running::default()),
    });
    assert_eq!(rig.machine.state().upgrade, before);
    // What is not of the model changes nothing about it.
    rig.command(model("tick: 2s\nupgrade: { mode: rolling }")).expect("applied");
    let upgrade = rig.machine.state().upgrade.clone().expect("it goes on");
    assert_eq!((upgrade.to, upgrade.total, upgrade.status), (3, 5, UpgradeStatus::Rolling));
    // Another model begins anew, and would still go back to the first.
    let other = manifest(&format!("{SET}\ninstance: {{ memory: 96MiB }}\nupgrade: {{ mode: rolling }}"));
    rig.command(update(other)).expect("applied");
    let upgrade = rig.machine.state().upgrade.clone().expect("it goes on");
    assert_eq!((upgrade.from, upgrade.to, upgrade.total), (1, 4, 5));
    turns(&mut rig, |rig| status(rig) == UpgradeStatus::Completed);
    assert_eq!(of_generation(&rig, 4), 5);
}

#[test]
fn another_image_in_the_same_place_is_another_model() {
    let mut rig = Rig::serving(SET);
    rig.wish = 5;
    let image = ImageDigests { kernel: Some("new".into()), ..ImageDigests::default() };
    let set = manifest(&format!("{SET}\nupgrade: {{ mode: all-at-once }}"));
    let update = Update { set, image, policies: vec![None], rolls_back: false };
    rig.command(Command::Update(Box::new(update))).expect("applied");
    assert_eq!(&*rig.machine.outdated()[0].1, ["image.kernel"]);
    let none = BTreeSet::new();
    (0..4).for_each(|_| turn(&mut rig, &none));
    assert_eq!((status(&rig), of_generation(&rig, 2)), (UpgradeStatus::Completed, 5));
}
