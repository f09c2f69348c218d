//! What a policy costs, measured on ticks like a daemon's.

mod observations;
mod params;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::decision::{FailureKind, PolicyFailure};
use regatta_core::digest::Digest;
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{CallTimes, CompiledPolicy, Engine, EngineOptions, Origin, ParamsError};
use regatta_util::percentile;
use serde::Serialize;
use thiserror::Error;

pub(crate) use self::observations::observations;
pub(crate) use self::params::defaults;
use crate::inspect::micros;
use crate::module::ModuleError;

/// Different ticks that are decided in turn.
const TICKS: u64 = 16;
/// Decisions that are measured for each size: at least so many, then until the time is over.
const DECISIONS: std::ops::RangeInclusive<usize> = 16..=2_000;
const TIME_OF_A_SIZE: Duration = Duration::from_millis(1_500);
/// How often it is compiled: at most so often, or until the time is over.
const COMPILES: usize = 5;
/// How often it is loaded from the cache.
const LOADS: usize = 9;
const TIME_OF_COMPILES: Duration = Duration::from_secs(3);

/// What to measure.
#[derive(Debug, Clone)]
pub struct BenchOptions {
    /// Parameters as JSON; none for the defaults of the policy's schema.
    pub params: Option<serde_json::Value>,
    /// Numbers of instances to measure with.
    pub instances: Vec<u32>,
    /// What a decision may cost.
    pub limits: PolicyLimits,
}

/// A policy that cannot be measured.
#[derive(Debug, Error)]
pub enum BenchError {
    /// It cannot be loaded.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// There is no place for a cache of compiled modules.
    #[error("cannot make a temporary directory")]
    Cache(#[source] std::io::Error),
    /// It has parameters that must be given.
    #[error("the policy has no default for {}: give --params", .0.join(", "))]
    NeedsParams(Vec<String>),
    /// It does not accept the parameters.
    #[error("the policy does not accept its parameters")]
    Params(#[source] ParamsError),
}

/// What a policy costs. Times are microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Bench {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// SHA-256, lower-case hex.
    pub digest: Digest,
    /// How it talks with the host.
    pub abi: String,
    /// Whether this program was built with optimisations; without, the figures are not those of a release.
    pub optimised: bool,
    /// The parameters that it was measured with.
    pub params: serde_json::Value,
    /// Size of the module, bytes.
    pub size_bytes: usize,
    /// Size of its machine code and data, bytes.
    pub compiled_bytes: usize,
    /// Median time of checking and compiling.
    pub compile_us: f64,
    /// How often it was compiled.
    pub compiles: usize,
    /// Median time of checking it and loading it from the cache of compiled modules, as after a restart of the daemon.
    pub cached_load_us: f64,
    /// Per number of instances.
    pub decisions: Vec<Decisions>,
}

/// What decisions at one size cost. Times are microseconds.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decisions {
    /// Instances in the set.
    pub instances: u32,
    /// How many decisions were measured.
    pub runs: usize,
    /// Median of the whole call, a fresh instance and its end included.
    pub median_us: f64,
    /// 99th percentile of the whole call.
    pub p99_us: f64,
    /// Median of making the fresh instance.
    pub instantiate_us: f64,
    /// Median of the time inside the guest, with handing over arguments and result.
    pub guest_us: f64,
    /// Most fuel that a decision took.
    pub fuel: u64,
    /// That, as a share of the limit.
    pub fuel_share: f64,
    /// Most linear memory that a decision had, bytes.
    pub memory_bytes: u64,
    /// Decisions that failed, and how the first of them did.
    pub failed: Option<Failed>,
}

/// Decisions that failed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failed {
    /// How many of the runs.
    pub runs: usize,
    /// The last of them was more than a refusal: nothing was measured after it.
    pub broken: bool,
    /// Kind and message of the first.
    pub first: String,
}

/// Measures a policy on an engine like the daemon's, under limits. Takes about two seconds for each size, and what compiling
/// takes. A decision that fails for more than a refusal ends it: larger sets cost more. `step` is told what is measured next.
///
/// # Errors
/// When it cannot be loaded, or not with these parameters.
pub fn bench(
    bytes: &[u8],
    engine: &EngineOptions,
    options: &BenchOptions,
    step: &mut dyn FnMut(&str),
) -> Result<Bench, BenchError> {
    step("compiling");
    let cache = tempfile::tempdir().map_err(BenchError::Cache)?;
    let Compiled { policy, compiles, cached } = compiled(bytes, engine, cache.path())?;
    let params = match &options.params {
        Some(params) => params.clone(),
        None => defaults(&policy.manifest().params_schema).map_err(BenchError::NeedsParams)?,
    };
    let text = params.to_string();
    let limits = PolicyLimits { deadline_ms: options.limits.deadline_ms.max(DEADLINE_MS), ..options.limits };
    policy.validate(&text, &limits).map_err(BenchError::Params)?;
    let mut measured: Vec<Decisions> = Vec::new();
    for &count in &options.instances {
        step(&format!("deciding with {count} instances"));
        measured.push(decisions(&policy, count, &text, &limits));
        if measured.last().is_some_and(|row| row.failed.as_ref().is_some_and(|failed| failed.broken)) {
            break;
        }
    }
    let manifest = policy.manifest();
    Ok(Bench {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        digest: policy.digest().to_owned(),
        abi: policy.abi().as_str().to_owned(),
        optimised: !cfg!(debug_assertions),
        params,
        size_bytes: policy.size_bytes(),
        compiled_bytes: policy.compiled_bytes(),
        compiles: compiles.len(),
        compile_us: median_us(&compiles),
        cached_load_us: median_us(&cached),
        decisions: measured,
    })
}

/// Compiles it some times, and loads it some times from an empty directory's first entry. An engine forgets a policy
/// that nobody holds.
fn compiled(bytes: &[u8], options: &EngineOptions, cache: &Path) -> Result<Compiled, ModuleError> {
    let start = Instant::now();
    let engine = Engine::new(EngineOptions { cache: Some(cache.to_owned()), ..options.clone() })?;
    let mut policy = engine.load(bytes)?;
    let mut compiles = vec![policy.compile_time()];
    let mut cached = Vec::new();
    while cached.len() < LOADS {
        drop(policy);
        policy = engine.load(bytes)?;
        match policy.compiled_from() {
            Origin::Cache => cached.push(policy.compile_time()),
            Origin::Fresh => {
                // The cache does not keep it: what was measured is one more compilation.
                compiles.push(policy.compile_time());
                break;
            }
        }
    }
    let without = Engine::new(EngineOptions { cache: None, ..options.clone() })?;
    while compiles.len() < COMPILES && start.elapsed() < TIME_OF_COMPILES {
        compiles.push(without.load(bytes)?.compile_time());
    }
    Ok(Compiled { policy, compiles, cached })
}

/// A policy, and how long it took to get it: compiled anew, and from disk.
struct Compiled {
    policy: Arc<CompiledPolicy>,
    compiles: Vec<Duration>,
    cached: Vec<Duration>,
}

/// Longer than any decision whose fuel is limited: a slow machine is no property of a policy.
const DEADLINE_MS: u64 = 60_000;

fn decisions(policy: &CompiledPolicy, instances: u32, params: &str, limits: &PolicyLimits) -> Decisions {
    let ticks = observations(instances, TICKS, &policy.wishes(params));
    let (mut times, mut fuel, mut memory_bytes, mut state) = (Vec::new(), 0, 0, Vec::new());
    let mut failures: Vec<PolicyFailure> = Vec::new();
    // The first call pays for pages that no later one pays for again.
    let start = Instant::now();
    let _ = policy.decide(&ticks[0], params, &state, limits);
    for tick in ticks.iter().cycle().take(*DECISIONS.end()) {
        if times.len() >= *DECISIONS.start() && start.elapsed() > TIME_OF_A_SIZE {
            break;
        }
        let call = policy.decide(tick, params, &state, limits);
        fuel = fuel.max(call.run.fuel);
        memory_bytes = memory_bytes.max(call.memory_bytes);
        times.push(call.times);
        state = call.state.unwrap_or(state);
        failures.extend(call.run.result.err());
        if failures.last().is_some_and(|failure| failure.kind != FailureKind::Refused) {
            break;
        }
    }
    let part = |of: fn(&CallTimes) -> Duration| -> Vec<Duration> { times.iter().map(of).collect() };
    let failed = failures.first().map(|first| Failed {
        runs: failures.len(),
        broken: failures.last().is_some_and(|last| last.kind != FailureKind::Refused),
        first: format!("{}: {}", first.kind.as_str(), first.message),
    });
    Decisions {
        instances,
        runs: times.len(),
        median_us: median_us(&part(|times| times.total)),
        p99_us: percentile_us(&part(|times| times.total), 0.99),
        instantiate_us: median_us(&part(|times| times.instantiate)),
        guest_us: median_us(&part(|times| times.guest)),
        fuel,
        fuel_share: fuel as f64 / limits.fuel.max(1) as f64,
        memory_bytes,
        failed,
    }
}

fn median_us(times: &[Duration]) -> f64 {
    percentile_us(times, 0.5)
}

/// By nearest rank.
fn percentile_us(times: &[Duration], share: f64) -> f64 {
    micros(percentile(times, share).unwrap_or_default() * 10) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_nearest_rank() {
        let times: Vec<_> = (1..=100).rev().map(Duration::from_micros).collect();
        assert_eq!(median_us(&times), 50.0);
        assert_eq!(percentile_us(&times, 0.99), 99.0);
        assert_eq!(percentile_us(&[Duration::from_nanos(1_250)], 0.99), 1.2);
        assert_eq!(median_us(&[]), 0.0);
    }
}
