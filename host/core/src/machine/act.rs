//! Storing what shall be, and making it true once it is stored.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::batch::{Batch, History, Revision, StateChange};
use crate::event::{Actor, Event, EventKind};
use crate::mutant::{self, Mutant};
use crate::narrate::events_of;
use crate::phase::Phase;
use crate::plan::{Action, RemovalCause};
use crate::state::InstanceRecord;
use crate::tick::last_decision;

use super::instance::Instance;
use super::tick::Intent;
use super::{Busy, CommandError, CommitError, Effect, SetMachine, manifest_blob};

impl SetMachine {
    /// The batch of a tick: nothing is acted on that is not stored.
    pub(super) fn batch_of(&self, intent: &Intent) -> Batch {
        let name = self.state.set.name.clone();
        let mut events = events_of(&intent.record, self.last.as_deref());
        events.extend(self.shadows_told(&intent.state));
        events.extend(self.told.iter().cloned());
        if intent.removed {
            events.push(self.event(EventKind::SetDeleted, format!("{name} was deleted"), Actor::Daemon));
            let removed_sets = vec![name];
            return Batch {
                expect: self.expect(),
                state: StateChange { removed_sets, ..StateChange::default() },
                history: History { events, records: Vec::new() },
                blobs: Vec::new(),
            };
        }
        let staged: BTreeSet<u32> = intent.instances.iter().map(|(record, _)| record.id).collect();
        let (gone, kept): (Vec<_>, Vec<_>) = self
            .unstored()
            .filter(|record| !staged.contains(&record.id))
            .partition(|record| record.phase == Phase::Gone);
        let of_set = |record: &InstanceRecord| (name.clone(), record.clone());
        let staged = intent.instances.iter().map(|(record, _)| record);
        Batch {
            expect: self.expect(),
            state: StateChange {
                sets: vec![intent.state.clone()],
                instances: kept.into_iter().chain(staged).map(of_set).collect(),
                removed_instances: gone.into_iter().map(|record| (name.clone(), record.id)).collect(),
                ..StateChange::default()
            },
            history: History { records: vec![Arc::clone(&intent.record)], events },
            blobs: Vec::new(),
        }
    }

    fn unstored(&self) -> impl Iterator<Item = &InstanceRecord> {
        self.unstored.iter().filter_map(|id| Some(&self.instances.get(id)?.record))
    }

    /// The batch of a command: the next state with what is known of instances meanwhile.
    pub(super) fn batch_of_command(&self, next: crate::state::SetState, event: Event) -> Batch {
        let name = &self.state.set.name;
        let kept = self.unstored().filter(|record| record.phase != Phase::Gone);
        let blobs = match next.generation == self.state.generation {
            true => Vec::new(),
            false => vec![manifest_blob(&next.set)],
        };
        Batch {
            expect: self.expect(),
            state: StateChange {
                sets: vec![next],
                instances: kept.map(|record| (name.clone(), record.clone())).collect(),
                ..StateChange::default()
            },
            history: History { records: Vec::new(), events: vec![event] },
            blobs,
        }
    }

    fn expect(&self) -> Vec<(String, Revision)> {
        if mutant::is(Mutant::CommitUnguarded) {
            return Vec::new();
        }
        vec![(self.state.set.name.clone(), self.revision)]
    }

    pub(super) fn event(&self, kind: EventKind, text: String, actor: Actor) -> Event {
        Event {
            at_ms: self.now.wall_ms,
            set: self.state.set.name.clone(),
            kind,
            instance: None,
            text: text.into(),
            actor,
            policy: None,
        }
    }

    /// Something that the next tick stores among its events.
    pub(super) fn tell(&mut self, kind: EventKind, text: String) {
        self.told.push(self.event(kind, text, Actor::Daemon));
    }

    pub(super) fn on_committed(&mut self, result: Result<Revision, CommitError>, effects: &mut Vec<Effect>) {
        let waited = match &self.busy {
            Busy::Storing(_) => true,
            Busy::Command(pending) => pending.is_storing(),
            _ => false,
        };
        if !waited || mutant::is(Mutant::StuckAfterFailure) && result.is_err() {
            return;
        }
        if let Ok(revision) = result {
            self.revision = revision;
            self.store_error = None;
        }
        match (std::mem::replace(&mut self.busy, Busy::Idle), result) {
            (Busy::Storing(intent), Ok(_)) => self.act(*intent, effects),
            (Busy::Storing(_), Err(error)) => self.leave_it(error, effects),
            (Busy::Command(pending), result) => self.command_committed(*pending, result, effects),
            (other, _) => self.busy = other,
        }
    }

    /// What was stored becomes true.
    pub(super) fn act(&mut self, intent: Intent, effects: &mut Vec<Effect>) {
        let Intent { record, state, instances, removed } = intent;
        self.state = state;
        self.shadows.stored(record.shadows.len());
        self.changes.clear();
        self.operator.clear();
        self.told.clear();
        let stored = std::mem::take(&mut self.unstored);
        for &id in &stored {
            if self.instances.get(&id).is_some_and(|instance| instance.record.phase == Phase::Gone) {
                self.instances.remove(&id);
                if !mutant::is(Mutant::DropForget) {
                    effects.push(Effect::Forget { id });
                }
            }
        }
        self.manifests.retain(|generation, _| self.state.manifests.contains_key(generation));
        for (staged, change) in instances {
            if staged.phase == Phase::Gone {
                self.unstored.insert(staged.id);
            }
            let instance = self.instances.entry(staged.id).or_insert_with(|| Instance::new(staged.clone()));
            instance.record = staged;
            self.changes.extend(change);
        }
        for action in &record.plan.actions {
            match action {
                Action::Create { id, .. } | Action::Restart { id } => {
                    effects.extend(self.instances.get(id).map(|instance| self.want_run(&instance.record)));
                }
                Action::Drain { .. } => {}
                Action::Terminate { id, cause } => self.stop(*id, *cause, effects),
            }
        }
        // Those that came to be terminating without a plan: their VMM ended while they were drained.
        for id in stored {
            self.stop(id, RemovalCause::Failed, effects);
        }
        self.last_decision = Some(last_decision(&record));
        self.last = Some(Arc::clone(&record));
        effects.push(Effect::Ticked(Arc::clone(&record)));
        if removed {
            let gone = CommandError::NotFound(format!("set {} was deleted", self.state.set.name));
            return self.end(gone, Effect::Ended, effects);
        }
        self.roll_back_if_due(effects);
        if !self.state.shadows.is_empty() {
            self.ask_shadows(&Arc::new(record.observation.clone()), effects);
        }
    }

    /// The tick could not be stored: nothing of it happens. What was seen is kept for the next one.
    fn leave_it(&mut self, error: CommitError, effects: &mut Vec<Effect>) {
        match error {
            CommitError::Failed(why) => {
                self.store_error =
                    Some(format!("the store cannot be written; nothing of the set changes: {why}"));
            }
            CommitError::Conflict(why) => self.reload(why, effects),
        }
    }

    /// What is stored is not what the machine believes.
    pub(super) fn reload(&mut self, why: String, effects: &mut Vec<Effect>) {
        self.end(CommandError::Store(why.clone()), Effect::Reload(why), effects);
    }
}
