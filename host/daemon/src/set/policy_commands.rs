//! What operators do to the policies of a set, between two ticks.

use std::sync::Arc;
use std::time::Instant;

use regatta_core::state::{CanaryPolicy, PolicyActivation, PolicySlot, SetState, ShadowPolicy};
use regatta_policy_host::CompiledPolicy;
use tokio::sync::oneshot;

use super::SetTask;
use super::commands::{CommandError, Told};
use super::policy::{NewPolicy, begin_state};
use crate::clock::now_ms;

/// Shadows of one set.
pub(crate) const SHADOWS_MAX: usize = 8;

/// Where the answer to a command goes.
type Reply<T> = oneshot::Sender<Result<T, CommandError>>;

/// A command about policies. The modules of new ones are stored. A place that is
/// not named is the only one.
pub(crate) enum PolicyCommand {
    /// Another policy takes over.
    Swap { slot: Option<String>, policy: NewPolicy, actor: String, reply: Reply<Switched> },
    /// The previous policy again.
    Rollback { slot: Option<String>, actor: String, reply: Reply<Switched> },
    /// Another policy is judged beside the one in charge.
    Shadow { slot: Option<String>, policy: NewPolicy, actor: String, reply: Reply<Placed> },
    /// Another policy acts, within bounds.
    Canary { slot: Option<String>, policy: NewPolicy, within: u32, actor: String, reply: Reply<Placed> },
    /// A policy that is judged or on trial takes over; none for the only one.
    Promote { number: Option<u64>, actor: String, reply: Reply<Switched> },
    /// A policy that is judged or on trial goes.
    Drop { number: u64, actor: String, reply: Reply<Placed> },
}

/// A switch from one policy to another.
#[derive(Debug, Clone)]
pub(crate) struct Switched {
    /// Its place.
    pub slot: String,
    /// The policy before.
    pub from: PolicyActivation,
    /// The policy in charge.
    pub to: PolicyActivation,
    /// The last tick that the old one decided.
    pub after_tick: u64,
    /// How the state of the new one came to be.
    pub state: String,
    /// How long the loop was held, microseconds, the write included.
    pub switch_us: u64,
}

/// A policy beside the one in charge.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    /// The place that it would take.
    pub slot: String,
    /// The policy.
    pub activation: PolicyActivation,
    /// The last tick before.
    pub after_tick: u64,
}

impl SetTask {
    pub(super) async fn on_policy_command(&mut self, command: PolicyCommand) {
        // A caller that has gone away does not want its answer.
        match command {
            PolicyCommand::Swap { slot, policy, actor, reply } => {
                let _ = reply.send(self.swap(slot.as_deref(), policy, &actor).await);
            }
            PolicyCommand::Rollback { slot, actor, reply } => {
                let _ = reply.send(self.rollback(slot.as_deref(), &actor).await);
            }
            PolicyCommand::Shadow { slot, policy, actor, reply } => {
                let _ = reply.send(self.shadow(slot.as_deref(), policy, &actor).await);
            }
            PolicyCommand::Canary { slot, policy, within, actor, reply } => {
                let _ = reply.send(self.canary(slot.as_deref(), policy, within, &actor).await);
            }
            PolicyCommand::Promote { number, actor, reply } => {
                let _ = reply.send(self.promote(number, &actor).await);
            }
            PolicyCommand::Drop { number, actor, reply } => {
                let _ = reply.send(self.drop_candidate(number, &actor).await);
            }
        }
    }

    /// Gives the policies of another manifest their places; `policies` stand in the
    /// order of its specs. Returns what is to be made ready once it is written down.
    pub(super) async fn seat(
        &self,
        next: &mut SetState,
        policies: Vec<Option<NewPolicy>>,
    ) -> Vec<(u64, Arc<CompiledPolicy>)> {
        let mut ready = Vec::new();
        let mut slots = Vec::with_capacity(policies.len());
        for (spec, new) in next.set.policies.iter().zip(policies) {
            let old = self.state.slot(&spec.name);
            match (new, old) {
                (None, Some(old)) => slots.push(old.clone()),
                (None, None) => {}
                (Some(mut new), old) => {
                    if let Some(old) = old {
                        new.activation.state = begin_state(&new, &old.active, spec.limits).await.0;
                    }
                    next.activations += 1;
                    new.activation.number = next.activations;
                    ready.push((next.activations, Arc::clone(&new.compiled)));
                    slots.push(PolicySlot {
                        name: spec.name.clone(),
                        active: new.activation,
                        previous: old.map(|old| old.active.clone()),
                        canary: None,
                    });
                }
            }
        }
        next.policies = slots;
        let names: Vec<String> = next.policies.iter().map(|slot| slot.name.clone()).collect();
        next.shadows.retain(|shadow| names.contains(&shadow.slot));
        ready
    }

    /// The place that a command means.
    fn place(&self, slot: Option<&str>) -> Result<usize, CommandError> {
        let set = &self.state.set.name;
        let names = || self.state.policies.iter().map(|it| it.name.as_str()).collect::<Vec<_>>().join(", ");
        match slot {
            Some(name) => self.state.policies.iter().position(|it| it.name == name).ok_or_else(|| {
                CommandError::NotFound(format!("{set} has no policy named {name}; it has: {}", names()))
            }),
            None if self.state.policies.len() == 1 => Ok(0),
            None => Err(CommandError::Conflict(format!(
                "{set} has several policies ({}): say which one is meant, with --policy",
                names()
            ))),
        }
    }

    async fn swap(
        &mut self,
        slot: Option<&str>,
        mut policy: NewPolicy,
        actor: &str,
    ) -> Result<Switched, CommandError> {
        let place = self.place(slot)?;
        let from = &self.state.policies[place];
        // Only here is it known what the old policy's last state is.
        let (state, told) = begin_state(&policy, &from.active, self.limits_of(&from.name)).await;
        policy.activation.state = state;
        self.install(place, policy.activation, Ok(policy.compiled), "policy-swapped", told, actor).await
    }

    async fn rollback(&mut self, slot: Option<&str>, actor: &str) -> Result<Switched, CommandError> {
        let place = self.place(slot)?;
        let Some(previous) = self.state.policies[place].previous.clone() else {
            let name = &self.state.set.name;
            return Err(CommandError::Conflict(format!(
                "{name} has had only one policy in that place: nothing to go back to"
            )));
        };
        let compiled = self.ready.get(previous.number).cloned();
        let told = "as it was when the policy was replaced".to_owned();
        self.install(place, previous, compiled, "policy-rolled-back", told, actor).await
    }

    /// Puts a policy in charge. One that was beside it, on trial, goes.
    async fn install(
        &mut self,
        place: usize,
        mut to: PolicyActivation,
        compiled: Result<Arc<CompiledPolicy>, String>,
        kind: &'static str,
        state: String,
        actor: &str,
    ) -> Result<Switched, CommandError> {
        self.refuse_if_deleting()?;
        let held = Instant::now();
        let mut next = self.state.clone();
        // A shadow that is promoted is none any more.
        next.shadows.retain(|shadow| shadow.activation.number != to.number);
        next.activations += 1;
        to.number = next.activations;
        to.since_ms = now_ms();
        let slot = &mut next.policies[place];
        let from = std::mem::replace(&mut slot.active, to.clone());
        slot.previous = Some(from.clone());
        slot.canary = None;
        let slot = slot.name.clone();
        let text = format!("{} {} → {} {}, state {state}", from.name, from.version, to.name, to.version);
        let number = to.number;
        self.write(next, Told::new(kind, text).of(&slot, &to), actor).await?;
        self.ready.insert(number, compiled);
        self.ready.retain_of(&self.state);
        let switch_us = u64::try_from(held.elapsed().as_micros()).unwrap_or(u64::MAX);
        Ok(Switched { slot, from, to, after_tick: self.state.last_tick, state, switch_us })
    }

    async fn shadow(
        &mut self,
        slot: Option<&str>,
        policy: NewPolicy,
        actor: &str,
    ) -> Result<Placed, CommandError> {
        self.refuse_if_deleting()?;
        let place = self.place(slot)?;
        if self.state.shadows.len() >= SHADOWS_MAX {
            let set = &self.state.set.name;
            return Err(CommandError::Conflict(format!(
                "{set} has {SHADOWS_MAX} shadows already: drop one first, with `regatta policy drop {set} NUMBER`"
            )));
        }
        let mut next = self.state.clone();
        let (activation, slot) = self.candidate(&mut next, place, &policy);
        next.shadows.push(ShadowPolicy { slot: slot.clone(), activation: activation.clone() });
        let text =
            format!("{} {} is judged as shadow #{}", activation.name, activation.version, activation.number);
        self.write(next, Told::new("policy-shadowed", text).of(&slot, &activation), actor).await?;
        self.ready.insert(activation.number, Ok(policy.compiled));
        Ok(Placed { slot, activation, after_tick: self.state.last_tick })
    }

    async fn canary(
        &mut self,
        slot: Option<&str>,
        policy: NewPolicy,
        within: u32,
        actor: &str,
    ) -> Result<Placed, CommandError> {
        self.refuse_if_deleting()?;
        let place = self.place(slot)?;
        let mut next = self.state.clone();
        let (activation, slot) = self.candidate(&mut next, place, &policy);
        next.policies[place].canary = Some(CanaryPolicy { activation: activation.clone(), within });
        let text = format!(
            "{} {} is on trial as #{}, within {within} of the policy in charge",
            activation.name, activation.version, activation.number
        );
        self.write(next, Told::new("policy-canary", text).of(&slot, &activation), actor).await?;
        self.ready.insert(activation.number, Ok(policy.compiled));
        self.ready.retain_of(&self.state);
        Ok(Placed { slot, activation, after_tick: self.state.last_tick })
    }

    /// A number for a policy beside the one in charge.
    fn candidate(&self, next: &mut SetState, place: usize, policy: &NewPolicy) -> (PolicyActivation, String) {
        next.activations += 1;
        let number = next.activations;
        let activation = PolicyActivation { number, since_ms: now_ms(), ..policy.activation.clone() };
        (activation, self.state.policies[place].name.clone())
    }

    /// Policies that are judged or on trial, with their places.
    fn candidates(&self) -> impl Iterator<Item = (&str, &PolicyActivation)> {
        let on_trial =
            self.state.policies.iter().filter_map(|slot| {
                slot.canary.as_ref().map(|canary| (slot.name.as_str(), &canary.activation))
            });
        on_trial.chain(self.state.shadows.iter().map(|shadow| (shadow.slot.as_str(), &shadow.activation)))
    }

    fn find_candidate(&self, number: Option<u64>) -> Result<(String, PolicyActivation), CommandError> {
        let set = &self.state.set.name;
        let found: Vec<_> =
            self.candidates().filter(|(_, it)| number.is_none_or(|number| it.number == number)).collect();
        match (found.as_slice(), number) {
            ([(slot, activation)], _) => Ok(((*slot).to_owned(), (*activation).clone())),
            ([], Some(number)) => {
                Err(CommandError::NotFound(format!("{set} has no shadow or canary #{number}")))
            }
            ([], None) => Err(CommandError::Conflict(format!("{set} has no shadow and no canary"))),
            (several, _) => {
                let numbers: Vec<String> = several.iter().map(|(_, it)| format!("#{}", it.number)).collect();
                let numbers = numbers.join(", ");
                Err(CommandError::Conflict(format!("{set} has several: say which one is meant of {numbers}")))
            }
        }
    }

    async fn promote(&mut self, number: Option<u64>, actor: &str) -> Result<Switched, CommandError> {
        let (slot, activation) = self.find_candidate(number)?;
        let place = self.place(Some(&slot))?;
        let compiled = self.ready.get(activation.number).cloned();
        self.install(place, activation, compiled, "policy-promoted", "its own".to_owned(), actor).await
    }

    async fn drop_candidate(&mut self, number: u64, actor: &str) -> Result<Placed, CommandError> {
        let (slot, activation) = self.find_candidate(Some(number))?;
        let mut next = self.state.clone();
        next.shadows.retain(|shadow| shadow.activation.number != number);
        for slot in &mut next.policies {
            slot.canary = slot.canary.take().filter(|canary| canary.activation.number != number);
        }
        let text = format!("{} {} (#{number}) is dropped", activation.name, activation.version);
        self.write(next, Told::new("policy-dropped", text).of(&slot, &activation), actor).await?;
        self.ready.retain_of(&self.state);
        Ok(Placed { slot, activation, after_tick: self.state.last_tick })
    }
}
