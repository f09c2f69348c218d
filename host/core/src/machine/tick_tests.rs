//! Ticks from end to end: what is planned, stored, and told to nodes.

use std::sync::Arc;

use super::testing::{Refusal, Rig, manifest, update};
use super::*;
use crate::agent::{Found, Order, Report, Running, StopOrder};
use crate::event::EventKind;
use crate::phase::{InstanceEvent, Phase};
use crate::plan::Action;
use crate::protection::Protection;

const LB: &str = "load_balancer: { listen: \"127.0.0.1:8000\", drain_timeout: 30s }";

fn traffic(open: &[(u32, u32)]) -> Option<TrafficReading> {
    Some(TrafficReading { open: open.iter().copied().collect(), ..TrafficReading::default() })
}

fn stop(grace_ms: u64, failure: Option<&str>) -> StopOrder {
    StopOrder { grace_ms, failure: failure.map(ToOwned::to_owned) }
}

#[test]
fn a_new_set_creates_serves_and_publishes_endpoints() {
    let mut rig = Rig::new(LB);
    rig.tick();
    let [one, two] = rig.wants().try_into().expect("two are wanted");
    assert_eq!((one.id, one.generation, one.uid.as_str()), (1, 1, "0000000000000007-1"));
    let Order::Run { phase, manifest, .. } = two.order else { panic!("it shall run") };
    assert_eq!((phase, &manifest), (Phase::Pending, rig.machine.manifest()));
    assert_eq!(rig.store.state().next_instance_id, 3);
    assert_eq!(rig.machine.endpoints().count(), 0);
    rig.serve(1);
    rig.launch(2);
    let endpoints: Vec<_> = rig.machine.endpoints().map(|it| (it.id, it.addr.to_string())).collect();
    assert_eq!(endpoints, [(1, "127.40.0.1:8080".to_owned())]);
    assert_eq!(rig.machine.launches_max(), 8);
}

#[test]
fn wants_are_told_once() {
    let mut rig = Rig::serving("");
    rig.tick();
    rig.tick();
    assert!(rig.wants().is_empty());
    rig.report(1, Report::Exited { why: "killed".into() });
    rig.tick();
    assert_eq!(rig.stops(), [(1, stop(0, Some("killed")))]);
    rig.tick();
    assert_eq!(rig.stops(), []);
}

#[test]
fn a_drain_ends_when_no_connection_is_left() {
    let mut rig = Rig::serving(LB);
    rig.facts.traffic = traffic(&[(1, 3), (2, 5)]);
    rig.wish = 1;
    rig.tick();
    assert_eq!(rig.record(2).phase, Phase::Draining, "the newest goes");
    assert_eq!(rig.machine.endpoints().map(|it| it.id).collect::<Vec<_>>(), [1]);
    rig.tick_after(20_000);
    assert!(rig.wants().is_empty());
    let changes: Vec<_> =
        rig.store.last_record().changes.iter().map(|change| (change.id, change.event)).collect();
    assert_eq!(changes, [(2, InstanceEvent::DrainRequested)], "the next record tells what came of the plan");
    rig.facts.traffic = traffic(&[(1, 3)]);
    rig.tick();
    assert_eq!(rig.stops(), [(2, stop(7_000, None))], "it is asked to shut down");
    rig.report(2, Report::Cleaned { note: None });
    rig.effects.clear();
    rig.tick();
    assert!(rig.effects.iter().any(|effect| matches!(effect, Effect::Forget { id: 2 })));
    assert_eq!(rig.store.instances.keys().collect::<Vec<_>>(), [&1]);
    assert!(rig.store.told(EventKind::DrainTimeout).is_empty());
}

#[test]
fn a_drain_ends_after_its_time_and_only_lived_time_counts() {
    let mut rig = Rig::serving(LB);
    rig.facts.traffic = traffic(&[(1, 3), (2, 5)]);
    rig.wish = 1;
    rig.tick();
    rig.now.wall_ms += 86_400_000;
    rig.tick_after(28_000);
    rig.restart_after(86_400_000, |_| Found::Running(Running::default()));
    rig.tick();
    assert_eq!(rig.record(2).phase, Phase::Draining);
    assert_eq!(rig.stops(), []);
    rig.tick();
    assert_eq!(rig.stops(), [(2, stop(7_000, None))]);
    assert_eq!(rig.store.told(EventKind::DrainTimeout).len(), 1);
}

#[test]
fn without_a_load_balancer_nothing_is_waited_for() {
    let mut rig = Rig::serving(LB);
    rig.facts.traffic = traffic(&[(2, 5)]);
    rig.wish = 1;
    rig.tick();
    // Its listener goes with the manifest, and every connection with the listener.
    rig.command(update(manifest(""))).expect("applied");
    rig.facts.traffic = None;
    rig.effects.clear();
    rig.tick();
    assert_eq!(rig.stops(), [(2, stop(7_000, None))]);
    assert!(rig.store.told(EventKind::DrainTimeout).is_empty());
}

#[test]
fn the_grace_depends_on_the_cause() {
    let mut rig = Rig::serving("capacity: { min: 0, max: 10, initial: 5 }\nrepair: { grace: 10s }");
    rig.report(1, Report::Exited { why: "killed".into() });
    rig.report(2, Report::GuestPanicked);
    rig.probed(3, InstanceEvent::BecameUnhealthy, Some("503"));
    rig.tick();
    assert_eq!(rig.stops(), [(1, stop(0, Some("killed"))), (2, stop(0, Some("the guest panicked")))]);
    for id in [6, 7] {
        rig.serve(id);
    }
    rig.tick_after(10_000);
    assert_eq!(
        rig.stops(),
        [(3, stop(0, Some("unhealthy: 503")))],
        "one that is unhealthy would not hear it"
    );
    // What still boots goes at once when it is too many; what serves is drained first.
    rig.wish = 1;
    rig.tick();
    let stops = rig.stops();
    assert!(stops.contains(&(8, stop(0, None))), "{stops:?}");
    rig.tick();
    assert!(rig.stops().iter().all(|(_, order)| order.grace_ms == 7_000));
}

#[test]
fn a_vmm_that_ends_while_it_drains_is_removed_without_a_plan() {
    let mut rig = Rig::serving(LB);
    rig.facts.traffic = traffic(&[(2, 5)]);
    rig.wish = 1;
    rig.tick();
    rig.report(2, Report::Exited { why: "powered off".into() });
    assert_eq!(rig.record(2).phase, Phase::Terminating);
    rig.refusals.push_back(Refusal::Failed);
    rig.tick();
    assert_eq!(rig.stops(), [], "not before it is stored");
    rig.tick();
    assert_eq!(rig.stops(), [(2, stop(0, Some("powered off")))]);
    assert!(rig.store.last_record().plan.actions.is_empty());
}

#[test]
fn what_cannot_be_removed_says_why() {
    let mut rig = Rig::serving("");
    rig.wish = 1;
    rig.tick();
    rig.tick();
    rig.report(2, Report::Stuck { why: "device busy".into() });
    rig.tick();
    let record = &rig.store.instances[&2];
    assert_eq!((record.phase, record.detail.as_deref()), (Phase::Terminating, Some("device busy")));
}

#[test]
fn a_refused_instance_goes_and_another_is_tried() {
    let mut rig = Rig::new("capacity: { min: 1, max: 10 }");
    rig.tick();
    rig.report(1, Report::Refused { why: "no memory".into() });
    rig.effects.clear();
    rig.tick();
    assert_eq!(rig.store.told(EventKind::InstanceRefused).len(), 1);
    assert_eq!(rig.phases(), [(1, Phase::Terminating), (2, Phase::Pending)]);
    rig.report(1, Report::Refused { why: "no memory".into() });
    rig.report(1, Report::Cleaned { note: None });
    rig.tick();
    assert_eq!(rig.phases(), [(2, Phase::Pending)]);
}

#[test]
fn a_tick_that_is_not_stored_never_was() {
    for refusal in [Refusal::Failed, Refusal::Conflict, Refusal::AnswerLost] {
        let mut rig = Rig::serving("");
        let before = (rig.machine.state().clone(), rig.phases());
        rig.wish = 4;
        rig.refusals.push_back(refusal);
        rig.tick();
        assert_eq!((rig.machine.state().clone(), rig.phases()), before, "{refusal:?}");
        assert!(rig.wants().is_empty());
        if refusal == Refusal::Conflict {
            assert_eq!(rig.reload.as_deref(), Some("changed meanwhile"));
            assert!(rig.machine.has_ended());
            continue;
        }
        let problem = &rig.machine.problems()[0];
        assert!(
            problem.starts_with("the store cannot be written; nothing of the set changes: "),
            "{problem}"
        );
        rig.tick();
        match refusal {
            // Its revision tells the machine that it was stored after all.
            Refusal::AnswerLost => {
                assert!(rig.reload.is_some());
                rig.begin_again(|record| match record.phase {
                    Phase::Pending => Found::Nothing,
                    _ => Found::Running(Running::default()),
                });
                rig.tick();
                assert_eq!(rig.store.state().next_instance_id, 7, "an id is not used twice");
            }
            _ => {
                assert!(rig.machine.problems().is_empty());
                assert_eq!(rig.wants().iter().map(|want| want.id).collect::<Vec<_>>(), [3, 4]);
            }
        }
    }
}

#[test]
fn what_was_seen_waits_for_a_tick_that_is_stored() {
    let mut rig = Rig::serving("");
    rig.report(1, Report::Exited { why: "killed".into() });
    rig.refusals.extend([Refusal::Failed, Refusal::Failed]);
    rig.tick();
    rig.tick();
    assert!(rig.store.told(EventKind::InstanceDied).is_empty());
    rig.tick();
    assert_eq!(rig.store.told(EventKind::InstanceDied).len(), 1);
    rig.tick();
    assert_eq!(rig.store.told(EventKind::InstanceDied).len(), 1);
}

#[test]
fn while_a_tick_is_under_way_news_wait_in_order_ticks_are_skipped_and_scrapes_are_taken() {
    let mut rig = Rig::serving("metrics: [{ name: load, series: load }]\nhealth: { http: / }");
    rig.pass(1_000);
    rig.feed(Input::Tick(Box::new(rig.facts.clone())));
    assert!(rig.machine.is_busy());
    let asked = rig.waiting.len();
    rig.feed(Input::Tick(Box::new(rig.facts.clone())));
    rig.feed(Input::Report { id: 1, report: Report::GuestRebooted });
    rig.feed(Input::Probed { id: 1, event: InstanceEvent::FirstProbeAnswered, detail: None });
    let (scale, protect) = (
        rig.send(Command::Scale { capacity: 3 }),
        rig.send(Command::Protect { id: 2, protection: Protection::ScaleIn }),
    );
    let at_mono_ms = rig.now.mono_ms;
    rig.feed(Input::Scraped(vec![Scrape { id: 2, at_mono_ms, values: vec![Ok(0.5)] }]));
    assert_eq!(rig.waiting.len(), asked, "another tick is not begun");
    assert_eq!(rig.record(1).phase, Phase::InService);
    rig.settle();
    assert!(rig.replies[&scale].is_ok() && rig.replies[&protect].is_ok());
    assert_eq!(rig.record(1).phase, Phase::Initializing);
    assert_eq!(rig.store.last_record().changes, []);
    rig.tick();
    let record = rig.store.last_record();
    let events: Vec<_> = record.changes.iter().map(|change| change.event).collect();
    assert_eq!(events, [InstanceEvent::GuestRebooted, InstanceEvent::FirstProbeAnswered]);
    let operator = ["capacity 2 → 3 (set by an operator) (ann)", "web-2 is protected from scale-in (ann)"];
    assert_eq!(record.operator, operator);
    let load = record.observation.metric("load").expect("the metric");
    assert_eq!(load.values[1].fresh(), Some(0.5));
}

#[test]
fn answers_that_nobody_waits_for_change_nothing() {
    let mut rig = Rig::serving("");
    rig.pass(1_000);
    rig.feed(Input::Tick(Box::new(rig.facts.clone())));
    rig.feed(Input::Committed(Ok(Revision(99))));
    rig.feed(Input::Committed(Err(CommitError::Conflict("old".into()))));
    rig.feed(Input::Migrated(Vec::new()));
    rig.feed(Input::Decided { tick: 1, answers: Vec::new() });
    let tick = rig.machine.state().last_tick + 1;
    rig.feed(Input::Decided { tick, answers: Vec::new() });
    rig.settle();
    assert_eq!(rig.store.state().last_tick, tick);
    rig.feed(Input::Committed(Ok(Revision(99))));
    rig.tick();
    assert_eq!(rig.store.state().last_tick, tick + 1);
}

#[test]
fn a_set_is_deleted_down_to_the_last_instance_and_snapshot() {
    let mut rig = Rig::serving("");
    rig.command(Command::Protect { id: 1, protection: Protection::ScaleIn }).expect("protected");
    rig.command(Command::Delete).expect("begun");
    assert_eq!(rig.store.told(EventKind::SetDeleting), ["web is being deleted"]);
    rig.effects.clear();
    rig.tick();
    assert!(rig.effects.iter().all(|effect| !matches!(effect, Effect::Ask { .. })), "no policy is asked");
    rig.tick();
    assert_eq!(rig.phases(), [(1, Phase::Terminating), (2, Phase::Terminating)], "protected or not");
    rig.report(1, Report::Cleaned { note: None });
    rig.tick();
    rig.tick();
    assert!(!rig.machine.has_ended(), "one is still there");
    rig.run(Input::Snapshot(SnapshotStatus::Making { failed: None }));
    rig.report(2, Report::Cleaned { note: None });
    rig.tick();
    assert!(!rig.machine.has_ended(), "the template of a snapshot is still there");
    rig.run(Input::Snapshot(SnapshotStatus::Off));
    rig.refusals.push_back(Refusal::Failed);
    rig.tick();
    assert!(!rig.machine.has_ended(), "not before it is stored");
    rig.feed(Input::Tick(Box::new(rig.facts.clone())));
    let late = rig.send(Command::Scale { capacity: 1 });
    rig.settle();
    assert!(rig.machine.has_ended() && rig.store.state.is_none());
    assert_eq!(rig.store.told(EventKind::SetDeleted), ["web was deleted"]);
    let gone = Err(CommandError::NotFound("set web was deleted".into()));
    assert_eq!(rig.replies[&late], gone, "one that waited is answered");
    assert_eq!(rig.command(Command::Delete), gone);
    rig.report(1, Report::LaunchStarted);
    assert!(matches!(rig.effects.last(), Some(Effect::Reply { .. })));
}

#[test]
fn while_it_is_deleted_a_set_launches_nothing() {
    let mut rig = Rig::new("");
    rig.tick();
    rig.command(Command::Delete).expect("begun");
    rig.wish = 9;
    rig.tick();
    assert!(rig.phases().iter().all(|(_, phase)| *phase == Phase::Terminating));
    assert_eq!(rig.ids(), [1, 2]);
}

#[test]
fn commands_that_wait_are_answered_when_the_set_is_read_again() {
    let mut rig = Rig::serving("");
    rig.refusals.push_back(Refusal::Conflict);
    rig.pass(1_000);
    rig.feed(Input::Tick(Box::new(rig.facts.clone())));
    let token = rig.send(Command::Scale { capacity: 1 });
    rig.settle();
    assert_eq!(rig.reload.as_deref(), Some("changed meanwhile"));
    assert_eq!(rig.replies[&token], Err(CommandError::Store("changed meanwhile".into())));
    assert_eq!(rig.unanswered(), 0);
}

#[test]
fn a_load_balancer_that_cannot_listen_is_tried_at_each_tick() {
    let mut rig = Rig::new(LB);
    rig.listened = Err("address in use".into());
    rig.restart_after(1_000, |_| Found::Nothing);
    let listens = |rig: &mut Rig| {
        rig.effects.clear();
        rig.tick();
        rig.effects.iter().filter(|effect| matches!(effect, Effect::Listen(Some(_)))).count()
    };
    assert_eq!(listens(&mut rig), 1);
    let problem = "the load balancer cannot listen; it tries again: address in use";
    assert_eq!(rig.machine.problems()[0], problem);
    rig.listened = Ok(());
    assert_eq!((listens(&mut rig), listens(&mut rig)), (1, 0));
    assert!(rig.machine.problems().is_empty());
}

#[test]
fn an_old_instance_keeps_what_it_was_made_from() {
    let mut rig = Rig::serving(LB);
    let old = Arc::clone(rig.machine.manifest());
    let next =
        "network: { mode: loopback, pool: 127.41.0.0/24, port: 9090 }\ninstance: { shutdown_timeout: 1s }";
    rig.command(update(manifest(&format!("{LB}\n{next}")))).expect("applied");
    let wants = rig.wants();
    assert!(wants.iter().all(|want| matches!(&want.order, Order::Run { manifest, .. } if *manifest == old)));
    assert_eq!(wants.len(), 2, "both are watched by the manifest in force");
    rig.wish = 3;
    rig.tick();
    rig.serve(3);
    let ports: Vec<_> = rig.machine.endpoints().map(|it| it.addr.port()).collect();
    assert_eq!(ports, [8080, 8080, 9090]);
    assert_eq!(rig.store.state().manifests.keys().collect::<Vec<_>>(), [&1, &2]);
    rig.tick();
    rig.restart_after(1_000, |_| Found::Running(Running::default()));
    let ports: Vec<_> = rig.machine.endpoints().map(|it| it.addr.port()).collect();
    assert_eq!(ports, [8080, 8080, 9090], "after a restart, too");
    // Outdated ones go first; the last of them takes its manifest along.
    rig.wish = 1;
    rig.tick();
    rig.tick();
    assert_eq!(rig.stops(), [(1, stop(7_000, None)), (2, stop(7_000, None))]);
    rig.report(1, Report::Cleaned { note: None });
    rig.report(2, Report::Cleaned { note: None });
    rig.tick();
    assert_eq!(rig.store.state().manifests.keys().collect::<Vec<_>>(), [&2]);
}

#[test]
fn one_that_is_being_made_is_watched_by_the_manifest_in_force() {
    let mut rig = Rig::new("health: { http: /old }");
    rig.tick();
    rig.report(1, Report::LaunchStarted);
    rig.effects.clear();
    rig.command(update(manifest("health: { http: /new }"))).expect("applied");
    let health = manifest("health: { http: /new }").health;
    let new =
        |want: &crate::agent::Want| matches!(&want.order, Order::Run { watch, .. } if watch.health == health);
    let wants = rig.wants();
    assert_eq!(wants.iter().filter(|want| new(want)).count(), 2, "{wants:?}");
}

#[test]
fn the_plan_rests_on_what_its_record_says() {
    let mut rig = Rig::serving("");
    rig.facts.nodes[0].launches = 1;
    rig.facts.nodes[0].why = Some("no memory".into());
    rig.wish = 5;
    rig.tick();
    let record = rig.store.last_record();
    assert_eq!(record.facts.nodes, rig.facts.nodes);
    assert_eq!(record.facts.phase, [Phase::InService, Phase::InService]);
    let created = record.plan.actions.iter().filter(|action| matches!(action, Action::Create { .. })).count();
    assert_eq!(created, 1);
    assert_eq!(record.facts.next_id, 3);
    assert_eq!(rig.store.told(EventKind::HostFull), ["2 instances short: no memory"]);
}

#[test]
fn a_guest_that_left_events_is_not_read_twice() {
    let mut rig = Rig::serving("");
    rig.report(1, Report::EventsRead { bytes: 77 });
    rig.tick();
    assert_eq!(rig.store.instances[&1].events_read_bytes, 77);
}

#[test]
fn reports_of_what_is_not_there_change_nothing() {
    let mut rig = Rig::serving("");
    let before = rig.phases();
    for report in [Report::LaunchStarted, Report::Booted(Running::default()), Report::Cleaned { note: None }]
    {
        rig.report(99, report);
    }
    rig.report(1, Report::LaunchFailed { why: "late".into() });
    rig.report(1, Report::Cleaned { note: None });
    assert_eq!(rig.phases(), before);
}
