//! Policies: finding, preparing, swapping, rolling back.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::manifest::{ManifestSource, PolicyLimits, PolicySpec, Problem as ManifestProblem};
use regatta_core::observation::Observation;
use regatta_core::state::PolicyActivation;
use regatta_policy_host::{CompiledPolicy, ParamsError, dry_run};
use regatta_store::{Batch, RecordQuery};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{ApiError, ErrorCode, PolicyList, Problem, SwapOutcome, SwapRequest};
use crate::chain::chain;
use crate::clock::now_ms;
use crate::set::{ActivePolicy, Command, SetView, Switched, policy_info};

/// Recorded ticks that a new policy is tried on before it takes over.
const REHEARSED_TICKS: usize = 20;
/// Compiled policies that are held though no set may use them.
const COMPILED_HELD: usize = 8;
/// A module larger than this is refused before it is read.
const MODULE_MAX_BYTES: u64 = 32 << 20;

/// The directories in which a policy is looked up by its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct PolicyDirs(pub Vec<PathBuf>);

impl PolicyDirs {
    /// The modules that can be named: name and path. The first directory wins.
    #[must_use]
    pub(crate) fn available(&self) -> BTreeMap<String, PathBuf> {
        let mut found = BTreeMap::new();
        for dir in &self.0 {
            let Ok(entries) = std::fs::read_dir(dir) else { continue };
            for path in entries.flatten().map(|entry| entry.path()) {
                if path.extension().is_some_and(|extension| extension == "wasm")
                    && let Some(name) = path.file_stem().and_then(|name| name.to_str())
                {
                    found.entry(name.to_owned()).or_insert(path.clone());
                }
            }
        }
        found
    }

    /// The file of a module that a manifest or a command names.
    fn resolve(&self, module: &str) -> Result<PathBuf, String> {
        if module.contains('/') {
            return Ok(PathBuf::from(module));
        }
        let available = self.available();
        available.get(module).cloned().ok_or_else(|| {
            let names: Vec<&str> = available.keys().map(String::as_str).collect();
            let known = if names.is_empty() {
                let dirs: Vec<String> = self.0.iter().map(|dir| dir.display().to_string()).collect();
                format!("there is no module in {}", dirs.join(", "))
            } else {
                format!("there are: {}", names.join(", "))
            };
            format!("no policy is named {module}; {known}")
        })
    }
}

/// A problem of a manifest's policy section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PolicyProblem {
    /// JSON pointer into the parameters; none for the module itself.
    pub(super) params_pointer: Option<String>,
    pub(super) message: String,
}

impl PolicyProblem {
    fn of_module(message: impl Into<String>) -> Vec<Self> {
        vec![Self { params_pointer: None, message: message.into() }]
    }

    /// The problem at its place in the manifest.
    pub(super) fn locate(&self, source: &ManifestSource) -> ManifestProblem {
        match &self.params_pointer {
            Some(pointer) => source.problem_in_params(pointer, &self.message),
            None => source.problem_at("/policy/module", &self.message, None),
        }
    }
}

impl Fleet {
    /// Reads, compiles and checks the policy of a manifest.
    pub(super) async fn prepare_policy(
        &self,
        spec: &PolicySpec,
    ) -> Result<(ActivePolicy, Vec<u8>), Vec<PolicyProblem>> {
        let path = self.policy_dirs.resolve(&spec.module).map_err(PolicyProblem::of_module)?;
        let module = read_module(&path).await.map_err(PolicyProblem::of_module)?;
        let compiled = self.compile(module.clone()).await.map_err(PolicyProblem::of_module)?;
        let params = spec.params.to_string();
        self.validate(&compiled, &params, spec.limits).await?;
        let activation = activation(&compiled, &spec.module, params);
        Ok((ActivePolicy::new(activation, compiled), module))
    }

    /// Compiling takes long: off the loops. What was compiled last is held for a
    /// while, because a dry run is usually followed by the apply that it was for
    /// (the engine itself only remembers what someone holds).
    async fn compile(&self, module: Vec<u8>) -> Result<Arc<CompiledPolicy>, String> {
        let policies = self.shared.policies.clone();
        let compiled = tokio::task::spawn_blocking(move || policies.load(&module)).await;
        let compiled = compiled.map_err(|why| why.to_string())?.map_err(|why| chain(&why))?;
        let mut held = self.compiled_last.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|other| other.digest() != compiled.digest());
        held.push_front(Arc::clone(&compiled));
        held.truncate(COMPILED_HELD);
        Ok(compiled)
    }

    async fn validate(
        &self,
        compiled: &Arc<CompiledPolicy>,
        params: &str,
        limits: PolicyLimits,
    ) -> Result<(), Vec<PolicyProblem>> {
        let (compiled, params) = (Arc::clone(compiled), params.to_owned());
        let validated = tokio::task::spawn_blocking(move || compiled.validate(&params, &limits)).await;
        match validated {
            Ok(Ok(())) => Ok(()),
            Ok(Err(ParamsError::Problems(problems))) => {
                let located = problems.into_iter().map(|problem| PolicyProblem {
                    params_pointer: Some(problem.path),
                    message: problem.message,
                });
                Err(located.collect())
            }
            Ok(Err(failed)) => Err(PolicyProblem::of_module(chain(&failed))),
            Err(why) => Err(PolicyProblem::of_module(why.to_string())),
        }
    }

    /// Stores a module, so that a restart finds it.
    pub(super) async fn keep_module(&self, digest: &str, module: Vec<u8>) -> Answer<()> {
        let batch = Batch { modules: vec![(digest.to_owned(), module)], ..Batch::default() };
        self.shared.writer.commit(batch).await.map_err(|why| {
            let message = format!("nothing was changed, the store cannot be written: {}", chain(&why));
            error(ErrorCode::Unavailable, message)
        })
    }

    /// A stored policy, ready to run again after a restart.
    pub(super) async fn reload_policy(&self, activation: PolicyActivation) -> ActivePolicy {
        let module = match self.shared.store.module(&activation.digest) {
            Ok(Some(module)) => module,
            Ok(None) => return ActivePolicy::broken(activation, "its module is not in the store".to_owned()),
            Err(why) => return ActivePolicy::broken(activation, chain(&why)),
        };
        match self.compile(module).await {
            Ok(compiled) => ActivePolicy::new(activation, compiled),
            Err(why) => ActivePolicy::broken(activation, why),
        }
    }

    pub(super) async fn swap(&self, set: &str, request: SwapRequest, actor: &str) -> Answer<SwapOutcome> {
        let begun = Instant::now();
        let view = self.find(set)?.view();
        let module = self.module_of(&request).await?;
        let refused = |message| ApiError { code: ErrorCode::Invalid, message, problems: Vec::new() };
        let compiled = self
            .compile(module.clone())
            .await
            .map_err(|why| refused(format!("{}: {why}", request.source)))?;
        let params = match &request.params {
            Some(params) => params.to_string(),
            None => view.state.policy.params.clone(),
        };
        let limits = view.state.set.policy.limits;
        self.validate(&compiled, &params, limits)
            .await
            .map_err(|problems| params_invalid(&request.source, &problems))?;

        let mut activation = activation(&compiled, &request.source, params);
        let (ticks, state) = self.rehearse(&view, &compiled, &mut activation).await?;
        // Before the switch: the loop of the set is not held for so much to write.
        self.keep_module(&activation.digest, module).await?;
        let prepare_ms = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        let policy = Box::new(ActivePolicy::new(activation, compiled));
        let actor = actor.to_owned();
        let switched = self.command(set, |reply| Command::Install { policy, actor, reply }).await?;
        Ok(outcome(&switched, ticks, state, prepare_ms))
    }

    /// Tries the policy on the last recorded observations: it must decide each of
    /// them, and the state that this builds is what it begins with, unless the
    /// switch carries the old policy's state over. Returns the number of ticks,
    /// and what the state begins with.
    async fn rehearse(
        &self,
        view: &SetView,
        compiled: &Arc<CompiledPolicy>,
        activation: &mut PolicyActivation,
    ) -> Answer<(u32, String)> {
        let observations = self.last_observations(&view.state.set.name).await?;
        let limits = view.state.set.policy.limits;
        let ticks = u32::try_from(observations.len()).unwrap_or(u32::MAX);
        let (rehearsed, params) = (Arc::clone(compiled), activation.params.clone());
        let rehearsal =
            tokio::task::spawn_blocking(move || dry_run(&rehearsed, &params, &observations, &limits)).await;
        let refused = |why: &dyn std::error::Error| error(ErrorCode::Invalid, chain(why));
        let built = rehearsal.map_err(|why| refused(&why))?.map_err(|why| refused(&why))?.state;
        activation.state = BASE64.encode(built);
        let told = if activation.reads_state_of(&view.state.policy) {
            "carried over"
        } else if ticks == 0 {
            "empty: there is no recorded tick yet"
        } else {
            "built from the recorded ticks"
        };
        Ok((ticks, told.to_owned()))
    }

    async fn last_observations(&self, set: &str) -> Answer<Vec<Arc<Observation>>> {
        let set = set.to_owned();
        let mut records =
            self.read(move |store| store.records(&set, &RecordQuery::newest(REHEARSED_TICKS))).await?;
        records.sort_by_key(|record| record.observation.tick);
        Ok(records.into_iter().map(|record| Arc::new(record.observation)).collect())
    }

    async fn module_of(&self, request: &SwapRequest) -> Answer<Vec<u8>> {
        if let Some(module) = &request.module {
            let decoded = BASE64.decode(module);
            return decoded
                .map_err(|why| error(ErrorCode::Invalid, format!("the module is no base64: {why}")));
        }
        let path =
            self.policy_dirs.resolve(&request.source).map_err(|why| error(ErrorCode::NotFound, why))?;
        read_module(&path).await.map_err(|why| error(ErrorCode::Invalid, why))
    }

    pub(super) async fn rollback(&self, set: &str, actor: &str) -> Answer<SwapOutcome> {
        let actor = actor.to_owned();
        let switched = self.command(set, |reply| Command::Rollback { actor, reply }).await?;
        Ok(outcome(&switched, 0, "as it was when the policy was replaced".to_owned(), 0))
    }

    pub(super) fn list_policies(&self, set: &str) -> Answer<PolicyList> {
        let view = self.find(set)?.view();
        let available = self.policy_dirs.available();
        Ok(PolicyList {
            active: policy_info(&view.state.policy),
            previous: view.state.previous_policy.as_ref().map(policy_info),
            available: available.into_iter().map(|(name, path)| (name, path.display().to_string())).collect(),
        })
    }
}

fn activation(compiled: &CompiledPolicy, source: &str, params: String) -> PolicyActivation {
    let manifest = compiled.manifest();
    PolicyActivation {
        number: 1,
        digest: compiled.digest().to_owned(),
        name: manifest.name.clone(),
        version: manifest.version.clone(),
        source: source.to_owned(),
        params,
        state_version: manifest.state_version,
        state: String::new(),
        since_ms: now_ms(),
    }
}

async fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    let told = |why: std::io::Error| format!("cannot read the module {}: {why}", path.display());
    let size = tokio::fs::metadata(path).await.map_err(told)?.len();
    if size > MODULE_MAX_BYTES {
        return Err(format!("the module {} has {size} bytes; at most {MODULE_MAX_BYTES}", path.display()));
    }
    tokio::fs::read(path).await.map_err(told)
}

fn params_invalid(source: &str, problems: &[PolicyProblem]) -> ApiError {
    let told = problems.iter().map(|problem| {
        let path = problem.params_pointer.clone().unwrap_or_default();
        let rendered =
            if path.is_empty() { problem.message.clone() } else { format!("{path}: {}", problem.message) };
        Problem { path, line: 0, column: 0, message: problem.message.clone(), hint: None, rendered }
    });
    let message = format!("{source}: the parameters do not fit, the policy in charge stays");
    ApiError { code: ErrorCode::Invalid, message, problems: told.collect() }
}

fn outcome(switched: &Switched, rehearsed_ticks: u32, state: String, prepare_ms: u64) -> SwapOutcome {
    SwapOutcome {
        from: policy_info(&switched.from),
        to: policy_info(&switched.to),
        after_tick: switched.after_tick,
        rehearsed_ticks,
        state,
        prepare_ms,
        switch_us: switched.switch_us,
    }
}
