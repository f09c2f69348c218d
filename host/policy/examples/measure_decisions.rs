//! What a decision, a swap and a compilation cost, as JSON.
//!
//! `cargo run --release -p regatta-policy-host --example measure_decisions [RUNS]` runs the
//! built-in `target-tracking` (built by `cargo xtask policies`).

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_policy_host::{CallTimes, CompiledPolicy, Engine, EngineOptions, dry_run};
use serde_json::{Value, json};

const PARAMS: &str = r#"{"metric": "utilization", "target": 0.5}"#;

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let runs = std::env::args().nth(1).map_or(Ok(2_000), |runs| runs.parse())?;
    let module = std::fs::read(folder().join("target-tracking.wasm"))?;
    let limits = PolicyLimits { deadline_ms: 10_000, ..PolicyLimits::default() };
    let mut report = serde_json::Map::new();
    for pooling in [true, false] {
        let engine = Engine::new(EngineOptions { pooling, ..EngineOptions::default() })?;
        // A policy that nobody holds is forgotten, so this compiles each time.
        let compile =
            (0..5).map(|_| Ok(engine.load(&module)?.compile_time())).collect::<Result<Vec<_>, Failure>>()?;
        let policy = engine.load(&module)?;
        let decide: Vec<Value> =
            [10, 100, 1_000].into_iter().map(|count| decisions(&policy, count, runs, &limits)).collect();
        let part = json!({
            "module_bytes": module.len(),
            "compile_ms": ms(median(compile)),
            "decide": decide,
            "swap": swaps(&policy, &limits)?,
        });
        report.insert(if engine.pooling() { "pooling" } else { "on_demand" }.to_owned(), part);
    }
    println!("{}", serde_json::to_string_pretty(&report)?);
    Ok(())
}

fn folder() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/policies");
    std::env::var_os("REGATTA_POLICIES").map_or_else(default, PathBuf::from)
}

/// Medians over `runs` decisions, each on an observation that differs from the last.
fn decisions(policy: &CompiledPolicy, instances: u32, runs: u32, limits: &PolicyLimits) -> Value {
    let ticks: Vec<_> = (0..16).map(|seed| observation(instances, seed)).collect();
    let mut times = Vec::new();
    let mut fuel = 0;
    for tick in ticks.iter().cycle().take(usize::try_from(runs).unwrap_or(usize::MAX)) {
        let call = policy.decide(tick, PARAMS, b"", limits);
        assert!(call.run.result.is_ok(), "{:?}", call.run.result);
        fuel = call.run.fuel;
        times.push(call.times);
    }
    let part = |of: fn(&CallTimes) -> Duration| us(median(times.iter().map(of).collect()));
    let (total, guest) = (part(|times| times.total), part(|times| times.guest));
    json!({
        "instances": instances,
        "median_us": total,
        "observe_us": part(|times| times.observe),
        "instantiate_us": part(|times| times.instantiate),
        "guest_us": guest,
        "guest_share": guest / total,
        "fuel": fuel,
    })
}

/// What a swap costs once the module is compiled: parameters checked, and a dry run
/// on 20 ticks of 100 instances. (The switch itself exchanges a pointer.)
fn swaps(policy: &CompiledPolicy, limits: &PolicyLimits) -> Result<Value, Failure> {
    let recorded: Vec<_> = (0..20).map(|seed| observation(100, seed)).collect();
    let mut times = Vec::new();
    for _ in 0..50 {
        let start = Instant::now();
        dry_run(policy, PARAMS, &recorded, limits)?;
        times.push(start.elapsed());
    }
    Ok(json!({ "prepare_on_20_ticks_ms": ms(median(times)) }))
}

fn observation(count: u32, seed: u64) -> Arc<Observation> {
    let mut instances = InstanceTable::default();
    for id in 1..=count {
        let state = if id % 10 == 0 { InstanceState::Booting } else { InstanceState::InService };
        let row =
            InstanceRow { id, state, state_since_ms: 1, created_ms: 1, generation: 1, protected: false };
        instances.push(row);
    }
    let values = (0..count).map(|id| MetricValue::Fresh(0.3 + f64::from(id % 40) / 100.0)).collect();
    let metric = |name: &str, values| MetricObservation {
        name: name.to_owned(),
        scope: MetricScope::Instance,
        values,
        window: Vec::new(),
    };
    Arc::new(Observation {
        set: "measure".to_owned(),
        tick: seed + 1,
        now_ms: 1_000_000 + seed,
        generation: 1,
        min: 1,
        max: 10_000,
        desired: count,
        instances,
        metrics: vec![metric("utilization", values)],
        last: None,
        schedule: Vec::new(),
    })
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}

fn us(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e7).round() / 10.0
}

fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e5).round() / 100.0
}
