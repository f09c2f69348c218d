//! Commands that change one value: capacity, protection, deletion.

use crate::batch::Batch;
use crate::event::EventKind;
use crate::phase::Phase;
use crate::protection::Protection;
use crate::state::SetState;

use super::super::{CommandError, SetMachine};
use super::{Change, Mark, Step};

impl SetMachine {
    pub(super) fn scale(&self, capacity: u32) -> Result<Step, CommandError> {
        let capacity = self.capacity_within(capacity)?;
        let text = format!("capacity {} → {capacity} (set by an operator)", self.state.desired);
        let next = SetState { desired: capacity, ..self.state.clone() };
        Ok(Step::Store(Box::new(Change::new(next, EventKind::ScaledByHand, text))))
    }

    pub(super) fn protect(&self, id: u32, protection: Protection) -> Result<Step, CommandError> {
        let name = self.living_name(id)?;
        let what = match protection {
            Protection::None => "is no longer protected",
            Protection::ScaleIn => "is protected from scale-in",
            Protection::All => "is protected from all actions of the set",
        };
        let change = Change::new(self.state.clone(), EventKind::Protection, format!("{name} {what}"));
        Ok(Step::Store(Box::new(Change { mark: Some((id, Mark::Protection(protection))), ..change })))
    }

    /// The name of an instance that is there.
    pub(super) fn living_name(&self, id: u32) -> Result<String, CommandError> {
        let name = format!("{}-{id}", self.state.set.name);
        match self.instances.get(&id) {
            Some(instance) if instance.record.phase != Phase::Gone => Ok(name),
            _ => Err(CommandError::NotFound(format!("there is no instance {name}"))),
        }
    }

    /// Puts what a command changes of an instance into a batch.
    pub(super) fn stage_mark(&self, id: u32, mark: Mark, batch: &mut Batch) {
        let Some(instance) = self.instances.get(&id) else { return };
        let mut record = instance.record.clone();
        mark.put(&mut record);
        batch.state.instances.retain(|(_, other)| other.id != id);
        batch.state.instances.push((self.state.set.name.clone(), record));
    }

    pub(super) fn delete(&self) -> Step {
        let next = SetState { deleting: true, ..self.state.clone() };
        let text = format!("{} is being deleted", self.state.set.name);
        Step::Store(Box::new(Change::new(next, EventKind::SetDeleting, text)))
    }
}
