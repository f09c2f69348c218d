//! Launches that fail, and new instances that die, make the next launches wait.

use crate::back_off::BackOff;
use crate::phase::{InstanceEvent, Phase};
use crate::record::InstanceChange;
use crate::state::SetState;

use super::SetMachine;

/// An instance that dies younger than this died soon after its launch.
const YOUNG_MS: u64 = 120_000;
/// After that time without another early death the last one is history.
const FORGET_MS: u64 = 600_000;

/// How the launches of a set have fared, as of a tick.
#[derive(Debug, Clone)]
pub(super) struct Launches {
    failed: u32,
    died: u32,
    died_ms: u64,
    why: String,
    /// When launches may begin again on the set's own clock; 0 for now.
    pub(super) resume_ms: u64,
}

impl Launches {
    pub(super) fn back_off(&self) -> Option<BackOff> {
        BackOff::after(self.failed, self.died, &self.why)
    }

    pub(super) fn note_in(&self, state: &mut SetState) {
        state.launch_failures_in_a_row = self.failed;
        state.launches_resume_ms = self.resume_ms;
        (state.early_deaths, state.early_death_ms) = (self.died, self.died_ms);
        state.launch_failure = self.back_off().map(|back_off| back_off.why).unwrap_or_default();
    }
}

impl SetMachine {
    /// What has happened since the last tick makes of the launches. Failures of one tick count once, and so do the deaths of
    /// instances that were launched before the last one was counted.
    pub(super) fn launches(&self, lived_ms: u64) -> Launches {
        let state = &self.state;
        let failed = self.changes.iter().any(|change| self.is_launch_failure(change));
        let died = self.changes.iter().any(|change| self.is_early_death(change));
        let last = self.changes.iter().rfind(|it| self.is_launch_failure(it) || self.is_early_death(it));
        let why = last.map(|change| change.detail.as_deref().unwrap_or(change.to.as_str()));
        let mut launches = Launches {
            why: why.unwrap_or(&state.launch_failure).to_owned(),
            failed: state.launch_failures_in_a_row.saturating_add(u32::from(failed)),
            died: state.early_deaths.saturating_add(u32::from(died)),
            died_ms: if died { lived_ms } else { state.early_death_ms },
            resume_ms: state.launches_resume_ms,
        };
        if !died && self.outlived_deaths(lived_ms) {
            launches.died = 0;
        }
        match launches.back_off() {
            Some(back_off) if failed || died => launches.resume_ms = lived_ms + back_off.wait_ms(),
            Some(_) => {}
            None => launches.resume_ms = 0,
        }
        launches
    }

    /// An instance that was in service ended unasked, or had to be repaired, soon after its launch.
    fn is_early_death(&self, change: &InstanceChange) -> bool {
        let ended = change.to == Phase::Failed
            || change.from == Phase::Unhealthy && change.event == InstanceEvent::TerminateRequested;
        ended
            && !self.state.deleting
            && self.instances.get(&change.id).is_some_and(|instance| {
                let record = &instance.record;
                record.served
                    && record.created_lived_ms >= self.state.early_death_ms
                    && record.phase_since_lived_ms.saturating_sub(record.created_lived_ms) < YOUNG_MS
            })
    }

    /// One that was launched after the last early death is in service and no longer young.
    fn outlived_deaths(&self, lived_ms: u64) -> bool {
        let died_ms = self.state.early_death_ms;
        let stays = |instance: &super::Instance| {
            let record = &instance.record;
            record.phase == Phase::InService
                && record.created_lived_ms >= died_ms
                && lived_ms.saturating_sub(record.created_lived_ms) >= YOUNG_MS
        };
        lived_ms.saturating_sub(died_ms) >= FORGET_MS || self.instances.values().any(stays)
    }

    fn is_launch_failure(&self, change: &InstanceChange) -> bool {
        change.is_failure() && self.instances.get(&change.id).is_some_and(|instance| !instance.record.served)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Rig, update};
    use crate::agent::{Found, Report};
    use crate::event::EventKind;
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

    /// The newest one comes into service and dies. How long the next launch waits.
    fn crash(rig: &mut Rig) -> u64 {
        let id = pending(rig).expect("it is being made");
        rig.serve(id);
        rig.tick_after(1);
        rig.report(id, Report::Exited { why: "killed".to_owned() });
        rig.tick_after(1);
        rig.report(id, Report::Cleaned { note: None });
        waits_ms(rig)
    }

    #[test]
    fn a_crash_loop_backs_off_and_is_told_when_it_begins_and_ends() {
        let mut rig = one();
        let mut waits = Vec::new();
        for _ in 0..9 {
            waits.push(crash(&mut rig));
            wait(&mut rig);
        }
        assert_eq!(waits, [0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]);
        let told = "launches back off: new instances died soon after their launch 9 times in a row; the last one: \
                    killed";
        assert!(rig.machine.problems().iter().any(|problem| problem == told), "{:?}", rig.machine.problems());
        let told = "launches back off: new instances died soon after their launch 2 times in a row; the last one: \
                    killed";
        assert_eq!(rig.store.told(EventKind::LaunchesBackOff), [told], "once");
        let id = pending(&rig).expect("it is being made");
        rig.serve(id);
        rig.tick_after(1_000);
        assert_eq!(rig.store.told(EventKind::LaunchesResumed), [""; 0], "in service is not yet to stay");
        rig.tick_after(super::YOUNG_MS);
        assert_eq!(rig.store.told(EventKind::LaunchesResumed), ["launches no longer back off"]);
        assert_eq!(rig.machine.problems(), [""; 0]);
        let state = rig.store.state();
        assert_eq!((state.early_deaths, state.launches_resume_ms), (0, 0));
    }

    #[test]
    fn a_crash_loop_costs_few_vms_however_many_are_wanted() {
        let mut rig = Rig::new("capacity: { min: 10, max: 20 }");
        for _ in 0..400 {
            rig.tick_after(100);
            for (id, phase) in rig.phases() {
                match phase {
                    Phase::Pending => rig.serve(id),
                    Phase::InService => rig.report(id, Report::Exited { why: "killed".to_owned() }),
                    Phase::Terminating => rig.report(id, Report::Cleaned { note: None }),
                    _ => {}
                }
            }
        }
        let made = rig.store.state().next_instance_id - 1;
        assert!((20..=30).contains(&made), "{made} VMs were made in 40 s");
    }

    #[test]
    fn those_that_were_launched_together_count_once_and_the_old_not_at_all() {
        let mut rig = Rig::serving("capacity: { min: 3, max: 10 }");
        for id in rig.ids() {
            rig.report(id, Report::Exited { why: "killed".to_owned() });
            rig.tick_after(1);
        }
        assert_eq!((rig.store.state().early_deaths, waits_ms(&rig)), (1, 0));

        let mut rig = Rig::serving("capacity: { min: 3, max: 10 }");
        rig.tick_after(super::YOUNG_MS);
        for id in rig.ids() {
            rig.report(id, Report::Exited { why: "killed".to_owned() });
        }
        rig.tick();
        assert_eq!(rig.store.state().early_deaths, 0);
    }

    #[test]
    fn an_early_death_is_forgotten() {
        let mut rig = one();
        crash(&mut rig);
        rig.tick();
        assert_eq!(rig.store.state().early_deaths, 1);
        rig.tick_after(super::FORGET_MS);
        assert_eq!(rig.store.state().early_deaths, 0);
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
