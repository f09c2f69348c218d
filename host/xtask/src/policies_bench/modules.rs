//! What each module costs by itself: size, compiling, and decisions by the size of the set.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_policy_host::{CallTimes, CompiledPolicy, Engine, EngineOptions};
use regatta_util::percentile;
use serde::Serialize;

use crate::effort::Effort;
use crate::figure::{ms, us};
use crate::observed::{SEEDS, observation, set};
use crate::pinned::Pinned;

/// Sizes of the set.
pub(crate) const SIZES: [u32; 4] = [10, 100, 1_000, 10_000];

/// The same, of which one only sees that it runs; and the largest module that an unoptimized compiler is asked for then.
const QUICK_SIZES: [u32; 2] = [10, 1_000];
const QUICK_BYTES_MAX: u64 = 1 << 20;

/// Decisions at each size: at least the first, at most the second, as many as there is time for.
const DECISIONS: (usize, usize) = (16, 1_000);
const TIME_OF_A_SIZE: Duration = Duration::from_millis(1_500);

/// How often each is compiled: at most so often, as there is time for.
const COMPILES: usize = 5;
const TIME_OF_COMPILES: Duration = Duration::from_secs(5);

/// The size whose memory is looked for, the step of it, and where that ends.
const MEMORY_AT: u32 = 1_000;
const PAGE_BYTES: u64 = 64 << 10;
const MOST_PAGES: u64 = (1 << 30) / PAGE_BYTES;

/// All policies that are measured understand these.
const PARAMS: &str = r#"{"metric": "utilization", "target": 0.6}"#;

/// One that was measured. Times are medians where nothing else is said.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Module {
    /// The language of the example, or the name of the built-in policy.
    pub(crate) name: String,
    pub(crate) bytes: usize,
    /// From bytes to code, on all CPUs.
    pub(crate) compile_ms: f64,
    /// From bytes to a policy that has described itself, in a new engine, with its code in the cache on disk.
    pub(crate) cached_load_ms: f64,
    /// Making a fresh instance.
    pub(crate) instantiate_us: f64,
    pub(crate) by_instances: Vec<Decisions>,
    /// The least limit with which it decides for 1,000 instances; none when the greatest is not enough.
    pub(crate) memory_kib: Option<u64>,
}

/// Whole calls at one size of the set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Decisions {
    pub(crate) instances: u32,
    pub(crate) median_us: f64,
    pub(crate) p99_us: f64,
    /// Inside the guest, with lowering and lifting.
    pub(crate) guest_us: f64,
    pub(crate) fuel: u64,
    pub(crate) decisions: usize,
}

/// One that was not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Skipped {
    pub(crate) name: String,
    pub(crate) why: String,
}

/// Measures the built-in `target-tracking`, and the example of every language whose module is built.
pub(crate) fn measure(
    policies: &Path,
    languages: &Path,
    effort: Effort,
) -> Result<(Vec<Module>, Vec<Skipped>)> {
    let built_in = policies.join("target-tracking.wasm");
    let mut modules = vec![module("target-tracking", &built_in, effort)?];
    let mut skipped = Vec::new();
    for name in names(policies, languages)? {
        let path = policies.join("languages").join(&name).with_extension("wasm");
        let measured = match path.metadata() {
            Ok(file) if file.len() > effort.choose(u64::MAX, QUICK_BYTES_MAX) => {
                Err("too large for --quick".to_owned())
            }
            Ok(_) => {
                eprintln!("  the example in {name} …");
                module(&name, &path, effort).map_err(|error| format!("{error:#}"))
            }
            Err(_) => Err(format!("not built: cargo xtask policies --language {name}")),
        };
        match measured {
            Ok(measured) => modules.push(measured),
            Err(why) => {
                eprintln!("skipped: {name}: {why}");
                skipped.push(Skipped { name, why });
            }
        }
    }
    Ok((modules, skipped))
}

/// Of the examples, and of modules whose example is not here.
fn names(policies: &Path, languages: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for directory in [languages.to_owned(), policies.join("languages")] {
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", directory.display()));
            }
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", directory.display()))?.path();
            let counts = path.is_dir() || path.extension().is_some_and(|end| end == "wasm");
            names.extend(path.file_stem().filter(|_| counts).map(|stem| stem.to_string_lossy().into_owned()));
        }
    }
    names.sort_unstable();
    names.dedup();
    Ok(names)
}

fn module(name: &str, path: &Path, effort: Effort) -> Result<Module> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let compiles = effort.choose(COMPILES, 1);
    let (engine, compiling) = compile(&bytes, compiles)?;
    let cached = load_cached(&bytes, compiles)?;
    let policy = engine.load(&bytes)?;
    policy.validate(PARAMS, &roomy())?;
    // After compiling, which is to have all CPUs.
    let _pinned = Pinned::to_one_cpu()?;
    let mut by_instances = Vec::new();
    let mut instantiating = Vec::new();
    for &instances in effort.choose(&SIZES[..], &QUICK_SIZES[..]) {
        let (decisions, times) = decide(&policy, instances, effort)?;
        by_instances.push(decisions);
        instantiating.extend(times.iter().map(|times| times.instantiate));
    }
    Ok(Module {
        name: name.to_owned(),
        bytes: bytes.len(),
        compile_ms: percentile(&compiling, 0.5).map_or(f64::NAN, ms),
        cached_load_ms: percentile(&cached, 0.5).map_or(f64::NAN, ms),
        instantiate_us: percentile(&instantiating, 0.5).map_or(f64::NAN, us),
        by_instances,
        memory_kib: memory(&policy)?,
    })
}

/// Compiles it, each time in a new engine, which knows nothing of it; returns the last of them.
fn compile(bytes: &[u8], times: usize) -> Result<(Engine, Vec<Duration>)> {
    let start = Instant::now();
    let mut took = Vec::new();
    loop {
        let engine = Engine::new(EngineOptions::default())?;
        let policy = engine.load(bytes)?;
        took.push(policy.compile_time());
        if took.len() >= times || start.elapsed() > TIME_OF_COMPILES {
            return Ok((engine, took));
        }
    }
}

/// Compiles it once more, into a cache, and loads it from there.
fn load_cached(bytes: &[u8], times: usize) -> Result<Vec<Duration>> {
    let directory = tempfile::Builder::new().prefix("regatta-bench-").tempdir();
    let directory = directory.context("cannot make a directory")?;
    let options = EngineOptions { cache: Some(directory.path().join("cache")), ..EngineOptions::default() };
    Engine::new(options.clone())?.load(bytes)?;
    let mut took = Vec::new();
    for _ in 0..times {
        // A new one has nothing in memory.
        let engine = Engine::new(options.clone())?;
        let start = Instant::now();
        engine.load(bytes)?;
        took.push(start.elapsed());
    }
    Ok(took)
}

fn decide(policy: &CompiledPolicy, instances: u32, effort: Effort) -> Result<(Decisions, Vec<CallTimes>)> {
    let observations = observations(instances)?;
    let limits = roomy();
    let (mut times, mut fuel, mut state) = (Vec::new(), Vec::new(), Vec::new());
    let (least, most) = effort.choose(DECISIONS, (1, 1));
    let mut start = Instant::now();
    for (turn, observation) in observations.iter().cycle().enumerate() {
        if times.len() >= most || (times.len() >= least && start.elapsed() > TIME_OF_A_SIZE) {
            break;
        }
        let call = policy.decide(observation, PARAMS, &state, &limits);
        call.run
            .result
            .map_err(|failure| anyhow::anyhow!("{}: {}", failure.kind.as_str(), failure.message))?;
        state = call.state.unwrap_or_default();
        if turn < observations.len() {
            // To warm up.
            start = Instant::now();
            continue;
        }
        times.push(call.times);
        fuel.push(call.run.fuel);
    }
    let part = |share, of: fn(&CallTimes) -> Duration| {
        percentile(&times.iter().map(of).collect::<Vec<_>>(), share).map_or(f64::NAN, us)
    };
    let decisions = Decisions {
        instances,
        median_us: part(0.5, |times| times.total),
        p99_us: part(0.99, |times| times.total),
        guest_us: part(0.5, |times| times.guest),
        fuel: percentile(&fuel, 0.5).unwrap_or(0),
        decisions: times.len(),
    };
    Ok((decisions, times))
}

/// KiB of the least limit with which it decides, by bisection: what it touches cannot be seen from outside.
fn memory(policy: &CompiledPolicy) -> Result<Option<u64>> {
    let observations = observations(MEMORY_AT)?;
    let enough = |pages: u64| {
        let limits = PolicyLimits { memory_bytes: pages * PAGE_BYTES, ..roomy() };
        let decides = |observation| policy.decide(observation, PARAMS, b"", &limits).run.result.is_ok();
        observations.iter().all(decides)
    };
    Ok(least(MOST_PAGES, enough).map(|pages| pages * PAGE_BYTES / 1024))
}

/// The least of `0..=most` from which on `enough` holds; none when it does not even for `most`.
fn least(most: u64, enough: impl Fn(u64) -> bool) -> Option<u64> {
    if !enough(most) {
        return None;
    }
    let (mut low, mut high) = (0, most);
    while low < high {
        let middle = low + (high - low) / 2;
        if enough(middle) { high = middle } else { low = middle + 1 }
    }
    Some(high)
}

fn observations(instances: u32) -> Result<Vec<Arc<Observation>>> {
    let set = set(instances)?;
    Ok(SEEDS.map(|seed| Arc::new(observation(&set, instances, seed))).collect())
}

/// Limits under which only what never ends fails.
fn roomy() -> PolicyLimits {
    PolicyLimits {
        fuel: 100_000_000_000,
        deadline_ms: 60_000,
        memory_bytes: 1 << 30,
        output_bytes: 64 << 20,
        ..PolicyLimits::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_is_found() {
        for wanted in [0, 1, 2, 17, 99, 100] {
            assert_eq!(least(100, |pages| pages >= wanted), Some(wanted));
        }
        assert_eq!(least(100, |_| false), None);
    }

    #[test]
    fn languages_are_those_of_examples_and_of_modules() {
        let directory = tempfile::tempdir().expect("a directory");
        let (policies, languages) = (directory.path().join("policies"), directory.path().join("languages"));
        assert_eq!(names(&policies, &languages).expect("none"), Vec::<String>::new());
        for made in ["languages/go", "languages/wat", "policies/languages"] {
            fs::create_dir_all(directory.path().join(made)).expect("a directory");
        }
        for made in ["languages/vectors.json", "policies/languages/zig.wasm", "policies/languages/wat.wasm"] {
            fs::write(directory.path().join(made), "").expect("a file");
        }
        assert_eq!(names(&policies, &languages).expect("three"), ["go", "wat", "zig"]);
    }
}
