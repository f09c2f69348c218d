//! The decision in native code: here, in the plugin and in the webhook.

use regatta_core::decision::{Decision, Reason};
use regatta_core::instance_state::InstanceState;
use regatta_core::metric::{Aggregate, MetricValue};
use regatta_core::observation::{LastDecision, Observation};
use regatta_sdk::native::{self, Bulk, RawOutcome};
use regatta_sdk::{InstanceTable, MetricColumn, MetricWindow, TickData};
use target_tracking::TargetTracking;

/// What comes out, whoever decides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) decision: Decision,
    pub(crate) state: Vec<u8>,
}

impl From<RawOutcome> for Answer {
    fn from(outcome: RawOutcome) -> Self {
        let RawOutcome { capacity, standby, victims, wake_after_ms, reasons, state } = outcome;
        let reason = |reason: regatta_sdk::Reason| Reason {
            code: reason.code,
            text: reason.text,
            evidence: reason.evidence,
        };
        let reasons = reasons.into_iter().map(reason).collect();
        Self { decision: Decision { capacity, standby, victims, wake_after_ms, reasons }, state }
    }
}

/// The policy on a tick that is folded already: what a guest does inside the sandbox.
pub(crate) fn decide(tick: TickData, params: &str, state: &[u8]) -> Result<RawOutcome, String> {
    // This policy looks at the folded metric only; it is asked for nothing else.
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
    native::decide::<TargetTracking>(tick, &bulk, params, state)
}

/// What the sandbox's host does before it: the tick, with `metrics` folded over the instances in service.
pub(crate) fn fold(observation: &Observation, metrics: &[String]) -> TickData {
    let counts = counts(observation);
    let fold = |name: &String| {
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
        metrics: metrics.iter().map(fold).collect(),
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
        code: reason.code.clone(),
        text: reason.text.clone(),
        evidence: reason.evidence.clone(),
    };
    regatta_sdk::LastDecision {
        tick: last.tick,
        wanted: last.wanted,
        granted: last.granted,
        reasons: last.reasons.iter().map(reason).collect(),
        narrowed_by: last.narrowed_by.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{observation, set};

    #[test]
    fn what_is_wanted_is_folded_and_decided() {
        let set = set(40).expect("the quickstart is valid");
        let observation = observation(&set, 40, 1);
        let tick = fold(&observation, &["utilization".to_owned(), "unknown".to_owned()]);
        assert_eq!((tick.counts.in_service, tick.metrics.len()), (40, 2));
        assert_eq!((tick.metrics[0].fresh, tick.metrics[1].missing), (40, 40));
        let params = r#"{"metric": "utilization", "target": 0.6}"#;
        let answer = Answer::from(decide(tick, params, b"").expect("a decision"));
        assert!(answer.decision.capacity > 40, "odd seeds are above the target: {answer:?}");
        assert_eq!(answer.decision.reasons[0].code, "above-target");
    }
}
