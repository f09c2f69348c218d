//! After a restart of the daemon: what runs continues to run, a launch that was cut off is begun again with another
//! instance, a removal that was cut off is finished.

use crate::agent::{Found, Running};
use crate::mutant::{self, Mutant};
use crate::phase::{InstanceEvent, Phase};
use crate::plan::RemovalCause;

use super::{Busy, Effect, SetMachine};

impl SetMachine {
    /// What an agent found of an instance that it was told to have.
    pub(super) fn on_found(&mut self, id: u32, found: Found) {
        let Some(phase) = self.instances.get(&id).map(|instance| instance.record.phase) else { return };
        match (phase, found) {
            (Phase::Terminating | Phase::Failed | Phase::Refused | Phase::Gone, _) => {}
            // Boot had returned, but the daemon died before it could store that.
            (Phase::Pending | Phase::Creating, Found::Running(running)) => {
                self.meet(id, InstanceEvent::LaunchStarted, None);
                self.meet(id, InstanceEvent::Booted, None);
                self.attach(id, running);
            }
            (Phase::Pending | Phase::Creating, Found::HalfMade | Found::Unreachable(_) | Found::Nothing) => {
                // Not the image's fault, so not a failed launch: the next one need not wait.
                self.meet(id, InstanceEvent::LaunchStarted, None);
                self.meet(
                    id,
                    InstanceEvent::VmmExited,
                    Some("the daemon ended during its launch".to_owned()),
                );
            }
            (_, Found::Unreachable(_)) if mutant::is(Mutant::StopOnSilence) => {
                self.meet(id, InstanceEvent::VmmExited, None);
            }
            (_, Found::Running(running) | Found::Unreachable(running)) => {
                self.found_again(id, phase, running)
            }
            (_, Found::HalfMade) => {
                let why = "its guest was gone when the daemon came back";
                self.meet(id, InstanceEvent::VmmExited, Some(why.to_owned()));
            }
            (_, Found::Nothing) => {
                let why = "its VMM was gone when the daemon came back";
                self.meet(id, InstanceEvent::VmmExited, Some(why.to_owned()));
            }
        }
    }

    fn found_again(&mut self, id: u32, phase: Phase, running: Running) {
        // It may have recovered while nobody probed it: its grace begins anew.
        if phase == Phase::Unhealthy {
            let at = self.moment();
            self.note(id, |record| {
                record.phase_since_ms = at.wall_ms;
                record.phase_since_lived_ms = at.lived_ms;
            });
        }
        self.attach(id, running);
    }

    /// Every instance was looked for: what is wanted of each is told again, and ticks begin.
    pub(super) fn on_inventory_complete(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.busy, Busy::Inventory) {
            return;
        }
        self.busy = Busy::Idle;
        let unstored = |id| self.changes.iter().any(|it| it.id == id && it.to == Phase::Terminating);
        for instance in self.instances.values() {
            let record = &instance.record;
            effects.extend(match record.phase {
                // A guest may be in the middle of its shutdown: it gets its time again.
                Phase::Terminating if mutant::is(Mutant::ForgetTermination) => None,
                // Not stored yet: the next tick stores it, and then stops it.
                Phase::Terminating if unstored(record.id) => None,
                Phase::Terminating if record.served => Some(self.want_stop(record, RemovalCause::Drained)),
                Phase::Gone => Some(Effect::Forget { id: record.id }),
                _ => self.want_again(record),
            });
        }
    }
}
