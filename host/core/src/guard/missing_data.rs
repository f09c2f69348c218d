//! `missing_data`: forbids what missing data makes unsafe.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::instance_state::InstanceState;
use crate::manifest::MissingData;
use crate::observation::{MetricScope, Observation};

/// Forbids what missing data makes unsafe.
#[derive(Debug, Clone, Copy)]
pub(super) struct MissingDataGuard(pub(super) MissingData);

impl Guard for MissingDataGuard {
    fn name(&self) -> GuardName {
        GuardName::MissingData
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        let blocked = match self.0 {
            MissingData::Ignore => false,
            MissingData::NoScaleIn => proposed < desired,
            MissingData::Hold | MissingData::Default { .. } => true,
        };
        if !blocked || context.metrics_without_data.is_empty() {
            return None;
        }
        let what = if proposed < desired { "scale-in" } else { "scale-out" };
        let text = format!("{what} refused: not every instance in service has fresh data");
        Some((desired, reason("missing-data", text, context)))
    }
}

/// The capacity that `missing_data: {default}` asks for at least while a wanted metric has no data, and why.
pub(super) fn stand_in(setting: MissingData, context: &GuardContext<'_>) -> Option<(u32, Reason)> {
    let MissingData::Default { capacity } = setting else { return None };
    if context.metrics_without_data.is_empty() {
        return None;
    }
    let text = "not every instance in service has fresh data; using at least the default capacity".to_owned();
    Some((capacity, reason("missing-data-default", text, context)))
}

fn reason(code: &str, text: String, context: &GuardContext<'_>) -> Reason {
    let metrics = context.metrics_without_data.join(", ");
    Reason { code: code.into(), text: text.into(), evidence: vec![("metrics".into(), metrics.into())] }
}

/// The metrics among `wanted` that have no fresh value for at least one instance
/// in service, or for the set. A metric that the observation lacks counts as such.
/// Instances that warm up have no value and are not missed, unless there is no value at all.
#[must_use]
pub fn metrics_without_data(observation: &Observation, wanted: &[String], warm_up_ms: u64) -> Vec<String> {
    let lacks_data = |name: &&String| {
        observation.metric(name).is_none_or(|metric| match metric.scope {
            MetricScope::Set => observation.aggregate(metric).fresh == 0,
            MetricScope::Instance => {
                let rows = observation.instances.rows().zip(&metric.values);
                let mut serving = rows.filter(|(row, _)| row.state == InstanceState::InService).peekable();
                let (mut any, mut missed) = (serving.peek().is_none(), false);
                for (row, value) in serving {
                    let fresh = value.fresh().is_some();
                    any |= fresh;
                    missed |= !fresh && !row.warms_up(observation.now_ms, warm_up_ms);
                }
                missed || !any
            }
        })
    };
    wanted.iter().filter(lacks_data).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{context, observation};
    use crate::metric::MetricValue;
    use crate::observation::{InstanceRow, MetricObservation};

    #[test]
    fn with_all_data_there_it_says_nothing() {
        let observation = observation(0, 10, 5);
        let context = context(&observation);
        let setting = MissingData::Default { capacity: 8 };
        assert_eq!(MissingDataGuard(setting).narrow(&context, context.memory, 3), None);
        assert_eq!(stand_in(setting, &context), None);
    }

    #[test]
    fn the_reason_names_the_metrics() {
        let observation = observation(0, 10, 5);
        let metrics = ["cpu".to_owned(), "rps".to_owned()];
        let context = GuardContext { metrics_without_data: &metrics, ..context(&observation) };
        let narrowed = MissingDataGuard(MissingData::NoScaleIn).narrow(&context, context.memory, 3);
        let (capacity, reason) = narrowed.expect("it refuses");
        assert_eq!((capacity, &reason.evidence[0].1[..]), (5, "cpu, rps"));
        assert_eq!(MissingDataGuard(MissingData::NoScaleIn).narrow(&context, context.memory, 6), None);
    }

    #[test]
    fn a_metric_that_is_stale_or_not_there_is_without_data() {
        let mut observation = observation(0, 10, 5);
        let metric = |name: &str, value| MetricObservation {
            name: name.into(),
            scope: MetricScope::Set,
            values: vec![value],
            window: Vec::new(),
        };
        observation.metrics = vec![
            metric("fresh", MetricValue::Fresh(0.0)),
            metric("stale", MetricValue::Stale { value: 1.0, age_ms: 9 }),
            metric("missing", MetricValue::Missing),
        ];
        let wanted = ["fresh", "stale", "missing", "unknown"].map(str::to_owned);
        assert_eq!(metrics_without_data(&observation, &wanted, 0), ["stale", "missing", "unknown"]);
    }

    #[test]
    fn an_instance_that_warms_up_is_not_missed_but_a_set_without_any_value_is() {
        let mut observation = observation(0, 10, 2);
        observation.now_ms = 100_000;
        for (id, state_since_ms) in [(1, 0), (2, 95_000)] {
            let state = InstanceState::InService;
            observation.instances.push(InstanceRow {
                id,
                state,
                state_since_ms,
                created_ms: 0,
                generation: 1,
                protected: false,
            });
        }
        let lacks = |observation: &mut Observation, values: [MetricValue; 2]| {
            let metric = MetricObservation {
                name: "load".into(),
                scope: MetricScope::Instance,
                values: values.to_vec(),
                window: Vec::new(),
            };
            observation.metrics = vec![metric];
            !metrics_without_data(observation, &["load".to_owned()], 10_000).is_empty()
        };
        use MetricValue::{Fresh, Missing};
        assert!(!lacks(&mut observation, [Fresh(1.0), Missing]));
        assert!(lacks(&mut observation, [Missing, Missing]));
        assert!(lacks(&mut observation, [Missing, Fresh(1.0)]), "one that warms up makes up for no other");
        observation.now_ms = 200_000;
        assert!(lacks(&mut observation, [Fresh(1.0), Missing]));
    }
}
