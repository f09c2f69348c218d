//! Instances that have had their time to become healthy.

use crate::mutant::{self, Mutant};
use crate::phase::{InstanceEvent, Phase};
use crate::set_process::SetProcess;

use super::{SetMachine, TickFacts};

impl SetMachine {
    /// Gives up what still boots after its time-out. Only time in which a daemon ran counts, and not before the host could
    /// ask: an instance that nobody could probe may well be healthy.
    pub(super) fn give_up_slow_boots(&mut self, TickFacts { last_probes, not_probed, .. }: &TickFacts) {
        let lived_ms = self.clock.lived_ms;
        if self.state.suspended.contains(&SetProcess::Health) && !self.state.deleting {
            return;
        }
        let mut slow = Vec::new();
        for instance in self.instances.values() {
            let record = &instance.record;
            if !matches!(record.phase, Phase::Booting | Phase::Initializing)
                || not_probed.contains(&record.id)
            {
                continue;
            }
            let timeout_ms = self.manifest_of(record).instance.boot_timeout_ms;
            if lived_ms.saturating_sub(record.boot_since_lived_ms) > timeout_ms
                || mutant::is(Mutant::BootTimeoutOnWallClock)
                    && self.now.wall_ms.saturating_sub(record.created_ms) > timeout_ms
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Rig, manifest, update};
    use super::*;
    use crate::agent::{Found, Report, Running};
    use crate::event::EventKind;

    const DAY_MS: u64 = 86_400_000;

    /// A set whose two instances boot.
    fn booting() -> Rig {
        let mut rig = Rig::new("");
        rig.tick();
        rig.launch(1);
        rig.launch(2);
        rig
    }

    #[test]
    fn an_instance_is_given_up_after_its_time_with_what_its_last_probe_came_to() {
        let mut rig = booting();
        rig.probed(2, InstanceEvent::FirstProbeAnswered, None);
        rig.facts.last_probes.insert(1, "connection refused".to_owned());
        rig.tick_after(60_000);
        assert_eq!(rig.phases(), [(1, Phase::Booting), (2, Phase::Initializing)], "not a moment too early");
        rig.tick_after(1);
        let detail = |id| rig.store.instances[&id].detail.clone();
        assert_eq!(detail(1).as_deref(), Some("not healthy after 60000 ms, last probe: connection refused"));
        assert_eq!(detail(2).as_deref(), Some("not healthy after 60000 ms"));
        assert_eq!(rig.store.told(EventKind::BootTimedOut).len(), 2);
    }

    #[test]
    fn an_instance_that_the_host_cannot_probe_is_not_given_up() {
        let mut rig = booting();
        rig.facts.not_probed.insert(1);
        rig.tick_after(600_000);
        assert_eq!(rig.record(1).phase, Phase::Booting);
        assert_eq!(rig.record(2).phase, Phase::Terminating);
        rig.facts.not_probed.clear();
        rig.tick_after(1);
        assert_eq!(rig.record(1).phase, Phase::Terminating, "it was asked, and is not healthy");
    }

    #[test]
    fn only_time_that_was_lived_counts() {
        for jump in [i64::try_from(DAY_MS).expect("small"), -i64::try_from(DAY_MS).expect("small")] {
            let mut rig = booting();
            rig.now.wall_ms = rig.now.wall_ms.saturating_add_signed(jump);
            rig.tick();
            assert_eq!(
                rig.phases(),
                [(1, Phase::Booting), (2, Phase::Booting)],
                "the wall clock jumped {jump}"
            );
            rig.tick_after(60_000);
            assert_eq!(rig.store.told(EventKind::BootTimedOut).len(), 2, "nor does a jump delay it");
        }
        // A laptop that slept: only the wall clock has gone on.
        let mut rig = booting();
        rig.now.wall_ms += DAY_MS;
        rig.tick_after(59_999);
        assert_eq!(rig.phases(), [(1, Phase::Booting), (2, Phase::Booting)]);
    }

    #[test]
    fn a_restart_neither_costs_an_instance_time_nor_gives_it_more() {
        let mut rig = booting();
        rig.tick_after(29_000);
        rig.restart_after(DAY_MS, |_| Found::Running(Running::default()));
        rig.tick_after(31_000);
        assert_eq!(rig.phases(), [(1, Phase::Booting), (2, Phase::Booting)]);
        rig.tick();
        assert_eq!(rig.store.told(EventKind::BootTimedOut).len(), 2);
    }

    #[test]
    fn a_guest_that_reboots_has_its_time_again() {
        let mut rig = Rig::serving("");
        rig.pass(3_600_000);
        rig.report(1, Report::GuestRebooted);
        rig.tick_after(60_000);
        assert_eq!(rig.record(1).phase, Phase::Booting);
        rig.tick_after(1);
        assert_eq!(rig.record(1).phase, Phase::Terminating);
        assert_eq!(rig.record(2).phase, Phase::InService);
    }

    #[test]
    fn the_time_is_that_of_the_manifest_that_the_instance_was_made_from() {
        let mut rig = booting();
        rig.command(update(manifest("instance: { boot_timeout: 10s }"))).expect("applied");
        rig.tick_after(30_000);
        assert_eq!(rig.phases(), [(1, Phase::Booting), (2, Phase::Booting)]);
        rig.tick_after(31_000);
        assert_eq!(rig.store.told(EventKind::BootTimedOut).len(), 2);
    }
}
