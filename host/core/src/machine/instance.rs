//! One instance in the memory of its set's machine.

use std::sync::Arc;

use crate::back_off::BackOff;
use crate::metrics::{CounterRate, CpuShare, NoValue};
use crate::phase::{InstanceEvent, Phase};
use crate::plan::RemovalCause;
use crate::state::InstanceRecord;

use super::{CHANGES_MAX, SetMachine};

/// An instance and what is known of it beside its record.
#[derive(Debug)]
pub(super) struct Instance {
    /// As it is, or is about to be, stored.
    pub(super) record: InstanceRecord,
    /// Its node was told to stop it.
    pub(super) stop_told: bool,
    /// How it shall be stopped, again, once all is found: its termination was stored before a restart.
    pub(super) stop_again: Option<RemovalCause>,
    /// It is unhealthy since health checks are suspended, with what its last probe came to.
    pub(super) withheld: Option<Option<String>>,
    /// Its counters that become rates.
    pub(super) meters: Meters,
    /// Why the last scrape read no value, in the order of the manifest's metrics; empty when it read all.
    pub(super) no_value: Vec<Option<Arc<NoValue>>>,
}

/// Counters of one instance that become rates.
#[derive(Debug, Default)]
pub(super) struct Meters {
    pub(super) cpu: CpuShare,
    /// In the order of the manifest's metrics; unused for those that are not rates.
    pub(super) guest: Vec<CounterRate>,
}

impl Instance {
    pub(super) fn new(record: InstanceRecord) -> Self {
        let stop_again = (record.phase == Phase::Terminating).then_some(RemovalCause::Failed);
        Self {
            record,
            stop_told: false,
            stop_again,
            withheld: None,
            meters: Meters::default(),
            no_value: Vec::new(),
        }
    }
}

impl SetMachine {
    /// Lets an event meet an instance and remembers what came of it. What means nothing in its phase is old news.
    pub(super) fn meet(&mut self, id: u32, event: InstanceEvent, detail: Option<String>) {
        let at = self.moment();
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Ok(Some(change)) = instance.record.meet(event, at, detail.map(Into::into)) else { return };
        self.unstored.insert(id);
        if change.to == Phase::InService {
            self.state.launch_failures_in_a_row = 0;
            if BackOff::after(0, self.state.early_deaths, "").is_none() {
                self.state.launches_resume_ms = 0;
            }
        }
        // They wait for a record; while the store cannot be written none is made.
        if self.changes.len() < CHANGES_MAX {
            self.changes.push(change);
        }
    }

    /// Changes the record of an instance.
    pub(super) fn note(&mut self, id: u32, change: impl FnOnce(&mut InstanceRecord)) {
        if let Some(instance) = self.instances.get_mut(&id) {
            change(&mut instance.record);
            self.unstored.insert(id);
        }
    }
}
