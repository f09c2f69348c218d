//! What operators read in the event log, told from a record.

use crate::canary;
use crate::decision::PolicyRun;
use crate::instance_state::{InstanceEvent, InstanceState};
use crate::plan::{Action, RemovalCause};
use crate::record::{Direction, InstanceChange, TickRecord};
use crate::state::{Event, PolicyRef};

/// The events of a tick. What lasts since the tick before, `last`, is told once.
#[must_use]
pub fn events_of(record: &TickRecord, last: Option<&TickRecord>) -> Vec<Event> {
    let policy_failed_before = last.is_some_and(|last| last.runs.iter().any(|run| run.result.is_err()));
    let set = &record.observation.set;
    let event = |at_ms, kind: &str, instance, text| Event {
        at_ms,
        set: set.clone(),
        kind: kind.to_owned(),
        instance,
        text,
        actor: "daemon".to_owned(),
        policy: None,
    };
    let mut events: Vec<Event> = record
        .changes
        .iter()
        .filter_map(|change| {
            let (kind, text) = told(change)?;
            // What the text says already is not said again.
            let detail = change.detail.as_ref().filter(|_| change.event != InstanceEvent::GuestPanicked);
            let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
            Some(event(change.at_ms, kind, Some(change.id), format!("{set}-{} {text}{detail}", change.id)))
        })
        .collect();
    let now = record.observation.now_ms;
    if !policy_failed_before {
        for run in &record.runs {
            if let Err(failure) = &run.result {
                let text =
                    format!("{} gave no decision ({}): {}", run.name, failure.kind.as_str(), failure.message);
                let policy = Some(policy_ref(run));
                events.push(Event { policy, ..event(now, "policy-failed", None, text) });
            }
        }
    }
    for (run, failure) in canary::failed(&record.canaries) {
        let text = format!(
            "the trial of {} {} is over, it gave no decision ({}): {}",
            run.name,
            run.version,
            failure.kind.as_str(),
            failure.message
        );
        let policy = Some(policy_ref(run));
        events.push(Event { policy, ..event(now, "policy-demoted", None, text) });
    }
    let kind = match record.direction() {
        Direction::ScaleOut => Some("scale-out"),
        Direction::ScaleIn => Some("scale-in"),
        Direction::None => None,
    };
    if let Some(kind) = kind {
        let why = record
            .guards
            .steps
            .last()
            .map(|step| format!("{}: {}", step.guard, step.reason.text))
            .or_else(|| record.combined.reasons.first().map(|reason| reason.text.clone()))
            .unwrap_or_else(|| "the policy gave no reason".to_owned());
        let text = format!("{} → {}: {why}", record.observation.desired, record.guards.granted);
        events.push(event(now, kind, None, text));
    }
    match (&record.plan.short, last.and_then(|last| last.plan.short.as_ref())) {
        (Some(why), None) => events.push(event(now, "host-full", None, why.clone())),
        (None, Some(_)) => {
            events.push(event(now, "host-has-room", None, "the host has room again".to_owned()))
        }
        (None, None) | (Some(_), Some(_)) => {}
    }
    for action in &record.plan.actions {
        if let Action::Terminate {
            id,
            cause: cause @ (RemovalCause::Unhealthy | RemovalCause::DrainTimeout),
        } = *action
        {
            let kind = if cause == RemovalCause::Unhealthy { "repair" } else { "drain-timeout" };
            events.push(event(now, kind, Some(id), format!("{set}-{id} is removed: {}", cause.as_str())));
        }
    }
    events
}

fn policy_ref(run: &PolicyRun) -> PolicyRef {
    PolicyRef {
        slot: run.slot.clone(),
        name: run.name.clone(),
        version: run.version.clone(),
        digest: run.digest.clone(),
        source: String::new(),
    }
}

fn told(change: &InstanceChange) -> Option<(&'static str, &'static str)> {
    match (change.event, change.to) {
        (InstanceEvent::LaunchFailed, _) => Some(("launch-failed", "could not be launched")),
        (InstanceEvent::BootTimedOut, _) => {
            Some(("boot-timed-out", "was not healthy within its boot time-out"))
        }
        (InstanceEvent::VmmExited, InstanceState::Failed) => {
            Some(("instance-died", "died: its VMM ended unasked"))
        }
        (InstanceEvent::GuestPanicked, _) => Some(("guest-panicked", "has panicked")),
        (InstanceEvent::GuestRebooted, _) => Some(("guest-rebooted", "reboots itself")),
        (_, InstanceState::InService) => Some(("in-service", "is in service")),
        (_, InstanceState::Unhealthy) => Some(("unhealthy", "is unhealthy")),
        (_, InstanceState::Gone) => Some(("instance-gone", "is gone")),
        _ => None,
    }
}
