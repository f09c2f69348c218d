//! A module that has become a policy.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use regatta_core::decision::{FailureKind, PolicyFailure};
use regatta_core::digest::Digest;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metrics::{MAX_WISHES, MetricWish, check_wishes};

use crate::ask::{self, Answer, Ask, Ran};
use crate::bindings::regatta::policy::types;
use crate::compile::{Built, Origin};
use crate::door::Door;
use crate::engine::Engine;
use crate::error::{LoadError, MigrateError, ParamsError, ParamsProblem};
use crate::failure::{failed, unfitting};
use crate::gate::Lane;
use crate::load::Abi;
use crate::params;
use crate::text::capped;
use crate::worker::Hosted;

/// No module may be larger.
pub const MAX_MODULE_BYTES: usize = 32 << 20;

const MAX_NAME_BYTES: usize = 64;
const MAX_TEXT_BYTES: usize = 1024;
const MAX_SCHEMA_BYTES: usize = 256 << 10;
const MAX_PROBLEMS: usize = 100;
/// `describe` and `validate` run off the tick loop: they may take longer than a
/// decision, but not for ever.
const SETUP_DEADLINE_MS: u64 = 2_000;

/// What a policy says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct PolicyManifest {
    /// Lower-case letters, digits and `-`, at most 64 bytes.
    pub name: String,
    /// Its version.
    pub version: String,
    /// One sentence.
    pub description: String,
    /// JSON schema of its parameters.
    pub params_schema: serde_json::Value,
    /// The metrics it wants, as it wrote them: names, or JSON pointers to the
    /// parameters that hold them. See [`CompiledPolicy::wishes`].
    pub metrics: Vec<MetricWish>,
    /// Version of the shape of its state.
    pub state_version: u32,
}

/// A policy, ready to run.
pub struct CompiledPolicy {
    pub(crate) engine: Engine,
    code: Runnable,
    digest: Digest,
    size_bytes: usize,
    manifest: PolicyManifest,
    compile_time: Duration,
    compiled_from: Origin,
    /// Whether its last decision overran its limits; true until it has shown that it does not.
    heavy: AtomicBool,
    abi: Abi,
    imports: Vec<String>,
}

impl std::fmt::Debug for CompiledPolicy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CompiledPolicy")
            .field("name", &self.manifest.name)
            .field("version", &self.manifest.version)
            .field("digest", &self.digest)
            .finish_non_exhaustive()
    }
}

impl Engine {
    /// Makes a policy of a module: checks it against the contract, compiles it and
    /// lets it describe itself. Takes from milliseconds to seconds: not for the tick
    /// loop. A module that is in use already is not compiled again.
    ///
    /// # Errors
    /// When it is not a policy; nothing of it has run then, except `describe`.
    pub fn load(&self, bytes: &[u8]) -> Result<Arc<CompiledPolicy>, LoadError> {
        if bytes.len() > MAX_MODULE_BYTES {
            return Err(LoadError::TooLarge { size: bytes.len(), limit: MAX_MODULE_BYTES });
        }
        let digest = Digest::of(bytes);
        if let Some(policy) = self.cached(&digest) {
            return Ok(policy);
        }
        let start = Instant::now();
        let Built { meta, code, from } = self.build(bytes, &digest)?;
        let compile_time = start.elapsed();

        let limits = setup_limits(&PolicyLimits::default());
        let manifest = match code.run(self, Lane::Heavy, Ask::Describe, &limits).told() {
            Ok(Answer::Manifest(answer)) => manifest(answer)?,
            Ok(_) => return Err(LoadError::Describe(unfitting().into())),
            Err(failed) => return Err(LoadError::Describe(failed)),
        };
        let policy = CompiledPolicy {
            engine: self.clone(),
            code,
            digest,
            size_bytes: bytes.len(),
            manifest,
            compile_time,
            compiled_from: from,
            heavy: AtomicBool::new(true),
            abi: meta.abi,
            imports: meta.imports,
        };
        let policy = Arc::new(policy);
        self.cache_insert(&policy);
        Ok(policy)
    }
}

/// Code that can be asked.
pub(crate) enum Runnable {
    Here(Door),
    Worker(Hosted),
}

impl Runnable {
    /// Asks a fresh instance, when its turn has come.
    fn run(&self, engine: &Engine, lane: Lane, ask: Ask<'_>, limits: &PolicyLimits) -> Ran {
        match (self, &engine.inner.worker) {
            (Self::Worker(hosted), Some(worker)) => {
                let _permit = engine.enter(lane);
                worker.run(hosted, &ask, limits)
            }
            (Self::Here(door), _) => ask::run(engine, door, lane, ask, limits).0,
            (Self::Worker(_), None) => {
                Ran::failed(failed(FailureKind::Host, "there is no policy worker".to_owned()))
            }
        }
    }
}

impl CompiledPolicy {
    /// Asks a fresh instance, when its turn has come.
    pub(crate) fn run(&self, lane: Lane, ask: Ask<'_>, limits: &PolicyLimits) -> Ran {
        self.code.run(&self.engine, lane, ask, limits)
    }

    /// Where its next decision stands in line.
    pub(crate) fn lane(&self) -> Lane {
        if self.heavy.load(Ordering::Relaxed) { Lane::Heavy } else { Lane::Light }
    }

    /// Notes how a decision ended.
    pub(crate) fn ended(&self, failure: Option<&PolicyFailure>) {
        let overran =
            |failure: &PolicyFailure| matches!(failure.kind, FailureKind::Deadline | FailureKind::OutOfFuel);
        self.heavy.store(failure.is_some_and(overran), Ordering::Relaxed);
    }

    /// Of the module as it was given.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// Size of the module as it was given, bytes.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.size_bytes
    }

    /// Size of its machine code with the data that belongs to it, bytes.
    #[must_use]
    pub fn compiled_bytes(&self) -> usize {
        match &self.code {
            Runnable::Here(door) => door.bytes(),
            Runnable::Worker(hosted) => hosted.bytes(),
        }
    }

    /// Whether it was compiled for this load, or was found on disk.
    #[must_use]
    pub fn compiled_from(&self) -> Origin {
        self.compiled_from
    }

    /// How long checking and compiling took, or finding it on disk.
    #[must_use]
    pub fn compile_time(&self) -> Duration {
        self.compile_time
    }

    /// How it talks with the host.
    #[must_use]
    pub fn abi(&self) -> Abi {
        self.abi
    }

    /// What the module imports as it was given: interfaces of a component, `module name` of a core module.
    #[must_use]
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// What it says of itself.
    #[must_use]
    pub fn manifest(&self) -> &PolicyManifest {
        &self.manifest
    }

    /// Lets it check parameters, given as JSON text.
    ///
    /// # Errors
    /// All problems that it finds, or how it failed to look.
    pub fn validate(&self, params: &str, limits: &PolicyLimits) -> Result<(), ParamsError> {
        let limits = setup_limits(limits);
        let problems = match self.run(Lane::Heavy, Ask::Validate { params }, &limits).told() {
            Ok(Answer::Checked(Ok(()))) => return Ok(()),
            Ok(Answer::Checked(Err(problems))) => problems,
            Ok(_) => return Err(ParamsError::Failed(unfitting().into())),
            Err(failed) => return Err(ParamsError::Failed(failed)),
        };
        let problem = |problem: types::Problem| ParamsProblem {
            path: capped(problem.path, MAX_TEXT_BYTES),
            message: capped(problem.message, MAX_TEXT_BYTES),
        };
        let mut problems: Vec<ParamsProblem> = problems.into_iter().take(MAX_PROBLEMS).map(problem).collect();
        if problems.is_empty() {
            let message = "the policy refuses them and does not say why".to_owned();
            problems.push(ParamsProblem { path: String::new(), message });
        }
        Err(ParamsError::Problems(problems))
    }

    /// Lets it check parameters as [`validate`](Self::validate) does, and holds what it accepts against the schema that it
    /// gives.
    ///
    /// # Errors
    /// All problems that it finds, else those that the schema has; or how it failed to look.
    pub fn accept(&self, params: &str, limits: &PolicyLimits) -> Result<(), ParamsError> {
        self.validate(params, limits)?;
        let Ok(value) = serde_json::from_str(params) else { return Ok(()) };
        match params::problems(&self.manifest.params_schema, &value) {
            problems if problems.is_empty() => Ok(()),
            problems => Err(ParamsError::Problems(problems)),
        }
    }

    /// Whether it exports a migration of its state.
    #[must_use]
    pub fn migrates(&self) -> bool {
        match &self.code {
            Runnable::Here(door) => door.migrates(),
            Runnable::Worker(hosted) => hosted.migrates(),
        }
    }

    /// Lets it make its state of one that version `from_version` of the state left.
    ///
    /// # Errors
    /// When it has no migration, refuses that state, or fails.
    pub fn migrate(
        &self,
        from_version: u32,
        state: &[u8],
        limits: &PolicyLimits,
    ) -> Result<Vec<u8>, MigrateError> {
        if !self.migrates() {
            return Err(MigrateError::NoMigration);
        }
        let limits = PolicyLimits { output_bytes: limits.output_bytes, ..setup_limits(limits) };
        match self.run(Lane::Heavy, Ask::Migrate { from_version, state }, &limits).told() {
            Ok(Answer::Migrated(Ok(state))) => Ok(state),
            Ok(Answer::Migrated(Err(message))) => Err(MigrateError::Refused(capped(message, MAX_TEXT_BYTES))),
            Ok(_) => Err(MigrateError::Failed(unfitting().into())),
            Err(failed) => Err(MigrateError::Failed(failed)),
        }
    }

    /// The metrics that it wants with these parameters: JSON pointers are looked up
    /// in them; a parameter that is not there, or names nothing, asks for nothing.
    /// In the order of [`PolicyManifest::metrics`], at most 64.
    #[must_use]
    pub fn wishes(&self, params: &str) -> Vec<MetricWish> {
        let params: serde_json::Value = serde_json::from_str(params).unwrap_or_default();
        let mut wishes = Vec::new();
        for wish in &self.manifest.metrics {
            let window_ms = wish.window_ms;
            match wish.name.starts_with('/') {
                false => wishes.push(wish.clone()),
                true => wishes.extend(
                    named(&params, &wish.name)
                        .map(|(_, name)| MetricWish { name: name.to_owned(), window_ms }),
                ),
            }
        }
        wishes.truncate(MAX_WISHES);
        wishes
    }

    /// The metrics that these parameters name, each with the JSON pointer to its name.
    #[must_use]
    pub fn metrics_named_by(&self, params: &str) -> Vec<(String, String)> {
        let params: serde_json::Value = serde_json::from_str(params).unwrap_or_default();
        let pointers =
            self.manifest.metrics.iter().map(|wish| &wish.name).filter(|name| name.starts_with('/'));
        let all = pointers.flat_map(|pointer| named(&params, pointer));
        all.map(|(pointer, name)| (pointer, name.to_owned())).collect()
    }
}

/// The names that a parameter holds, a string or an array of strings, each with the pointer to it.
fn named<'a>(params: &'a serde_json::Value, pointer: &str) -> impl Iterator<Item = (String, &'a str)> {
    let found = params.pointer(pointer);
    let one = found.and_then(|name| name.as_str()).map(|name| (pointer.to_owned(), name));
    let several = found.and_then(|names| names.as_array()).into_iter().flatten().enumerate();
    let several = several.filter_map(|(index, name)| Some((index, name.as_str()?)));
    let several = several.map(|(index, name)| (format!("{pointer}/{index}"), name)).collect::<Vec<_>>();
    one.into_iter().chain(several)
}

fn setup_limits(limits: &PolicyLimits) -> PolicyLimits {
    let generous = PolicyLimits::default();
    PolicyLimits {
        fuel: limits.fuel.max(generous.fuel),
        deadline_ms: limits.deadline_ms.max(SETUP_DEADLINE_MS),
        output_bytes: limits.output_bytes.max(generous.output_bytes),
        ..*limits
    }
}

fn manifest(manifest: types::Manifest) -> Result<PolicyManifest, LoadError> {
    let mut problems = Vec::new();
    let mut require = |ok: bool, problem: String| {
        if !ok {
            problems.push(problem);
        }
    };
    let named = |name: &str| {
        let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !name.is_empty() && name.len() <= MAX_NAME_BYTES && name.bytes().all(valid)
    };
    let versioned = |version: &str| {
        (1..=MAX_NAME_BYTES).contains(&version.len()) && version.bytes().all(|byte| byte.is_ascii_graphic())
    };
    let shown = |text: &str| capped(text.to_owned(), 80);
    require(
        named(&manifest.name),
        format!(
            "its name {:?} is not 1 to {MAX_NAME_BYTES} lower-case letters, digits and `-`",
            shown(&manifest.name)
        ),
    );
    require(
        versioned(&manifest.version),
        format!(
            "its version {:?} is not 1 to {MAX_NAME_BYTES} letters, digits and signs without blanks, of ASCII",
            shown(&manifest.version)
        ),
    );
    require(
        manifest.description.len() <= MAX_TEXT_BYTES,
        format!("its description is longer than {MAX_TEXT_BYTES} bytes"),
    );
    require(
        manifest.params_schema.len() <= MAX_SCHEMA_BYTES,
        format!("the schema of its parameters is longer than {MAX_SCHEMA_BYTES} bytes"),
    );
    let schema = serde_json::from_str::<serde_json::Value>(&manifest.params_schema);
    match &schema {
        Ok(schema) => require(
            schema.is_object() || schema.is_boolean(),
            "the schema of its parameters is neither an object nor a boolean".to_owned(),
        ),
        Err(error) => require(false, format!("the schema of its parameters is not JSON: {error}")),
    }
    let wish = |metric: types::MetricRequest| MetricWish { name: metric.name, window_ms: metric.window_ms };
    let metrics: Vec<MetricWish> = manifest.metrics.into_iter().map(wish).collect();
    if let Err(refused) = check_wishes(&metrics) {
        problems.extend(refused.iter().map(|problem| format!("it {problem}")));
    } else {
        let nameless = metrics.iter().filter(|metric| metric.name.is_empty() || metric.name.len() > 256);
        problems
            .extend(nameless.map(|metric| format!("it asks for a metric named {:?}", shown(&metric.name))));
    }
    if !problems.is_empty() {
        return Err(LoadError::BadManifest(problems));
    }
    Ok(PolicyManifest {
        name: manifest.name,
        version: manifest.version,
        description: manifest.description,
        params_schema: schema.unwrap_or_default(),
        metrics,
        state_version: manifest.state_version,
    })
}
