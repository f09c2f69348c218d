//! Modules, observations and an engine to run them with.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions, Place, Program};

use crate::modules::hostile_dir;
pub(crate) use crate::modules::{hostile, module};

pub(crate) const TARGET_TRACKING: &str = r#"{"metric": "utilization", "target": 0.5}"#;

/// A user that nobody has.
pub(crate) const NOBODY_ELSE: u32 = 499_999;

/// The program of children that compile and run policies.
pub(crate) fn child() -> Place {
    Place::Child(Program { path: env!("CARGO_BIN_EXE_regatta-policy-child").into(), args: Vec::new() })
}

/// Runs policies in a worker, as the daemon does.
pub(crate) fn confined() -> EngineOptions {
    let user = rustix::process::geteuid().is_root().then_some(NOBODY_ELSE);
    EngineOptions { run_in: child(), user, ..EngineOptions::default() }
}

pub(crate) fn engine() -> Engine {
    static ENGINE: LazyLock<Engine> = LazyLock::new(|| Engine::new(confined()).expect("an engine starts"));
    ENGINE.clone()
}

/// Limits that no slow machine reaches by accident: what a test is after, it lowers.
pub(crate) fn limits() -> PolicyLimits {
    PolicyLimits { deadline_ms: 60_000, ..PolicyLimits::default() }
}

/// The built-in policy of that name.
pub(crate) fn built_in(name: &str) -> Vec<u8> {
    let folder = std::env::var_os("REGATTA_POLICIES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/policies"), PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    std::fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; build the policies with `cargo xtask policies`", path.display())
    })
}

/// The built-in policy of that name, compiled once for all tests.
pub(crate) fn compiled(name: &str) -> Arc<CompiledPolicy> {
    static TARGET_TRACKING: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| load("target-tracking"));
    static STEP: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| load("step"));
    match name {
        "target-tracking" => Arc::clone(&TARGET_TRACKING),
        "step" => Arc::clone(&STEP),
        _ => load(name),
    }
}

fn load(name: &str) -> Arc<CompiledPolicy> {
    engine().load(&built_in(name)).unwrap_or_else(|error| panic!("{name} is refused: {error}"))
}

/// The names of all fixtures in `tests/hostile`.
pub(crate) fn hostile_names() -> Vec<String> {
    let files = std::fs::read_dir(hostile_dir()).expect("the folder of the fixtures can be read");
    let mut names: Vec<String> = files
        .map(|file| file.expect("a folder entry can be read").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "wat"))
        .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
        .collect();
    names.sort();
    names
}

/// A set of `in_service` instances (ids from 1), all at `utilization`.
pub(crate) fn observation(in_service: u32, utilization: f64) -> Arc<Observation> {
    Arc::new(observation_of(in_service, &vec![utilization; usize::try_from(in_service).expect("it fits")]))
}

pub(crate) fn observation_of(in_service: u32, utilization: &[f64]) -> Observation {
    let mut instances = InstanceTable::default();
    for id in 1..=in_service {
        instances.push(InstanceRow {
            id,
            state: InstanceState::InService,
            state_since_ms: 1_000,
            created_ms: 500,
            generation: 1,
            protected: false,
        });
    }
    Observation {
        set: "web".to_owned(),
        tick: 7,
        now_ms: 1_000_000,
        generation: 1,
        min: 1,
        max: 1_000,
        desired: in_service,
        instances,
        metrics: vec![MetricObservation {
            name: "utilization".to_owned(),
            scope: MetricScope::Instance,
            values: utilization.iter().map(|&value| MetricValue::Fresh(value)).collect(),
            window: Vec::new(),
        }],
        last: None,
        schedule: Vec::new(),
    }
}
