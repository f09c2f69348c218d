//! One instance in the memory of its set's loop.

use std::sync::Arc;

use regatta_core::instance_state::{InstanceEvent, InstanceState};
use regatta_core::record::InstanceChange;
use regatta_core::state::InstanceRecord;
use regatta_vmm::{EventTail, Vmm};

use super::driver::Driver;
use super::observe::Meters;
use super::watch::Watch;

/// An instance, its driver and what is watched of it.
#[derive(Debug)]
pub(super) struct Instance {
    /// As it is, or is about to be, stored.
    pub record: InstanceRecord,
    /// Differs from what is stored.
    pub dirty: bool,
    /// The task that owns its VMM; none before its launch.
    pub driver: Option<Driver>,
    /// Its VMM, once booted or adopted.
    pub vmm: Option<Arc<Vmm>>,
    /// Probes and scrapes, while it may answer.
    pub watch: Option<Watch>,
    /// What its VMM reports, once booted or adopted.
    pub events: Option<EventTail>,
    /// Its VMM has reported that the VM was shut down.
    pub shut_down: bool,
    /// Its counters that become rates.
    pub meters: Meters,
}

impl Instance {
    /// An instance of which only the record is known.
    #[must_use]
    pub(super) fn new(record: InstanceRecord, dirty: bool) -> Self {
        Self {
            record,
            dirty,
            driver: None,
            vmm: None,
            watch: None,
            events: None,
            shut_down: false,
            meters: Meters::default(),
        }
    }

    /// Lets an event meet the state; what it means nothing to is logged and dropped.
    pub(super) fn meet(
        &mut self,
        event: InstanceEvent,
        at_ms: u64,
        detail: Option<String>,
    ) -> Option<InstanceChange> {
        let change = self.record.meet(event, at_ms, detail).unwrap_or_else(|illegal| {
            tracing::debug!(instance = self.record.id, %illegal, "dropped");
            None
        })?;
        self.settle();
        Some(change)
    }

    /// Follows up on a record whose state has changed.
    pub(super) fn settle(&mut self) {
        self.dirty = true;
        if !may_answer(self.record.state) {
            self.watch = None;
        }
    }
}

/// Whether probes and scrapes of an instance in this state make sense.
#[must_use]
pub(super) fn may_answer(state: InstanceState) -> bool {
    matches!(
        state,
        InstanceState::Booting
            | InstanceState::Initializing
            | InstanceState::InService
            | InstanceState::Standby
            | InstanceState::Unhealthy
            | InstanceState::Draining
    )
}
