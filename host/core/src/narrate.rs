//! What operators read in the event log, told from a record.

use crate::canary;
use crate::decision::PolicyRun;
use crate::event::{Actor, Event, EventKind, PolicyRef};
use crate::metrics::MetricGap;
use crate::phase::{InstanceEvent, Phase};
use crate::plan::{Action, PlanNote, RemovalCause};
use crate::record::{Direction, InstanceChange, TickRecord};
use crate::sizing::{InForce, Term};
use crate::upgrade::{Upgrade, UpgradeStatus};
use regatta_util::Said;

/// The events of a tick. What lasts since the tick before, `last`, is told once.
#[must_use]
pub fn events_of(record: &TickRecord, last: Option<&TickRecord>) -> Vec<Event> {
    let set = &record.observation.set;
    let event = |at_ms, kind: EventKind, instance, text: String| Event {
        at_ms,
        set: set.clone(),
        kind,
        instance,
        text: text.into(),
        actor: Actor::Daemon,
        policy: None,
    };
    let mut events: Vec<Event> = record
        .changes
        .iter()
        .filter_map(|change| {
            let (kind, text) = told(change)?;
            // The text already says what the detail would.
            let detail = change.detail.as_ref().filter(|_| change.event != InstanceEvent::GuestPanicked);
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            Some(event(change.at_ms, kind, Some(change.id), format!("{set}-{}{text}{detail}", change.id)))
        })
        .collect();
    let now = record.at_ms();
    let gaps_before = last.map_or(&[][..], |last| &last.facts.metric_gaps);
    let gaps = &record.facts.metric_gaps;
    let lacks = |gaps: &[MetricGap], metric: &str| gaps.iter().any(|gap| gap.metric == metric);
    events.extend(
        gaps.iter()
            .filter(|gap| !lacks(gaps_before, &gap.metric))
            .map(|gap| event(now, EventKind::MetricGap, None, gap.told(set))),
    );
    events.extend(gaps_before.iter().filter(|gap| !lacks(gaps, &gap.metric)).map(|gap| {
        let text = format!("metric {}: all instances have a fresh value again", gap.metric);
        event(now, EventKind::MetricBack, None, text)
    }));
    match (&record.facts.balancer_full, last.and_then(|last| last.facts.balancer_full)) {
        (Some(full), None) => events.push(event(now, EventKind::BalancerFull, None, full.told())),
        (None, Some(_)) => {
            let text = "the load balancer accepts all connections again".to_owned();
            events.push(event(now, EventKind::BalancerHasRoom, None, text));
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    for run in &record.runs {
        let before = last.and_then(|last| last.runs.iter().find(|before| before.slot == run.slot));
        let failed_before = before.filter(|before| before.result.is_err());
        let (kind, text) = match (&run.result, failed_before) {
            (Err(_), Some(before)) if before.digest == run.digest => continue,
            (Err(failure), _) => (EventKind::PolicyFailed, format!("{} {}", run.name, failure.told())),
            (Ok(_), Some(_)) => (EventKind::PolicyRecovered, format!("{} returns decisions again", run.name)),
            (Ok(_), None) => continue,
        };
        events.push(Event { policy: Some(policy_ref(run)), ..event(now, kind, None, text) });
    }
    match (&record.facts.back_off, last.and_then(|last| last.facts.back_off.as_ref())) {
        (Some(back_off), None) => {
            events.push(event(now, EventKind::LaunchesBackOff, None, back_off.told()));
        }
        (None, Some(_)) => {
            let text = "launches no longer back off".to_owned();
            events.push(event(now, EventKind::LaunchesResumed, None, text));
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    events.extend(ended(record, last).into_iter().map(|(kind, text)| event(now, kind, None, text)));
    match (repair_held(record), last.and_then(repair_held)) {
        (Some(note), None) => events.push(event(now, EventKind::RepairHeld, None, note.to_string())),
        (None, Some(_)) => {
            let text = "repair no longer waits".to_owned();
            events.push(event(now, EventKind::RepairResumed, None, text));
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    if let (Some(before), Some(after)) = (&record.facts.upgrade, &record.plan.upgrade) {
        let told = upgrade_told(&before.upgrade, after);
        events.extend(told.map(|(kind, text)| event(now, kind, None, text)));
    }
    for (run, failure) in canary::failed(&record.canaries) {
        let text = format!("canary {} {} removed: it {}", run.name, run.version, failure.told());
        let policy = Some(policy_ref(run));
        events.push(Event { policy, ..event(now, EventKind::PolicyDemoted, None, text) });
    }
    let kind = match record.direction() {
        Direction::ScaleOut => Some(EventKind::ScaleOut),
        Direction::ScaleIn => Some(EventKind::ScaleIn),
        Direction::None => None,
    };
    if let Some(kind) = kind {
        let text = format!("{} → {}: {}", record.observation.desired, record.guards.granted, record.reason());
        events.push(event(now, kind, None, text));
    }
    match (&record.plan.short, last.and_then(|last| last.plan.short.as_ref())) {
        (Some(why), before) if before.is_none_or(|before| subject(before) != subject(why)) => {
            let note = record.plan.notes.iter().find(|note| matches!(note, PlanNote::NodesFull { .. }));
            let text = note.map_or_else(|| why.clone(), ToString::to_string);
            events.push(event(now, EventKind::HostFull, None, text));
        }
        (None, Some(_)) => {
            events.push(event(now, EventKind::HostHasRoom, None, "the hosts have capacity again".into()))
        }
        _ => {}
    }
    for action in &record.plan.actions {
        if let Action::Terminate {
            id,
            cause: cause @ (RemovalCause::Unhealthy | RemovalCause::DrainTimeout),
        } = *action
        {
            let kind =
                if cause == RemovalCause::Unhealthy { EventKind::Repair } else { EventKind::DrainTimeout };
            events.push(event(now, kind, Some(id), format!("removing {set}-{id}: {}", cause.as_str())));
        }
    }
    events
}

/// What a tick made of an upgrade.
fn upgrade_told(before: &Upgrade, after: &Upgrade) -> Option<(EventKind, String)> {
    let (to, total) = (after.to, after.total);
    let why = || after.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    match after.status {
        status if status == before.status && before.target > 0 && after.target > before.target => {
            let text = format!("upgrade to generation {to}: {} of {total} instances replaced", before.target);
            Some((EventKind::UpgradeBatch, text))
        }
        status if status == before.status => None,
        UpgradeStatus::Completed => {
            let text = format!("upgrade to generation {to} completed, instances replaced: {total}");
            Some((EventKind::UpgradeCompleted, text))
        }
        UpgradeStatus::RolledBack => {
            Some((EventKind::UpgradeCompleted, format!("upgrade rolled back, instances replaced: {total}")))
        }
        UpgradeStatus::RollbackDue => {
            Some((EventKind::UpgradeRollback, format!("upgrade to generation {to} is rolled back{}", why())))
        }
        UpgradeStatus::Paused => {
            Some((EventKind::UpgradePaused, format!("upgrade to generation {to} paused{}", why())))
        }
        UpgradeStatus::Failed => {
            Some((EventKind::UpgradeFailed, format!("rollback of the upgrade failed{}", why())))
        }
        UpgradeStatus::Rolling | UpgradeStatus::RollingBack | UpgradeStatus::Canceled => None,
    }
}

/// Schedule entries that begin and end, and what operators said for a while and is over by itself; what they ended was told
/// then.
fn ended(record: &TickRecord, last: Option<&TickRecord>) -> Vec<(EventKind, String)> {
    let was = last.map_or(&[][..], |last| &last.observation.schedule);
    let is = &record.observation.schedule;
    let mut ended: Vec<(EventKind, String)> = Vec::new();
    let began = is.iter().filter(|name| !was.contains(name));
    ended.extend(began.map(|name| (EventKind::ScheduleBegan, format!("schedule {name} begins"))));
    let over = was.iter().filter(|name| !is.contains(name));
    ended.extend(over.map(|name| (EventKind::ScheduleEnded, format!("schedule {name} has ended"))));
    let Some(before) = last.map(|last| &last.facts.in_force) else { return ended };
    let (now, lived_ms) = (&record.facts.in_force, record.facts.lived_ms);
    let over = |before: Option<&Term>, now: Option<&Term>| {
        now.is_none() && before.is_some_and(|term| term.is_over(lived_ms))
    };
    if over(before.hold.as_ref(), now.hold.as_ref()) {
        let desired = record.observation.desired;
        let text = format!("capacity {desired} is no longer held: its time is over, policies decide again");
        ended.push((EventKind::SizeResumed, text));
    }
    let term = |it: &InForce| it.overridden.as_ref().map(|it| it.term.clone());
    if over(term(before).as_ref(), term(now).as_ref()) {
        let (min, max) = (record.observation.min, record.observation.max);
        let text = format!("the override of the limits is over: they are {min} to {max}");
        ended.push((EventKind::LimitsRestored, text));
    }
    if over(before.freeze.as_ref(), now.freeze.as_ref()) {
        ended.push((EventKind::Thawed, "the freeze is over: instances may be removed again".to_owned()));
    }
    ended
}

fn repair_held(record: &TickRecord) -> Option<&PlanNote> {
    let holds = |note: &&PlanNote| {
        matches!(
            note,
            PlanNote::RepairHeld { .. } | PlanNote::RepairAfterApply { .. } | PlanNote::RepairInVain { .. }
        )
    };
    record.plan.notes.iter().find(holds)
}

/// What a host is short of, without how much.
fn subject(short: &str) -> &str {
    short.split(':').next().unwrap_or(short)
}

fn policy_ref(run: &PolicyRun) -> PolicyRef {
    PolicyRef {
        activation: 0,
        params: run.params.clone(),
        slot: run.slot.clone(),
        name: run.name.clone(),
        version: run.version.clone(),
        digest: run.digest.clone(),
        source: Said::default(),
    }
}

/// What kind of event a change is, and what to say after the instance's name.
fn told(change: &InstanceChange) -> Option<(EventKind, &'static str)> {
    match (change.event, change.to) {
        (InstanceEvent::LaunchFailed, _) => Some((EventKind::LaunchFailed, " could not be launched")),
        (InstanceEvent::Refused, _) => Some((EventKind::InstanceRefused, " was refused by its node")),
        (InstanceEvent::BootTimedOut, _) => {
            Some((EventKind::BootTimedOut, " did not become healthy within its boot timeout"))
        }
        (InstanceEvent::VmmExited, Phase::Failed) => {
            Some((EventKind::InstanceDied, ": VMM exited unexpectedly"))
        }
        (InstanceEvent::GuestPanicked, _) => Some((EventKind::GuestPanicked, ": guest panicked")),
        (InstanceEvent::Restarted, _) => Some((EventKind::Restarted, " was restarted")),
        (InstanceEvent::GuestRebooted, _) => Some((EventKind::GuestRebooted, ": guest rebooted")),
        (_, Phase::InService) => Some((EventKind::InService, " is in service")),
        (_, Phase::Unhealthy) => Some((EventKind::Unhealthy, " is unhealthy")),
        (_, Phase::Gone) => Some((EventKind::InstanceGone, " was removed")),
        _ => None,
    }
}
