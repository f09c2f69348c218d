//! What agents report of instances.

use crate::agent::{Report, Running};
use crate::mutant::{self, Mutant};
use crate::phase::InstanceEvent;

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
            Report::GuestRebooted => self.meet(id, InstanceEvent::GuestRebooted, None),
            Report::EventsRead { bytes } => self.note(id, |record| record.events_read_bytes = bytes),
            Report::Stuck { .. } if mutant::is(Mutant::RemoveBeforeCleaned) => {
                self.meet(id, InstanceEvent::Cleaned, None);
            }
            Report::Stuck { why } => self.note(id, |record| record.detail = Some(why.into())),
            Report::Cleaned { note } => self.meet(id, InstanceEvent::Cleaned, note),
            Report::Found(found) => self.on_found(id, found),
        }
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
