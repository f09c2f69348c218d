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
    /// One per recorded observation, in order; none after the first that failed.
    pub runs: Vec<PolicyRun>,
    /// The tick of the last of the runs.
    last_tick: u64,
}

impl DryRun {
    /// Runs that gave a decision.
    #[must_use]
    pub fn decided(&self) -> usize {
        self.runs.iter().filter(|run| run.result.is_ok()).count()
    }

    /// Whether the policy is fit to decide: it failed in no tick and did not refuse all of them.
    ///
    /// # Errors
    /// How it failed, with the end of that run's log.
    pub fn verdict(&self) -> Result<(), PrepareError> {
        let Some(Err(failure)) = self.runs.last().map(|run| &run.result) else { return Ok(()) };
        let (tick, failure) = (self.last_tick, failure.clone());
        let log = self.runs.last().map(PolicyRun::log_tail).unwrap_or_default();
        if failure.kind != FailureKind::Refused {
            return Err(PrepareError::DryRun { tick, failure, log });
        }
        if self.decided() == 0 {
            return Err(PrepareError::Undecided { ticks: self.runs.len(), failure, log });
        }
        Ok(())
    }
}

/// Runs a policy over recorded observations, oldest first, starting without a
/// state.
///
/// # Errors
/// When it does not accept the parameters. What its runs say of it is [`DryRun::verdict`]'s.
pub fn dry_run(
    policy: &CompiledPolicy,
    params: &str,
    recorded: &[Arc<Observation>],
    limits: &PolicyLimits,
) -> Result<DryRun, PrepareError> {
    policy.validate(params, limits)?;
    let mut dry = DryRun { state: Vec::new(), runs: Vec::with_capacity(recorded.len()), last_tick: 0 };
    for observation in recorded {
        let Call { run, state, .. } = policy.decide(observation, params, &dry.state, limits);
        // One that fails takes up to its deadline each time.
        let failed = matches!(&run.result, Err(failure) if failure.kind != FailureKind::Refused);
        if let Some(state) = state {
            dry.state = state;
        }
        dry.runs.push(run);
        dry.last_tick = observation.tick;
        if failed {
            break;
        }
    }
    Ok(dry)
}
