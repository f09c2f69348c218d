//! The policy in charge of a set.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::decision::{FailureKind, PolicyFailure, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_core::state::PolicyActivation;
use regatta_policy_host::CompiledPolicy;

/// A policy with its parameters and state.
#[derive(Debug, Clone)]
pub(crate) struct ActivePolicy {
    /// As it is stored.
    pub activation: PolicyActivation,
    /// Ready to run, or why it is not.
    compiled: Result<Arc<CompiledPolicy>, String>,
}

impl ActivePolicy {
    /// A policy that is ready to run.
    #[must_use]
    pub(crate) fn new(activation: PolicyActivation, compiled: Arc<CompiledPolicy>) -> Self {
        Self { activation, compiled: Ok(compiled) }
    }

    /// A stored policy that cannot be run any more: each decision fails with `why`.
    #[must_use]
    pub(crate) fn broken(activation: PolicyActivation, why: String) -> Self {
        Self { activation, compiled: Err(why) }
    }

    /// Names of the metrics that it asks for, with these parameters.
    #[must_use]
    pub(crate) fn wanted_metrics(&self) -> Vec<String> {
        match &self.compiled {
            Ok(compiled) => {
                compiled.wishes(&self.activation.params).into_iter().map(|wish| wish.name).collect()
            }
            Err(_) => Vec::new(),
        }
    }

    /// Takes over the state that was written down.
    pub(crate) fn set_state(&mut self, state: &str) {
        state.clone_into(&mut self.activation.state);
    }

    /// Decides, on a thread of its own: a slow policy delays no other set. The
    /// second value is the new state, base64; none when it stays.
    pub(crate) async fn decide(
        &self,
        observation: Arc<Observation>,
        limits: PolicyLimits,
    ) -> (PolicyRun, Option<String>) {
        let compiled = match &self.compiled {
            Ok(compiled) => Arc::clone(compiled),
            Err(why) => return (self.failed(why.clone()), None),
        };
        let params = self.activation.params.clone();
        let state = match BASE64.decode(&self.activation.state) {
            Ok(state) => state,
            Err(error) => return (self.failed(format!("its stored state is no base64: {error}")), None),
        };
        let decided =
            tokio::task::spawn_blocking(move || compiled.decide(&observation, &params, &state, &limits))
                .await;
        match decided {
            Ok(call) => (call.run, call.state.map(|state| BASE64.encode(state))),
            Err(error) => (self.failed(format!("the host failed to run it: {error}")), None),
        }
    }

    fn failed(&self, message: String) -> PolicyRun {
        let activation = &self.activation;
        PolicyRun {
            slot: String::new(),
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
}
