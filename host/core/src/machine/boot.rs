//! Instances that have had their time to become healthy.

use std::collections::BTreeMap;

use crate::mutant::{self, Mutant};
use crate::phase::{InstanceEvent, Phase};

use super::SetMachine;

impl SetMachine {
    /// Gives up what still boots after its time-out. Only time in which a daemon ran counts.
    pub(super) fn give_up_slow_boots(&mut self, last_probes: &BTreeMap<u32, String>) {
        let lived_ms = self.clock.lived_ms;
        let mut slow = Vec::new();
        for instance in self.instances.values() {
            let record = &instance.record;
            let timeout_ms = self.manifest_of(record).instance.boot_timeout_ms;
            if matches!(record.phase, Phase::Booting | Phase::Initializing)
                && (lived_ms.saturating_sub(record.boot_since_lived_ms) > timeout_ms
                    || mutant::is(Mutant::BootTimeoutOnWallClock)
                        && self.now.wall_ms.saturating_sub(record.created_ms) > timeout_ms)
            {
                slow.push((record.id, timeout_ms));
            }
        }
        for (id, timeout_ms) in slow {
            let last = last_probes.get(&id).map(|last| format!(", last probe: {last}")).unwrap_or_default();
            let why = format!("not healthy after {timeout_ms} ms{last}");
            self.meet(id, InstanceEvent::BootTimedOut, Some(why));
        }
    }
}
