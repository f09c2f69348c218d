//! What it costs to compile a policy, and to swap one that is compiled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{Engine, EngineOptions, dry_run};
use regatta_util::percentile;
use serde_json::{Value, json};

use crate::figure::{Figure, Promise, ms, rounded};
use crate::observed;
use crate::rig::Place;

const PROMISE: Promise = Promise {
    name: "compile",
    target: "a policy of 100 KB compiled cold: ≤ 300 ms",
    unit: "ms per 100 KB",
    at_most: 300.0,
    method: "each module in target/policies in a new engine, from bytes to a policy that has described itself, on \
             all CPUs; the median of 5, divided by the size in 100 KB; the worst module counts",
};

/// How often each module is compiled.
const TIMES: usize = 5;

/// Ticks that the daemon tries a policy on, and the size of the set in them.
const RECORDED: u64 = 20;
const INSTANCES: u32 = 100;

/// How often that is measured.
const REPEATS: usize = 200;

const PARAMS: &str = r#"{"metric": "utilization", "target": 0.6}"#;

/// The figure of compiling.
pub(crate) fn compile(place: &Place) -> Result<Figure> {
    let mut worst: f64 = 0.0;
    let mut modules = Vec::new();
    for name in ["target-tracking", "step"] {
        let module = read(&place.policies, name)?;
        let mut took = Vec::new();
        let mut compiling = Vec::new();
        for _ in 0..place.effort.choose(TIMES, 1) {
            let engine = Engine::new(EngineOptions::default())?;
            let start = Instant::now();
            let policy = engine.load(&module)?;
            took.push(start.elapsed());
            compiling.push(policy.compile_time());
        }
        let median = percentile(&took, 0.5).map_or(f64::NAN, ms);
        let per_100_kb = median / (module.len() as f64 / 100e3);
        worst = worst.max(per_100_kb);
        modules.push(json!({
            "module": name,
            "bytes": module.len(),
            "median_ms": median,
            "worst_ms": percentile(&took, 1.0).map(ms),
            "of_it_compiling_ms": percentile(&compiling, 0.5).map(ms),
            "ms_per_100_kb": rounded(per_100_kb),
        }));
    }
    Ok(PROMISE.measured(worst, true, json!({ "modules": modules })))
}

/// What a swap has to do before the switch, in this process, when the module is compiled already: find it, let it
/// check its parameters, try it on recorded ticks.
pub(crate) fn prepare_compiled(place: &Place) -> Result<Value> {
    let engine = Engine::new(EngineOptions::default())?;
    let limits = PolicyLimits { deadline_ms: 60_000, ..PolicyLimits::default() };
    let module = read(&place.policies, "target-tracking")?;
    // Holds it in the engine's cache, as a set whose policy it is does.
    let _in_use = engine.load(&module)?;
    let recorded = observed::recorded(INSTANCES, RECORDED)?;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..place.effort.choose(REPEATS, 2) {
        let start = Instant::now();
        let policy = engine.load(&module)?;
        dry_run(&policy, PARAMS, &recorded, &limits)?.verdict()?;
        took.push(start.elapsed());
    }
    Ok(json!({
        "recorded_ticks": recorded.len(),
        "instances": INSTANCES,
        "median_ms": percentile(&took, 0.5).map(ms),
        "p99_ms": percentile(&took, 0.99).map(ms),
    }))
}

/// A built policy.
pub(crate) fn read(policies: &Path, name: &str) -> Result<Vec<u8>> {
    let path = policies.join(name).with_extension("wasm");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
