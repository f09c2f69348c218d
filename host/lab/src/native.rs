//! Policies in native code, fed as the sandbox's host feeds a guest.

use regatta_core::decision::{Decision, Reason};
use regatta_core::instance_state::InstanceState;
use regatta_core::metric::{Aggregate, MetricValue};
use regatta_core::observation::{LastDecision, Observation};
use regatta_sdk::native::{self, Bulk, RawOutcome};
use regatta_sdk::{InstanceTable, MetricColumn, MetricWindow, TickData};

/// The decision and the new state out of what a policy answered.
#[must_use]
pub fn decision(outcome: RawOutcome) -> (Decision, Vec<u8>) {
    let RawOutcome { capacity, standby, victims, wake_after_ms, reasons, state } = outcome;
    let evidence = |(name, value): (String, String)| (name.into(), value.into());
    let reason = |it: regatta_sdk::Reason| Reason {
        code: it.code.into(),
        text: it.text.into(),
        evidence: it.evidence.into_iter().map(evidence).collect(),
    };
    let reasons = reasons.into_iter().map(reason).collect();
    (Decision { capacity, standby, victims, wake_after_ms, reasons }, state)
}

/// A policy on a tick that is folded already: what a guest does inside the sandbox. Only for policies that look at folded metrics: the rest
/// is empty.
///
/// # Errors
/// The policy's own words.
pub fn decide<P: regatta_sdk::Policy>(
    tick: TickData,
    params: &str,
    state: &[u8],
) -> Result<RawOutcome, String> {
    let bulk = Bulk {
        instances: &|| InstanceTable {
            id: Vec::new(),
            state: Vec::new(),
            state_since_ms: Vec::new(),
            created_ms: Vec::new(),
            generation: Vec::new(),
            protected: Vec::new(),
        },
        metric: &|_| MetricColumn { value: Vec::new(), status: Vec::new() },
        window: &|_| MetricWindow { at_ms: Vec::new(), value: Vec::new() },
    };
    native::decide::<P>(tick, &bulk, params, state)
}

/// What the sandbox's host does before it: the tick, with `metrics` folded over the instances in service.
#[must_use]
pub fn fold<'a>(observation: &Observation, metrics: impl Iterator<Item = &'a str>) -> TickData {
    let counts = counts(observation);
    let fold = |name: &str| {
        let absent = || Aggregate { missing: counts.in_service, ..Aggregate::of([]) };
        let fold = observation.metric(name).map_or_else(absent, |metric| observation.aggregate(metric));
        aggregate(name, fold)
    };
    TickData {
        now_ms: observation.now_ms,
        number: observation.tick,
        set: observation.set.clone(),
        generation: observation.generation,
        min: observation.min,
        max: observation.max,
        desired: observation.desired,
        metrics: metrics.map(fold).collect(),
        counts,
        last: observation.last.as_ref().map(last),
        schedule: observation.schedule.clone(),
    }
}

fn counts(observation: &Observation) -> regatta_sdk::Counts {
    let mut counts = regatta_sdk::Counts {
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

fn aggregate(name: &str, fold: Aggregate) -> regatta_sdk::Aggregate {
    let value = |value| match value {
        MetricValue::Fresh(value) => regatta_sdk::MetricValue::Fresh(value),
        MetricValue::Stale { value, age_ms } => {
            regatta_sdk::MetricValue::Stale(regatta_sdk::StaleValue { value, age_ms })
        }
        MetricValue::Missing => regatta_sdk::MetricValue::Missing,
    };
    regatta_sdk::Aggregate {
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

fn last(last: &LastDecision) -> regatta_sdk::LastDecision {
    let reason = |reason: &Reason| regatta_sdk::Reason {
        code: reason.code.clone().into(),
        text: reason.text.clone().into(),
        evidence: reason.evidence.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
    };
    regatta_sdk::LastDecision {
        tick: last.tick,
        wanted: last.wanted,
        granted: last.granted,
        reasons: last.reasons.iter().map(reason).collect(),
        narrowed_by: last.narrowed_by.clone(),
    }
}
