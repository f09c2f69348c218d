//! What a new policy goes through before it takes over: parameters checked, then
//! recorded ticks.
//!
//! The set's loop switches policies between two ticks by exchanging an
//! `Arc<CompiledPolicy>` with its parameters and state; everything that takes time
//! or can fail happens here and in [`Engine::load`](crate::Engine::load), off the
//! loop.

use std::sync::Arc;

use regatta_core::decision::{FailureKind, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;

use crate::call::Call;
use crate::compiled::CompiledPolicy;
use crate::error::PrepareError;

/// What a dry run found.
#[derive(Debug, Clone, PartialEq)]
pub struct DryRun {
    /// The state after the last of the runs.
    pub state: Vec<u8>,
    /// One per recorded observation, in order.
    pub runs: Vec<PolicyRun>,
}

/// Runs a policy over recorded observations, oldest first, starting without a
/// state.
///
/// # Errors
/// When it does not accept the parameters, or a run fails. A run in which the
/// policy itself says that it has no answer is no failure.
pub fn dry_run(
    policy: &CompiledPolicy,
    params: &str,
    recorded: &[Arc<Observation>],
    limits: &PolicyLimits,
) -> Result<DryRun, PrepareError> {
    policy.validate(params, limits)?;
    let mut dry = DryRun { state: Vec::new(), runs: Vec::with_capacity(recorded.len()) };
    for observation in recorded {
        let Call { run, state, .. } = policy.decide(observation, params, &dry.state, limits);
        if let Err(failure) = &run.result
            && failure.kind != FailureKind::Refused
        {
            return Err(PrepareError::DryRun { tick: observation.tick, failure: failure.clone() });
        }
        if let Some(state) = state {
            dry.state = state;
        }
        dry.runs.push(run);
    }
    Ok(dry)
}
