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
    let why = "capacity 9 is outside the set's limits, 5 to 8; change them in the manifest first";
    assert_eq!(rig.refused(hold(Some(9), None)), CommandError::Conflict(why.into()));
}
