//! Deciding recorded ticks again, policies included.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::decision::PolicyRun;
use regatta_core::digest::Digest;
use regatta_core::manifest::{PolicyLimits, ScaleSet};
use regatta_core::observation::Observation;
use regatta_core::record::TickRecord;
use regatta_core::replay::Source;
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions};
use regatta_util::chain;

use crate::module::ModuleError;

/// Runs recorded policies again, in the sandbox that the daemon runs them in.
pub struct Replayer {
    engine: Engine,
    /// Manifests and modules, by SHA-256.
    blobs: BTreeMap<Digest, Vec<u8>>,
    manifests: BTreeMap<Digest, Arc<ScaleSet>>,
    modules: BTreeMap<Digest, Arc<CompiledPolicy>>,
}

impl Replayer {
    /// A replayer without manifests and modules.
    ///
    /// # Errors
    /// There is no sandbox on this host.
    pub fn new(engine: &EngineOptions) -> Result<Self, ModuleError> {
        let engine = Engine::new(engine.clone())?;
        Ok(Self { engine, blobs: BTreeMap::new(), manifests: BTreeMap::new(), modules: BTreeMap::new() })
    }

    /// Provides a manifest or a module.
    pub fn provide(&mut self, digest: &Digest, bytes: Vec<u8>) {
        self.blobs.insert(digest.clone(), bytes);
    }

    /// What `record` refers to and was not provided yet.
    #[must_use]
    pub fn missing(&self, record: &TickRecord) -> Vec<Digest> {
        let mut digests = references(record);
        digests.retain(|digest| !self.blobs.contains_key(digest));
        digests
    }

    fn blob(&self, digest: &Digest) -> Result<&[u8], String> {
        let blob = self.blobs.get(digest).map(Vec::as_slice);
        blob.ok_or_else(|| format!("nothing is known of {digest}, which it refers to"))
    }

    fn module(&mut self, digest: &Digest) -> Result<Arc<CompiledPolicy>, String> {
        if let Some(compiled) = self.modules.get(digest) {
            return Ok(Arc::clone(compiled));
        }
        let bytes = self.blob(digest)?;
        let compiled = self.engine.load(bytes).map_err(|why| format!("module {digest}: {}", chain(&why)))?;
        self.modules.insert(digest.clone(), Arc::clone(&compiled));
        Ok(compiled)
    }
}

impl Source for Replayer {
    fn manifest(&mut self, digest: &Digest) -> Result<Arc<ScaleSet>, String> {
        if let Some(manifest) = self.manifests.get(digest) {
            return Ok(Arc::clone(manifest));
        }
        let json = self.blob(digest)?;
        let manifest: ScaleSet =
            serde_json::from_slice(json).map_err(|why| format!("manifest {digest}: {why}"))?;
        let manifest = Arc::new(manifest);
        self.manifests.insert(digest.clone(), Arc::clone(&manifest));
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

/// The manifests and modules that a record refers to, each once.
#[must_use]
pub fn references(record: &TickRecord) -> Vec<Digest> {
    let mut digests: Vec<Digest> = record.every_run().map(|run| run.digest.clone()).collect();
    digests.push(record.manifest.clone());
    digests.sort();
    digests.dedup();
    digests.retain(|digest| !digest.is_empty());
    digests
}
