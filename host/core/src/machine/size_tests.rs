//! Who decides the size: policies, and what operators say for a while.

use super::testing::{Rig, manifest, update};
use super::{Command, CommandError, Done};
use crate::agent::{Found, Running};
use crate::event::EventKind;
use crate::guard::GuardName;
use crate::phase::{InstanceEvent, Phase};

fn hold(capacity: Option<u32>, for_ms: Option<u64>) -> Command {
    Command::Hold { capacity, for_ms, reason: "load test".to_owned() }
}

fn desired(rig: &Rig) -> u32 {
    rig.store.state().desired
}

#[test]
fn a_hold_keeps_the_size_and_records_what_policies_want() {
    let mut rig = Rig::serving("");
    rig.command(hold(Some(4), None)).expect("held");
    for wish in [9, 0, 4] {
        rig.wish = wish;
        rig.tick();
        assert_eq!(desired(&rig), 4);
        let record = rig.store.last_record();
        assert_eq!(record.combined.capacity, Some(wish), "they are asked all the same");
        let narrowed = record.guards.steps.first().map(|step| step.guard);
        assert_eq!(narrowed, (wish != 4).then_some(GuardName::Hold));
    }
    let told = "the size is held by ann: load test; `regatta resume web` leaves it to the policies again";
    assert!(rig.machine.problems().contains(&told.to_owned()), "{:?}", rig.machine.problems());
    rig.wish = 6;
    rig.command(Command::Scale { capacity: 3 }).expect("done");
    rig.tick();
    assert_eq!(desired(&rig), 3, "the held size moves");
    assert_eq!(rig.command(Command::Resume), Ok(Done::Ok));
    assert!(rig.machine.problems().iter().all(|problem| !problem.contains("held")));
    rig.tick();
    assert_eq!(desired(&rig), 6);
    let revision = rig.store.revision;
    assert_eq!(rig.command(Command::Resume), Ok(Done::Ok), "nothing is held");
    assert_eq!(rig.store.revision, revision);
    assert_eq!(
        rig.store.told(EventKind::SizeHeld),
        ["capacity 2 → 4 is held until `regatta resume web` (by ann: load test)"]
    );
    assert_eq!(
        rig.store.told(EventKind::SizeResumed),
        ["capacity 3 is no longer held: policies decide again"]
    );
}

#[test]
fn a_hold_ends_by_itself_on_the_clock_of_the_set() {
    let mut rig = Rig::serving("");
    rig.command(hold(None, Some(60_000))).expect("held");
    rig.wish = 5;
    rig.now.wall_ms += 3_600_000;
    rig.tick_after(30_000);
    assert_eq!(desired(&rig), 2, "a wall clock that jumps ends nothing");
    rig.restart_after(3_600_000, |_| Found::Running(Running::default()));
    rig.tick();
    assert_eq!(desired(&rig), 2, "nor does a daemon that was away");
    rig.tick_after(28_999);
    assert_eq!((desired(&rig), rig.store.told(EventKind::SizeResumed).len()), (2, 0));
    rig.tick_after(1);
    assert_eq!(desired(&rig), 5);
    assert!(rig.store.state().sizing.is_empty());
    assert_eq!(
        rig.store.told(EventKind::SizeResumed),
        ["capacity 2 is no longer held: its time is over, policies decide again"]
    );
}

#[test]
fn instances_are_replaced_under_a_hold_and_limits_bind() {
    let mut rig = Rig::serving("repair: { grace: 0s, max_unhealthy: 100, hold_after_apply: 0s }");
    rig.command(hold(None, None)).expect("held");
    rig.wish = 2;
    rig.probed(1, InstanceEvent::BecameUnhealthy, None);
    rig.tick();
    assert_eq!(rig.record(1).phase, Phase::Terminating);
    rig.tick();
    assert_eq!(rig.ids(), [1, 2, 3]);
    rig.command(update(manifest("capacity: { min: 5, max: 8 }"))).expect("applied");
    rig.tick();
    assert_eq!(desired(&rig), 5);
    let why = "capacity 9 is outside the set's limits, 5 to 8; change them in the manifest, or for a while with `regatta limits web`";
    assert_eq!(rig.refused(hold(Some(9), None)), CommandError::Conflict(why.into()));
}

fn limits(min: Option<u32>, max: Option<u32>, for_ms: Option<u64>) -> Command {
    Command::Limits { min, max, for_ms, reason: String::new() }
}

#[test]
fn other_limits_bind_for_a_while_and_then_no_longer() {
    let mut rig = Rig::serving("");
    rig.command(limits(Some(4), None, Some(60_000))).expect("done");
    rig.tick_after(30_000);
    assert_eq!((desired(&rig), rig.store.last_record().observation.min), (4, 4));
    rig.restart_after(3_600_000, |_| Found::Running(Running::default()));
    rig.tick_after(29_999);
    assert_eq!(desired(&rig), 4);
    rig.tick_after(1);
    assert_eq!((desired(&rig), rig.store.last_record().observation.min), (2, 0));
    assert_eq!(
        rig.store.told(EventKind::LimitsRestored),
        ["the override of the limits is over: they are 0 to 10"]
    );
    rig.command(limits(None, Some(12), None)).expect("above the manifest's");
    assert_eq!(rig.command(Command::Scale { capacity: 12 }), Ok(Done::Ok));
    rig.command(Command::ClearLimits).expect("done");
    rig.tick();
    assert_eq!(desired(&rig), 2);
}

#[test]
fn limits_that_are_not_possible_are_refused_with_all_that_is_wrong() {
    let mut rig = Rig::serving("capacity: { min: 3, max: 10 }");
    let why = |rig: &mut Rig, min, max| match rig.refused(limits(min, max, None)) {
        CommandError::Conflict(why) => why,
        other => panic!("{other:?}"),
    };
    assert_eq!(why(&mut rig, None, None), "these limits are not possible: neither a min nor a max is given");
    assert_eq!(
        why(&mut rig, None, Some(0)),
        "these limits are not possible: max must be at least 1; min would be 3 and max 0: give both"
    );
    assert_eq!(
        why(&mut rig, Some(20_000), Some(300)),
        "these limits are not possible: 20000 is more than 10000, the most that a set may have; the set's network has \
         addresses for 254 instances, max would be 300; min would be 20000 and max 300: give both"
    );
    // Another manifest may contradict what was possible.
    rig.command(limits(None, Some(4), None)).expect("done");
    rig.command(update(manifest("capacity: { min: 6, max: 8 }"))).expect("applied");
    rig.tick();
    assert_eq!(desired(&rig), 4);
    assert!(
        rig.machine.problems().contains(&"min 6 (manifest) is above max 4 (override): max wins".to_owned())
    );
}

#[test]
fn a_frozen_set_removes_nothing_that_serves() {
    let mut rig = Rig::serving("repair: { grace: 0s, max_unhealthy: 100, hold_after_apply: 0s }");
    let freeze = Command::Freeze { for_ms: Some(60_000), reason: "change freeze".to_owned() };
    rig.command(freeze).expect("frozen");
    rig.wish = 0;
    rig.probed(1, InstanceEvent::BecameUnhealthy, None);
    rig.tick();
    assert_eq!(rig.phases(), [(1, Phase::Unhealthy), (2, Phase::InService)]);
    let record = rig.store.last_record();
    assert_eq!((record.guards.granted, record.guards.steps[0].guard), (2, GuardName::Freeze));
    assert!(matches!(rig.refused(Command::Scale { capacity: 1 }), CommandError::Conflict(_)));
    rig.command(update(manifest("capacity: { min: 1, max: 1 }"))).expect("applied");
    rig.tick();
    assert_eq!((desired(&rig), rig.ids().len()), (2, 2), "not even for the limits");
    // What is broken is cleaned up and replaced, and more may be made.
    rig.report(1, crate::agent::Report::Exited { why: "killed".to_owned() });
    rig.tick();
    rig.tick();
    assert_eq!(rig.ids(), [1, 2, 3]);
    rig.tick_after(60_000);
    assert_eq!(desired(&rig), 1);
    assert_eq!(rig.store.told(EventKind::Thawed), ["the freeze is over: instances may be removed again"]);
}

/// A set with an hour of every day from the rig's first tick on, 22:13:20 UTC.
fn scheduled(entry: &str) -> Rig {
    Rig::serving(&format!("schedules: [{{ name: night, cron: \"15 22 * * *\", duration: 1h, {entry} }}]"))
}

#[test]
fn what_covers_now_counts_whatever_happened_meanwhile() {
    let mut rig = scheduled("min: 5");
    rig.wish = 1;
    rig.tick();
    assert_eq!((desired(&rig), rig.store.last_record().observation.min), (1, 0));
    rig.tick_after(120_000);
    let observation = &rig.store.last_record().observation;
    assert_eq!((observation.min, observation.schedule.as_slice()), (5, &["night".to_owned()][..]));
    assert_eq!(desired(&rig), 5);
    // A clock that is set back before its beginning, and forward over its end.
    rig.now.wall_ms -= 600_000;
    rig.tick();
    assert_eq!(desired(&rig), 1);
    rig.now.wall_ms += 600_000;
    rig.tick();
    assert_eq!(desired(&rig), 5);
    rig.restart_after(2 * 3_600_000, |_| Found::Running(Running::default()));
    rig.tick();
    assert_eq!(desired(&rig), 1, "the daemon was away over its end");
    rig.restart_after(22 * 3_600_000 + 600_000, |_| Found::Running(Running::default()));
    rig.tick();
    assert_eq!(desired(&rig), 5, "and over its beginning");
    assert_eq!(rig.store.told(EventKind::ScheduleEnded).len(), 2);
}

#[test]
fn a_capacity_counts_once_when_its_entry_begins() {
    let mut rig = scheduled("capacity: 7");
    rig.tick_after(120_000);
    let record = rig.store.last_record();
    assert_eq!((desired(&rig), record.guards.steps[0].guard), (7, GuardName::Schedule));
    rig.wish = 4;
    rig.tick();
    assert_eq!(desired(&rig), 4, "policies go on from there");
    rig.now.wall_ms -= 600_000;
    rig.tick();
    rig.now.wall_ms += 600_000;
    rig.tick();
    assert_eq!(desired(&rig), 4, "the same beginning does not count twice");
    rig.command(hold(None, None)).expect("held");
    rig.tick_after(24 * 3_600_000);
    assert_eq!(desired(&rig), 4, "a hold holds");
    rig.command(Command::Resume).expect("done");
    rig.tick();
    assert_eq!(desired(&rig), 4, "and it is not made up for");
}

#[test]
fn of_entries_that_overlap_the_largest_counts_and_an_override_beats_them() {
    let entry = |name: &str, rest: &str| {
        format!("{{ name: {name}, start: 2023-01-01T00:00, end: 2023-12-31T00:00, {rest} }}")
    };
    let entries =
        [entry("low", "min: 3, max: 5"), entry("high", "min: 4, max: 8"), entry("calm", "freeze: true")];
    let mut rig = Rig::serving(&format!("schedules: [{}]", entries.join(", ")));
    rig.tick();
    let observation = &rig.store.last_record().observation;
    assert_eq!((observation.min, observation.max), (4, 8));
    let from = rig.machine.limits();
    assert_eq!(
        (from.min_from.to_string(), from.max_from.to_string()),
        ("schedule high".into(), "schedule high".into())
    );
    rig.command(limits(Some(2), None, None)).expect("done");
    rig.wish = 0;
    rig.tick();
    assert_eq!(desired(&rig), 4, "it is frozen");
    assert_eq!(rig.store.last_record().observation.min, 2);
}
