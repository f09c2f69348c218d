//! What a module is: what its headers say, and what it says of itself.

use std::time::Duration;

use regatta_core::digest::Digest;
use regatta_policy_host::{CompiledPolicy, EngineOptions, Origin};
use serde::Serialize;
use serde_json::Value;

use crate::module::{ModuleError, load_module};
use crate::outline::{Outline, outline};
use crate::parameters::{Parameter, parameters};

/// Everything that can be told of a module without giving it a tick.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Inspection {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// How it talks with the host: `component`, `core-canonical` or `core-json`.
    pub abi: String,
    /// What its headers say.
    #[serde(flatten)]
    pub outline: Outline,
    /// SHA-256, lower-case hex.
    pub digest: Digest,
    /// Size, bytes.
    pub size_bytes: usize,
    /// Size of the machine code and its data that it is compiled to, bytes.
    pub compiled_bytes: usize,
    /// Time of checking and compiling, microseconds; or of finding it in the cache.
    pub compile_us: u64,
    /// Whether it had been compiled before and was found in the cache.
    pub cached: bool,
    /// The metrics that it asks for.
    pub metrics: Vec<MetricRequest>,
    /// Version of the shape of its state.
    pub state_version: u32,
    /// Whether it can take over the state of its earlier versions.
    pub migrates: bool,
    /// Its parameters, as rows.
    pub parameters: Vec<Parameter>,
    /// Its parameters, as it gave their JSON schema.
    pub params_schema: Value,
}

/// A metric that a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MetricRequest {
    /// A name, or a JSON pointer to the parameter that holds it.
    pub name: String,
    /// How far back it looks, milliseconds; 0 for no window.
    pub window_ms: u64,
}

/// Compiles a module (or takes it from the cache), lets it describe itself and tells what it is.
///
/// # Errors
/// When it is not a policy, or this machine cannot run any.
pub fn inspect(bytes: &[u8], engine: &EngineOptions) -> Result<Inspection, ModuleError> {
    Ok(describe(&*load_module(bytes, engine)?, outline(bytes)))
}

fn describe(policy: &CompiledPolicy, outline: Outline) -> Inspection {
    let manifest = policy.manifest();
    let metrics = manifest.metrics.iter();
    Inspection {
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        description: manifest.description.clone(),
        abi: policy.abi().as_str().to_owned(),
        digest: policy.digest().to_owned(),
        size_bytes: policy.size_bytes(),
        compiled_bytes: policy.compiled_bytes(),
        compile_us: micros(policy.compile_time()),
        cached: policy.compiled_from() == Origin::Cache,
        metrics: metrics
            .map(|wish| MetricRequest { name: wish.name.clone(), window_ms: wish.window_ms })
            .collect(),
        state_version: manifest.state_version,
        migrates: policy.migrates(),
        parameters: parameters(&manifest.params_schema),
        params_schema: manifest.params_schema.clone(),
        outline,
    }
}

pub(crate) fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
