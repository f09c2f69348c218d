//! One wasmtime engine for all policies of a host.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::thread;
use std::time::Duration;

use regatta_core::digest::Digest;
use wasmtime::component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

use crate::cache::Cache;
use crate::compile::{CompileLimits, Place};
use crate::compiled::CompiledPolicy;
use crate::door;
use crate::error::EngineError;
use crate::gate::{Gate, Lane, Permit};
use crate::guest::Guest;
use crate::jail::WallState;
use crate::wasi;
use crate::worker::Worker;

/// Length of an epoch: how exactly a wall-clock deadline is kept.
pub(crate) const EPOCH_MS: u64 = 10;

/// Calls that run at once; more wait. Each takes slots of the pool.
pub(crate) const CALLS_AT_ONCE: u32 = 16;
/// A component made of one core module has a few small ones beside it; a large
/// runtime (Python) has more than 20.
const CORE_INSTANCES_PER_CALL: u32 = 40;
const MEMORIES_PER_CALL: u32 = 4;
const TABLES_PER_CALL: u32 = 40;
/// Compilers make one, and some more for references.
const TABLES_PER_MODULE: u32 = 8;
/// No memory limit of a policy goes past this.
pub(crate) const MAX_MEMORY_BYTES: u64 = 1 << 30;
/// No table limit of a policy goes past this.
pub(crate) const MAX_TABLE_ELEMENTS: u32 = 1_000_000;
/// Stack of a guest; it runs on the stack of the calling thread.
const STACK_BYTES: usize = 512 << 10;

/// Modules that are compiled at once; more wait. Each takes CPU and memory by the gigabyte.
const COMPILATIONS_AT_ONCE: u32 = 2;

/// How an [`Engine`] is set up.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Reserve the memory of all instances at once, which makes fresh instances
    /// cheap but takes some 300 GiB of *address space* (no memory). Where it is
    /// not to be had, the engine falls back to memory on demand by itself.
    pub pooling: bool,
    /// Where modules are compiled, and parameters held against the schema of a module.
    pub compile_in: Place,
    /// Where policies run.
    pub run_in: Place,
    /// Modules that run in this process all the same: those that came with this program. A worker costs each decision
    /// two changes of process.
    pub own: HashSet<Digest>,
    /// The user that children become, where this process may choose. No other process should have it.
    pub user: Option<u32>,
    /// What compiling one may take, in a child.
    pub compile_limits: CompileLimits,
    /// The directory that keeps compiled modules, made when it is not there; none keeps none.
    pub cache: Option<PathBuf>,
    /// Bytes that the compiled modules may take there.
    pub cache_bytes: u64,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            pooling: true,
            compile_in: Place::InProcess,
            run_in: Place::InProcess,
            own: HashSet::new(),
            user: None,
            compile_limits: CompileLimits::default(),
            cache: None,
            cache_bytes: 1 << 30,
        }
    }
}

/// Compiles and runs policies. Cheap to clone; all clones are one engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    /// What runs policies in this process, or only what code is compiled for.
    pub(crate) engine: wasmtime::Engine,
    /// None when all run in the worker.
    pub(crate) linkers: Option<Linkers>,
    pub(crate) worker: Option<Worker>,
    pooling: bool,
    compiled: Mutex<HashMap<Digest, Weak<CompiledPolicy>>>,
    gate: Gate,
    pub(crate) compiling: Gate,
    pub(crate) cache: Option<Cache>,
    pub(crate) options: EngineOptions,
}

/// What modules may import.
pub(crate) struct Linkers {
    pub(crate) components: component::Linker<Guest>,
    /// For core modules of the JSON door.
    pub(crate) modules: wasmtime::Linker<Guest>,
}

/// What runs policies, not yet running: it has no thread.
pub(crate) struct Runtime {
    engine: wasmtime::Engine,
    pooling: bool,
}

/// Has wasmtime set itself up; from a pool if that can be had.
///
/// # Errors
/// When wasmtime cannot run on this machine.
pub(crate) fn runtime(pooling: bool) -> Result<Runtime, EngineError> {
    if pooling {
        match wasmtime::Engine::new(&config(true)) {
            Ok(engine) => return Ok(Runtime { engine, pooling }),
            Err(error) => {
                let error = format!("{error:#}");
                tracing::warn!(error, "no address space for a pool of policy instances; going on without");
            }
        }
    }
    let engine = wasmtime::Engine::new(&config(false)).map_err(EngineError::wasmtime)?;
    Ok(Runtime { engine, pooling: false })
}

/// What modules may import in this process, with the thread that keeps their deadlines.
fn linkers(runtime: &Runtime) -> Result<Linkers, EngineError> {
    let engine = &runtime.engine;
    let mut components = component::Linker::new(engine);
    door::component::link(&mut components).map_err(EngineError::wasmtime)?;
    let mut modules = wasmtime::Linker::new(engine);
    door::json::link(&mut modules).map_err(EngineError::wasmtime)?;
    wasi::preview1::link(&mut modules).map_err(EngineError::wasmtime)?;
    let weak = engine.weak();
    thread::Builder::new()
        .name("policy-epoch".to_owned())
        .spawn(move || {
            loop {
                thread::sleep(Duration::from_millis(EPOCH_MS));
                let Some(engine) = weak.upgrade() else { return };
                engine.increment_epoch();
            }
        })
        .map_err(EngineError::Thread)?;
    Ok(Linkers { components, modules })
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("pooling", &self.inner.pooling).finish_non_exhaustive()
    }
}

impl Engine {
    /// Starts an engine: the thread that keeps its deadlines, and the worker that runs policies. They end soon after the
    /// last clone and the last policy compiled by it are gone.
    ///
    /// # Errors
    /// When wasmtime cannot run on this machine, or the thread or the worker cannot be started.
    pub fn new(options: EngineOptions) -> Result<Self, EngineError> {
        let Place::Child(program) = &options.run_in else {
            return Self::with_runtime(runtime(options.pooling)?, options);
        };
        let worker = Worker::start(program.clone(), options.user, options.pooling)?;
        // Code is compiled for one of the two.
        let pooling = worker.pooling();
        if options.own.is_empty() {
            let engine = for_compiling(pooling).map_err(EngineError::wasmtime)?;
            return Ok(Self::at(Runtime { engine, pooling }, None, Some(worker), options));
        }
        let runtime = runtime(pooling)?;
        let worker = match runtime.pooling == pooling {
            true => worker,
            false => Worker::start(program.clone(), options.user, false)?,
        };
        let linkers = linkers(&runtime)?;
        Ok(Self::at(runtime, Some(linkers), Some(worker), options))
    }

    /// Starts an engine that runs all policies in this process.
    pub(crate) fn with_runtime(runtime: Runtime, options: EngineOptions) -> Result<Self, EngineError> {
        let linkers = linkers(&runtime)?;
        Ok(Self::at(runtime, Some(linkers), None, options))
    }

    fn at(
        runtime: Runtime,
        linkers: Option<Linkers>,
        worker: Option<Worker>,
        options: EngineOptions,
    ) -> Self {
        let Runtime { engine, pooling } = runtime;
        let compiled = Mutex::new(HashMap::new());
        let (gate, compiling) = (
            Gate::new(CALLS_AT_ONCE, heavy_calls_at_once()),
            Gate::new(COMPILATIONS_AT_ONCE, COMPILATIONS_AT_ONCE),
        );
        let cache = options.cache.as_deref().and_then(|dir| {
            let unusable = |error: std::io::Error| {
                let dir = dir.display();
                tracing::warn!(%dir, %error, "compiled policies are not kept on disk: each start compiles them anew");
            };
            Cache::open(dir, options.cache_bytes).map_err(unusable).ok()
        });
        let inner = Inner { engine, linkers, worker, pooling, compiled, gate, compiling, cache, options };
        Self { inner: Arc::new(inner) }
    }

    /// Process id of the worker that runs policies; none when they run in this process.
    #[must_use]
    pub fn worker(&self) -> Option<u32> {
        self.inner.worker.as_ref().map(Worker::pid)
    }

    /// What the worker cannot reach; nothing when there is none.
    #[must_use]
    pub fn walls(&self) -> Vec<WallState> {
        self.inner.worker.as_ref().map(Worker::walls).unwrap_or_default()
    }

    /// The worker, for modules that do not run in this process.
    pub(crate) fn worker_for(&self, module: &Digest) -> Option<&Worker> {
        self.inner.worker.as_ref().filter(|_| !self.inner.options.own.contains(module))
    }

    /// Whether instances come from a pool.
    #[must_use]
    pub fn pooling(&self) -> bool {
        self.inner.pooling
    }

    pub(crate) fn cached(&self, digest: &Digest) -> Option<Arc<CompiledPolicy>> {
        self.in_use().get(digest)?.upgrade()
    }

    pub(crate) fn cache_insert(&self, policy: &Arc<CompiledPolicy>) {
        let mut cache = self.in_use();
        cache.retain(|_, policy| policy.strong_count() > 0);
        cache.insert(policy.digest().clone(), Arc::downgrade(policy));
    }

    fn in_use(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Weak<CompiledPolicy>>> {
        self.inner.compiled.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for one of the calls that may run at once.
    pub(crate) fn enter(&self, lane: Lane) -> Permit<'_> {
        self.inner.gate.enter(lane)
    }
}

/// An engine that only compiles: what it gives runs on the engine with the same `pooling`. It reserves nothing.
pub(crate) fn for_compiling(pooling: bool) -> wasmtime::Result<wasmtime::Engine> {
    wasmtime::Engine::new(&code_config(pooling))
}

fn config(pooling: bool) -> Config {
    let mut config = code_config(pooling);
    if pooling {
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool()));
    }
    config
}

/// All that code depends on.
fn code_config(pooling: bool) -> Config {
    let mut config = Config::new();
    config
        .wasm_component_model(true)
        // Deterministic: the same bytes in give the same bytes out, on every machine.
        .consume_fuel(true)
        .cranelift_nan_canonicalization(true)
        .relaxed_simd_deterministic(true)
        // The safety net for time spent where fuel does not count.
        .epoch_interruption(true)
        .max_wasm_stack(STACK_BYTES)
        // Calls are synchronous; this halves the cost of one.
        .concurrency_support(false)
        .memory_init_cow(true)
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    if !pooling {
        config
            .allocation_strategy(InstanceAllocationStrategy::OnDemand)
            .memory_reservation(0)
            .memory_reservation_for_growth(1 << 20)
            .memory_guard_size(64 << 10);
    }
    config
}

fn pool() -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(CALLS_AT_ONCE)
        .total_core_instances(CALLS_AT_ONCE * CORE_INSTANCES_PER_CALL)
        .max_core_instances_per_component(CORE_INSTANCES_PER_CALL)
        .total_memories(CALLS_AT_ONCE * MEMORIES_PER_CALL)
        .max_memories_per_component(MEMORIES_PER_CALL)
        .total_tables(CALLS_AT_ONCE * TABLES_PER_CALL)
        .max_tables_per_component(TABLES_PER_CALL)
        .max_tables_per_module(TABLES_PER_MODULE)
        .max_memory_size(usize::try_from(MAX_MEMORY_BYTES).unwrap_or(usize::MAX))
        .table_elements(usize::try_from(MAX_TABLE_ELEMENTS).unwrap_or(usize::MAX))
        // What a guest has touched is put back by hand instead of given back to the kernel, so that the next call has no
        // page faults. Which pages these are, Linux tells from 6.7 on: they are few, and far apart, as a guest in Rust has
        // its stack below 1 MiB and its data above. Without that it is the first pages, touched or not.
        .pagemap_scan(Enabled::Auto)
        .linear_memory_keep_resident(256 << 10)
        .table_keep_resident(16 << 10);
    pool
}

/// Of [`CALLS_AT_ONCE`], those of policies that overran their limits the last time: they take a core each for all the
/// time that they are given, so half of the cores is kept for what has ticks to keep.
fn heavy_calls_at_once() -> u32 {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    u32::try_from(cores / 2).unwrap_or(1).clamp(1, CALLS_AT_ONCE / 2)
}
