//! `flapping`: no scale-in after which the metric would call for a scale-out. The model is Azure's: the load stays, and
//! is shared by fewer instances.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::FlapRule;
use crate::observation::MetricScope;

/// Scales in only so far that no metric would rise above where the set scales out.
#[derive(Debug, Clone)]
pub(super) struct FlappingGuard(pub(super) Vec<FlapRule>);

impl Guard for FlappingGuard {
    fn name(&self) -> GuardName {
        GuardName::Flapping
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        if proposed > desired {
            return None;
        }
        // What is measured once for the whole set is not shared by its instances.
        let mean_of = |rule: &FlapRule| {
            let metric = context.observation.metric(&rule.metric)?;
            let mean = context.observation.aggregate(metric).mean.fresh()?;
            (metric.scope == MetricScope::Instance).then_some(mean)
        };
        let known = self.0.iter().filter_map(|rule| Some((rule, mean_of(rule)?)));
        let needed = known.map(|(rule, mean)| (least_size(mean, desired, rule.above), rule, mean));
        let (least, rule, mean) = needed.max_by_key(|(least, _, _)| *least).filter(|it| it.0 > proposed)?;
        let (metric, above) = (&rule.metric, rule.above);
        let then = mean * f64::from(desired) / f64::from(proposed.max(1));
        let reason = Reason {
            code: "flapping".into(),
            text: format!(
                "scale-in to {proposed} limited to {least}: {metric} is {mean:.4} and would be {then:.4}, above {above}"
            )
            .into(),
            evidence: vec![("metric".into(), metric.clone().into()), ("value".into(), mean.to_string().into())],
        };
        Some((least, reason))
    }
}

/// The smallest size at which the mean, shared by that many, is not above the threshold.
fn least_size(mean: f64, desired: u32, above: f64) -> u32 {
    let load = mean * f64::from(desired);
    let estimate = load / above;
    if !estimate.is_finite() || estimate >= f64::from(desired) {
        return desired;
    }
    // Between 0 and desired. Rounding may be off by one either way; the comparison itself decides.
    let mut least = estimate.ceil().max(0.0) as u32;
    while least > 0 && load / f64::from(least - 1) <= above {
        least -= 1;
    }
    while least < desired && load / f64::from(least) > above {
        least += 1;
    }
    least
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::testing::{context, observation};
    use crate::instance_state::InstanceState;
    use crate::metric::MetricValue;
    use crate::observation::{InstanceRow, InstanceTable, MetricObservation};

    fn narrowed(value: MetricValue, desired: u32, proposed: u32) -> Option<(u32, String)> {
        let mut observation = observation(0, 100, desired);
        let mut instances = InstanceTable::default();
        instances.push(InstanceRow {
            id: 1,
            state: InstanceState::InService,
            state_since_ms: 0,
            created_ms: 0,
            generation: 1,
            protected: false,
        });
        observation.instances = instances;
        observation.metrics = vec![MetricObservation {
            name: "cpu".into(),
            scope: MetricScope::Instance,
            values: vec![value],
            window: Vec::new(),
        }];
        let guard = FlappingGuard(vec![FlapRule { metric: "cpu".into(), above: 70.0 }]);
        let context = context(&observation);
        guard.narrow(&context, context.memory, proposed).map(|(size, reason)| (size, reason.text.to_string()))
    }

    /// Azure's documentation has this example and says 27; its own arithmetic says 28.
    #[test]
    fn thirty_at_65_percent_may_go_to_28_when_70_scales_out() {
        let (size, text) = narrowed(MetricValue::Fresh(65.0), 30, 20).expect("it narrows");
        assert_eq!(size, 28);
        assert_eq!(text, "scale-in to 20 limited to 28: cpu is 65.0000 and would be 97.5000, above 70");
    }

    #[test]
    fn it_never_holds_back_a_scale_out_and_knows_nothing_without_data() {
        assert_eq!(narrowed(MetricValue::Fresh(65.0), 30, 35), None);
        assert_eq!(narrowed(MetricValue::Fresh(10.0), 30, 20), None);
        assert_eq!(narrowed(MetricValue::Missing, 30, 20), None);
        assert_eq!(narrowed(MetricValue::Fresh(80.0), 30, 20).map(|it| it.0), Some(30));
        assert_eq!(narrowed(MetricValue::Fresh(0.0), 30, 0), None);
    }

    proptest! {
        /// At the size that it allows the metric is not above the threshold; at one less it is.
        #[test]
        fn it_allows_the_smallest_size_that_does_not_flap(mean in 0.0..70.0_f64, desired in 1..200_u32) {
            let least = least_size(mean, desired, 70.0);
            prop_assert!(least <= desired);
            let at = |size: u32| mean * f64::from(desired) / f64::from(size);
            prop_assert!(least == 0 || least == desired || at(least) <= 70.0);
            prop_assert!(least == 0 || at(least - 1) > 70.0);
        }
    }
}
