//! Ticks like those of a busy set.

use std::sync::Arc;

use regatta_core::instance_state::InstanceState;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{
    InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation, WindowSample,
};
use regatta_policy_host::MetricWish;

const NOW_MS: u64 = 1_800_000_000_000;
const TICK_MS: u64 = 1_000;
/// Samples of a window: one a second, as with the default tick.
const SAMPLES: u64 = 600;

/// `ticks` observations in a row of a set of `count` instances, one in ten of them still booting. Each metric
/// that is asked for is there per instance, with values that differ between instances and from tick to tick.
pub(crate) fn observations(count: u32, ticks: u64, wishes: &[MetricWish]) -> Vec<Arc<Observation>> {
    let mut instances = InstanceTable::default();
    for id in 1..=count {
        instances.push(InstanceRow {
            id,
            state: if id % 10 == 0 { InstanceState::Booting } else { InstanceState::InService },
            state_since_ms: NOW_MS - 60_000,
            created_ms: NOW_MS - 120_000,
            generation: 1,
            protected: id % 50 == 0,
        });
    }
    let observation = |tick: u64| {
        let now_ms = NOW_MS + tick * TICK_MS;
        let mut metrics: Vec<_> = wishes.iter().map(|wish| metric(wish, count, tick, now_ms)).collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics.dedup_by(|a, b| a.name == b.name);
        Arc::new(Observation {
            set: "bench".to_owned(),
            tick,
            now_ms,
            generation: 1,
            min: 1,
            max: count.saturating_mul(2).max(1),
            desired: count,
            instances: instances.clone(),
            metrics,
            last: None,
            schedule: Vec::new(),
        })
    };
    (1..=ticks).map(observation).collect()
}

fn metric(wish: &MetricWish, count: u32, tick: u64, now_ms: u64) -> MetricObservation {
    let value = |id: u64| 0.3 + ((id * 7 + tick * 3) % 41) as f64 / 100.0;
    let samples = (wish.window_ms / TICK_MS).min(SAMPLES);
    let window = (1..=samples)
        .rev()
        .map(|age| WindowSample { at_ms: now_ms - age * TICK_MS, value: 0.5 + (age % 20) as f64 / 100.0 });
    MetricObservation {
        name: wish.name.clone(),
        scope: MetricScope::Instance,
        values: (0..u64::from(count)).map(|id| MetricValue::Fresh(value(id))).collect(),
        window: window.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_have_what_is_asked_for_and_differ() {
        let wish = |name: &str, window_ms| MetricWish { name: name.to_owned(), window_ms };
        let ticks = observations(25, 3, &[wish("load", 5_000), wish("cpu", 0), wish("cpu", 0)]);
        let names: Vec<_> = ticks[0].metrics.iter().map(|metric| metric.name.as_str()).collect();
        assert_eq!(names, ["cpu", "load"], "sorted, each once");
        for (tick, number) in ticks.iter().zip(1..) {
            assert_eq!((tick.tick, tick.instances.len()), (number, 25));
            assert_eq!(tick.instances.count(InstanceState::Booting), 2);
            assert!(tick.metrics.iter().all(|metric| metric.values.len() == 25));
            let window = &tick.metrics[1].window;
            assert_eq!(window.len(), 5);
            assert!(window.is_sorted_by_key(|sample| sample.at_ms) && window[4].at_ms < tick.now_ms);
        }
        assert_ne!(ticks[0].metrics[0].values, ticks[1].metrics[0].values);
        assert!(observations(0, 1, &[]).iter().all(|tick| tick.instances.is_empty() && tick.max == 1));
    }
}
