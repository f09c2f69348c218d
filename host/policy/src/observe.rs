//! The observation as the contract's records.

use regatta_core::decision::Reason;
use regatta_core::instance_state::InstanceState;
use regatta_core::metric::{Aggregate, MetricValue};
use regatta_core::metrics::MetricWish;
use regatta_core::observation::{LastDecision, Observation};

use crate::bindings::regatta::policy::types;

/// The tick that a policy sees; the cost grows with the instances only where a
/// metric is folded.
pub(crate) fn tick(observation: &Observation, wishes: &[MetricWish]) -> types::Tick {
    let counts = counts(observation);
    let metrics = wishes
        .iter()
        .map(|wish| {
            let absent = Aggregate { missing: counts.in_service, ..Aggregate::of([]) };
            let fold = observation.metric(&wish.name).map_or(absent, |metric| observation.aggregate(metric));
            aggregate(&wish.name, fold)
        })
        .collect();
    types::Tick {
        now_ms: observation.now_ms,
        number: observation.tick,
        set: observation.set.clone(),
        generation: observation.generation,
        min: observation.min,
        max: observation.max,
        desired: observation.desired,
        counts,
        last: observation.last.as_ref().map(last),
        schedule: observation.schedule.clone(),
        metrics,
    }
}

fn counts(observation: &Observation) -> types::Counts {
    let mut counts = types::Counts {
        pending: 0,
        creating: 0,
        booting: 0,
        initializing: 0,
        in_service: 0,
        standby: 0,
        unhealthy: 0,
        draining: 0,
        terminating: 0,
        failed: 0,
    };
    for state in &observation.instances.state {
        let count = match state {
            InstanceState::Pending => &mut counts.pending,
            InstanceState::Creating => &mut counts.creating,
            InstanceState::Booting => &mut counts.booting,
            InstanceState::Initializing => &mut counts.initializing,
            InstanceState::InService => &mut counts.in_service,
            InstanceState::Standby => &mut counts.standby,
            InstanceState::Unhealthy => &mut counts.unhealthy,
            InstanceState::Draining => &mut counts.draining,
            InstanceState::Terminating => &mut counts.terminating,
            InstanceState::Failed => &mut counts.failed,
            InstanceState::Gone => continue,
        };
        *count += 1;
    }
    counts
}

/// The contract's state. `Gone` has none there: the table holds no such instance.
pub(crate) fn state_of(state: InstanceState) -> types::InstanceState {
    match state {
        InstanceState::Pending => types::InstanceState::Pending,
        InstanceState::Creating => types::InstanceState::Creating,
        InstanceState::Booting => types::InstanceState::Booting,
        InstanceState::Initializing => types::InstanceState::Initializing,
        InstanceState::InService => types::InstanceState::InService,
        InstanceState::Standby => types::InstanceState::Standby,
        InstanceState::Unhealthy => types::InstanceState::Unhealthy,
        InstanceState::Draining => types::InstanceState::Draining,
        InstanceState::Terminating | InstanceState::Gone => types::InstanceState::Terminating,
        InstanceState::Failed => types::InstanceState::Failed,
    }
}

fn value(value: MetricValue) -> types::MetricValue {
    match value {
        MetricValue::Fresh(value) => types::MetricValue::Fresh(value),
        MetricValue::Stale { value, age_ms } => {
            types::MetricValue::Stale(types::StaleValue { value, age_ms })
        }
        MetricValue::Missing => types::MetricValue::Missing,
    }
}

fn aggregate(name: &str, fold: Aggregate) -> types::Aggregate {
    types::Aggregate {
        name: name.to_owned(),
        mean: value(fold.mean),
        sum: value(fold.sum),
        min: value(fold.min),
        max: value(fold.max),
        fresh: fold.fresh,
        stale: fold.stale,
        missing: fold.missing,
    }
}

fn last(last: &LastDecision) -> types::LastDecision {
    types::LastDecision {
        tick: last.tick,
        wanted: last.wanted,
        granted: last.granted,
        reasons: last.reasons.iter().map(reason).collect(),
        narrowed_by: last.narrowed_by.clone(),
    }
}

fn reason(reason: &Reason) -> types::Reason {
    let evidence = reason.evidence.iter().map(|(name, value)| (name.to_string(), value.to_string()));
    types::Reason {
        code: reason.code.to_string(),
        text: reason.text.to_string(),
        evidence: evidence.collect(),
    }
}
