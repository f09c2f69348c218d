//! What crosses to the plugin, as protobuf. Written by hand, so that no `protoc` is needed to build the bench.
//!
//! In packed columns, which is the cheapest that protobuf has for this, and with those metrics only that the policy asks
//! for, without their windows: a plugin for Nomad gets its metrics as one message per sample.

use regatta_core::decision::{Decision, Reason as CoreReason};
use regatta_core::instance_state::INSTANCE_STATES;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_util::Said;

use crate::decider::Answer;

/// The argument of `Run`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunRequest {
    #[prost(message, optional, tag = "1")]
    pub(crate) evaluation: Option<Evaluation>,
    #[prost(string, tag = "2")]
    pub(crate) params: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) state: Vec<u8>,
}

/// An observation.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Evaluation {
    #[prost(string, tag = "1")]
    set: String,
    #[prost(uint64, tag = "2")]
    tick: u64,
    #[prost(uint64, tag = "3")]
    now_ms: u64,
    #[prost(uint64, tag = "4")]
    generation: u64,
    #[prost(uint32, tag = "5")]
    min: u32,
    #[prost(uint32, tag = "6")]
    max: u32,
    #[prost(uint32, tag = "7")]
    desired: u32,
    #[prost(message, optional, tag = "8")]
    instances: Option<Instances>,
    #[prost(message, repeated, tag = "9")]
    metrics: Vec<Metric>,
}

/// The instance table, in columns.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Instances {
    #[prost(uint32, repeated, tag = "1")]
    id: Vec<u32>,
    /// Place in [`INSTANCE_STATES`].
    #[prost(uint32, repeated, tag = "2")]
    state: Vec<u32>,
    #[prost(uint64, repeated, tag = "3")]
    state_since_ms: Vec<u64>,
    #[prost(uint64, repeated, tag = "4")]
    created_ms: Vec<u64>,
    #[prost(uint64, repeated, tag = "5")]
    generation: Vec<u64>,
    #[prost(bool, repeated, tag = "6")]
    protected: Vec<bool>,
}

/// The values of a metric, in columns.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Metric {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(bool, tag = "2")]
    of_the_set: bool,
    #[prost(double, repeated, tag = "3")]
    value: Vec<f64>,
    /// 0 fresh, 1 stale, 2 missing.
    #[prost(uint32, repeated, tag = "4")]
    status: Vec<u32>,
    /// Of the stale ones; empty when none is.
    #[prost(uint64, repeated, tag = "5")]
    age_ms: Vec<u64>,
}

/// The answer of `Run`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RunResponse {
    #[prost(uint32, tag = "1")]
    capacity: u32,
    #[prost(uint32, optional, tag = "2")]
    standby: Option<u32>,
    #[prost(uint32, repeated, tag = "3")]
    victims: Vec<u32>,
    #[prost(uint64, optional, tag = "4")]
    wake_after_ms: Option<u64>,
    #[prost(message, repeated, tag = "5")]
    reasons: Vec<Reason>,
    #[prost(bytes = "vec", tag = "6")]
    state: Vec<u8>,
}

/// Why.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Reason {
    #[prost(string, tag = "1")]
    code: String,
    #[prost(string, tag = "2")]
    text: String,
    #[prost(message, repeated, tag = "3")]
    evidence: Vec<Evidence>,
}

/// What a reason rests on.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Evidence {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    value: String,
}

impl Evaluation {
    /// Of an observation, what crosses.
    pub(crate) fn of(observation: &Observation, metrics: &[String]) -> Self {
        let table = &observation.instances;
        let metrics = metrics.iter().filter_map(|name| observation.metric(name)).map(Metric::of);
        Self {
            set: observation.set.clone(),
            tick: observation.tick,
            now_ms: observation.now_ms,
            generation: observation.generation,
            min: observation.min,
            max: observation.max,
            desired: observation.desired,
            instances: Some(Instances {
                id: table.id.clone(),
                state: table.state.iter().map(|&state| state as u32).collect(),
                state_since_ms: table.state_since_ms.clone(),
                created_ms: table.created_ms.clone(),
                generation: table.generation.clone(),
                protected: table.protected.clone(),
            }),
            metrics: metrics.collect(),
        }
    }

    /// The observation that came over; none when it names a state that there is not.
    pub(crate) fn into_observation(self) -> Option<Observation> {
        let table = self.instances.unwrap_or_default();
        let state = |&place: &u32| INSTANCE_STATES.get(usize::try_from(place).ok()?).copied();
        Some(Observation {
            set: self.set,
            tick: self.tick,
            now_ms: self.now_ms,
            generation: self.generation,
            min: self.min,
            max: self.max,
            desired: self.desired,
            instances: InstanceTable {
                state: table.state.iter().map(state).collect::<Option<_>>()?,
                id: table.id,
                state_since_ms: table.state_since_ms,
                created_ms: table.created_ms,
                generation: table.generation,
                protected: table.protected,
            },
            metrics: self.metrics.into_iter().map(Metric::into_observation).collect(),
            last: None,
            schedule: Vec::new(),
        })
    }
}

impl Metric {
    fn of(metric: &MetricObservation) -> Self {
        let mut age_ms = Vec::new();
        let one = |value: &MetricValue| match *value {
            MetricValue::Fresh(value) => (value, 0),
            MetricValue::Stale { value, age_ms: age } => {
                age_ms.push(age);
                (value, 1)
            }
            MetricValue::Missing => (0.0, 2),
        };
        let (value, status) = metric.values.iter().map(one).unzip();
        Self {
            name: metric.name.clone(),
            of_the_set: metric.scope == MetricScope::Set,
            value,
            status,
            age_ms,
        }
    }

    fn into_observation(self) -> MetricObservation {
        let mut ages = self.age_ms.into_iter();
        let one = |(&value, status): (&f64, &u32)| match status {
            0 => MetricValue::Fresh(value),
            1 => MetricValue::Stale { value, age_ms: ages.next().unwrap_or(0) },
            _ => MetricValue::Missing,
        };
        MetricObservation {
            values: self.value.iter().zip(&self.status).map(one).collect(),
            name: self.name,
            scope: if self.of_the_set { MetricScope::Set } else { MetricScope::Instance },
            window: Vec::new(),
        }
    }
}

impl From<Answer> for RunResponse {
    fn from(Answer { decision, state }: Answer) -> Self {
        let Decision { capacity, standby, victims, wake_after_ms, reasons } = decision;
        let evidence = |(name, value): (Said, Said)| Evidence { name: name.into(), value: value.into() };
        let reason = |reason: CoreReason| Reason {
            code: reason.code.into(),
            text: reason.text.into(),
            evidence: reason.evidence.into_iter().map(evidence).collect(),
        };
        let reasons = reasons.into_iter().map(reason).collect();
        Self { capacity, standby, victims, wake_after_ms, reasons, state }
    }
}

impl From<RunResponse> for Answer {
    fn from(response: RunResponse) -> Self {
        let RunResponse { capacity, standby, victims, wake_after_ms, reasons, state } = response;
        let reason = |reason: Reason| CoreReason {
            code: reason.code.into(),
            text: reason.text.into(),
            evidence: reason.evidence.into_iter().map(|it| (it.name.into(), it.value.into())).collect(),
        };
        let reasons = reasons.into_iter().map(reason).collect();
        Self { decision: Decision { capacity, standby, victims, wake_after_ms, reasons }, state }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;
    use crate::observed::{observation, set};

    #[test]
    fn an_observation_crosses_whole_but_for_what_is_not_asked_for() {
        let set = set(12).expect("the quickstart is valid");
        let mut seen = observation(&set, 12, 3);
        for (place, &state) in INSTANCE_STATES.iter().enumerate() {
            seen.instances.state[place] = state;
        }
        let utilization = seen.metrics.last_mut().expect("metrics");
        utilization.values[1] = MetricValue::Stale { value: 0.5, age_ms: 1_200 };
        utilization.values[4] = MetricValue::Missing;
        utilization.values[7] = MetricValue::Stale { value: 0.25, age_ms: 9 };
        let bytes = Evaluation::of(&seen, &["utilization".to_owned()]).encode_to_vec();
        let came = Evaluation::decode(bytes.as_slice()).expect("it decodes").into_observation();
        seen.metrics.retain(|metric| metric.name == "utilization");
        seen.metrics.iter_mut().for_each(|metric| metric.window.clear());
        assert_eq!(came, Some(seen));
    }

    #[test]
    fn a_state_that_there_is_not_is_refused() {
        let instances = Some(Instances { id: vec![1], state: vec![11], ..Instances::default() });
        assert_eq!(Evaluation { instances, ..Evaluation::default() }.into_observation(), None);
    }

    #[test]
    fn an_answer_crosses_whole() {
        let reason =
            CoreReason { code: "c".into(), text: "t".into(), evidence: vec![("n".into(), "v".into())] };
        let decision = Decision {
            capacity: 7,
            standby: Some(0),
            victims: vec![3, 1],
            wake_after_ms: None,
            reasons: vec![reason],
        };
        let answer = Answer { decision, state: vec![0, 255] };
        let bytes = RunResponse::from(answer.clone()).encode_to_vec();
        assert_eq!(Answer::from(RunResponse::decode(bytes.as_slice()).expect("it decodes")), answer);
    }
}
