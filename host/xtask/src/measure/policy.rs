//! What it costs to compile a policy, and to swap one that is compiled.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{Engine, EngineOptions, PolicySlot, Prepared};
use serde_json::{Value, json};

use crate::figure::{Figure, Promise, ms, percentile, rounded};

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

const PARAMS: &str = r#"{"metric": "utilization", "target": 0.6}"#;

/// The figure of compiling.
pub(crate) fn compile(policies: &Path) -> Result<Figure> {
    let mut worst: f64 = 0.0;
    let mut modules = Vec::new();
    for name in ["target-tracking", "step"] {
        let module = read(policies, name)?;
        let mut took = Vec::new();
        let mut compiling = Vec::new();
        for _ in 0..TIMES {
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

/// Swaps in this process, without a daemon around: what the policy host alone costs.
pub(crate) fn swap_in_process(policies: &Path) -> Result<Value> {
    let engine = Engine::new(EngineOptions::default())?;
    let limits = PolicyLimits::default();
    let policy = engine.load(&read(policies, "target-tracking")?)?;
    let prepare = || Prepared::new(policy.clone(), PARAMS, &[], &limits);
    let mut slot = PolicySlot::new(prepare()?);
    let mut preparing: Vec<Duration> = Vec::new();
    let mut switching: Vec<Duration> = Vec::new();
    for _ in 0..1_000 {
        let start = Instant::now();
        let prepared = prepare()?;
        preparing.push(start.elapsed());
        let start = Instant::now();
        slot.swap(prepared);
        switching.push(start.elapsed());
    }
    let us = |samples: &[Duration], share| percentile(samples, share).map(crate::figure::us);
    Ok(json!({
        "switch_median_us": us(&switching, 0.5),
        "switch_p99_us": us(&switching, 0.99),
        "validate_and_prepare_median_us": us(&preparing, 0.5),
        "swaps": switching.len(),
    }))
}

/// A built policy.
pub(crate) fn read(policies: &Path, name: &str) -> Result<Vec<u8>> {
    let path = policies.join(name).with_extension("wasm");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}
