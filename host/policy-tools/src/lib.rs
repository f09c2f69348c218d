//! What a policy's author needs, none of it with a daemon: new projects, builds, inspection, checks
//! and benchmarks of policy modules.
//!
//! [`create`] makes a project in one of the [`Language`]s, [`build()`] builds it, [`inspect()`] tells what a module is,
//! [`check::check`] whether it is fit, [`bench()`] what it costs. They print nothing: the command line does, and
//! programs read the same values as JSON.

mod bench;
pub mod check;
mod inspect;
mod module;
mod outline;
mod parameters;
mod project;
mod recording;
mod replay;
mod vector;

pub use bench::{Bench, BenchError, BenchOptions, Decisions, bench};
pub use inspect::{Inspection, MetricRequest, inspect};
pub use module::{ModuleError, digest, load_module, read_module};
pub use outline::{ModuleKind, Outline, outline};
pub use parameters::{Parameter, parameters};
pub use project::{NewError, ProjectError, ProjectFile, create};
pub use recording::{Contents, RecordingError, RecordingReader, RecordingWriter, check_recording};
pub use regatta_policy_build::{BuildError, Language, Project, Tools, build, install};
pub use regatta_policy_host::EngineOptions;
pub use replay::{Replayer, references};
pub use vector::vector_file;
