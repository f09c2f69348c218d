//! Observations like a daemon's, the same in every run.

use std::sync::Arc;

use anyhow::Result;
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::{ScaleSet, read_manifest};
use regatta_core::metric::{MetricValue, quantize};
use regatta_core::observation::{
    InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation, WindowSample,
};

/// Seeds of the observations; they are decided in turn, so that no branch is learnt by heart.
pub(crate) const SEEDS: std::ops::Range<u64> = 0..8;

const NOW_MS: u64 = 1_780_000_000_000;

/// As the daemon measures them.
const METRICS: [(&str, f64); 5] =
    [("connection_rate", 120.0), ("connections", 4.0), ("cpu", 0.4), ("memory", 7.6e6), ("utilization", 0.6)];

/// The set of the quickstart, with room for twice the instances.
pub(crate) fn set(instances: u32) -> Result<ScaleSet> {
    let manifest = include_bytes!("../../../../examples/quickstart/set.yaml");
    let manifest =
        read_manifest(manifest, "set.yaml", "/").map_err(|problems| anyhow::anyhow!("{problems}"))?;
    let mut set = manifest.set;
    set.capacity.max = instances * 2;
    // On a busy machine a thread may wait for its CPU longer than a decision may take.
    for policy in &mut set.policies {
        policy.limits.deadline_ms = 60_000;
    }
    Ok(set)
}

/// Observations of a set of this size, one per tick.
pub(crate) fn recorded(instances: u32, ticks: u64) -> Result<Vec<Arc<Observation>>> {
    let set = set(instances)?;
    Ok((0..ticks).map(|seed| Arc::new(observation(&set, instances, seed))).collect())
}

/// What a tick of `set` with so many instances sees. Odd seeds are above the target.
pub(crate) fn observation(set: &ScaleSet, instances: u32, seed: u64) -> Observation {
    let mut random = Random(seed);
    let mut table = InstanceTable::default();
    for id in 1..=instances {
        let created_ms = NOW_MS - 3_600_000 + u64::from(id);
        table.push(InstanceRow {
            id,
            state: InstanceState::InService,
            state_since_ms: created_ms + 900,
            created_ms,
            generation: 1,
            protected: id % 97 == 0,
        });
    }
    // Odd seeds are above the target: half of the decisions scale out.
    let level = if seed % 2 == 1 { 1.15 } else { 1.0 };
    let metrics = METRICS.iter().map(|&(name, mean)| MetricObservation {
        name: name.to_owned(),
        scope: MetricScope::Instance,
        values: (0..instances)
            .map(|_| MetricValue::Fresh(quantize(mean * level * (0.8 + 0.4 * random.unit()))))
            .collect(),
        window: (0..60)
            .map(|ago| WindowSample {
                at_ms: NOW_MS - (60 - ago) * 1_000,
                value: mean * (0.8 + 0.4 * random.unit()),
            })
            .collect(),
    });
    Observation {
        set: set.name.clone(),
        tick: 3_600,
        now_ms: NOW_MS,
        generation: 1,
        min: set.capacity.min,
        max: set.capacity.max,
        desired: instances,
        metrics: metrics.collect(),
        instances: table,
        last: None,
        schedule: Vec::new(),
    }
}

/// SplitMix64: the same numbers in every run.
struct Random(u64);

impl Random {
    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn observations_are_whole_and_differ() {
        let set = set(50).expect("the quickstart is valid");
        let (low, high) = (observation(&set, 50, 0), observation(&set, 50, 1));
        assert_eq!((low.instances.len(), low.metrics.len()), (50, METRICS.len()));
        assert!(low.metrics.iter().all(|metric| metric.values.len() == 50 && metric.window.len() == 60));
        let mean = |observation: &Observation| {
            let metric = observation.metric("utilization").expect("the policy's metric");
            observation.aggregate(metric).mean.fresh().expect("fresh")
        };
        assert!(mean(&high) > mean(&low) * 1.1);
        assert!(low.metrics.is_sorted_by(|a, b| a.name < b.name));
    }
}
