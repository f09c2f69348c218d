//! Whatever happens in whatever order: the bench holds every effect to what is always true, see [`super::testing`].

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::prelude::*;

use super::testing::{Refusal, Rig, manifest, policy, update};
use super::*;
use crate::agent::{Found, Report, Running};
use crate::phase::{InstanceEvent, Phase};
use crate::protection::Protection;
use crate::requested::Requested;
use crate::set_process::SetProcess;

const IDS: std::ops::Range<u32> = 1..8;

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    WallJumps(i64),
    Tick,
    Report(u32, Report),
    Probed(u32, InstanceEvent),
    Command(Command),
    /// One effect that waits is answered.
    Answer,
    ShadowAnswers,
    Refuse(Refusal),
    Wish(u32),
    PolicyFails(u64, bool),
    Listen(bool),
    Open(u32, u32),
    Snapshot(SnapshotStatus),
    /// Late or repeated answers.
    Stray(u8),
    Restart,
}

fn report() -> impl Strategy<Value = Report> {
    let text = || "why".to_owned();
    prop_oneof![
        1 => (1..9_u8).prop_map(|last| Report::Admitted { address: Ipv4Addr::new(127, 40, 0, last) }),
        1 => Just(Report::Refused { why: text() }),
        3 => Just(Report::LaunchStarted),
        3 => Just(Report::Booted(Running::default())),
        1 => Just(Report::LaunchFailed { why: text() }),
        1 => Just(Report::Exited { why: text() }),
        1 => Just(Report::GuestPanicked),
        1 => Just(Report::GuestRebooted),
        1 => Just(Report::EventsRead { bytes: 9 }),
        1 => Just(Report::Stuck { why: text() }),
        4 => Just(Report::Cleaned { note: None }),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let slot =
        || prop_oneof![3 => Just(None), 1 => Just(Some("step".to_owned())), 1 => Just(Some("x".to_owned()))];
    let new = || {
        (prop_oneof![Just("step"), Just("other")], 1..3_u32).prop_map(|(name, v)| Box::new(policy(name, v)))
    };
    let manifests = prop_oneof![
        Just("capacity: { min: 1, max: 4 }"),
        Just("load_balancer: { listen: \"127.0.0.1:8000\", drain_timeout: 2s }"),
        Just("image: { kernel: k, disk: d }\nnetwork: { mode: none }\ninstance: { start: snapshot }"),
        Just("instance: { boot_timeout: 1s }"),
    ];
    prop_oneof![
        manifests.prop_map(|more| update(manifest(more))),
        (0..6_u32).prop_map(|capacity| Command::Scale { capacity }),
        (IDS, prop::sample::select(&Protection::ALL[..]))
            .prop_map(|(id, protection)| Command::Protect { id, protection }),
        (IDS, 0..4_u8).prop_map(|(id, action)| {
            let action = match action {
                0 => InstanceAction::Replace,
                1 => InstanceAction::Restart,
                other => InstanceAction::Delete { shrink: other == 2 },
            };
            Command::Instance { id, action }
        }),
        prop::sample::subsequence(&SetProcess::ALL[..], 0..3).prop_map(|some| {
            let suspend = some.into_iter().collect();
            Command::Processes { suspend, resume: [SetProcess::Launch].into() }
        }),
        (slot(), new()).prop_map(|(slot, policy)| Command::Swap { slot, policy }),
        (slot(), proptest::option::of(1..6_u64)).prop_map(|(slot, to)| Command::Rollback { slot, to }),
        (slot(), new()).prop_map(|(slot, policy)| Command::Shadow { slot, policy }),
        (slot(), new(), 0..3_u32).prop_map(|(slot, policy, within)| Command::Canary { slot, policy, within }),
        proptest::option::of(1..6_u64).prop_map(|number| Command::Promote { number }),
        (1..6_u64).prop_map(|number| Command::Drop { number }),
        Just(Command::Delete),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let events = [
        InstanceEvent::FirstProbeAnswered,
        InstanceEvent::BecameHealthy,
        InstanceEvent::BecameHealthy,
        InstanceEvent::BecameUnhealthy,
    ];
    let snapshots = [
        SnapshotStatus::Off,
        SnapshotStatus::Making { failed: None },
        SnapshotStatus::Making { failed: Some("why".to_owned()) },
        SnapshotStatus::Ready { disk_bytes: 9 },
        SnapshotStatus::Failed { why: "why".to_owned() },
    ];
    prop_oneof![
        3 => (0..40_000_u64).prop_map(Step::Pass),
        1 => (-90_000_000..90_000_000_i64).prop_map(Step::WallJumps),
        8 => Just(Step::Tick),
        12 => (IDS, report()).prop_map(|(id, report)| Step::Report(id, report)),
        6 => (IDS, proptest::sample::select(events.to_vec())).prop_map(|(id, event)| Step::Probed(id, event)),
        4 => command().prop_map(Step::Command),
        24 => Just(Step::Answer),
        1 => Just(Step::ShadowAnswers),
        1 => proptest::sample::select(vec![Refusal::Failed, Refusal::Conflict, Refusal::AnswerLost]).prop_map(Step::Refuse),
        2 => (0..6_u32).prop_map(Step::Wish),
        1 => (1..6_u64, any::<bool>()).prop_map(|(number, fails)| Step::PolicyFails(number, fails)),
        1 => any::<bool>().prop_map(Step::Listen),
        2 => (IDS, 0..3_u32).prop_map(|(id, open)| Step::Open(id, open)),
        1 => proptest::sample::select(snapshots.to_vec()).prop_map(Step::Snapshot),
        1 => (0..3_u8).prop_map(Step::Stray),
        1 => Just(Step::Restart),
    ]
}

/// What an agent finds, somehow depending on the instance.
fn found(record: &InstanceRecord) -> Found {
    match (record.phase, record.id % 4) {
        (_, 0) => Found::Nothing,
        (_, 1) => Found::HalfMade,
        (_, 2) => Found::Unreachable(Running::default()),
        _ => Found::Running(Running::default()),
    }
}

fn take(rig: &mut Rig, step: Step) {
    match step {
        Step::Pass(ms) => rig.pass(ms),
        Step::WallJumps(by_ms) => rig.now.wall_ms = rig.now.wall_ms.saturating_add_signed(by_ms),
        Step::Tick => {
            rig.pass(1_000);
            rig.feed(Input::Tick(Box::new(rig.facts.clone())));
        }
        Step::Report(id, report) => rig.feed(Input::Report { id, report }),
        Step::Probed(id, event) => rig.feed(Input::Probed { id, event, detail: None }),
        Step::Command(command) => {
            rig.send(command);
        }
        Step::Answer => {
            rig.answer();
        }
        Step::ShadowAnswers => {
            while let Some((tick, ask)) = rig.shadows.pop_front() {
                let answer = Box::new(rig.decide(&ask));
                rig.feed(Input::Shadow { tick, answer });
            }
        }
        Step::Refuse(refusal) => rig.refusals.push_back(refusal),
        Step::Wish(wish) => rig.wish = wish,
        Step::PolicyFails(number, true) => drop(rig.wishes.insert(number, Err("trapped".to_owned()))),
        Step::PolicyFails(number, false) => drop(rig.wishes.remove(&number)),
        Step::Listen(works) => rig.listened = if works { Ok(()) } else { Err("address in use".to_owned()) },
        Step::Open(id, open) => {
            rig.facts.traffic.get_or_insert_default().open.insert(id, open);
        }
        Step::Snapshot(status) => rig.feed(Input::Snapshot(status)),
        Step::Stray(0) => rig.feed(Input::Decided { tick: 1, answers: Vec::new() }),
        Step::Stray(1) => rig.feed(Input::InventoryComplete),
        Step::Stray(_) => {
            if !rig.waiting.iter().any(|effect| matches!(effect, Effect::Commit(_))) {
                rig.feed(Input::Committed(Ok(Revision(1_000_000))));
            }
        }
        Step::Restart => rig.restart_after(1_000, found),
    }
    if rig.reload.is_some() {
        assert!(rig.machine.has_ended());
        if rig.store.state.is_some() {
            rig.begin_again(found);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn nothing_that_happens_breaks_a_machine(steps in vec(step(), 1..120)) {
        let mut rig = Rig::new("");
        for step in steps {
            take(&mut rig, step);
            if rig.store.state.is_none() {
                break;
            }
        }
        // What waits is answered in the end.
        rig.refusals.clear();
        rig.settle();
        prop_assert_eq!(rig.unanswered(), 0);
        prop_assert!(!rig.machine.is_busy() || rig.machine.has_ended());
    }

    /// When nothing fails any more, a set comes to be as it is wanted.
    #[test]
    fn a_set_settles_on_what_is_wanted(steps in vec(step(), 1..80), wish in 0..5_u32) {
        let mut rig = Rig::new("");
        for step in steps {
            take(&mut rig, step);
            if rig.store.state.is_none() {
                return Ok(());
            }
        }
        rig.refusals.clear();
        rig.wishes.clear();
        rig.listened = Ok(());
        rig.facts.traffic = None;
        rig.settle();
        // An answer may have been lost: then the first batch tells.
        rig.tick();
        if rig.reload.is_some() {
            rig.begin_again(found);
        }
        if rig.machine.has_ended() {
            return Ok(());
        }
        rig.run(Input::Snapshot(SnapshotStatus::Ready { disk_bytes: 9 }));
        rig.wish = wish;
        for id in IDS.start..IDS.end {
            rig.command(Command::Protect { id, protection: Protection::None }).ok();
        }
        rig.command(Command::Processes { suspend: [].into(), resume: SetProcess::ALL.into() }).ok();
        let deleting = rig.machine.state().deleting;
        let limits = rig.machine.state().set.capacity;
        let capacity = wish.clamp(limits.min, limits.max) as usize;
        let settled = |rig: &Rig| match deleting {
            true => rig.machine.has_ended(),
            false => {
                let phases = rig.phases();
                phases.len() == capacity && phases.iter().all(|(_, phase)| *phase == Phase::InService)
            }
        };
        for _ in 0..60 {
            if settled(&rig) {
                break;
            }
            // Nodes do what they were told, and only that.
            for (id, phase) in rig.phases() {
                match (phase, rig.shall_run.get(&id)) {
                    (Phase::Terminating, Some(false)) => rig.report(id, Report::Cleaned { note: None }),
                    (_, Some(true)) if rig.record(id).requested == Some(Requested::Restarting) => {
                        rig.report(id, Report::GuestRebooted);
                    }
                    (Phase::Pending, Some(true)) => rig.serve(id),
                    (Phase::Creating, Some(true)) => rig.report(id, Report::Booted(Running::default())),
                    (Phase::Booting | Phase::Initializing | Phase::Unhealthy, _) => {
                        rig.probed(id, InstanceEvent::BecameHealthy, None);
                    }
                    _ => {}
                }
            }
            rig.run(Input::Snapshot(SnapshotStatus::Ready { disk_bytes: 9 }));
            rig.tick_after(5_000);
        }
        prop_assert!(settled(&rig), "{:?}, wanted {}, deleting: {}", rig.phases(), capacity, deleting);
    }
}
