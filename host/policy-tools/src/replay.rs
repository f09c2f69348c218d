//! Deciding recorded ticks again, policies included.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::decision::PolicyRun;
use regatta_core::manifest::{PolicyLimits, ScaleSet};
use regatta_core::observation::Observation;
use regatta_core::replay::Source;
use regatta_policy_host::{CompiledPolicy, Engine};
use regatta_util::chain;

use crate::module::{ModuleError, engine};

/// Where the bytes of manifests and modules come from, by SHA-256.
pub type Fetch<'a> = dyn FnMut(&str) -> Result<Vec<u8>, String> + 'a;

/// Runs recorded policies again, in the sandbox that the daemon runs them in.
pub struct Replayer<'a> {
    engine: Engine,
    fetch: &'a mut Fetch<'a>,
    manifests: BTreeMap<String, Arc<ScaleSet>>,
    modules: BTreeMap<String, Arc<CompiledPolicy>>,
}

impl<'a> Replayer<'a> {
    /// A replayer that gets manifests and modules from `fetch`; compiled modules are looked for in `cache`.
    ///
    /// # Errors
    /// There is no sandbox on this host.
    pub fn new(fetch: &'a mut Fetch<'a>, cache: Option<&Path>) -> Result<Self, ModuleError> {
        let engine = engine(true, cache)?;
        Ok(Self { engine, fetch, manifests: BTreeMap::new(), modules: BTreeMap::new() })
    }

    fn module(&mut self, digest: &str) -> Result<Arc<CompiledPolicy>, String> {
        if let Some(compiled) = self.modules.get(digest) {
            return Ok(Arc::clone(compiled));
        }
        let bytes = (self.fetch)(digest)?;
        let compiled =
            self.engine.load(&bytes).map_err(|why| format!("module {digest}: {}", chain(&why)))?;
        self.modules.insert(digest.to_owned(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

impl Source for Replayer<'_> {
    fn manifest(&mut self, digest: &str) -> Result<Arc<ScaleSet>, String> {
        if let Some(manifest) = self.manifests.get(digest) {
            return Ok(Arc::clone(manifest));
        }
        let json = (self.fetch)(digest)?;
        let manifest: ScaleSet =
            serde_json::from_slice(&json).map_err(|why| format!("manifest {digest}: {why}"))?;
        let manifest = Arc::new(manifest);
        self.manifests.insert(digest.to_owned(), Arc::clone(&manifest));
        Ok(manifest)
    }

    fn decide(
        &mut self,
        recorded: &PolicyRun,
        observation: &Arc<Observation>,
        limits: PolicyLimits,
    ) -> Result<PolicyRun, String> {
        let compiled = self.module(&recorded.digest)?;
        let state = BASE64
            .decode(&recorded.state_in)
            .map_err(|why| format!("the state of {} is not valid base64: {why}", recorded.name))?;
        // The wall clock must not decide: fuel ends what would run without end.
        let limits = PolicyLimits { deadline_ms: DEADLINE_MS.max(limits.deadline_ms), ..limits };
        Ok(compiled.decide(observation, &recorded.params, &state, &limits).run)
    }
}

/// How long a recorded decision may take when it is decided again, on a host that may be slower than the one it was made on.
const DEADLINE_MS: u64 = 60_000;
