//! Swapping the policy of a set while it runs.
//!
//! Preparing (load, validate, dry run) happens off the tick loop; the loop owns a
//! [`PolicySlot`] and swaps it between two ticks, which moves pointers and nothing
//! else. A tick works on a [`Snapshot`]; its new state is committed only if the
//! activation that it belongs to is still the current one.

use std::sync::Arc;

use regatta_core::decision::{FailureKind, PolicyRun};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;

use crate::call::Call;
use crate::compiled::CompiledPolicy;
use crate::engine::Engine;
use crate::error::{ParamsError, PrepareError};

/// A policy that has shown that it runs with its set's parameters.
#[derive(Debug, Clone)]
pub struct Prepared {
    policy: Arc<CompiledPolicy>,
    params: Arc<str>,
    limits: PolicyLimits,
    warm_state: Vec<u8>,
    warmed_on: usize,
}

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

impl Prepared {
    /// Loads a module and lets it run dry over recorded observations. Takes from
    /// milliseconds to seconds: not for the tick loop.
    ///
    /// # Errors
    /// When it cannot be loaded, refuses the parameters or fails on a recorded tick.
    pub fn from_module(
        engine: &Engine,
        module: &[u8],
        params: &str,
        recorded: &[Arc<Observation>],
        limits: &PolicyLimits,
    ) -> Result<Self, PrepareError> {
        Self::new(engine.load(module)?, params, recorded, limits)
    }

    /// As [`Prepared::from_module`] with a module that is loaded already.
    ///
    /// # Errors
    /// When it refuses the parameters or fails on a recorded tick.
    pub fn new(
        policy: Arc<CompiledPolicy>,
        params: &str,
        recorded: &[Arc<Observation>],
        limits: &PolicyLimits,
    ) -> Result<Self, PrepareError> {
        let dry = dry_run(&policy, params, recorded, limits)?;
        Ok(Self {
            policy,
            params: params.into(),
            limits: *limits,
            warm_state: dry.state,
            warmed_on: recorded.len(),
        })
    }

    /// Prepares a policy that ran before, with the state that it had then: for a
    /// daemon that comes back.
    ///
    /// # Errors
    /// When it refuses the parameters.
    pub fn resume(
        policy: Arc<CompiledPolicy>,
        params: &str,
        state: Vec<u8>,
        limits: &PolicyLimits,
    ) -> Result<Self, ParamsError> {
        policy.validate(params, limits)?;
        Ok(Self { policy, params: params.into(), limits: *limits, warm_state: state, warmed_on: 0 })
    }

    /// The policy.
    #[must_use]
    pub fn policy(&self) -> &Arc<CompiledPolicy> {
        &self.policy
    }
}

/// One period in which a policy is (or was) a set's active one.
#[derive(Debug)]
pub struct Activation {
    /// Goes up with every swap and rollback of the slot.
    pub id: u64,
    /// The policy.
    pub policy: Arc<CompiledPolicy>,
    /// Its parameters, as JSON text.
    pub params: Arc<str>,
    /// What a decision may cost.
    pub limits: PolicyLimits,
}

/// Where the state of a newly active policy comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StateOrigin {
    /// From the policy before: same name, same version of the state.
    Carried,
    /// From the dry run over this many recorded ticks; the reason says why not
    /// from the policy before.
    Warmed {
        /// How many.
        ticks: usize,
        /// Why the state before is of no use.
        reason: String,
    },
    /// There is none; the reason says why.
    Empty {
        /// Why.
        reason: String,
    },
    /// The one that it had when it was last active.
    Kept,
}

/// What a swap or a rollback did.
#[derive(Debug, Clone)]
pub struct Swapped {
    /// What is active now.
    pub now: Arc<Activation>,
    /// What was active before, and is kept for a rollback.
    pub before: Arc<Activation>,
    /// Where the state comes from.
    pub state: StateOrigin,
}

/// The active policy of a set, and the one before it.
#[derive(Debug)]
pub struct PolicySlot {
    active: Held,
    previous: Option<Held>,
    next_id: u64,
}

#[derive(Debug)]
struct Held {
    activation: Arc<Activation>,
    state: Arc<[u8]>,
}

/// What one tick works on.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The policy that is active in this tick.
    pub activation: Arc<Activation>,
    /// Its state before this tick.
    pub state: Arc<[u8]>,
}

impl Snapshot {
    /// Lets the policy decide.
    #[must_use]
    pub fn decide(&self, observation: &Arc<Observation>) -> Call {
        let Activation { policy, params, limits, .. } = &*self.activation;
        policy.decide(observation, params, &self.state, limits)
    }
}

impl PolicySlot {
    /// Starts with this policy active and none before it.
    #[must_use]
    pub fn new(prepared: Prepared) -> Self {
        let state = prepared.warm_state.clone().into();
        Self { active: Held { activation: activation(1, prepared), state }, previous: None, next_id: 2 }
    }

    /// What the next tick works on.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { activation: Arc::clone(&self.active.activation), state: Arc::clone(&self.active.state) }
    }

    /// What is active.
    #[must_use]
    pub fn active(&self) -> &Arc<Activation> {
        &self.active.activation
    }

    /// What a rollback would make active.
    #[must_use]
    pub fn previous(&self) -> Option<&Arc<Activation>> {
        self.previous.as_ref().map(|held| &held.activation)
    }

    /// Takes over the state that a call left, if the activation that it belongs to
    /// is still the current one; says whether it was. A call without a decision
    /// leaves the state as it was.
    pub fn commit(&mut self, activation_id: u64, call: &Call) -> bool {
        if self.active.activation.id != activation_id {
            return false;
        }
        if let Some(state) = &call.state {
            self.active.state = state.as_slice().into();
        }
        true
    }

    /// Makes `prepared` active and keeps the active one for a rollback.
    pub fn swap(&mut self, prepared: Prepared) -> Swapped {
        let (old, new) = (&self.active.activation.policy, &prepared.policy);
        let (state, origin) = match differs(old, new) {
            None => (Arc::clone(&self.active.state), StateOrigin::Carried),
            Some(reason) if prepared.warmed_on > 0 => (
                prepared.warm_state.clone().into(),
                StateOrigin::Warmed { ticks: prepared.warmed_on, reason },
            ),
            Some(reason) => (Arc::default(), StateOrigin::Empty { reason }),
        };
        let id = self.take_id();
        let held = Held { activation: activation(id, prepared), state };
        self.replace(held, origin)
    }

    /// Makes the policy before active again, with the state that it had then; the
    /// present one takes its place. None when there is no policy before.
    pub fn rollback(&mut self) -> Option<Swapped> {
        let previous = self.previous.take()?;
        let Activation { policy, params, limits, .. } = &*previous.activation;
        let (policy, params, limits) = (Arc::clone(policy), Arc::clone(params), *limits);
        let activation = Arc::new(Activation { id: self.take_id(), policy, params, limits });
        Some(self.replace(Held { activation, state: previous.state }, StateOrigin::Kept))
    }

    fn take_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    fn replace(&mut self, held: Held, state: StateOrigin) -> Swapped {
        let now = Arc::clone(&held.activation);
        let old = std::mem::replace(&mut self.active, held);
        let before = Arc::clone(&old.activation);
        self.previous = Some(old);
        Swapped { now, before, state }
    }
}

fn activation(id: u64, prepared: Prepared) -> Arc<Activation> {
    let Prepared { policy, params, limits, .. } = prepared;
    Arc::new(Activation { id, policy, params, limits })
}

/// Why the state of `old` is of no use to `new`; none when it is.
fn differs(old: &CompiledPolicy, new: &CompiledPolicy) -> Option<String> {
    let (old, new) = (old.manifest(), new.manifest());
    if old.name != new.name {
        return Some(format!("{} cannot read the state of {}", new.name, old.name));
    }
    (old.state_version != new.state_version).then(|| {
        format!("the state of {} went from version {} to {}", new.name, old.state_version, new.state_version)
    })
}
