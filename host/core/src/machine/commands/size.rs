//! Commands about who decides the size: hold it, and leave it to the policies again.

use crate::event::{Actor, EventKind};
use crate::sizing::{Sizing, Term};
use crate::state::SetState;

use super::super::{CommandError, SetMachine};
use super::{Change, Step};

impl SetMachine {
    pub(super) fn hold_size(
        &self,
        capacity: Option<u32>,
        for_ms: Option<u64>,
        reason: &str,
        actor: &Actor,
    ) -> Result<Step, CommandError> {
        let desired = self.capacity_within(capacity.unwrap_or(self.state.desired))?;
        let at = self.moment();
        let term = Term::begin(at, for_ms, actor.clone(), reason);
        let until = term.told(at, &format!("regatta resume {}", self.state.set.name));
        let size = match desired == self.state.desired {
            true => desired.to_string(),
            false => format!("{} → {desired}", self.state.desired),
        };
        let next = SetState { desired, ..self.sized(|sizing| sizing.hold = Some(term)) };
        let text = format!("capacity {size} is held {until}");
        Ok(Step::Store(Box::new(Change::new(next, EventKind::SizeHeld, text))))
    }

    pub(super) fn resume(&self) -> Step {
        if self.state.sizing.at(self.clock.lived_ms).hold.is_none() {
            return Step::Nothing;
        }
        let next = self.sized(|sizing| sizing.hold = None);
        let text = format!("capacity {} is no longer held: policies decide again", self.state.desired);
        Step::Store(Box::new(Change::new(next, EventKind::SizeResumed, text)))
    }

    /// The state with something else that an operator says about the size.
    fn sized(&self, change: impl FnOnce(&mut Sizing)) -> SetState {
        let mut next = self.state.clone();
        change(&mut next.sizing);
        next
    }

    /// `capacity` as a size that may be set now.
    pub(super) fn capacity_within(&self, capacity: u32) -> Result<u32, CommandError> {
        let limits = self.state.set.capacity;
        if (limits.min..=limits.max).contains(&capacity) {
            return Ok(capacity);
        }
        Err(CommandError::Conflict(format!(
            "capacity {capacity} is outside the set's limits, {} to {}; change them in the manifest first",
            limits.min, limits.max
        )))
    }
}
