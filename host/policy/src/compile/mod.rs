//! From the bytes that someone gave to machine code, whatever the bytes are: off the tick loop, few at once, and in a
//! child process that may be given up when a module makes the compiler take too much.

mod artifact;
pub(crate) mod child;
mod limits;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) use self::artifact::Refusal;
use self::artifact::{Artifact, Meta};
pub use self::child::policy_child;
pub(crate) use self::child::{Job, Work};
pub use self::limits::CompileLimit;
use regatta_core::digest::Digest;

use crate::cache::{Cache, Key};
use crate::compiled::Runnable;
use crate::door::Door;
use crate::engine::Engine;
use crate::error::LoadError;
use crate::gate::Lane;
use crate::load::{self, Abi, Code};
use crate::sys::Native;

/// Where modules are compiled, or run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In this process, which a bad module may take down with it: for tests, and for modules of one's own.
    InProcess,
    /// In a child process that has given up its rights. One is started for each module that is compiled; one runs all
    /// policies.
    Child(Program),
}

/// The program of a child.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Its file; `/proc/self/exe` is this one, even when its file has been replaced since.
    pub path: PathBuf,
    /// Its arguments. One more is appended, and the program passes it on to [`policy_child`].
    pub args: Vec<OsString>,
}

/// What compiling one module may take, in a child. What a module is refused for before is not adjustable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time of all its threads, in whole seconds. Not wall-clock time: a busy host takes longer, and refuses nothing for it.
    pub cpu_time: Duration,
    /// Address space, bytes.
    pub memory_bytes: u64,
    /// Machine code, bytes.
    pub code_bytes: u64,
}

impl Default for CompileLimits {
    fn default() -> Self {
        Self { cpu_time: Duration::from_secs(120), memory_bytes: 4 << 30, code_bytes: 512 << 20 }
    }
}

/// Where the code of a policy came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// It was compiled.
    Fresh,
    /// It had been compiled before, and was on disk.
    Cache,
}

/// A module that can be instantiated.
pub(crate) struct Built {
    pub(crate) meta: Meta,
    pub(crate) code: Runnable,
    pub(crate) from: Origin,
}

impl Engine {
    /// Checks a module and compiles it, unless that was done before. `digest` is the module's SHA-256.
    ///
    /// # Errors
    /// When it is not a policy, or takes too much to compile.
    pub(crate) fn build(&self, bytes: &[u8], digest: &Digest) -> Result<Built, LoadError> {
        let Some(cache) = &self.inner.cache else {
            let permit = self.inner.compiling.enter(Lane::Heavy);
            let artifact = compile(self, bytes)?;
            drop(permit);
            return self.ready(artifact, digest, Origin::Fresh);
        };
        let key = Key::new(&self.inner.engine, digest);
        if let Some(built) = self.recall(cache, &key, digest) {
            return Ok(built);
        }
        let permit = self.inner.compiling.enter(Lane::Heavy);
        // Another set may have waited for the same module.
        if let Some(built) = self.recall(cache, &key, digest) {
            return Ok(built);
        }
        let artifact = compile(self, bytes)?;
        drop(permit);
        // Only what this engine takes is kept.
        let stored = artifact.to_bytes();
        let built = self.ready(artifact, digest, Origin::Fresh)?;
        cache.put(&key, &stored);
        Ok(built)
    }

    fn recall(&self, cache: &Cache, key: &Key, digest: &Digest) -> Option<Built> {
        // The cache gives back what was put in, which is what the compiler gave.
        let artifact = Artifact::from_trusted(&cache.get(key)?);
        let built = artifact.map(|artifact| self.ready(artifact, digest, Origin::Cache));
        if !matches!(built, Some(Ok(_))) {
            cache.reject(key, "the engine does not take it");
        }
        built?.ok()
    }

    fn ready(&self, artifact: Artifact, digest: &Digest, from: Origin) -> Result<Built, LoadError> {
        let code = match self.worker_for(digest) {
            None => Runnable::Here(self.link(artifact.meta.abi, &artifact.code)?),
            Some(worker) => Runnable::Worker(worker.load(artifact.meta.abi, artifact.code)?),
        };
        Ok(Built { meta: artifact.meta, code, from })
    }

    /// Makes instances of `code` possible in this process.
    ///
    /// # Errors
    /// When it was made for another engine, or does not fit the contract.
    pub(crate) fn link(&self, abi: Abi, code: &Native) -> Result<Door, LoadError> {
        let engine = &self.inner.engine;
        let code = match abi {
            Abi::Component | Abi::CoreCanonical => code.component(engine).map(Code::Component),
            Abi::CoreJson => code.module(engine).map(Code::Module),
        };
        Door::new(self, &code.map_err(|error| LoadError::Compile(artifact::cause(error)))?)
    }
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Artifact, LoadError> {
    limits::check(bytes)?;
    let inner = &engine.inner;
    match &inner.options.compile_in {
        Place::InProcess => build(&inner.engine, bytes),
        Place::Child(program) => {
            let (limits, user) = (&inner.options.compile_limits, inner.options.user);
            child::run(program, engine.pooling(), user, limits, bytes)
        }
    }
}

/// Checks a module and compiles it, here and now.
fn build(engine: &wasmtime::Engine, bytes: &[u8]) -> Result<Artifact, LoadError> {
    let prepared = load::prepare(bytes)?;
    let code = match prepared.abi {
        Abi::Component | Abi::CoreCanonical => engine.precompile_component(&prepared.bytes),
        Abi::CoreJson => engine.precompile_module(&prepared.bytes),
    };
    let code = code.map_err(|error| LoadError::Compile(artifact::cause(error)))?;
    Ok(Artifact { meta: Meta::of(&prepared), code: Native::trusted(code) })
}
