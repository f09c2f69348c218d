//! What agents report of instances.

use crate::agent::{Report, Running};
use crate::mutant::{self, Mutant};
use crate::phase::InstanceEvent;
use crate::requested::Requested;

use super::SetMachine;

impl SetMachine {
    pub(super) fn on_report(&mut self, id: u32, report: Report) {
        match report {
            Report::Admitted { address } => self.note(id, |record| record.address = Some(address)),
            Report::Refused { why } => self.meet(id, InstanceEvent::Refused, Some(why)),
            Report::LaunchStarted => self.meet(id, InstanceEvent::LaunchStarted, None),
            Report::Booted(running) => {
                self.meet(id, InstanceEvent::Booted, None);
                self.attach(id, running);
            }
            Report::LaunchFailed { why } => self.meet(id, InstanceEvent::LaunchFailed, Some(why)),
            Report::Exited { why } => self.meet(id, InstanceEvent::VmmExited, Some(why)),
            Report::GuestPanicked => {
                self.meet(id, InstanceEvent::GuestPanicked, Some("the guest panicked".to_owned()));
            }
            Report::GuestRebooted => self.on_reboot(id),
            Report::NotRestarted { why } => self.note(id, |record| record.detail = Some(why.into())),
            Report::EventsRead { bytes } => self.note(id, |record| record.events_read_bytes = bytes),
            Report::Stuck { .. } if mutant::is(Mutant::RemoveBeforeCleaned) => {
                self.meet(id, InstanceEvent::Cleaned, None);
            }
            Report::Stuck { why } => self.note(id, |record| record.detail = Some(why.into())),
            Report::Cleaned { note } => self.meet(id, InstanceEvent::Cleaned, note),
            Report::Found(found) => self.on_found(id, found),
        }
    }

    /// A guest has rebooted: by itself, or because it should. A restart that is asked for is done either way.
    fn on_reboot(&mut self, id: u32) {
        let requested = self.instances.get(&id).and_then(|instance| instance.record.requested);
        if !requested.is_some_and(Requested::is_restart) {
            return self.meet(id, InstanceEvent::GuestRebooted, None);
        }
        if !mutant::is(Mutant::RestartLoses) {
            self.meet(id, InstanceEvent::Restarted, None);
        }
        self.note(id, |record| record.requested = None);
    }

    /// Notes the VMM of an instance.
    pub(super) fn attach(&mut self, id: u32, running: Running) {
        self.note(id, |record| {
            record.vmm = running.process.or(record.vmm);
            record.start = running.start.or_else(|| record.start.take());
            record.not_contained = running.not_contained;
        });
    }
}
