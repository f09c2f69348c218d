//! What operators do to a set, between two ticks. Each command is stored before it is true, and before it is answered.
//!
//! A command goes through up to three stages, each of which may refuse it: the load balancer listens as it shall
//! ([`update`]), states of policies are migrated, the next state is stored.

mod instance;
mod processes;
mod simple;
mod size;
#[cfg(test)]
mod tests;
mod update;
mod upgrade;

pub use self::upgrade::UpgradeAction;

use crate::batch::Revision;
use crate::event::{Actor, Event, EventKind};
use crate::mutant::{self, Mutant};
use crate::protection::Protection;
use crate::requested::Requested;
use crate::state::{InstanceRecord, PolicyActivation, SetState};

use super::slots::Seating;
use super::{
    Busy, Command, CommandError, CommitError, Done, Effect, SetMachine, Token, Update, observe, recordable,
};

/// A command under way.
#[derive(Debug)]
pub(super) struct Pending {
    token: Token,
    actor: Actor,
    stage: Stage,
}

impl Pending {
    /// Whether it waits for the store.
    pub(super) fn is_storing(&self) -> bool {
        matches!(self.stage, Stage::Storing(_))
    }
}

#[derive(Debug)]
enum Stage {
    /// The load balancer moves to where the next manifest wants it.
    Listening(Box<Update>),
    /// States of policies are migrated.
    Migrating(Box<Seating>),
    /// The store.
    Storing(Box<Change>),
}

/// What a command is about to make true.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) next: SetState,
    pub(super) kind: EventKind,
    pub(super) text: String,
    /// Slot and activation that the event is about.
    pub(super) policy: Option<(String, PolicyActivation)>,
    pub(super) done: Done,
    /// What it changes of an instance, which lies outside of the set's state.
    pub(super) mark: Option<(u32, Mark)>,
    /// The shadow or canary that the command itself names.
    pub(super) named: Option<u64>,
}

impl Change {
    pub(super) fn new(next: SetState, kind: EventKind, text: String) -> Self {
        Self { next, kind, text, policy: None, done: Done::Ok, mark: None, named: None }
    }

    /// The event is about this policy.
    pub(super) fn about(self, slot: &str, activation: &PolicyActivation) -> Self {
        Self { policy: Some((slot.to_owned(), activation.clone())), ..self }
    }
}

/// What a command changes of an instance.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// What it is protected from.
    Protection(Protection),
    /// What is asked for it.
    Requested(Requested),
}

impl Mark {
    pub(super) fn put(self, record: &mut InstanceRecord) {
        match self {
            Self::Protection(protection) => record.protection = protection,
            Self::Requested(requested) => record.requested = Some(requested),
        }
    }
}

/// How a command goes on.
pub(super) enum Step {
    /// Store this.
    Store(Box<Change>),
    /// Listen like this first.
    Listen(Box<Update>),
    /// Give policies their slots, which may need migrated states.
    Seat(Box<Seating>),
    /// There is nothing to do.
    Nothing,
}

impl SetMachine {
    pub(super) fn on_command(
        &mut self,
        token: Token,
        actor: Actor,
        command: Command,
        effects: &mut Vec<Effect>,
    ) {
        match self.begin(command, &actor) {
            Ok(step) => self.step(token, actor, step, effects),
            Err(error) => effects.push(Effect::Reply { token, result: Err(error) }),
        }
    }

    fn begin(&self, command: Command, actor: &Actor) -> Result<Step, CommandError> {
        if self.state.deleting {
            return match command {
                Command::Delete => Ok(Step::Nothing),
                _ => Err(CommandError::Conflict(format!("set {} is being deleted", self.state.set.name))),
            };
        }
        match command {
            Command::Update(update) => self.update(*update),
            Command::Upgrade(action) => self.upgrade(&action),
            Command::Scale { capacity } => self.scale(capacity),
            Command::Protect { id, protection } => self.protect(id, protection),
            Command::Processes { suspend, resume } => Ok(self.processes(&suspend, &resume)),
            Command::Instance { id, action } => self.instance_action(id, action),
            Command::Hold { capacity, for_ms, reason } => self.hold_size(capacity, for_ms, &reason, actor),
            Command::Resume => Ok(self.resume()),
            Command::Limits { min, max, for_ms, reason } => {
                self.override_limits(min, max, for_ms, &reason, actor)
            }
            Command::ClearLimits => Ok(self.clear_limits()),
            Command::Freeze { for_ms, reason } => Ok(self.freeze(for_ms, &reason, actor)),
            Command::Thaw => Ok(self.thaw()),
            Command::Delete => Ok(self.delete()),
            Command::Swap { slot, policy } => self.swap(slot.as_deref(), *policy),
            Command::Rollback { slot, to } => self.rollback(slot.as_deref(), to),
            Command::Shadow { slot, policy } => self.shadow(slot.as_deref(), &policy),
            Command::Canary { slot, policy, within } => self.canary(slot.as_deref(), &policy, within),
            Command::Promote { number } => self.promote(number),
            Command::Drop { number } => self.drop_candidate(number),
        }
    }

    fn step(&mut self, token: Token, actor: Actor, step: Step, effects: &mut Vec<Effect>) {
        let stage = match step {
            Step::Nothing => return effects.push(Effect::Reply { token, result: Ok(Done::Ok) }),
            Step::Listen(update) => {
                effects.push(Effect::Listen(update.set.load_balancer.clone()));
                Stage::Listening(update)
            }
            Step::Seat(seating) => {
                let migrations = seating.migrations();
                if migrations.is_empty() {
                    let change = self.seated(*seating, Vec::new());
                    return self.step(token, actor, Step::Store(Box::new(change)), effects);
                }
                effects.push(Effect::Migrate(migrations));
                Stage::Migrating(seating)
            }
            Step::Store(mut change) => {
                change.next.clock = self.clock;
                let event = Event {
                    policy: change.policy.as_ref().map(|(slot, activation)| activation.as_ref_in(slot)),
                    ..self.event(change.kind, change.text.clone(), actor.clone())
                };
                let beside = self.beside(&mut change, &event);
                let mut batch = self.batch_of_command(change.next.clone(), event);
                // The command's own event comes last.
                batch.history.events.splice(0..0, beside);
                if let Some((id, mark)) = change.mark {
                    self.stage_mark(id, mark, &mut batch);
                }
                if mutant::is(Mutant::ReplyBeforeCommit) {
                    effects.push(Effect::Reply { token, result: Ok(Done::Ok) });
                }
                effects.push(Effect::Commit(Box::new(batch)));
                Stage::Storing(change)
            }
        };
        self.busy = Busy::Command(Box::new(Pending { token, actor, stage }));
    }

    /// The command under way, when it waits for what has come.
    fn pending(&mut self, waits: impl FnOnce(&Stage) -> bool) -> Option<Pending> {
        match std::mem::replace(&mut self.busy, Busy::Idle) {
            Busy::Command(pending) if waits(&pending.stage) => Some(*pending),
            other => {
                self.busy = other;
                None
            }
        }
    }

    pub(super) fn on_listening(&mut self, result: Result<(), String>, effects: &mut Vec<Effect>) {
        match self.pending(|stage| matches!(stage, Stage::Listening(_))) {
            Some(Pending { token, actor, stage: Stage::Listening(update) }) => match result {
                Ok(()) => {
                    let seating = self.seat(*update);
                    self.step(token, actor, Step::Seat(Box::new(seating)), effects);
                }
                Err(why) => {
                    effects.push(Effect::Reply { token, result: Err(CommandError::Conflict(why)) });
                }
            },
            _ => {
                self.listening = result.is_ok() && self.manifest.load_balancer.is_some();
                self.listen_error =
                    result.err().map(|why| format!("the load balancer cannot listen; it tries again: {why}"));
            }
        }
    }

    pub(super) fn on_migrated(&mut self, states: Vec<Result<String, String>>, effects: &mut Vec<Effect>) {
        let waiting = self.pending(|stage| matches!(stage, Stage::Migrating(_)));
        if let Some(Pending { token, actor, stage: Stage::Migrating(seating) }) = waiting {
            let states = states.into_iter().map(recordable::migrated).collect();
            let change = self.seated(*seating, states);
            self.step(token, actor, Step::Store(Box::new(change)), effects);
        }
    }

    pub(super) fn command_committed(
        &mut self,
        pending: Pending,
        result: Result<Revision, CommitError>,
        effects: &mut Vec<Effect>,
    ) {
        let Pending { token, actor, stage: Stage::Storing(change) } = pending else { return };
        let result = match result {
            Ok(_) => {
                let Change { next, text, done, mark, .. } = *change;
                self.operator.push(format!("{text} ({actor})").into());
                if let Some((id, mark)) = mark {
                    self.note(id, |record| mark.put(record));
                }
                let updated = next.generation != self.state.generation;
                let policies_changed = next.activations != self.state.activations;
                self.state = next;
                self.tell_withheld();
                if updated {
                    self.updated(effects);
                } else if policies_changed {
                    // Another policy may look further back.
                    self.windows.reconfigure(observe::specs_of(&self.state));
                }
                Ok(done)
            }
            Err(error) => {
                if change.next.generation != self.state.generation {
                    // Back to where the manifest in force wants it.
                    effects.push(Effect::Listen(self.manifest.load_balancer.clone()));
                }
                let (CommitError::Failed(why) | CommitError::Conflict(why)) = &error;
                effects.push(Effect::Reply { token, result: Err(CommandError::Store(why.clone())) });
                if let CommitError::Conflict(why) = error {
                    self.reload(why, effects);
                }
                return;
            }
        };
        effects.push(Effect::Reply { token, result });
    }
}
