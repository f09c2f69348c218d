//! Running the policies of a set.

use std::collections::BTreeMap;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::decision::{FailureKind, PolicyFailure, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_core::state::{PolicyActivation, SetState};
use regatta_policy_host::{CompiledPolicy, MigrateError};

use crate::chain::chain;

/// A policy that is ready to take a place in a set.
#[derive(Debug, Clone)]
pub(crate) struct NewPolicy {
    /// As it will be stored; its number is given when it takes its place. Its state
    /// is what it built on recorded ticks.
    pub activation: PolicyActivation,
    /// Ready to run.
    pub compiled: Arc<CompiledPolicy>,
    /// How its state came to be.
    pub state: String,
}

/// The policies of a set that are ready to run, or why they are not, by the
/// number of their activation.
#[derive(Debug, Clone, Default)]
pub(crate) struct ReadyPolicies(BTreeMap<u64, Result<Arc<CompiledPolicy>, String>>);

impl ReadyPolicies {
    /// Remembers what became of compiling an activation.
    pub(crate) fn insert(&mut self, number: u64, compiled: Result<Arc<CompiledPolicy>, String>) {
        self.0.insert(number, compiled);
    }

    /// Forgets what `state` no longer needs.
    pub(super) fn retain_of(&mut self, state: &SetState) {
        self.0.retain(|number, _| state.activations_kept().any(|activation| activation.number == *number));
    }

    pub(super) fn get(&self, number: u64) -> Result<&Arc<CompiledPolicy>, String> {
        match self.0.get(&number) {
            Some(Ok(compiled)) => Ok(compiled),
            Some(Err(why)) => Err(why.clone()),
            None => Err("it was not made ready".to_owned()),
        }
    }

    /// Names of the metrics that a policy asks for, with its parameters.
    pub(super) fn wanted_metrics(&self, activation: &PolicyActivation) -> Vec<String> {
        let wishes = self.get(activation.number).map(|compiled| compiled.wishes(&activation.params));
        wishes.unwrap_or_default().into_iter().map(|wish| wish.name).collect()
    }
}

/// One decision to be asked for.
#[derive(Debug, Clone)]
pub(super) struct Ask {
    slot: String,
    activation: PolicyActivation,
    compiled: Result<Arc<CompiledPolicy>, String>,
    limits: PolicyLimits,
}

/// One decision, and the state that it leaves, base64; none when it stays.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) number: u64,
    pub(super) run: PolicyRun,
    pub(super) state: Option<String>,
}

impl Ask {
    pub(super) fn new(
        slot: &str,
        activation: &PolicyActivation,
        ready: &ReadyPolicies,
        limits: PolicyLimits,
    ) -> Self {
        Self {
            slot: slot.to_owned(),
            activation: activation.clone(),
            compiled: ready.get(activation.number).cloned(),
            limits,
        }
    }

    /// Decides, on a thread of its own: a slow policy delays no other set.
    pub(super) async fn decide(self, observation: Arc<Observation>) -> Answer {
        let Self { slot, activation, compiled, limits } = self;
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
            Err(error) => return failed(format!("its stored state is no base64: {error}")),
        };
        let decided =
            tokio::task::spawn_blocking(move || compiled.decide(&observation, &params, &state, &limits))
                .await;
        match decided {
            Ok(call) => Answer {
                number: activation.number,
                run: PolicyRun { slot, ..call.run },
                state: call.state.map(|state| BASE64.encode(state)),
            },
            Err(error) => failed(format!("the host failed to run it: {error}")),
        }
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
        result: Err(PolicyFailure { kind: FailureKind::Host, message }),
        fuel: 0,
        duration_us: 0,
        log: Vec::new(),
    }
}

/// The state that a policy begins with when it follows `from`, and how it came to
/// be. The state of an earlier version is migrated; what cannot be is built anew.
pub(super) async fn begin_state(
    new: &NewPolicy,
    from: &PolicyActivation,
    limits: PolicyLimits,
) -> (String, String) {
    if new.activation.reads_state_of(from) {
        return (from.state.clone(), "carried over".to_owned());
    }
    let anew = || (new.activation.state.clone(), new.state.clone());
    if new.activation.name != from.name || from.state.is_empty() {
        return anew();
    }
    let version = from.state_version;
    let told = match migrate(new, from, limits).await {
        Ok(state) => return (BASE64.encode(state), format!("migrated from version {version}")),
        Err(why) => format!("not migrated from version {version}: {why}; {}", new.state),
    };
    (anew().0, told)
}

async fn migrate(new: &NewPolicy, from: &PolicyActivation, limits: PolicyLimits) -> Result<Vec<u8>, String> {
    let state =
        BASE64.decode(&from.state).map_err(|error| format!("the stored state is no base64: {error}"))?;
    let (compiled, version) = (Arc::clone(&new.compiled), from.state_version);
    let migrated = tokio::task::spawn_blocking(move || compiled.migrate(version, &state, &limits)).await;
    match migrated {
        Ok(Ok(state)) => Ok(state),
        Ok(Err(why @ (MigrateError::NoMigration | MigrateError::Refused(_) | MigrateError::Failed(_)))) => {
            Err(chain(&why))
        }
        Err(why) => Err(why.to_string()),
    }
}
