//! Policies: finding, preparing, and putting them into sets.

mod dirs;
mod follow;
mod history;
mod metrics;
mod rehearsal;

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::batch::Batch;
use regatta_core::digest::Digest;
use regatta_core::machine::{Command, Done, NewPolicy, Placed, Switched};
use regatta_core::manifest::{
    ManifestSource, PolicyLimits, PolicySpec, Problem as ManifestProblem, ScaleSet,
};
use regatta_core::state::{PolicyActivation, PolicySlot, SetState};
use regatta_policy_host::{CompiledPolicy, ParamsError};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::types::{
    ApiError, CanaryRequest, ErrorCode, PlacedOutcome, PolicyList, Problem, RollbackQuery, SwapOutcome,
    SwapRequest,
};
use crate::clock::now_ms;
use crate::fleet::apply::Prepared;
use crate::named_file;
use crate::set::{Call, policy_info};
use regatta_util::chain;

pub(crate) use self::dirs::{PolicyDirs, Shelf};
pub(crate) use self::follow::Followed;
use self::metrics::has_its_metrics;
pub(super) use self::metrics::unknown_metrics;
use self::rehearsal::Ready;

/// Compiled policies that are held though no set may use them.
const COMPILED_HELD: usize = 8;
/// A module larger than this is refused before it is read.
const MODULE_MAX_BYTES: u64 = 32 << 20;
const MODULE_READ_WITHIN: Duration = Duration::from_secs(30);
/// Digits of a digest that name a module.
const DIGITS_MIN: usize = 8;

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

    /// The problem at its place in the manifest, of the policy number `index`.
    pub(super) fn locate(&self, source: &ManifestSource, index: usize) -> ManifestProblem {
        source.problem_in_policy(index, self.params_pointer.as_deref(), &self.message)
    }
}

/// How a manifest's policy is rehearsed.
#[derive(Clone, Copy)]
pub(super) struct Rehearsal<'a> {
    /// The set whose recorded ticks are used.
    pub(super) set: &'a str,
    /// Whether it must decide at least one of them.
    pub(super) must_decide: bool,
    /// Whether it is accepted even when the rehearsal fails.
    pub(super) force: bool,
}

impl Fleet {
    /// Reads the module of a manifest's policy.
    pub(super) async fn read_policy(&self, spec: &PolicySpec) -> Result<Vec<u8>, Vec<PolicyProblem>> {
        let path = self.policy_dirs.resolve(&spec.module).map_err(PolicyProblem::of_module)?;
        read_module(&path).await.map_err(PolicyProblem::of_module)
    }

    /// Compiles and checks the policy of a manifest, and rehearses it on the recorded ticks of the set that it is for, if that
    /// runs already. Its parameters may name only metrics of `metrics_of`, or any.
    pub(super) async fn prepare_policy(
        &self,
        spec: &PolicySpec,
        module: Vec<u8>,
        metrics_of: Option<&ScaleSet>,
        rehearsal: Option<Rehearsal<'_>>,
    ) -> Result<Prepared, Vec<PolicyProblem>> {
        let compiled = self.compile(module.clone()).await.map_err(PolicyProblem::of_module)?;
        self.has_a_name_of_its_own(&compiled).await.map_err(PolicyProblem::of_module)?;
        let params = spec.params.to_string();
        self.validate(&compiled, &params, spec.limits).await?;
        metrics_of.map_or(Ok(()), |set| has_its_metrics(set, &compiled, &params))?;
        let mut activation = activation(&compiled, &spec.module, params);
        let (mut origin, mut warning) = ("empty", None);
        if let Some(Rehearsal { set, must_decide, force }) = rehearsal {
            let tried = self.tried(set, &compiled, &mut activation, spec.limits, must_decide, force).await;
            let tried = tried.map_err(|why| PolicyProblem::of_module(why.message))?;
            (origin, warning) = (tried.origin, tried.warning);
        }
        let policy = NewPolicy { activation, state_origin: origin.to_owned() };
        Ok(Prepared { policy, compiled, module, warning })
    }

    /// Compiling takes long: off the loops. What was compiled last is held for a
    /// while, because a dry run is usually followed by the apply that it was for
    /// (the engine itself only remembers what someone holds).
    async fn compile(&self, module: Vec<u8>) -> Result<Arc<CompiledPolicy>, String> {
        self.load(module).await.map_err(|unready| unready.why)
    }

    async fn load(&self, module: Vec<u8>) -> Result<Arc<CompiledPolicy>, Unready> {
        let policies = self.shared.policies.clone();
        let compiled = tokio::task::spawn_blocking(move || policies.load(&module)).await;
        let compiled = compiled
            .map_err(|why| Unready { why: why.to_string(), may_pass: false })?
            .map_err(|why| Unready { why: chain(&why), may_pass: why.may_pass() })?;
        let mut held = self.compiled_last.lock().unwrap_or_else(PoisonError::into_inner);
        held.retain(|other| other.digest() != compiled.digest());
        held.push_front(Arc::clone(&compiled));
        held.truncate(COMPILED_HELD);
        Ok(compiled)
    }

    /// Refuses a module that calls itself like a built-in policy and is another one: it would take over a state that is
    /// not its own, and nobody could tell them apart. One that a set has had before, an earlier version, may come back.
    async fn has_a_name_of_its_own(&self, compiled: &CompiledPolicy) -> Result<(), String> {
        let name = &compiled.manifest().name;
        let Some(path) = self.policy_dirs.built_in(name) else { return Ok(()) };
        let is_built_in =
            read_module(&path).await.is_ok_and(|module| Digest::of(&module) == *compiled.digest());
        let digest = compiled.digest().to_owned();
        let is_known = || async {
            let stored = self.read(move |store| store.blob(&digest)).await;
            stored.is_ok_and(|module| module.is_some())
        };
        if is_built_in || is_known().await {
            return Ok(());
        }
        Err(format!(
            "it calls itself {name}, which is the name of a built-in policy, and is another module: change the name \
             in its `describe`"
        ))
    }

    async fn validate(
        &self,
        compiled: &Arc<CompiledPolicy>,
        params: &str,
        limits: PolicyLimits,
    ) -> Result<(), Vec<PolicyProblem>> {
        let (compiled, params) = (Arc::clone(compiled), params.to_owned());
        let validated = tokio::task::spawn_blocking(move || compiled.accept(&params, &limits)).await;
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
    pub(super) async fn keep_module(&self, digest: &Digest, module: Vec<u8>) -> Answer<()> {
        let batch = Batch { blobs: vec![(digest.clone(), module)], ..Batch::default() };
        self.shared.commit(batch).await.map(drop).map_err(|why| {
            let message = format!("nothing was changed; the store cannot be written: {}", chain(&why));
            error(ErrorCode::Unavailable, message)
        })
    }

    /// A stored policy, ready to run again after a restart.
    pub(super) async fn reload_policy(&self, digest: &Digest) -> Result<Arc<CompiledPolicy>, Unready> {
        let module = self.shared.store.blob(digest);
        let module = module.map_err(|why| Unready { why: chain(&why), may_pass: true })?;
        let missing = || Unready { why: "its module is not in the store".to_owned(), may_pass: false };
        self.load(module.ok_or_else(missing)?).await
    }

    pub(super) async fn swap(&self, set: &str, request: SwapRequest, actor: &str) -> Answer<SwapOutcome> {
        let ready = self.ready(set, &request, true, actor).await?;
        let swap = Command::Swap { slot: request.slot, policy: Box::new(ready.policy.clone()) };
        let (switched, held) = self.policy_command(set, swap, Some(&ready), actor).await?;
        let outcome = outcome(&switched_of(switched)?, held, ready.warnings);
        let Ready { ticks: rehearsed_ticks, decided: decided_ticks, prepare_ms, .. } = ready;
        Ok(SwapOutcome { rehearsed_ticks, decided_ticks, prepare_ms, ..outcome })
    }

    pub(super) async fn shadow(&self, set: &str, request: SwapRequest, actor: &str) -> Answer<PlacedOutcome> {
        let ready = self.ready(set, &request, false, actor).await?;
        let shadow = Command::Shadow { slot: request.slot, policy: Box::new(ready.policy.clone()) };
        let (done, _) = self.policy_command(set, shadow, Some(&ready), actor).await?;
        Ok(placed(&placed_of(done)?, Some(ready)))
    }

    pub(super) async fn canary(
        &self,
        set: &str,
        request: CanaryRequest,
        actor: &str,
    ) -> Answer<PlacedOutcome> {
        let CanaryRequest { policy: request, within } = request;
        let ready = self.ready(set, &request, true, actor).await?;
        let canary = Command::Canary { slot: request.slot, policy: Box::new(ready.policy.clone()), within };
        let (done, _) = self.policy_command(set, canary, Some(&ready), actor).await?;
        Ok(placed(&placed_of(done)?, Some(ready)))
    }

    pub(super) async fn promote(&self, set: &str, number: Option<u64>, actor: &str) -> Answer<SwapOutcome> {
        let (done, held) = self.policy_command(set, Command::Promote { number }, None, actor).await?;
        let switched = switched_of(done)?;
        let warnings = unknown_metrics(&self.find(set)?.view().state.set, &switched.to);
        Ok(outcome(&switched, held, warnings))
    }

    pub(super) async fn drop_candidate(&self, set: &str, number: u64, actor: &str) -> Answer<PlacedOutcome> {
        let (done, _) = self.policy_command(set, Command::Drop { number }, None, actor).await?;
        Ok(placed(&placed_of(done)?, None))
    }

    async fn policy_command(
        &self,
        set: &str,
        command: Command,
        ready: Option<&Ready>,
        actor: &str,
    ) -> Answer<(Done, Duration)> {
        let modules = ready.map(|ready| Arc::clone(&ready.compiled)).into_iter().collect();
        self.call(set, |reply| Call { command, actor: actor.into(), modules, images: None, reply }).await
    }

    /// The module that a request means: its own, or what its source names: a file in
    /// the policy directories, or `NAME@DIGEST`.
    async fn module_of(&self, state: &SetState, request: &SwapRequest) -> Answer<Vec<u8>> {
        if let Some(module) = &request.module {
            let decoded = BASE64.decode(module);
            return decoded
                .map_err(|why| error(ErrorCode::Invalid, format!("the module is not base64: {why}")));
        }
        if let Some((name, digest)) = request.source.split_once('@').filter(|(name, _)| !name.contains('/')) {
            return self.module_with_digest(state, name, digest).await;
        }
        let path =
            self.policy_dirs.resolve(&request.source).map_err(|why| error(ErrorCode::NotFound, why))?;
        read_module(&path).await.map_err(|why| error(ErrorCode::Invalid, why))
    }

    /// A module that a set has had, or that lies in a policy directory, by name and
    /// the first digits of its digest.
    async fn module_with_digest(&self, state: &SetState, name: &str, prefix: &str) -> Answer<Vec<u8>> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if prefix.len() < DIGITS_MIN || !prefix.bytes().all(hex) {
            let message = format!("{name}@{prefix}: a digest has at least {DIGITS_MIN} digits, 0-9 and a-f");
            return Err(error(ErrorCode::Invalid, message));
        }
        let mut found: Vec<Digest> =
            state.activations_kept().filter(|it| it.name == name).map(|it| it.digest.clone()).collect();
        let events = self.policy_events(&state.set.name).await?;
        found.extend(
            events.into_iter().filter_map(|it| it.policy).filter(|it| it.name == name).map(|it| it.digest),
        );
        found.retain(|digest| digest.starts_with(prefix));
        let files = self.shelf.with_digest(prefix);
        found.extend(files.iter().map(|(digest, _)| digest.clone()));
        found.sort();
        found.dedup();
        let none = || {
            let set = &state.set.name;
            let message = format!(
                "{set} knows no module {name}@{prefix}; `regatta policy history {set}` shows those that it had"
            );
            error(ErrorCode::NotFound, message)
        };
        let digest = match found.as_slice() {
            [] => return Err(none()),
            [digest] => digest.clone(),
            several => {
                let message = format!("{name}@{prefix} may be {}: give more digits", several.join(" or "));
                return Err(error(ErrorCode::Conflict, message));
            }
        };
        let stored = digest.clone();
        let module = match self.read(move |store| store.blob(&stored)).await? {
            Some(module) => module,
            None => {
                let path = files.into_iter().find(|(it, _)| *it == digest).map(|(_, path)| path);
                read_module(&path.ok_or_else(none)?).await.map_err(|why| error(ErrorCode::Invalid, why))?
            }
        };
        let compiled = self.compile(module.clone()).await.map_err(|why| error(ErrorCode::Invalid, why))?;
        if compiled.manifest().name == name { Ok(module) } else { Err(none()) }
    }

    pub(super) async fn rollback(&self, set: &str, query: RollbackQuery, actor: &str) -> Answer<SwapOutcome> {
        let RollbackQuery { slot, to } = query;
        let (done, held) = self.policy_command(set, Command::Rollback { slot, to }, None, actor).await?;
        Ok(outcome(&switched_of(done)?, held, Vec::new()))
    }

    pub(super) fn list_policies(&self, set: &str) -> Answer<PolicyList> {
        let view = self.find(set)?.view();
        Ok(PolicyList {
            policies: view.policy_entries(),
            combine: view.state.set.combine.as_str().to_owned(),
            available: self.shelf.describe(self.policy_dirs.available()),
            notes: self.followed.refused(set),
        })
    }
}

/// A module that cannot run now.
#[derive(Debug)]
pub(super) struct Unready {
    pub(super) why: String,
    /// It may run at another time: the host is at fault, or too busy.
    pub(super) may_pass: bool,
}

/// The place that a request means, as far as it can be told before the loop is asked.
fn slot_of<'a>(state: &'a SetState, name: Option<&str>) -> Answer<&'a PolicySlot> {
    let names: Vec<&str> = state.policies.iter().map(|slot| slot.name.as_str()).collect();
    let (set, names) = (&state.set.name, names.join(", "));
    match (name, state.policies.as_slice()) {
        (None, [one]) => Ok(one),
        (None, _) => Err(error(
            ErrorCode::Conflict,
            format!("{set} has several policies ({names}): say which one is meant, with --policy"),
        )),
        (Some(name), _) => state.slot(name).ok_or_else(|| {
            error(ErrorCode::NotFound, format!("{set} has no policy named {name}; it has: {names}"))
        }),
    }
}

/// An error in one line, without the log that may stand below it.
fn told(why: &ApiError) -> String {
    let problems: Vec<&str> = why.problems.iter().map(|problem| problem.rendered.as_str()).collect();
    match problems.as_slice() {
        [] => why.message.lines().next().unwrap_or_default().to_owned(),
        problems => format!("{} ({})", why.message, problems.join("; ")),
    }
}

fn activation(compiled: &CompiledPolicy, source: &str, params: String) -> PolicyActivation {
    let manifest = compiled.manifest();
    PolicyActivation {
        wishes: compiled.wishes(&params),
        number: 1,
        digest: compiled.digest().to_owned(),
        name: manifest.name.clone().into(),
        version: manifest.version.clone().into(),
        source: source.into(),
        params,
        state_version: manifest.state_version,
        state: String::new(),
        since_ms: now_ms(),
    }
}

/// Whoever may write in a policy directory says what is read: a file system that hangs must not hold what waits for the module.
async fn read_module(path: &Path) -> Result<Vec<u8>, String> {
    let named = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || named_file::read(&named, MODULE_MAX_BYTES));
    let why = match tokio::time::timeout(MODULE_READ_WITHIN, reading).await {
        Ok(Ok(Ok(module))) => return Ok(module),
        Ok(Ok(Err(why))) => why.to_string(),
        Ok(Err(why)) => why.to_string(),
        Err(_) => format!("not read within {} s", MODULE_READ_WITHIN.as_secs()),
    };
    Err(format!("cannot read the module {}: {why}", path.display()))
}

fn params_invalid(source: &str, problems: &[PolicyProblem]) -> ApiError {
    let told = problems.iter().map(|problem| {
        let path = problem.params_pointer.clone().unwrap_or_default();
        let rendered =
            if path.is_empty() { problem.message.clone() } else { format!("{path}: {}", problem.message) };
        Problem { path, line: 0, column: 0, message: problem.message.clone(), hint: None, rendered }
    });
    let message = format!("{source}: the parameters do not fit, the active policy stays");
    ApiError { code: ErrorCode::Invalid, message, problems: told.collect() }
}

fn switched_of(done: Done) -> Answer<Switched> {
    match done {
        Done::Switched(switched) => Ok(*switched),
        Done::Ok | Done::Applied(_) | Done::Placed(_) => {
            Err(error(ErrorCode::Internal, "the set switched no policy"))
        }
    }
}

fn placed_of(done: Done) -> Answer<Placed> {
    match done {
        Done::Placed(placed) => Ok(*placed),
        Done::Ok | Done::Applied(_) | Done::Switched(_) => {
            Err(error(ErrorCode::Internal, "the set placed no policy"))
        }
    }
}

fn outcome(switched: &Switched, held: Duration, mut warnings: Vec<String>) -> SwapOutcome {
    warnings.extend(switched.ended.iter().cloned());
    SwapOutcome {
        slot: switched.slot.clone(),
        from: policy_info(&switched.slot, &switched.from),
        to: policy_info(&switched.slot, &switched.to),
        after_tick: switched.after_tick,
        rehearsed_ticks: 0,
        decided_ticks: 0,
        warnings,
        state: switched.state_origin.clone(),
        prepare_ms: 0,
        switch_us: u64::try_from(held.as_micros()).unwrap_or(u64::MAX),
    }
}

fn placed(placed: &Placed, ready: Option<Ready>) -> PlacedOutcome {
    PlacedOutcome {
        policy: policy_info(&placed.slot, &placed.activation),
        after_tick: placed.after_tick,
        rehearsed_ticks: ready.as_ref().map_or(0, |ready| ready.ticks),
        decided_ticks: ready.as_ref().map_or(0, |ready| ready.decided),
        state: ready.as_ref().map(|ready| ready.policy.state_origin.clone()).unwrap_or_default(),
        prepare_ms: ready.as_ref().map_or(0, |ready| ready.prepare_ms),
        warnings: ready
            .map(|ready| ready.warnings)
            .unwrap_or_default()
            .into_iter()
            .chain(placed.ended.iter().cloned())
            .collect(),
    }
}
