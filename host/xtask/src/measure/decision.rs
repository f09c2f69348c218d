//! What one decision costs: from a frozen observation to a plan.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::{ScaleSet, read_manifest};
use regatta_core::metric::{MetricValue, quantize};
use regatta_core::observation::{
    InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation, WindowSample,
};
use regatta_core::record::{PlanFacts, TickRecord};
use regatta_core::tick::{TickInput, conclude};
use regatta_policy_host::{CallTimes, Engine, EngineOptions};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::figure::{Figure, Promise, percentile, us};

const PROMISE: Promise = Promise {
    name: "decision",
    target: "observation with 1,000 instances → target-tracking in Wasm → guards → plan: median ≤ 150 µs",
    unit: "µs",
    at_most: 150.0,
    method: "one thread on one CPU, 8 observations in turn (five metrics per instance, windows of 60), a fresh \
             Wasm instance per call, then regatta_core::tick::conclude; median of 4,000 after 400 to warm up",
};

/// Decisions that are not counted.
const WARM_UP: usize = 400;

/// Decisions that are.
const COUNTED: usize = 4_000;

/// Seeds of the observations; they are decided in turn, so that no branch is learnt by heart.
const SEEDS: std::ops::Range<u64> = 0..8;

const NOW_MS: u64 = 1_780_000_000_000;

/// As the daemon measures them.
const METRICS: [(&str, f64); 5] =
    [("connection_rate", 120.0), ("connections", 4.0), ("cpu", 0.4), ("memory", 7.6e6), ("utilization", 0.6)];

/// The figure, with smaller sets beside it.
pub(crate) fn measure(policies: &Path) -> Result<Figure> {
    let mut sizes = Vec::new();
    for instances in [10, 100, 1_000] {
        sizes.push((instances, decide(policies, instances)?));
    }
    let largest = sizes.last().map(|(_, costs)| costs.median(|cost| cost.total));
    let value = largest.flatten().map_or(f64::NAN, us);
    let detail: Vec<Value> = sizes.iter().map(|(instances, costs)| costs.json(*instances)).collect();
    Ok(PROMISE.measured(value, true, json!({ "by_instances": detail })))
}

/// The times of one decision.
#[derive(Debug, Clone, Copy)]
struct Cost {
    total: Duration,
    call: CallTimes,
    conclude: Duration,
}

struct Costs {
    all: Vec<Cost>,
    scale_outs: usize,
    pooling: bool,
}

impl Costs {
    fn share(&self, share: f64, part: impl Fn(&Cost) -> Duration) -> Option<Duration> {
        percentile(&self.all.iter().map(part).collect::<Vec<_>>(), share)
    }

    fn median(&self, part: impl Fn(&Cost) -> Duration) -> Option<Duration> {
        self.share(0.5, part)
    }

    fn json(&self, instances: u32) -> Value {
        let median = |part: fn(&Cost) -> Duration| self.median(part).map(us);
        let total: Duration = self.all.iter().map(|cost| cost.total).sum();
        let guest: Duration = self.all.iter().map(|cost| cost.call.guest).sum();
        json!({
            "instances": instances,
            "median_us": median(|cost| cost.total),
            "p99_us": self.share(0.99, |cost| cost.total).map(us),
            "share_inside_wasm": crate::figure::rounded(guest.as_secs_f64() / total.as_secs_f64()),
            "median_us_of": {
                "folding_the_observation": median(|cost| cost.call.observe),
                "making_the_instance": median(|cost| cost.call.instantiate),
                "inside_wasm": median(|cost| cost.call.guest),
                "the_whole_call": median(|cost| cost.call.total),
                "combine_guards_plan": median(|cost| cost.conclude),
            },
            "decisions": self.all.len(),
            "of_them_scale_outs": self.scale_outs,
            "pooling": self.pooling,
        })
    }
}

fn decide(policies: &Path, instances: u32) -> Result<Costs> {
    let engine = Engine::new(EngineOptions::default())?;
    let module = policies.join("target-tracking.wasm");
    let policy =
        engine.load(&std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?)?;
    let set = set(instances)?;
    let [spec] = set.policies.as_slice() else { bail!("the set has not one policy") };
    let params = spec.params.to_string();
    let observations: Vec<Observation> = SEEDS.map(|seed| observation(&set, instances, seed)).collect();
    let wanted_metrics: Vec<String> = policy.wishes(&params).into_iter().map(|wish| wish.name).collect();
    let _pinned = Pinned::to_one_cpu()?;
    let mut costs = Costs { all: Vec::with_capacity(COUNTED), scale_outs: 0, pooling: engine.pooling() };
    for turn in 0..WARM_UP + COUNTED {
        let observation = Arc::new(observations[turn % observations.len()].clone());
        // What a tick hands over beside the observation is made before the clock starts.
        let wanted_metrics = wanted_metrics.clone();
        let start = Instant::now();
        let call = policy.decide(&observation, &params, &[], &spec.limits);
        let decided = Instant::now();
        let input = TickInput {
            observation: Arc::unwrap_or_clone(observation),
            changes: Vec::new(),
            operator: Vec::new(),
            facts: PlanFacts { next_id: instances + 1, ..PlanFacts::default() },
            runs: vec![call.run],
            canaries: Vec::new(),
            shadows: Vec::new(),
            wanted_metrics,
        };
        let record = conclude(&set, input);
        let cost = Cost { total: start.elapsed(), call: call.times, conclude: decided.elapsed() };
        check(&record)?;
        if turn >= WARM_UP {
            costs.all.push(cost);
            costs.scale_outs += usize::from(record.guards.granted > record.observation.desired);
        }
    }
    Ok(costs)
}

/// A decision that failed would be fast and worth nothing.
fn check(record: &TickRecord) -> Result<()> {
    let run = record.runs.first().context("no run")?;
    let decision = run.result.as_ref().map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    ensure!(!decision.reasons.is_empty(), "no reason given");
    let created = record.plan.actions.len() as u32;
    ensure!(
        record.guards.granted <= record.observation.desired || created > 0,
        "a scale-out to {} planned nothing",
        record.guards.granted
    );
    Ok(())
}

/// The set of the quickstart, with room for twice the instances.
fn set(instances: u32) -> Result<ScaleSet> {
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

fn observation(set: &ScaleSet, instances: u32, seed: u64) -> Observation {
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

/// This thread on one CPU, until it is dropped.
struct Pinned(CpuSet);

impl Pinned {
    fn to_one_cpu() -> Result<Self> {
        let allowed = sched_getaffinity(None).context("cannot read the CPU affinity")?;
        // The last one: interrupts and other programs prefer the first.
        let last =
            (0..CpuSet::MAX_CPU).rev().find(|cpu| allowed.is_set(*cpu)).context("no CPU is allowed")?;
        let mut one = CpuSet::new();
        one.set(last);
        sched_setaffinity(None, &one).context("cannot set the CPU affinity")?;
        Ok(Self(allowed))
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before; if it no longer is, the rest runs on one CPU.
        let _ = sched_setaffinity(None, &self.0);
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
