//! Policies that are judged beside the active ones and never applied.
//!
//! They are asked after a tick is stored, and nobody waits for them: however slow one is, the tick is not late for it. What
//! they said stands in the next record.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::event::{Actor, Event, EventKind};
use crate::observation::Observation;
use crate::record::ShadowRun;
use crate::state::{SetState, ShadowPolicy};

use super::recordable::{SHADOWS_BYTES_MAX, json_bytes};
use super::{Answer, Ask, Effect, SetMachine};

/// Runs that may wait for a record; more are dropped while the store cannot be written, and what has no place in a record.
const WAITING_MAX: usize = 256;

/// What the machine knows of its shadows between two ticks.
#[derive(Debug, Default)]
pub(super) struct Shadows {
    /// Activations that are still at an earlier tick: they skip this one.
    busy: BTreeSet<u64>,
    /// What they have said since the last record.
    pub(super) waiting: Vec<ShadowRun>,
    /// So much of a record they take.
    bytes: usize,
}

impl Shadows {
    /// The record with that many of them is stored.
    pub(super) fn stored(&mut self, count: usize) {
        let stored = self.waiting.drain(..count.min(self.waiting.len()));
        self.bytes -= stored.map(|run| json_bytes(&run)).sum::<usize>();
    }
}

/// Takes in what shadows said, in the order of their answers.
pub(super) fn note(runs: &[ShadowRun], shadows: &mut [ShadowPolicy]) {
    for ShadowRun { number, run, .. } in runs {
        if let Some(shadow) = shadows.iter_mut().find(|it| it.activation.number == *number) {
            shadow.failure = run.result.as_ref().err().cloned();
        }
    }
}

impl SetMachine {
    /// The shadows that begin or cease to fail with `next`, as events.
    pub(super) fn shadows_told(&self, next: &SetState) -> Vec<Event> {
        let told = next.shadows.iter().filter_map(|now| {
            let number = now.activation.number;
            let before = self.state.shadows.iter().find(|it| it.activation.number == number)?;
            let (kind, what) = match (&before.failure, &now.failure) {
                (None, Some(failure)) => (EventKind::PolicyFailed, failure.told()),
                (Some(_), None) => (EventKind::PolicyRecovered, "returns decisions again".to_owned()),
                (None, None) | (Some(_), Some(_)) => return None,
            };
            let text = format!("shadow #{number} {} {what}", now.activation.name);
            let policy = Some(now.activation.as_ref_in(&now.slot));
            Some(Event { policy, ..self.event(kind, text, Actor::Daemon) })
        });
        told.collect()
    }

    /// Shows a tick to every shadow that is not still busy with an earlier one.
    pub(super) fn ask_shadows(&mut self, observation: &Arc<Observation>, effects: &mut Vec<Effect>) {
        for shadow in &self.state.shadows {
            if self.shadows.busy.insert(shadow.activation.number) {
                let ask = Ask {
                    slot: shadow.slot.clone(),
                    activation: shadow.activation.clone(),
                    limits: self.limits_of(&shadow.slot),
                };
                effects.push(Effect::AskShadow { observation: Arc::clone(observation), ask });
            }
        }
    }

    pub(super) fn on_shadow(&mut self, tick: u64, answer: Answer) {
        let Answer { number, run, state } = answer;
        self.shadows.busy.remove(&number);
        // It may have been dropped, or promoted: then the state is another one.
        let Some(shadow) = self.state.shadows.iter_mut().find(|it| it.activation.number == number) else {
            return;
        };
        if let Some(state) = state.filter(|state| state.len() <= SHADOWS_BYTES_MAX) {
            shadow.activation.state = state;
        }
        let run = ShadowRun { tick, number, run };
        let bytes = json_bytes(&run);
        if self.shadows.waiting.len() < WAITING_MAX && self.shadows.bytes + bytes <= SHADOWS_BYTES_MAX {
            self.shadows.bytes += bytes;
            self.shadows.waiting.push(run);
        }
    }
}
