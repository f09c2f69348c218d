//! A set without instances has nothing to measure: clients that wait at its load balancer start the first.

use crate::decision::Reason;
use crate::metrics::CONNECTIONS_WAITING;
use crate::observation::Observation;

/// Why a set that would have no instance gets one; none while nobody waits.
pub(super) fn wake(observation: &Observation) -> Option<Reason> {
    let waiting = observation.metric(CONNECTIONS_WAITING)?.values.first()?.fresh()?;
    if waiting < 1.0 {
        return None;
    }
    let what = if waiting < 2.0 { "connection waits" } else { "connections wait" };
    Some(Reason {
        code: "clients-waiting".into(),
        text: format!("{waiting} {what} for an instance").into(),
        evidence: vec![(CONNECTIONS_WAITING.into(), waiting.to_string().into())],
    })
}

#[cfg(test)]
mod tests {
    use crate::combine::Combined;
    use crate::guard::testing::{context, observation};
    use crate::guard::{GuardContext, GuardName, GuardTrail, guards_of, judge};
    use crate::manifest::{Guards, MissingData, RateLimit};
    use crate::metric::MetricValue;
    use crate::metrics::CONNECTIONS_WAITING;
    use crate::observation::{MetricObservation, MetricScope, Observation};

    fn waiting(desired: u32, waiting: MetricValue) -> Observation {
        let metric = MetricObservation {
            name: CONNECTIONS_WAITING.into(),
            scope: MetricScope::Set,
            values: vec![waiting],
            window: Vec::new(),
        };
        Observation { metrics: vec![metric], ..observation(0, 5, desired) }
    }

    fn judged(settings: &Guards, observation: &Observation, wanted: Option<u32>) -> GuardTrail {
        let missing = ["load".to_owned()];
        let context = GuardContext { metrics_without_data: &missing, ..context(observation) };
        let combined = Combined { capacity: wanted, ..Combined::default() };
        judge(settings, &guards_of(settings), &context, &combined)
    }

    #[test]
    fn whoever_waits_gets_the_first_instance_whatever_policy_and_guards_say() {
        let strict = Guards {
            missing_data: MissingData::Hold,
            scale_out_limit: RateLimit { percent: 100, count: 0, period_ms: 60_000 },
            ..Guards::default()
        };
        let waits = waiting(0, MetricValue::Fresh(3.0));
        for (settings, wanted) in [
            (&Guards::default(), Some(0)),
            (&Guards::default(), None),
            (&strict, Some(0)),
            (&strict, Some(4)),
        ] {
            let trail = judged(settings, &waits, wanted);
            assert!(trail.granted >= 1, "{settings:?} {wanted:?}: {trail:?}");
        }
        let trail = judged(&Guards::default(), &waits, Some(0));
        let step = trail.steps.last().expect("it is told");
        assert_eq!(step.guard, GuardName::ScaleFromZero);
        assert_eq!(step.reason.text, "3 connections wait for an instance");
    }

    #[test]
    fn a_set_that_nobody_waits_for_stays_empty() {
        for value in
            [MetricValue::Fresh(0.0), MetricValue::Stale { value: 3.0, age_ms: 1 }, MetricValue::Missing]
        {
            assert_eq!(judged(&Guards::default(), &waiting(0, value), Some(0)).granted, 0, "{value:?}");
        }
        assert_eq!(judged(&Guards::default(), &observation(0, 5, 0), Some(0)).granted, 0, "no load balancer");
    }

    #[test]
    fn those_that_wait_keep_the_last_instance() {
        let combined = Combined { capacity: Some(0), ..Combined::default() };
        let seen = waiting(1, MetricValue::Fresh(1.0));
        assert_eq!(judge(&Guards::default(), &[], &context(&seen), &combined).granted, 1);
    }
}
