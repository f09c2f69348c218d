//! An observation on its way to the worker: its columns as they lie in memory, so that a thousand instances cost a copy.

use std::borrow::Cow;

use bytemuck::{Pod, cast_slice, pod_collect_to_vec};
use regatta_core::instance_state::{INSTANCE_STATES, InstanceState};
use regatta_core::metric::MetricValue;
use regatta_core::metrics::MetricWish;
use regatta_core::observation::{
    InstanceTable, LastDecision, MetricObservation, MetricScope, Observation, WindowSample,
};
use serde::{Deserialize, Serialize};

const FRESH: u8 = 0;
const STALE: u8 = 1;
const MISSING: u8 = 2;

/// An observation, borrowed from where it lies.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Packed<'a> {
    set: &'a str,
    tick: u64,
    now_ms: u64,
    generation: u64,
    min: u32,
    max: u32,
    desired: u32,
    #[serde(borrow)]
    instances: Table<'a>,
    #[serde(borrow)]
    metrics: Vec<Metric<'a>>,
    last: Cow<'a, Option<LastDecision>>,
    schedule: Cow<'a, [String]>,
}

/// A column of numbers or bytes.
#[derive(Debug, Serialize, Deserialize)]
struct Column<'a>(#[serde(borrow, with = "serde_bytes")] Cow<'a, [u8]>);

#[derive(Debug, Serialize, Deserialize)]
struct Table<'a> {
    #[serde(borrow)]
    id: Column<'a>,
    state: Column<'a>,
    state_since_ms: Column<'a>,
    created_ms: Column<'a>,
    generation: Column<'a>,
    protected: Column<'a>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Metric<'a> {
    name: &'a str,
    of_set: bool,
    #[serde(borrow)]
    status: Column<'a>,
    value: Column<'a>,
    /// Of the stale values, in their order.
    age_ms: Column<'a>,
    window_at_ms: Column<'a>,
    window_value: Column<'a>,
}

impl<'a> Column<'a> {
    fn of<T: Pod>(column: &'a [T]) -> Self {
        Self(Cow::Borrowed(cast_slice(column)))
    }

    fn collected<T: Pod>(column: impl Iterator<Item = T>) -> Self {
        Self(Cow::Owned(pod_collect_to_vec(&column.collect::<Vec<T>>())))
    }

    fn numbers<T: Pod>(&self) -> Vec<T> {
        pod_collect_to_vec(&self.0)
    }
}

impl<'a> Packed<'a> {
    /// What a call with these wishes may read of `observation`: of the windows, those that it wished for.
    pub(super) fn of(observation: &'a Observation, wishes: &[MetricWish]) -> Self {
        let table = &observation.instances;
        let wished = |name: &str| wishes.iter().any(|wish| wish.name == name && wish.window_ms > 0);
        Self {
            set: &observation.set,
            tick: observation.tick,
            now_ms: observation.now_ms,
            generation: observation.generation,
            min: observation.min,
            max: observation.max,
            desired: observation.desired,
            instances: Table {
                id: Column::of(&table.id),
                state: Column::collected(table.state.iter().map(|&state| number(state))),
                state_since_ms: Column::of(&table.state_since_ms),
                created_ms: Column::of(&table.created_ms),
                generation: Column::of(&table.generation),
                protected: Column::collected(table.protected.iter().map(|&protected| u8::from(protected))),
            },
            metrics: observation
                .metrics
                .iter()
                .map(|metric| Metric::of(metric, wished(&metric.name)))
                .collect(),
            last: Cow::Borrowed(&observation.last),
            schedule: Cow::Borrowed(&observation.schedule),
        }
    }

    pub(super) fn unpack(self) -> Observation {
        let table = &self.instances;
        Observation {
            set: self.set.to_owned(),
            tick: self.tick,
            now_ms: self.now_ms,
            generation: self.generation,
            min: self.min,
            max: self.max,
            desired: self.desired,
            instances: InstanceTable {
                id: table.id.numbers(),
                state: table.state.0.iter().map(|&byte| state(byte)).collect(),
                state_since_ms: table.state_since_ms.numbers(),
                created_ms: table.created_ms.numbers(),
                generation: table.generation.numbers(),
                protected: table.protected.0.iter().map(|&byte| byte != 0).collect(),
            },
            metrics: self.metrics.iter().map(Metric::unpack).collect(),
            last: self.last.into_owned(),
            schedule: self.schedule.into_owned(),
        }
    }
}

impl<'a> Metric<'a> {
    fn of(metric: &'a MetricObservation, windowed: bool) -> Self {
        let window = if windowed { &metric.window[..] } else { &[] };
        Self {
            name: &metric.name,
            of_set: metric.scope == MetricScope::Set,
            status: Column::collected(metric.values.iter().map(|value| match value {
                MetricValue::Fresh(_) => FRESH,
                MetricValue::Stale { .. } => STALE,
                MetricValue::Missing => MISSING,
            })),
            value: Column::collected(metric.values.iter().map(|value| match *value {
                MetricValue::Fresh(value) | MetricValue::Stale { value, .. } => value,
                MetricValue::Missing => 0.0,
            })),
            age_ms: Column::collected(metric.values.iter().filter_map(|value| match *value {
                MetricValue::Stale { age_ms, .. } => Some(age_ms),
                MetricValue::Fresh(_) | MetricValue::Missing => None,
            })),
            window_at_ms: Column::collected(window.iter().map(|sample| sample.at_ms)),
            window_value: Column::collected(window.iter().map(|sample| sample.value)),
        }
    }

    fn unpack(&self) -> MetricObservation {
        let mut ages = self.age_ms.numbers::<u64>().into_iter();
        let values = self.status.0.iter().zip(self.value.numbers::<f64>());
        let times = self.window_at_ms.numbers().into_iter();
        MetricObservation {
            name: self.name.to_owned(),
            scope: if self.of_set { MetricScope::Set } else { MetricScope::Instance },
            values: values
                .map(|(&status, value)| match status {
                    FRESH => MetricValue::Fresh(value),
                    STALE => MetricValue::Stale { value, age_ms: ages.next().unwrap_or_default() },
                    _ => MetricValue::Missing,
                })
                .collect(),
            window: times
                .zip(self.window_value.numbers())
                .map(|(at_ms, value)| WindowSample { at_ms, value })
                .collect(),
        }
    }
}

fn number(state: InstanceState) -> u8 {
    INSTANCE_STATES
        .iter()
        .position(|&other| other == state)
        .and_then(|at| u8::try_from(at).ok())
        .unwrap_or(u8::MAX)
}

fn state(number: u8) -> InstanceState {
    INSTANCE_STATES.get(usize::from(number)).copied().unwrap_or(InstanceState::Gone)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn value() -> impl Strategy<Value = MetricValue> {
        prop_oneof![
            any::<f64>().prop_map(MetricValue::Fresh),
            (any::<f64>(), any::<u64>()).prop_map(|(value, age_ms)| MetricValue::Stale { value, age_ms }),
            Just(MetricValue::Missing),
        ]
    }

    prop_compose! {
        fn metric()(
            name in "[a-z]{1,8}",
            of_set in any::<bool>(),
            values in proptest::collection::vec(value(), 0..20),
            window in proptest::collection::vec((any::<u64>(), any::<f64>()), 0..20),
        ) -> MetricObservation {
            let scope = if of_set { MetricScope::Set } else { MetricScope::Instance };
            let window = window.into_iter().map(|(at_ms, value)| WindowSample { at_ms, value }).collect();
            MetricObservation { name, scope, values, window }
        }
    }

    prop_compose! {
        fn observation()(
            rows in proptest::collection::vec(
                (any::<u32>(), 0..11_usize, any::<u64>(), any::<u64>(), any::<u64>(), any::<bool>()), 0..20),
            metrics in proptest::collection::vec(metric(), 0..4),
            last in proptest::option::of((any::<u64>(), any::<Option<u32>>())),
            numbers in any::<[u64; 3]>(),
            schedule in proptest::collection::vec("[a-z]{0,8}", 0..3),
        ) -> Observation {
            Observation {
                set: "web".to_owned(),
                tick: numbers[0],
                now_ms: numbers[1],
                generation: numbers[2],
                min: 1,
                max: 2,
                desired: 3,
                instances: InstanceTable {
                    id: rows.iter().map(|row| row.0).collect(),
                    state: rows.iter().map(|row| INSTANCE_STATES[row.1]).collect(),
                    state_since_ms: rows.iter().map(|row| row.2).collect(),
                    created_ms: rows.iter().map(|row| row.3).collect(),
                    generation: rows.iter().map(|row| row.4).collect(),
                    protected: rows.iter().map(|row| row.5).collect(),
                },
                metrics,
                last: last.map(|(tick, wanted)| LastDecision {
                    tick, wanted, granted: 1, reasons: Vec::new(), narrowed_by: vec!["max".to_owned()],
                }),
                schedule,
            }
        }
    }

    proptest! {
        /// Bit for bit, NaN included; of the windows, those that are wished for.
        #[test]
        fn nothing_is_lost_on_the_way(observation in observation(), wished in any::<prop::sample::Index>()) {
            let names: Vec<&str> = observation.metrics.iter().map(|metric| metric.name.as_str()).collect();
            let wishes: Vec<MetricWish> = (!names.is_empty())
                .then(|| MetricWish { name: wished.get(&names).to_string(), window_ms: 1 })
                .into_iter()
                .collect();
            let bytes = postcard::to_allocvec(&Packed::of(&observation, &wishes)).unwrap();
            let arrived = postcard::from_bytes::<Packed<'_>>(&bytes).unwrap().unpack();
            let mut wanted = observation.clone();
            for metric in &mut wanted.metrics {
                if wishes.iter().all(|wish| wish.name != metric.name) {
                    metric.window.clear();
                }
            }
            // As text: NaN is not equal to itself.
            prop_assert_eq!(format!("{arrived:?}"), format!("{wanted:?}"));
        }
    }
}
