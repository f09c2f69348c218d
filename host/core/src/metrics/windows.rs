//! The metrics of a set over the last while, in memory: what is fresh, what is
//! stale, what is missing, and what a policy sees of it. Time is an argument.

use std::collections::BTreeMap;

use super::{VALUE_MAX, downsample};
use crate::metric::{MetricValue, quantize};
use crate::observation::{InstanceTable, MetricObservation, MetricScope, Observation, WindowSample};

/// A value is fresh for this many of its periods: it may come late or be lost
/// once, no more.
const FRESH_PERIODS: f64 = 2.5;
/// A value is forgotten after this many of its periods.
const KEPT_PERIODS: u64 = 20;

/// A metric that a set keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricSpec {
    /// Name, unique within the set.
    pub name: String,
    /// Whether it is measured per instance or once for the whole set.
    pub scope: MetricScope,
    /// How often a value is expected, milliseconds: once per tick.
    pub period_ms: u64,
    /// How far back its window reaches, milliseconds; 0 for the newest
    /// [`EXACT_SAMPLES`](downsample::EXACT_SAMPLES).
    pub window_ms: u64,
}

impl MetricSpec {
    /// A metric with one value per instance.
    #[must_use]
    pub fn per_instance(name: impl Into<String>, period_ms: u64) -> Self {
        Self { name: name.into(), scope: MetricScope::Instance, period_ms, window_ms: 0 }
    }

    /// A metric with one value for the set.
    #[must_use]
    pub fn per_set(name: impl Into<String>, period_ms: u64) -> Self {
        Self { name: name.into(), scope: MetricScope::Set, period_ms, window_ms: 0 }
    }

    /// With a window of at least the last `window_ms`, as the
    /// [longest wish](super::longest_wishes) for it asks.
    #[must_use]
    pub fn reaching_back(self, window_ms: u64) -> Self {
        Self { window_ms, ..self }
    }

    /// What a value is worth at `now_ms`, by its age.
    fn aged(&self, now_ms: u64) -> impl Fn(WindowSample) -> MetricValue + use<> {
        let fresh_ms = (self.period_ms as f64 * FRESH_PERIODS) as u64;
        let kept_ms = self.period_ms.saturating_mul(KEPT_PERIODS);
        move |WindowSample { at_ms, value }| match now_ms.abs_diff(at_ms) {
            age_ms if age_ms <= fresh_ms => MetricValue::Fresh(value),
            age_ms if age_ms <= kept_ms => MetricValue::Stale { value, age_ms },
            _ => MetricValue::Missing,
        }
    }
}

/// The metrics of one set.
///
/// Times are those of the set's steady clock, milliseconds. A value from the
/// future ages like one of the past, so it cannot stay fresh.
#[derive(Debug, Clone, Default)]
pub struct SetWindows {
    metrics: BTreeMap<String, Metric>,
}

#[derive(Debug, Clone)]
struct Metric {
    spec: MetricSpec,
    /// The latest value of each instance, ordered by id as the instance table is.
    instances: Vec<(u32, WindowSample)>,
    /// The latest value of the set.
    set: Option<WindowSample>,
    window: Vec<WindowSample>,
}

impl SetWindows {
    /// Keeps these metrics.
    #[must_use]
    pub fn new(specs: impl IntoIterator<Item = MetricSpec>) -> Self {
        let mut windows = Self::default();
        windows.reconfigure(specs);
        windows
    }

    /// Keeps these metrics from now on. What is known of those that stay (by name
    /// and scope) stays; a window that is to reach back further fills with time.
    pub fn reconfigure(&mut self, specs: impl IntoIterator<Item = MetricSpec>) {
        let mut before = std::mem::take(&mut self.metrics);
        for spec in specs {
            let known = before.remove(&spec.name).filter(|metric| metric.spec.scope == spec.scope);
            let metric = match known {
                Some(metric) => Metric { spec, ..metric },
                None => Metric { spec, instances: Vec::new(), set: None, window: Vec::new() },
            };
            self.metrics.insert(metric.spec.name.clone(), metric);
        }
    }

    /// Takes up the windows as they were when the tick of `last` had ended, from
    /// the set's last record: a restarted daemon continues with them. The
    /// latest values of the instances are measured anew.
    pub fn restore(&mut self, last: &Observation) {
        for seen in &last.metrics {
            if let Some(metric) = self.kept_as(seen) {
                metric.window.clone_from(&seen.window);
            }
        }
        self.end_tick(last);
    }

    fn kept_as(&mut self, seen: &MetricObservation) -> Option<&mut Metric> {
        self.metrics.get_mut(&seen.name).filter(|metric| metric.spec.scope == seen.scope)
    }

    /// Takes a value of one instance, rounded to four digits. Without effect for
    /// a metric that is not kept per instance (a report that crossed a
    /// reconfiguration), for NaN, and beyond [`VALUE_MAX`].
    pub fn push_instance(&mut self, metric: &str, instance: u32, at_ms: u64, value: f64) {
        self.push_instances(metric, at_ms, [(instance, value)]);
    }

    /// As [`Self::push_instance`], for many instances at once; quickest when their ids ascend.
    pub fn push_instances(&mut self, metric: &str, at_ms: u64, values: impl IntoIterator<Item = (u32, f64)>) {
        let Some(metric) = self.metrics.get_mut(metric) else { return };
        if metric.spec.scope != MetricScope::Instance {
            return;
        }
        let known = &mut metric.instances;
        let mut next = 0;
        for (instance, value) in values {
            let Some(sample) = sample(at_ms, value) else { continue };
            let at = match known.get(next) {
                Some(&(id, _)) if id == instance => Ok(next),
                _ => known.binary_search_by_key(&instance, |&(id, _)| id),
            };
            match at {
                Ok(at) => known[at].1 = sample,
                Err(at) => known.insert(at, (instance, sample)),
            }
            next = at.unwrap_or_else(|at| at) + 1;
        }
    }

    /// Takes a value of the set; otherwise as [`Self::push_instance`].
    pub fn push_set(&mut self, metric: &str, at_ms: u64, value: f64) {
        if let Some(metric) = self.metrics.get_mut(metric)
            && metric.spec.scope == MetricScope::Set
            && let Some(sample) = sample(at_ms, value)
        {
            metric.set = Some(sample);
        }
    }

    /// What a policy sees at `now_ms`: the metrics sorted by name, their values in
    /// the order of `table`, their windows without this moment.
    #[must_use]
    pub fn build_metrics(&self, now_ms: u64, table: &InstanceTable) -> Vec<MetricObservation> {
        let observed = |metric: &Metric| MetricObservation {
            name: metric.spec.name.clone(),
            scope: metric.spec.scope,
            values: match metric.spec.scope {
                MetricScope::Instance => metric.values(now_ms, table).collect(),
                MetricScope::Set => vec![metric.set_value(now_ms)],
            },
            window: metric.window.clone(),
        };
        self.metrics.values().map(observed).collect()
    }

    /// Ends a tick: what it saw of the set goes into the windows (the set's value,
    /// or the mean over the instances in service; only if fresh), and instances
    /// that it did not see are forgotten.
    pub fn end_tick(&mut self, tick: &Observation) {
        for seen in &tick.metrics {
            if let Some(metric) = self.kept_as(seen) {
                metric.keep_only(&tick.instances.id);
                metric.end_tick(tick.now_ms, tick.aggregate(seen).mean);
            }
        }
    }
}

impl Metric {
    fn set_value(&self, now_ms: u64) -> MetricValue {
        self.set.map_or(MetricValue::Missing, self.spec.aged(now_ms))
    }

    /// The values of the instances of `table`. Ids ascend there as here, so both
    /// are walked along together.
    fn values(&self, now_ms: u64, table: &InstanceTable) -> impl Iterator<Item = MetricValue> {
        let aged = self.spec.aged(now_ms);
        let mut known = self.instances.as_slice();
        table.id.iter().map(move |&row| {
            loop {
                match known.split_first() {
                    Some((&(id, sample), rest)) if id <= row => {
                        known = rest;
                        if id == row {
                            return aged(sample);
                        }
                    }
                    _ => return MetricValue::Missing,
                }
            }
        })
    }

    /// Forgets all instances but those of `ids`, which ascend.
    fn keep_only(&mut self, ids: &[u32]) {
        if self.instances.iter().map(|(id, _)| id).eq(ids) {
            return;
        }
        let mut ids = ids.iter().copied().peekable();
        self.instances.retain(|&(id, _)| {
            while ids.next_if(|&row| row < id).is_some() {}
            ids.peek() == Some(&id)
        });
    }

    fn end_tick(&mut self, now_ms: u64, value: MetricValue) {
        if let Some(sample) = value.fresh().and_then(|value| sample(now_ms, value)) {
            downsample::append(&mut self.window, sample, self.spec.period_ms, self.spec.window_ms);
        }
    }
}

/// None for what is not a valid value.
fn sample(at_ms: u64, value: f64) -> Option<WindowSample> {
    (value.abs() <= VALUE_MAX).then(|| WindowSample { at_ms, value: quantize(value) })
}

#[cfg(test)]
mod tests {
    use crate::instance_state::InstanceState;
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

    /// A tick that sees what is known of `instances`.
    fn tick(windows: &SetWindows, now_ms: u64, instances: &InstanceTable) -> Observation {
        Observation {
            set: "web".to_owned(),
            tick: 0,
            now_ms,
            generation: 1,
            min: 1,
            max: 9,
            desired: 2,
            instances: instances.clone(),
            metrics: windows.build_metrics(now_ms, instances),
            last: None,
            schedule: Vec::new(),
        }
    }

    fn end_tick(windows: &mut SetWindows, now_ms: u64, instances: &InstanceTable) -> Observation {
        let tick = tick(windows, now_ms, instances);
        windows.end_tick(&tick);
        tick
    }

    fn windows() -> SetWindows {
        SetWindows::new([
            MetricSpec::per_instance("utilization", 1_000),
            MetricSpec::per_set("connection_rate", 1_000),
        ])
    }

    /// The latest value of instance 1, or of the set.
    fn latest(windows: &SetWindows, metric: &str, now_ms: u64) -> MetricValue {
        let seen = windows.build_metrics(now_ms, &table(&[(1, InstanceState::InService)]));
        seen.iter().find(|seen| seen.name == metric).map_or(MetricValue::Missing, |seen| seen.values[0])
    }

    #[test]
    fn no_data_is_missing_late_data_is_stale_and_neither_is_zero() {
        let mut windows = windows();
        assert_eq!(latest(&windows, "utilization", 0), MetricValue::Missing);
        windows.push_instance("utilization", 1, 10_000, 0.123_456);
        let at = |now_ms| latest(&windows, "utilization", now_ms);
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
        assert_eq!(latest(&windows, "utilization", 20), MetricValue::Fresh(0.5));
        assert_eq!(latest(&windows, "connection_rate", 20), MetricValue::Missing);
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

        end_tick(&mut windows, 1_500, &table);
        let seen = windows.build_metrics(2_500, &table);
        assert_eq!(seen[0].window, [WindowSample { at_ms: 1_500, value: 12.0 }]);
        assert_eq!(seen[1].window, [WindowSample { at_ms: 1_500, value: 0.3 }], "in service only");
        assert_eq!(windows.metrics["utilization"].instances.len(), 3, "99 is forgotten");

        end_tick(&mut windows, 9_000, &table);
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
        assert_eq!(latest(&windows, "utilization", 10), MetricValue::Fresh(0.5));
        assert_eq!(latest(&windows, "utilization", 100), MetricValue::Stale { value: 0.5, age_ms: 90 });
        assert_eq!(latest(&windows, "connection_rate", 10), MetricValue::Missing);
    }

    /// Ticks, as the time since the one before and what instances report in them.
    fn ticks() -> impl Strategy<Value = Vec<(u64, Vec<(u32, f64)>)>> {
        let step = prop_oneof![8 => 900..1_100_u64, 1 => 0..50_000_u64];
        let value = prop_oneof![8 => 0.0..100.0_f64, 1 => any::<f64>()];
        let reports = proptest::collection::vec((0..5_u32, value), 0..4);
        proptest::collection::vec((step, reports), 0..400)
    }

    fn after(ticks: &[(u64, Vec<(u32, f64)>)], window_ms: u64) -> (SetWindows, Observation) {
        let instances = table(&[(0, InstanceState::InService), (1, InstanceState::InService)]);
        let spec = MetricSpec::per_instance("utilization", 1_000).reaching_back(window_ms);
        let mut windows = SetWindows::new([spec]);
        let mut last = tick(&windows, 0, &instances);
        for (passed_ms, reports) in ticks {
            last.now_ms += passed_ms;
            for &(id, value) in reports {
                windows.push_instance("utilization", id, last.now_ms, value);
            }
            last = end_tick(&mut windows, last.now_ms, &instances);
        }
        (windows, last)
    }

    proptest! {
        /// However samples come, nothing grows without bound and windows ascend.
        #[test]
        fn bounded_and_ascending(ticks in ticks(), window_ms in 0..1_000_000_u64) {
            let (windows, last) = after(&ticks, window_ms);
            let metric = &windows.metrics["utilization"];
            prop_assert!(metric.window.len() <= downsample::most_samples(1_000, window_ms));
            prop_assert!(metric.window.iter().is_sorted_by(|a, b| a.at_ms < b.at_ms));
            prop_assert!(metric.window.iter().all(|sample| sample.value.is_finite()));
            prop_assert!(ticks.is_empty() || metric.instances.len() <= last.instances.len());
        }

        /// A daemon that starts again has the windows that it had, and they go on as they would have.
        #[test]
        fn a_restart_keeps_the_windows(ticks in ticks(), window_ms in 0..1_000_000_u64, more in 0..100_u64) {
            let (mut windows, last) = after(&ticks, window_ms);
            let (mut restored, _) = after(&[], window_ms);
            restored.restore(&last);
            for n in 1..=more {
                for windows in [&mut windows, &mut restored] {
                    let now_ms = last.now_ms + n * 1_000;
                    for id in [0, 1] {
                        windows.push_instance("utilization", id, now_ms, n as f64);
                    }
                    end_tick(windows, now_ms, &last.instances);
                }
            }
            prop_assert_eq!(&restored.metrics["utilization"].window, &windows.metrics["utilization"].window);
        }
    }

    #[test]
    fn a_window_reaches_as_far_as_it_is_asked_to_and_shrinks_again() {
        let ticks: Vec<_> = (0..2_000).map(|n| (1_000, vec![(0, f64::from(n))])).collect();
        let (mut windows, last) = after(&ticks, 1_200_000);
        let reach_ms = |windows: &SetWindows| last.now_ms - windows.metrics["utilization"].window[0].at_ms;
        assert!((1_200_000..1_240_000).contains(&reach_ms(&windows)));
        // In force with the next sample.
        windows.reconfigure([MetricSpec::per_instance("utilization", 1_000)]);
        windows.push_instance("utilization", 0, last.now_ms + 1_000, 1.0);
        end_tick(&mut windows, last.now_ms + 1_000, &last.instances);
        assert_eq!(reach_ms(&windows), 58_000);
    }

    #[test]
    fn instances_that_come_and_go_keep_their_values_apart() {
        use InstanceState::InService;
        let mut windows = windows();
        for id in [5, 1, 9, 3] {
            windows.push_instance("utilization", id, 1_000, f64::from(id));
        }
        end_tick(
            &mut windows,
            1_000,
            &table(&[(0, InService), (3, InService), (4, InService), (9, InService)]),
        );
        windows.push_instance("utilization", 4, 1_000, 4.0);
        let seen = windows
            .build_metrics(1_000, &table(&[(3, InService), (4, InService), (5, InService), (9, InService)]));
        use MetricValue::{Fresh, Missing};
        assert_eq!(seen[1].values, [Fresh(3.0), Fresh(4.0), Missing, Fresh(9.0)]);
    }
}
