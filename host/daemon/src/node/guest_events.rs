//! What guests do by themselves, seen in the events of their VMMs.
//!
//! Looked at once a tick, and when a VMM has ended. An event that means something is reported with its place in the file, so that a
//! restarted daemon takes in what happened meanwhile, once.

use regatta_core::agent::{Input, Report};
use regatta_vmm::{EventTail, VmmEvent, VmmEventKind};

use super::{LocalInstances, Told};

impl LocalInstances {
    /// Takes in what the VMMs of all instances have reported.
    pub(crate) fn follow_events(&mut self) -> Vec<Told> {
        let ids: Vec<u32> = self.live.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.follow_events_of(id)).collect()
    }

    pub(super) fn follow_events_of(&mut self, id: u32) -> Vec<Told> {
        let mut told = Vec::new();
        for event in self.new_events(id) {
            let report = match event.kind {
                VmmEventKind::GuestPanic => Report::GuestPanicked,
                VmmEventKind::Rebooted => Report::GuestRebooted,
                VmmEventKind::Shutdown => {
                    self.live.entry(id).or_default().shut_down = true;
                    continue;
                }
                _ => continue,
            };
            told.extend(self.on(id, Input::News(report)));
            let bytes =
                self.live.get(&id).and_then(|live| live.events.as_ref()).map_or(0, EventTail::read_bytes);
            told.extend(self.on(id, Input::News(Report::EventsRead { bytes })));
        }
        told
    }

    /// Why a VMM has ended, as far as its last events tell.
    pub(super) fn why_ended(&self, id: u32, how: String) -> String {
        // It reports that only when its guest has powered itself off, or when it was told to end; nobody told it. A tick may have read
        // the report just before the end.
        let shut_down = self.live.get(&id).is_some_and(|live| live.shut_down);
        if shut_down { format!("the guest powered itself off ({how})") } else { how }
    }

    fn new_events(&mut self, id: u32) -> Vec<VmmEvent> {
        let Some(events) = self.live.get_mut(&id).and_then(|live| live.events.as_mut()) else {
            return Vec::new();
        };
        events.poll().unwrap_or_else(|error| {
            tracing::debug!(set = %self.set, instance = id, %error, "events cannot be read");
            Vec::new()
        })
    }
}
