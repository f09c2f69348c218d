//! The decision in native code: here, in the plugin and in the webhook.

use regatta_core::decision::Decision;
use regatta_core::observation::Observation;
use regatta_lab::native;
use regatta_sdk::TickData;
use regatta_sdk::native::RawOutcome;
use target_tracking::TargetTracking;

/// What comes out, whoever decides.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) decision: Decision,
    pub(crate) state: Vec<u8>,
}

impl From<RawOutcome> for Answer {
    fn from(outcome: RawOutcome) -> Self {
        let (decision, state) = native::decision(outcome);
        Self { decision, state }
    }
}

/// The policy on a tick that is folded already: what a guest does inside the sandbox.
pub(crate) fn decide(tick: TickData, params: &str, state: &[u8]) -> Result<RawOutcome, String> {
    native::decide::<TargetTracking>(tick, params, state)
}

/// What the sandbox's host does before it: the tick, with `metrics` folded over the instances in service.
pub(crate) fn fold(observation: &Observation, metrics: &[String]) -> TickData {
    native::fold(observation, metrics.iter().map(String::as_str))
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
