//! Launches that fail make the next ones wait.

use crate::phase::{InstanceEvent, Phase};
use crate::plan::launch_backoff_ms;
use crate::record::{InstanceChange, TickRecord};
use crate::state::SetState;

use super::SetMachine;

impl SetMachine {
    /// Counts the failed launches of a tick.
    pub(super) fn back_off(&self, record: &TickRecord, state: &mut SetState) {
        if record.changes.iter().any(|change| self.is_launch_failure(change)) {
            state.launch_failures_in_a_row = state.launch_failures_in_a_row.saturating_add(1);
            state.launches_resume_ms =
                record.facts.lived_ms + launch_backoff_ms(state.launch_failures_in_a_row);
        }
    }

    fn is_launch_failure(&self, change: &InstanceChange) -> bool {
        // A launch that the daemon's own end cut off says nothing about the image.
        let cut_off = change.from == Phase::Creating && change.event == InstanceEvent::VmmExited;
        change.to == Phase::Failed
            && !cut_off
            && self.instances.get(&change.id).is_some_and(|instance| !instance.record.served)
    }
}
