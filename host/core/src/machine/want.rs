//! What is wanted of each instance, as its node is told.

use std::sync::Arc;

use crate::agent::{Order, StopOrder, Want};
use crate::phase::Phase;
use crate::plan::RemovalCause;
use crate::requested::Requested;
use crate::state::InstanceRecord;

use super::{Effect, SetMachine};

impl SetMachine {
    fn want(&self, record: &InstanceRecord, order: Order) -> Effect {
        Effect::Want(Want {
            id: record.id,
            uid: record.uid.clone(),
            epoch: record.epoch,
            generation: record.generation,
            created_ms: record.created_ms,
            restart: (record.requested == Some(Requested::Restarting)).then_some(record.restarts),
            order,
        })
    }

    /// An instance shall run.
    pub(super) fn want_run(&self, record: &InstanceRecord) -> Effect {
        let order = Order::Run {
            phase: record.phase,
            manifest: Arc::clone(self.manifest_of(record)),
            watch: Arc::clone(&self.watch),
        };
        self.want(record, order)
    }

    fn want_stop(&self, record: &InstanceRecord, cause: RemovalCause) -> Effect {
        // Only a guest that has served and is well is asked to shut down: one
        // that still boots or is broken would not hear it.
        let grace_ms = match cause {
            RemovalCause::Drained | RemovalCause::DrainTimeout => {
                self.manifest_of(record).instance.shutdown_timeout_ms
            }
            _ => 0,
        };
        // What went wrong in a guest is in its logs.
        let failure = match (cause, &record.detail) {
            (RemovalCause::Failed, detail) => detail.clone(),
            (RemovalCause::Unhealthy, Some(probe)) => Some(format!("unhealthy: {probe}").into()),
            (RemovalCause::Unhealthy, None) => Some("unhealthy".into()),
            _ => None,
        };
        self.want(record, Order::Stop(StopOrder { grace_ms, failure: failure.map(Into::into) }))
    }

    /// An instance whose termination is stored shall end: told once.
    pub(super) fn stop(&mut self, id: u32, cause: RemovalCause, effects: &mut Vec<Effect>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance.record.phase != Phase::Terminating || std::mem::replace(&mut instance.stop_told, true) {
            return;
        }
        effects.extend(self.instances.get(&id).map(|instance| self.want_stop(&instance.record, cause)));
    }
}
