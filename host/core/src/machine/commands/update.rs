//! Another manifest.

use std::sync::Arc;

use crate::agent::Watch;
use crate::event::EventKind;
use crate::state::{PolicySlot, SetState};
use crate::upgrade::UpgradeStatus;

use super::super::slots::{Origin, Seat, Seating};
use super::super::upgrades::Models;
use super::super::{CommandError, Done, Effect, SetMachine, SnapshotStatus, Update, manifest_blob, observe};
use super::{Change, Step};

impl SetMachine {
    pub(super) fn update(&self, update: Update) -> Result<Step, CommandError> {
        let due = self.state.upgrade.as_ref().is_some_and(|it| it.status == UpgradeStatus::RollbackDue);
        if update.rolls_back && !due {
            return Err(CommandError::Conflict("no rollback is due anymore".to_owned()));
        }
        // A listener that moves keeps its open connections; one that is no longer wanted stays until the manifest is stored.
        Ok(match update.set.load_balancer {
            Some(_) => Step::Listen(Box::new(update)),
            None => Step::Seat(Box::new(self.seat(update))),
        })
    }

    /// Gives the policies of another manifest their slots.
    pub(super) fn seat(&self, update: Update) -> Seating {
        let Update { set, image, policies, rolls_back } = update;
        let generation = self.state.generation + 1;
        let mut next = SetState {
            generation,
            changed_ms: Some(self.clock.lived_ms),
            image,
            // A new manifest may mend what kept launches from succeeding.
            launch_failures_in_a_row: 0,
            launches_resume_ms: 0,
            early_deaths: 0,
            // … and what kept repairs from helping.
            repair: Default::default(),
            launch_failure: String::new(),
            early_death_ms: 0,
            set,
            ..self.state.clone()
        };
        next.manifests.insert(generation, manifest_blob(&next.set).0);
        next.images.insert(generation, next.image.clone());
        next.upgrade = self.upgrade_after_update(&next, rolls_back);
        let (mut slots, mut seats) = (Vec::with_capacity(policies.len()), Vec::new());
        for (spec, new) in next.set.policies.iter().zip(policies) {
            let old = self.state.slot(&spec.name);
            match (new, old) {
                (None, Some(old)) => slots.push(old.clone()),
                (None, None) => {}
                (Some(new), old) => {
                    next.activations += 1;
                    seats.push(Seat {
                        place: slots.len(),
                        state: Origin::of(&new, old.map(|old| &old.active), spec.limits),
                    });
                    let mut active = new.activation;
                    active.number = next.activations;
                    slots.push(match old {
                        Some(old) => {
                            let mut slot = old.clone();
                            slot.take_over(active);
                            slot
                        }
                        None => PolicySlot {
                            name: spec.name.clone(),
                            active,
                            previous: None,
                            earlier: Vec::new(),
                            canary: None,
                        },
                    });
                }
            }
        }
        next.policies = slots;
        let kept = |slot: &str| next.policies.iter().any(|it| it.name == slot);
        next.shadows = next.shadows.iter().filter(|shadow| kept(&shadow.slot)).cloned().collect();
        let begun = next.upgrade.as_ref().filter(|it| it.to == generation && it.status.replaces());
        let (kind, text) = match begun {
            _ if rolls_back => (
                EventKind::UpgradeRollback,
                format!("generation {generation} applied: instances go back to what they were"),
            ),
            Some(upgrade) => {
                let text =
                    format!("generation {generation} applied, instances to replace: {}", upgrade.total);
                (EventKind::ManifestApplied, text)
            }
            None => (EventKind::ManifestApplied, format!("generation {generation} applied")),
        };
        let change = Change { done: Done::Applied(Vec::new()), ..Change::new(next, kind, text) };
        Seating { change, seats, switch: false }
    }

    /// The manifest of the state is in force.
    pub(super) fn updated(&mut self, effects: &mut Vec<Effect>) {
        self.manifest = Arc::new(self.state.set.clone());
        self.manifest_digest = manifest_blob(&self.manifest).0;
        self.manifests.insert(self.state.generation, Arc::clone(&self.manifest));
        self.models = Models::of(&self.state, &self.manifests);
        self.watch = Arc::new(Watch::of(&self.manifest));
        // Its files were opened before it was applied.
        self.image_problem = None;
        self.listening = self.manifest.load_balancer.is_some();
        self.listen_error = None;
        self.windows.reconfigure(observe::specs_of(&self.state));
        for instance in self.instances.values_mut() {
            instance.meters.guest.clear();
            instance.no_value.clear();
        }
        if self.manifest.load_balancer.is_none() {
            effects.push(Effect::Listen(None));
        }
        // What is known of a snapshot is of the manifest before; one that is being made still is.
        if !matches!(self.snapshot, SnapshotStatus::Making { .. }) {
            self.snapshot = SnapshotStatus::Off;
        }
        effects.push(Effect::Updated);
        // Those that are still being made will be watched by this manifest, too.
        let running = self.instances.values().filter(|instance| {
            let phase = instance.record.phase;
            phase.is_warming() || phase.may_answer()
        });
        effects.extend(running.map(|instance| self.want_run(&instance.record)));
    }
}
