//! Launches that fail make the next ones wait.

use crate::phase::{InstanceEvent, Phase};
use crate::plan::launch_backoff_ms;
use crate::record::InstanceChange;

use super::SetMachine;

impl SetMachine {
    /// What the failed launches since the last tick make of the back-off: failures in a row, and when launches may begin again on
    /// the set's own clock. None when none failed.
    pub(super) fn back_off(&self, lived_ms: u64) -> Option<(u32, u64)> {
        let failed = self.changes.iter().any(|change| self.is_launch_failure(change));
        let failures = self.state.launch_failures_in_a_row.saturating_add(1);
        failed.then(|| (failures, lived_ms + launch_backoff_ms(failures)))
    }

    fn is_launch_failure(&self, change: &InstanceChange) -> bool {
        // A launch that the daemon's own end cut off says nothing about the image.
        let cut_off = change.from == Phase::Creating && change.event == InstanceEvent::VmmExited;
        change.to == Phase::Failed
            && !cut_off
            && self.instances.get(&change.id).is_some_and(|instance| !instance.record.served)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rig, update};
    use crate::agent::{Found, Report};
    use crate::phase::Phase;

    fn waits_ms(rig: &Rig) -> u64 {
        let state = rig.store.state();
        state.launches_resume_ms.saturating_sub(state.clock.lived_ms)
    }

    fn pending(rig: &Rig) -> Option<u32> {
        rig.phases().into_iter().find(|(_, phase)| *phase == Phase::Pending).map(|(id, _)| id)
    }

    /// The one that is being made cannot be launched. How long the next one waits.
    fn fail(rig: &mut Rig) -> u64 {
        let id = pending(rig).expect("it is being made");
        rig.report(id, Report::LaunchFailed { why: "no kernel".to_owned() });
        rig.tick_after(1);
        rig.report(id, Report::Cleaned { note: None });
        waits_ms(rig)
    }

    /// Waits until another one is made.
    fn wait(rig: &mut Rig) {
        let wait_ms = waits_ms(rig);
        // The plan that removes a failed one rests on what was known before it failed.
        if pending(rig).is_none() {
            rig.tick_after(wait_ms - 1);
            assert_eq!(pending(rig), None, "launched before {wait_ms} ms");
            rig.tick_after(1);
            assert!(pending(rig).is_some(), "launched after {wait_ms} ms");
        }
    }

    fn one() -> Rig {
        let mut rig = Rig::new("capacity: { min: 1, max: 10 }");
        rig.tick();
        rig
    }

    #[test]
    fn waits_double_up_to_a_minute_and_one_in_service_ends_them() {
        let mut rig = one();
        let mut waits = Vec::new();
        for _ in 0..8 {
            waits.push(fail(&mut rig));
            wait(&mut rig);
        }
        assert_eq!(waits, [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let id = pending(&rig).expect("it is being made");
        rig.serve(id);
        rig.tick();
        let state = rig.store.state();
        assert_eq!((state.launch_failures_in_a_row, state.launches_resume_ms), (0, 0));
    }

    #[test]
    fn failures_of_one_tick_count_once() {
        let mut rig = Rig::new("capacity: { min: 5, max: 10 }");
        rig.tick();
        for id in rig.ids() {
            rig.report(id, Report::LaunchFailed { why: "no kernel".to_owned() });
        }
        rig.tick();
        assert_eq!((rig.store.state().launch_failures_in_a_row, waits_ms(&rig)), (1, 1_000));
    }

    #[test]
    fn neither_the_wall_clock_nor_a_restart_shortens_or_lengthens_a_wait() {
        let mut rig = one();
        for _ in 0..5 {
            fail(&mut rig);
            wait(&mut rig);
        }
        assert_eq!(fail(&mut rig), 32_000);
        assert_eq!(pending(&rig), None);
        rig.now.wall_ms -= 86_400_000;
        rig.tick();
        rig.restart_after(2 * 86_400_000, |_| Found::Nothing);
        rig.tick();
        assert_eq!((waits_ms(&rig), pending(&rig)), (30_000, None));
    }

    #[test]
    fn a_launch_that_was_cut_off_or_refused_says_nothing_about_the_image() {
        let mut rig = one();
        rig.report(1, Report::LaunchStarted);
        rig.restart_after(1_000, |_| Found::HalfMade);
        rig.tick();
        let cut_off = "the daemon ended during its launch";
        assert_eq!(rig.store.instances[&1].detail.as_deref(), Some(cut_off));
        assert_eq!(rig.store.state().launch_failures_in_a_row, 0);
        assert_eq!(rig.ids(), [1, 2], "the next one need not wait");

        rig.report(2, Report::Refused { why: "no memory".to_owned() });
        rig.tick();
        assert_eq!(rig.store.state().launch_failures_in_a_row, 0);
        assert!(rig.ids().contains(&3));
    }

    #[test]
    fn one_that_has_served_is_no_failed_launch() {
        let mut rig = one();
        rig.serve(1);
        rig.report(1, Report::Exited { why: "killed".to_owned() });
        rig.tick();
        assert_eq!(rig.store.state().launch_failures_in_a_row, 0);
    }

    #[test]
    fn another_manifest_may_mend_it() {
        let mut rig = one();
        fail(&mut rig);
        rig.command(update(rig.machine.manifest().as_ref().clone())).expect("applied");
        let state = rig.store.state();
        assert_eq!((state.launch_failures_in_a_row, state.launches_resume_ms), (0, 0));
    }
}
