//! Running the policies of a set.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use futures::future::join_all;
use regatta_core::decision::{FailureKind, PolicyFailure, PolicyRun};
use regatta_core::digest::Digest;
use regatta_core::machine::{Answer, Ask, Migration};
use regatta_core::observation::Observation;
use regatta_core::state::{PolicyActivation, SetState};
use regatta_policy_host::{CompiledPolicy, MigrateError};

use regatta_util::chain;

/// The modules of a set that are ready to run, or why they are not, by digest.
#[derive(Debug, Clone, Default)]
pub(crate) struct Modules(BTreeMap<Digest, Result<Arc<CompiledPolicy>, String>>);

impl Modules {
    /// Remembers what became of compiling a module.
    pub(crate) fn insert(&mut self, digest: &Digest, compiled: Result<Arc<CompiledPolicy>, String>) {
        self.0.insert(digest.clone(), compiled);
    }

    /// Forgets what `state` no longer needs.
    pub(super) fn retain_of(&mut self, state: &SetState) {
        self.0.retain(|digest, _| state.activations_kept().any(|activation| activation.digest == *digest));
    }

    /// Fills in what activations that an earlier version stored lack: the metrics that they ask for.
    pub(crate) fn complete(&self, state: &mut SetState) {
        for activation in state.activations_kept_mut() {
            if let (true, Ok(compiled)) = (activation.wishes.is_empty(), self.get(&activation.digest)) {
                activation.wishes = compiled.wishes(&activation.params);
            }
        }
    }

    fn get(&self, digest: &Digest) -> Result<Arc<CompiledPolicy>, String> {
        match self.0.get(digest) {
            Some(compiled) => compiled.clone(),
            None => Err("its module is not ready".to_owned()),
        }
    }

    /// Asks a policy.
    pub(super) fn ask(
        &self,
        observation: &Arc<Observation>,
        ask: Ask,
    ) -> impl Future<Output = Answer> + use<> {
        decide(self.get(&ask.activation.digest), ask, Arc::clone(observation))
    }

    /// Migrates states.
    pub(super) fn migrate(
        &self,
        migrations: Vec<Migration>,
    ) -> impl Future<Output = Vec<Result<String, String>>> + use<> {
        let runs: Vec<_> =
            migrations.into_iter().map(|migration| migrate(self.get(&migration.digest), migration)).collect();
        join_all(runs)
    }
}

/// Decides, on a thread of its own: a slow policy delays no other set.
async fn decide(
    compiled: Result<Arc<CompiledPolicy>, String>,
    ask: Ask,
    observation: Arc<Observation>,
) -> Answer {
    let Ask { slot, activation, limits } = ask;
    let failed = |message: String| Answer {
        number: activation.number,
        run: failed(&slot, &activation, message),
        state: None,
    };
    let compiled = match compiled {
        Ok(compiled) => compiled,
        Err(why) => return failed(why),
    };
    let params = activation.params.clone();
    let state = match BASE64.decode(&activation.state) {
        Ok(state) => state,
        Err(error) => return failed(format!("its stored state is not valid base64: {error}")),
    };
    let decided =
        tokio::task::spawn_blocking(move || compiled.decide(&observation, &params, &state, &limits)).await;
    match decided {
        Ok(call) => Answer {
            number: activation.number,
            run: PolicyRun { slot, ..call.run },
            state: call.state.map(|state| BASE64.encode(state)),
        },
        Err(error) => failed(format!("the host failed to run it: {error}")),
    }
}

fn failed(slot: &str, activation: &PolicyActivation, message: String) -> PolicyRun {
    PolicyRun {
        slot: slot.to_owned(),
        name: activation.name.clone(),
        version: activation.version.clone(),
        digest: activation.digest.clone(),
        params: activation.params.clone(),
        state_in: activation.state.clone(),
        result: Err(PolicyFailure { kind: FailureKind::Host, message: message.into() }),
        fuel: 0,
        duration_us: 0,
        log: Vec::new(),
    }
}

async fn migrate(
    compiled: Result<Arc<CompiledPolicy>, String>,
    migration: Migration,
) -> Result<String, String> {
    let Migration { from_version, state, limits, digest: _ } = migration;
    let compiled = compiled?;
    let state =
        BASE64.decode(&state).map_err(|error| format!("the stored state is not valid base64: {error}"))?;
    let migrated = tokio::task::spawn_blocking(move || compiled.migrate(from_version, &state, &limits)).await;
    match migrated {
        Ok(Ok(state)) => Ok(BASE64.encode(state)),
        Ok(Err(why @ (MigrateError::NoMigration | MigrateError::Refused(_) | MigrateError::Failed(_)))) => {
            Err(chain(&why))
        }
        Err(why) => Err(why.to_string()),
    }
}
