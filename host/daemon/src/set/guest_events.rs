//! What guests do by themselves, seen in the events of their VMMs.
//!
//! Looked at once a tick, and when a VMM has ended. An event that means something is noted with its place in the file, so that a
//! restarted daemon takes in what happened meanwhile, once.

use regatta_core::instance_state::InstanceEvent;
use regatta_vmm::{VmmEvent, VmmEventKind};

use super::SetTask;

impl SetTask {
    /// Takes in what the VMMs of all instances have reported.
    pub(super) fn follow_events(&mut self) {
        let ids: Vec<u32> = self.instances.keys().copied().collect();
        for id in ids {
            for event in self.new_events(id) {
                self.on_vmm_event(id, &event);
            }
        }
    }

    /// Why a VMM has ended, as far as its last events tell.
    pub(super) fn why_ended(&mut self, id: u32, how: String) -> String {
        for event in self.new_events(id) {
            self.on_vmm_event(id, &event);
        }
        // It reports that only when its guest has powered itself off, or when it was told to end; nobody told it. A tick may have read
        // the report just before the end.
        let shut_down = self.instances.get(&id).is_some_and(|instance| instance.shut_down);
        if shut_down { format!("the guest powered itself off ({how})") } else { how }
    }

    fn new_events(&mut self, id: u32) -> Vec<VmmEvent> {
        let Some(events) = self.instances.get_mut(&id).and_then(|instance| instance.events.as_mut()) else {
            return Vec::new();
        };
        events.poll().unwrap_or_else(|error| {
            tracing::debug!(set = self.state.set.name, instance = id, %error, "events cannot be read");
            Vec::new()
        })
    }

    fn on_vmm_event(&mut self, id: u32, event: &VmmEvent) {
        let what = match event.kind {
            VmmEventKind::GuestPanic => InstanceEvent::GuestPanicked,
            VmmEventKind::Rebooted => InstanceEvent::GuestRebooted,
            VmmEventKind::Shutdown => {
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.shut_down = true;
                }
                return;
            }
            _ => return,
        };
        let detail = (what == InstanceEvent::GuestPanicked).then(|| "the guest panicked".to_owned());
        self.meet(id, what, detail);
        let Some(instance) = self.instances.get_mut(&id) else { return };
        instance.record.events_read_bytes =
            instance.events.as_ref().map_or(0, regatta_vmm::EventTail::read_bytes);
        instance.dirty = true;
        if what == InstanceEvent::GuestRebooted {
            // Probes begin anew: what the guest was before says nothing of what it will be.
            self.watch(id);
        }
    }
}
