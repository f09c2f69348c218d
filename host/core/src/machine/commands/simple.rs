//! Commands that change one value: capacity, protection, deletion.

use crate::batch::Batch;
use crate::event::EventKind;
use crate::phase::Phase;
use crate::state::SetState;

use super::super::{CommandError, SetMachine};
use super::{Change, Step};

impl SetMachine {
    pub(super) fn scale(&self, capacity: u32) -> Result<Step, CommandError> {
        let capacity = self.capacity_within(capacity)?;
        let text = format!("capacity {} → {capacity} (set by an operator)", self.state.desired);
        let next = SetState { desired: capacity, ..self.state.clone() };
        Ok(Step::Store(Box::new(Change::new(next, EventKind::ScaledByHand, text))))
    }

    pub(super) fn protect(&self, id: u32, protected: bool) -> Result<Step, CommandError> {
        let name = format!("{}-{id}", self.state.set.name);
        if self.instances.get(&id).is_none_or(|instance| instance.record.phase == Phase::Gone) {
            return Err(CommandError::NotFound(format!("there is no instance {name}")));
        }
        let what =
            if protected { "is protected from scale-in" } else { "is no longer protected from scale-in" };
        let change = Change::new(self.state.clone(), EventKind::Protection, format!("{name} {what}"));
        Ok(Step::Store(Box::new(Change { protect: Some((id, protected)), ..change })))
    }

    /// Puts the protection of an instance into a batch.
    pub(super) fn stage_protection(&self, id: u32, protected: bool, batch: &mut Batch) {
        let Some(instance) = self.instances.get(&id) else { return };
        let mut record = instance.record.clone();
        record.protected = protected;
        batch.state.instances.retain(|(_, other)| other.id != id);
        batch.state.instances.push((self.state.set.name.clone(), record));
    }

    pub(super) fn delete(&self) -> Step {
        let next = SetState { deleting: true, ..self.state.clone() };
        let text = format!("{} is being deleted", self.state.set.name);
        Step::Store(Box::new(Change::new(next, EventKind::SetDeleting, text)))
    }
}
