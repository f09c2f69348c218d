//! Runs scaling policies in a WebAssembly sandbox and swaps them while they run.
//!
//! [`Engine::load`] makes a [`CompiledPolicy`] of a module; its
//! [`decide`](CompiledPolicy::decide) turns an observation into a [`Call`], in a
//! fresh instance each time, so that nothing leaks from tick to tick and every call
//! can be replayed. [`dry_run()`] tries a policy on recorded ticks before it takes over.
//!
//! A guest sees the observation and nothing else. What it may take is limited:
//! fuel (deterministic), wall clock (a safety net, 10 ms exact), memory, stack,
//! output, logged lines. Whatever it does wrong becomes a
//! [`PolicyFailure`](regatta_core::decision::PolicyFailure).

mod ask;
mod bindings;
mod cache;
mod call;
mod compile;
mod compiled;
mod contract;
mod door;
mod dry_run;
mod engine;
mod error;
mod failure;
mod fuel;
mod gate;
mod guest;
mod jail;
mod limiter;
mod load;
mod observe;
mod outcome;
mod params;
mod schema;
mod sys;
mod text;
pub mod vectors;
mod wasi;
mod worker;

pub use call::{Call, CallTimes};
pub use compile::{CompileLimit, CompileLimits, Origin, Place, Program, policy_child};
pub use compiled::{CompiledPolicy, MAX_MODULE_BYTES, PolicyManifest};
pub use contract::{CONTRACT_VERSION, Outline, outline};
pub use dry_run::{DryRun, dry_run};
pub use engine::{Engine, EngineOptions};
pub use error::{
    Cause, EngineError, FailedCall, LoadError, MigrateError, ParamsError, ParamsProblem, PrepareError,
};
pub use jail::{Wall, WallState};
pub use load::Abi;
pub use outcome::MAX_CAPACITY;
pub use regatta_core::metrics::MetricWish;
pub use schema::SchemaAnswer;
