//! Policies that are judged beside the active ones and never applied.
//!
//! They are asked after a tick has acted, on tasks of their own: however slow one
//! is, the tick is not late for it. What they said stands in the next record.

use std::collections::BTreeSet;
use std::sync::Arc;

use regatta_core::observation::Observation;
use regatta_core::record::ShadowRun;
use tokio::sync::mpsc;

use super::SetTask;
use super::policy::{Answer, Ask};

/// Runs that may wait for a record; more are dropped while the store cannot be written.
const WAITING_MAX: usize = 256;

/// What the loop knows of its shadows between two ticks.
pub(super) struct Shadows {
    /// Activations that are still at an earlier tick: they skip this one.
    busy: BTreeSet<u64>,
    waiting: Vec<ShadowRun>,
    answers: mpsc::Sender<(u64, Answer)>,
}

impl Shadows {
    pub(super) fn new(answers: mpsc::Sender<(u64, Answer)>) -> Self {
        Self { busy: BTreeSet::new(), waiting: Vec::new(), answers }
    }

    /// What they have said since the last record.
    pub(super) fn waiting(&self) -> Vec<ShadowRun> {
        self.waiting.clone()
    }

    /// The record that has them is stored.
    pub(super) fn written(&mut self, count: usize) {
        self.waiting.drain(..count.min(self.waiting.len()));
    }
}

impl SetTask {
    /// Shows a tick to every shadow that is not still busy with an earlier one.
    pub(super) fn ask_shadows(&mut self, observation: &Arc<Observation>) {
        for shadow in &self.state.shadows {
            let limits = self.limits_of(&shadow.slot);
            if !self.shadows.busy.insert(shadow.activation.number) {
                continue;
            }
            let ask = Ask::new(&shadow.slot, &shadow.activation, &self.ready, limits);
            let (observation, answers) = (Arc::clone(observation), self.shadows.answers.clone());
            tokio::spawn(async move {
                let tick = observation.tick;
                let answer = ask.decide(observation).await;
                // The set may have ended.
                let _ = answers.send((tick, answer)).await;
            });
        }
    }

    pub(super) fn on_shadow(&mut self, tick: u64, answer: Answer) {
        let Answer { number, run, state } = answer;
        self.shadows.busy.remove(&number);
        // It may have been dropped, or promoted: then the state is the loop's own.
        let Some(shadow) = self.state.shadows.iter_mut().find(|it| it.activation.number == number) else {
            return;
        };
        if let Some(state) = state {
            shadow.activation.state = state;
        }
        if self.shadows.waiting.len() < WAITING_MAX {
            self.shadows.waiting.push(ShadowRun { tick, number, run });
        }
    }
}
