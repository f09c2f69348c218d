//! A module as it lies in a file.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_core::digest::Digest;
use regatta_policy_host::{CompiledPolicy, Engine, EngineError, EngineOptions, LoadError, MAX_MODULE_BYTES};
use thiserror::Error;

/// A module that cannot be looked at.
#[derive(Debug, Error)]
pub enum ModuleError {
    /// The file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// No WebAssembly on this machine.
    #[error("cannot run policies here")]
    Engine(#[from] EngineError),
    /// It is not a policy.
    #[error("the module cannot be loaded")]
    Load(#[from] LoadError),
}

/// A file's content; of one that is larger than a policy may be, only as much as shows it.
///
/// # Errors
/// When it cannot be read.
pub fn read_module(path: &Path) -> Result<Vec<u8>, ModuleError> {
    let limit = u64::try_from(MAX_MODULE_BYTES).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.map_err(|source| ModuleError::Read { path: path.to_owned(), source })?;
    Ok(bytes)
}

/// SHA-256 of a module, lower-case hex: the name by which the daemon's records call it.
#[must_use]
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::of(bytes)
}

/// A policy of these bytes, on an engine like the daemon's when `engine` has the daemon's options: only then what loads here
/// loads there.
///
/// # Errors
/// When it is not a policy, or this machine cannot run any.
pub fn load_module(bytes: &[u8], engine: &EngineOptions) -> Result<Arc<CompiledPolicy>, ModuleError> {
    Ok(Engine::new(engine.clone())?.load(bytes)?)
}
