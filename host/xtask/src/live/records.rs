//! What the demo reads of the daemon's answers. Only the fields it needs: everything else in
//! the JSON is skipped, so the API may grow.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::view::SetView;

/// A set in one line, as `regatta get` has it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct SetSummary {
    /// Least capacity.
    pub(crate) min: u32,
    /// Greatest capacity.
    pub(crate) max: u32,
    /// Capacity in force.
    pub(crate) desired: u32,
    /// Instances by state.
    pub(crate) instances: BTreeMap<String, u32>,
    /// The active policies.
    pub(crate) policies: Vec<PolicyInfo>,
    /// Number of the last tick.
    pub(crate) last_tick: u64,
    /// Address of the load balancer.
    pub(crate) load_balancer: Option<String>,
    /// What keeps the set from being as wanted.
    #[serde(default)]
    pub(crate) problems: Vec<String>,
}

impl SetSummary {
    /// Number of instances in this state.
    pub(crate) fn count(&self, state: &str) -> u32 {
        self.instances.get(state).copied().unwrap_or(0)
    }
}

/// A set with its metrics.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct SetDetail {
    /// In one line.
    pub(crate) summary: SetSummary,
    /// Metrics of the last tick.
    pub(crate) metrics: Vec<MetricNow>,
}

/// A metric over the instances in service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct MetricNow {
    /// Name.
    pub(crate) name: String,
    /// Mean of the fresh values.
    pub(crate) mean: Option<f64>,
}

/// An active policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct PolicyInfo {
    /// Name.
    pub(crate) name: String,
    /// SHA-256 of the module.
    pub(crate) digest: String,
}

/// What a swap did.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct SwapOutcome {
    /// The policy before.
    pub(crate) from: PolicyInfo,
    /// The active policy now.
    pub(crate) to: PolicyInfo,
    /// The last tick of the old one.
    pub(crate) after_tick: u64,
    /// Time to compile, check and rehearse, off the loop.
    pub(crate) prepare_ms: u64,
    /// Time that the loop was held.
    pub(crate) switch_us: u64,
}

/// The record of a tick.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct TickRecord {
    /// What was seen.
    pub(crate) observation: Observation,
    /// The policies that decided.
    pub(crate) runs: Vec<PolicyRun>,
    /// What was let through.
    pub(crate) guards: GuardTrail,
}

/// The input of a tick.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Observation {
    /// Number of the tick.
    pub(crate) tick: u64,
    /// Capacity in force before it.
    pub(crate) desired: u32,
    /// The instances.
    pub(crate) instances: InstanceTable,
}

/// The instances, in columns.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct InstanceTable {
    /// State of each.
    pub(crate) state: Vec<String>,
}

/// One run of a policy.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct PolicyRun {
    /// Name.
    pub(crate) name: String,
    /// SHA-256 of the module.
    pub(crate) digest: String,
    /// What it wanted, or why it gave no decision.
    pub(crate) result: Result<Decision, Failure>,
}

/// What a policy wanted.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Decision {
    /// Why.
    pub(crate) reasons: Vec<Reason>,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Reason {
    /// For people.
    pub(crate) text: String,
}

/// A policy that gave no decision.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Failure {
    /// What happened.
    pub(crate) message: String,
}

/// What the guards made of the decisions.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct GuardTrail {
    /// The capacity that the plan works towards.
    pub(crate) granted: u32,
}

impl TickRecord {
    /// Instances in service at the begin of the tick.
    pub(crate) fn in_service(&self) -> usize {
        let states = &self.observation.instances.state;
        states.iter().filter(|state| *state == "in-service").count()
    }

    /// Whether the capacity is another one after this tick.
    pub(crate) fn changes_capacity(&self) -> bool {
        self.guards.granted != self.observation.desired
    }

    /// The decision in one line: `tick 12: 3 → 4, utilization 0.81 is above 0.6`.
    pub(crate) fn summary(&self) -> String {
        let Observation { tick, desired, .. } = self.observation;
        let granted = self.guards.granted;
        let change =
            if granted == desired { format!("stays {granted}") } else { format!("{desired} → {granted}") };
        let reason = self.runs.first().map_or("no policy ran", |run| match &run.result {
            Ok(decision) => decision.reasons.first().map_or("no reason given", |reason| reason.text.as_str()),
            Err(failure) => failure.message.as_str(),
        });
        format!("tick {tick}: {change}, {reason}")
    }
}

impl SetView {
    /// What is shown of a set whose last record is `last`.
    pub(crate) fn new(detail: &SetDetail, last: Option<&TickRecord>) -> Self {
        let summary = &detail.summary;
        let utilization = detail.metrics.iter().find(|metric| metric.name == "utilization");
        Self {
            desired: summary.desired,
            limits: (summary.min, summary.max),
            states: summary.instances.iter().map(|(state, count)| (state.clone(), *count)).collect(),
            utilization: utilization.and_then(|metric| metric.mean),
            policy: summary.policies.first().map(|it| it.name.clone()).unwrap_or_default(),
            decision: last.map(TickRecord::summary),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORD: &str = r#"{"v":1,
        "observation":{"set":"web","tick":12,"now_ms":1,"desired":3,"instances":{
            "id":[1,2,3],"state":["in-service","booting","in-service"]}},
        "runs":[{"name":"target-tracking","digest":"ab","result":{"Ok":{"capacity":4,
            "reasons":[{"code":"above","text":"utilization 0.81 is above 0.6","evidence":[]}]}}}],
        "guards":{"steps":[],"granted":4}}"#;

    #[test]
    fn a_record_reads_as_one_line() {
        let record: TickRecord = serde_json::from_str(RECORD).expect("a record");
        assert_eq!(record.in_service(), 2);
        assert_eq!(record.summary(), "tick 12: 3 → 4, utilization 0.81 is above 0.6");
    }

    #[test]
    fn a_failed_policy_is_named() {
        let mut record: TickRecord = serde_json::from_str(RECORD).expect("a record");
        record.guards.granted = 3;
        record.runs[0].result = Err(Failure { message: "out of fuel".into() });
        assert_eq!(record.summary(), "tick 12: stays 3, out of fuel");
        record.runs.clear();
        assert_eq!(record.summary(), "tick 12: stays 3, no policy ran");
    }
}
