//! The metrics of a set over the last while, in memory: what is fresh, what is
//! stale, what is missing, and what a policy sees of it. Time is an argument.

use std::collections::{BTreeMap, VecDeque};

use crate::instance_state::InstanceState;
use crate::metric::{Aggregate, MetricValue, quantize};
use crate::observation::{InstanceTable, MetricObservation, MetricScope, WindowSample};

/// A value is fresh for so many of its periods: it may come late or be lost
/// once, no more.
const FRESH_PERIODS: f64 = 2.5;
/// After so many of its periods a value is forgotten.
const KEPT_PERIODS: u64 = 20;
/// Samples kept per instance and metric.
const INSTANCE_SAMPLES: usize = 32;
/// Samples of the set that a policy sees by default.
const WINDOW_SAMPLES: usize = 60;

/// A metric that a set keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// Name, unique within the set.
    pub name: String,
    /// Whether it is measured per instance or once for the whole set.
    pub scope: MetricScope,
    /// How often a value is expected, milliseconds.
    pub period_ms: u64,
}

impl MetricSpec {
    /// A metric with one value per instance.
    #[must_use]
    pub fn per_instance(name: impl Into<String>, period_ms: u64) -> Self {
        Self { name: name.into(), scope: MetricScope::Instance, period_ms }
    }

    /// A metric with one value for the set.
    #[must_use]
    pub fn per_set(name: impl Into<String>, period_ms: u64) -> Self {
        Self { name: name.into(), scope: MetricScope::Set, period_ms }
    }

    /// Reaches that far back.
    #[must_use]
    pub fn reaching_back(self, _window_ms: u64) -> Self {
        self
    }

    fn fresh_ms(&self) -> u64 {
        (self.period_ms as f64 * FRESH_PERIODS) as u64
    }

    fn kept_ms(&self) -> u64 {
        self.period_ms.saturating_mul(KEPT_PERIODS)
    }
}

/// The metrics of one set.
///
/// Times are Unix milliseconds. A clock that is set back makes values from the
/// future; they age like values of the past, so they cannot stay fresh.
#[derive(Debug, Clone)]
pub struct SetWindows {
    metrics: BTreeMap<String, Metric>,
    window_samples: usize,
}

#[derive(Debug, Clone)]
struct Metric {
    spec: MetricSpec,
    instances: BTreeMap<u32, Series>,
    set: Series,
    window: VecDeque<WindowSample>,
}

/// Samples of one thing, oldest first.
#[derive(Debug, Clone, Default)]
struct Series(VecDeque<WindowSample>);

impl Series {
    fn push(&mut self, at_ms: u64, value: f64) {
        // Two samples of one moment, or of a clock that was set back: the last counts.
        while self.0.back().is_some_and(|sample| sample.at_ms >= at_ms) {
            self.0.pop_back();
        }
        if self.0.len() == INSTANCE_SAMPLES {
            self.0.pop_front();
        }
        self.0.push_back(WindowSample { at_ms, value });
    }

    fn latest(&self, spec: &MetricSpec, now_ms: u64) -> MetricValue {
        self.0.back().map_or(MetricValue::Missing, |sample| aged(sample.value, sample.at_ms, spec, now_ms))
    }

    fn mean(&self, spec: &MetricSpec, now_ms: u64, over_ms: u64) -> MetricValue {
        let within = self.0.iter().filter(|sample| now_ms.abs_diff(sample.at_ms) <= over_ms);
        let (count, sum) = within.fold((0_u32, 0.0), |(count, sum), sample| (count + 1, sum + sample.value));
        match self.0.back() {
            Some(newest) if count > 0 => aged(quantize(sum / f64::from(count)), newest.at_ms, spec, now_ms),
            _ => self.latest(spec, now_ms),
        }
    }
}

fn aged(value: f64, at_ms: u64, spec: &MetricSpec, now_ms: u64) -> MetricValue {
    let age_ms = now_ms.abs_diff(at_ms);
    if age_ms <= spec.fresh_ms() {
        MetricValue::Fresh(value)
    } else if age_ms <= spec.kept_ms() {
        MetricValue::Stale { value, age_ms }
    } else {
        MetricValue::Missing
    }
}

impl SetWindows {
    /// Keeps these metrics, with a window of 60 samples of the set for each.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = MetricSpec>) -> Self {
        let mut windows = Self { metrics: BTreeMap::new(), window_samples: WINDOW_SAMPLES };
        windows.reconfigure(specs);
        windows
    }

    /// Fills windows after a restart.
    pub fn restore(&mut self, _metrics: &[MetricObservation]) {}

    /// As [`Self::new`] with another length of the windows; 0 keeps none.
    #[must_use]
    pub fn with_window(mut self, samples: usize) -> Self {
        self.window_samples = samples;
        self
    }

    /// Keeps these metrics from now on. What is known of those that stay (by name
    /// and scope) stays.
    pub fn reconfigure(&mut self, specs: impl IntoIterator<Item = MetricSpec>) {
        let mut before = std::mem::take(&mut self.metrics);
        for spec in specs {
            let known = before.remove(&spec.name).filter(|metric| metric.spec.scope == spec.scope);
            let metric = match known {
                Some(metric) => Metric { spec, ..metric },
                None => Metric {
                    spec,
                    instances: BTreeMap::new(),
                    set: Series::default(),
                    window: VecDeque::new(),
                },
            };
            self.metrics.insert(metric.spec.name.clone(), metric);
        }
    }

    /// Takes a value of one instance, rounded to four digits. Without effect for
    /// a metric that is not kept per instance (a report that crossed a
    /// reconfiguration) and for NaN and infinities.
    pub fn push_instance(&mut self, metric: &str, instance: u32, at_ms: u64, value: f64) {
        if let Some(metric) = self.metrics.get_mut(metric)
            && metric.spec.scope == MetricScope::Instance
            && value.is_finite()
        {
            metric.instances.entry(instance).or_default().push(at_ms, quantize(value));
        }
    }

    /// Takes a value of the set; otherwise as [`Self::push_instance`].
    pub fn push_set(&mut self, metric: &str, at_ms: u64, value: f64) {
        if let Some(metric) = self.metrics.get_mut(metric)
            && metric.spec.scope == MetricScope::Set
            && value.is_finite()
        {
            metric.set.push(at_ms, quantize(value));
        }
    }

    /// The latest value of an instance.
    #[must_use]
    pub fn instance(&self, metric: &str, instance: u32, now_ms: u64) -> MetricValue {
        let metric = self.metrics.get(metric);
        metric.map_or(MetricValue::Missing, |metric| metric.of_instance(instance, now_ms))
    }

    /// The mean of an instance's values of the last `over_ms`, as fresh as the
    /// newest of them; the latest value if there is none so young.
    #[must_use]
    pub fn instance_mean(&self, metric: &str, instance: u32, now_ms: u64, over_ms: u64) -> MetricValue {
        let Some(metric) = self.metrics.get(metric) else { return MetricValue::Missing };
        let series = metric.instances.get(&instance);
        series.map_or(MetricValue::Missing, |series| series.mean(&metric.spec, now_ms, over_ms))
    }

    /// The latest value of the set.
    #[must_use]
    pub fn set(&self, metric: &str, now_ms: u64) -> MetricValue {
        let metric = self.metrics.get(metric);
        metric.map_or(MetricValue::Missing, |metric| metric.set.latest(&metric.spec, now_ms))
    }

    /// What a policy sees at `now_ms`: the metrics sorted by name, their values in
    /// the order of `table`, their windows without this moment.
    #[must_use]
    pub fn build_metrics(&self, now_ms: u64, table: &InstanceTable) -> Vec<MetricObservation> {
        self.metrics
            .values()
            .map(|metric| MetricObservation {
                name: metric.spec.name.clone(),
                scope: metric.spec.scope,
                values: match metric.spec.scope {
                    MetricScope::Instance => {
                        table.id.iter().map(|&id| metric.of_instance(id, now_ms)).collect()
                    }
                    MetricScope::Set => vec![metric.set.latest(&metric.spec, now_ms)],
                },
                window: metric.window.iter().copied().collect(),
            })
            .collect()
    }

    /// Ends a tick: what it saw of the set goes into the windows (the set's value,
    /// or the mean over the instances in service; only if fresh), and instances
    /// that are not in `table` are forgotten.
    pub fn end_tick(&mut self, now_ms: u64, table: &InstanceTable) {
        // Ids ascend in the table.
        for metric in self.metrics.values_mut() {
            metric.instances.retain(|id, _| table.id.binary_search(id).is_ok());
            if let MetricValue::Fresh(value) = metric.of_set(now_ms, table) {
                while metric.window.back().is_some_and(|sample| sample.at_ms >= now_ms) {
                    metric.window.pop_back();
                }
                metric.window.push_back(WindowSample { at_ms: now_ms, value: quantize(value) });
            }
            let surplus = metric.window.len().saturating_sub(self.window_samples);
            metric.window.drain(..surplus);
        }
    }
}

impl Metric {
    fn of_instance(&self, instance: u32, now_ms: u64) -> MetricValue {
        self.instances.get(&instance).map_or(MetricValue::Missing, |series| series.latest(&self.spec, now_ms))
    }

    fn of_set(&self, now_ms: u64, table: &InstanceTable) -> MetricValue {
        match self.spec.scope {
            MetricScope::Set => self.set.latest(&self.spec, now_ms),
            MetricScope::Instance => {
                let in_service = table.rows().filter(|row| row.state == InstanceState::InService);
                Aggregate::of(in_service.map(|row| self.of_instance(row.id, now_ms))).mean
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::observation::InstanceRow;
    use proptest::prelude::*;

    use super::*;

    fn table(rows: &[(u32, InstanceState)]) -> InstanceTable {
        let mut table = InstanceTable::default();
        for &(id, state) in rows {
            table.push(InstanceRow {
                id,
                state,
                state_since_ms: 0,
                created_ms: 0,
                generation: 1,
                protected: false,
            });
        }
        table
    }

    fn windows() -> SetWindows {
        SetWindows::new([
            MetricSpec::per_instance("utilization", 1_000),
            MetricSpec::per_set("connection_rate", 1_000),
        ])
    }

    #[test]
    fn no_data_is_missing_late_data_is_stale_and_neither_is_zero() {
        let mut windows = windows();
        assert_eq!(windows.instance("utilization", 1, 0), MetricValue::Missing);
        windows.push_instance("utilization", 1, 10_000, 0.123_456);
        let at = |now_ms| windows.instance("utilization", 1, now_ms);
        assert_eq!(at(10_000), MetricValue::Fresh(0.1235));
        assert_eq!(at(12_500), MetricValue::Fresh(0.1235));
        assert_eq!(at(12_501), MetricValue::Stale { value: 0.1235, age_ms: 2_501 });
        assert_eq!(at(30_000), MetricValue::Stale { value: 0.1235, age_ms: 20_000 });
        assert_eq!(at(30_001), MetricValue::Missing);
        // The clock was set back: from the future is not fresh for ever.
        assert_eq!(at(5_000), MetricValue::Stale { value: 0.1235, age_ms: 5_000 });
    }

    #[test]
    fn what_is_no_value_changes_nothing() {
        let mut windows = windows();
        windows.push_instance("utilization", 1, 10, 0.5);
        windows.push_instance("utilization", 1, 20, f64::NAN);
        windows.push_set("utilization", 20, 9.0);
        windows.push_instance("connection_rate", 1, 20, 9.0);
        windows.push_set("no_such", 20, 9.0);
        assert_eq!(windows.instance("utilization", 1, 20), MetricValue::Fresh(0.5));
        assert_eq!(windows.set("connection_rate", 20), MetricValue::Missing);
    }

    #[test]
    fn a_mean_is_over_the_last_while() {
        let mut windows = windows();
        for (at_ms, value) in [(1_000, 1.0), (2_000, 2.0), (3_000, 4.0)] {
            windows.push_instance("utilization", 1, at_ms, value);
        }
        let mean = |now_ms, over_ms| windows.instance_mean("utilization", 1, now_ms, over_ms);
        assert_eq!(mean(3_000, 1_000), MetricValue::Fresh(3.0));
        assert_eq!(mean(3_000, 5_000), MetricValue::Fresh(2.333));
        assert_eq!(mean(3_100, 10), MetricValue::Fresh(4.0));
        assert_eq!(mean(9_000, 7_500), MetricValue::Stale { value: 3.0, age_ms: 6_000 });
        assert_eq!(windows.instance_mean("utilization", 2, 0, 10), MetricValue::Missing);
    }

    #[test]
    fn an_observation_is_aligned_with_the_table_and_sorted() {
        use InstanceState::{Booting, Draining, InService};
        let mut windows = windows();
        windows.push_instance("utilization", 7, 1_000, 0.9);
        windows.push_instance("utilization", 2, 1_000, 0.2);
        windows.push_instance("utilization", 3, 1_000, 0.4);
        windows.push_instance("utilization", 99, 1_000, 1.0);
        windows.push_set("connection_rate", 1_000, 12.0);
        let table = table(&[(2, InService), (3, InService), (4, Booting), (7, Draining)]);
        let seen = windows.build_metrics(1_500, &table);
        assert_eq!(
            seen.iter().map(|m| m.name.as_str()).collect::<Vec<_>>(),
            ["connection_rate", "utilization"]
        );
        assert_eq!(seen[0].values, [MetricValue::Fresh(12.0)]);
        use MetricValue::{Fresh, Missing};
        assert_eq!(seen[1].values, [Fresh(0.2), Fresh(0.4), Missing, Fresh(0.9)]);
        assert!(seen.iter().all(|m| m.window.is_empty()), "the window is without this tick");

        windows.end_tick(1_500, &table);
        let seen = windows.build_metrics(2_500, &table);
        assert_eq!(seen[0].window, [WindowSample { at_ms: 1_500, value: 12.0 }]);
        assert_eq!(seen[1].window, [WindowSample { at_ms: 1_500, value: 0.3 }], "in service only");
        assert_eq!(windows.instance("utilization", 99, 1_500), Missing, "forgotten");

        windows.end_tick(9_000, &table);
        let seen = windows.build_metrics(9_500, &table);
        assert_eq!(seen[1].window.len(), 1, "what is stale is not a value of that moment");
    }

    #[test]
    fn a_reconfiguration_keeps_what_stays() {
        let mut windows = windows();
        windows.push_instance("utilization", 1, 10, 0.5);
        windows.push_set("connection_rate", 10, 3.0);
        windows.reconfigure([
            MetricSpec::per_instance("utilization", 10),
            MetricSpec::per_instance("connection_rate", 10),
        ]);
        assert_eq!(windows.instance("utilization", 1, 10), MetricValue::Fresh(0.5));
        assert_eq!(windows.instance("utilization", 1, 100), MetricValue::Stale { value: 0.5, age_ms: 90 });
        assert_eq!(windows.set("connection_rate", 10), MetricValue::Missing);
    }

    proptest! {
        /// However samples come, nothing grows without bound and windows ascend.
        #[test]
        fn bounded_and_ascending(
            steps in proptest::collection::vec((0_u64..100_000, 0_u32..5, any::<f64>(), any::<bool>()), 0..400),
        ) {
            let table = table(&[(0, InstanceState::InService), (1, InstanceState::InService)]);
            let mut windows = windows().with_window(10);
            for (at_ms, id, value, tick) in steps {
                windows.push_instance("utilization", id, at_ms, value);
                if tick {
                    windows.end_tick(at_ms, &table);
                }
                let metric = &windows.metrics["utilization"];
                prop_assert!(metric.window.len() <= 10);
                prop_assert!(metric.window.iter().is_sorted_by(|a, b| a.at_ms < b.at_ms));
                prop_assert!(metric.instances.values().all(|series| series.0.len() <= INSTANCE_SAMPLES));
                prop_assert!(!tick || metric.instances.len() <= 2);
                prop_assert!(metric.window.iter().all(|sample| sample.value.is_finite()));
            }
        }
    }
}
