//! After a restart of the daemon: what runs continues to run, a launch that was cut off is begun again with another
//! instance, a removal that was cut off is finished.

use crate::agent::{Found, Running};
use crate::mutant::{self, Mutant};
use crate::phase::{InstanceEvent, Phase};
use crate::plan::RemovalCause;

use super::{Busy, Effect, SetMachine};

impl SetMachine {
    /// What an agent found of an instance that it was told to have.
    pub(super) fn on_found(&mut self, id: u32, found: Found) {
        let Some(phase) = self.instances.get(&id).map(|instance| instance.record.phase) else { return };
        match (phase, found) {
            // Its guest may be in the middle of its shutdown: it gets its time again.
            (Phase::Terminating, Found::Running(_)) => {
                if let Some(instance) = self.instances.get_mut(&id).filter(|it| it.record.served) {
                    instance.stop_again = instance.stop_again.map(|_| RemovalCause::Drained);
                }
            }
            (Phase::Terminating | Phase::Failed | Phase::Refused | Phase::Gone, _) => {}
            // Boot had returned, but the daemon died before it could store that.
            (Phase::Pending | Phase::Creating, Found::Running(running)) => {
                self.meet(id, InstanceEvent::LaunchStarted, None);
                self.meet(id, InstanceEvent::Booted, None);
                self.attach(id, running);
            }
            (Phase::Pending | Phase::Creating, Found::HalfMade | Found::Unreachable(_) | Found::Nothing) => {
                // Not the image's fault, so not a failed launch: the next one need not wait.
                self.meet(id, InstanceEvent::LaunchStarted, None);
                self.meet(
                    id,
                    InstanceEvent::VmmExited,
                    Some("the daemon ended during its launch".to_owned()),
                );
            }
            (_, Found::Unreachable(_)) if mutant::is(Mutant::StopOnSilence) => {
                self.meet(id, InstanceEvent::VmmExited, None);
            }
            (_, Found::Running(running) | Found::Unreachable(running)) => {
                self.found_again(id, phase, running)
            }
            (_, Found::HalfMade) => {
                let why = "its guest was gone when the daemon came back";
                self.meet(id, InstanceEvent::VmmExited, Some(why.to_owned()));
            }
            (_, Found::Nothing) => {
                let why = "its VMM was gone when the daemon came back";
                self.meet(id, InstanceEvent::VmmExited, Some(why.to_owned()));
            }
        }
    }

    fn found_again(&mut self, id: u32, phase: Phase, running: Running) {
        // It may have recovered while nobody probed it: its grace begins anew.
        if phase == Phase::Unhealthy {
            let at = self.moment();
            self.note(id, |record| {
                record.phase_since_ms = at.wall_ms;
                record.phase_since_lived_ms = at.lived_ms;
            });
        }
        self.attach(id, running);
    }

    /// Every instance was looked for: what is wanted of each is told again, and ticks begin.
    pub(super) fn on_inventory_complete(&mut self, effects: &mut Vec<Effect>) {
        if !matches!(self.busy, Busy::Inventory) {
            return;
        }
        self.busy = Busy::Idle;
        let ids: Vec<u32> = self.instances.keys().copied().collect();
        for id in ids {
            let Some(instance) = self.instances.get(&id) else { continue };
            let phase = instance.record.phase;
            if phase == Phase::Terminating && mutant::is(Mutant::ForgetTermination) {
                self.instances.get_mut(&id).into_iter().for_each(|it| it.stop_told = true);
                continue;
            }
            if let Some(cause) = instance.stop_again {
                self.stop(id, cause, effects);
            } else if phase == Phase::Pending || phase.may_answer() {
                effects.push(self.want_run(&instance.record));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Rig;
    use super::*;
    use crate::agent::{Order, StopOrder, Want};
    use crate::phase::PHASES;
    use crate::state::VmmProcessId;

    fn running() -> Running {
        Running {
            process: Some(VmmProcessId { pid: 42, start_time_ticks: 7 }),
            start: Some("cold".to_owned()),
            not_contained: vec!["landlock".to_owned()],
        }
    }

    /// A daemon that comes back to one instance in that phase.
    fn back(phase: Phase, served: bool, found: Found) -> (Rig, Vec<Want>) {
        let mut rig = Rig::new("capacity: { min: 1, max: 10 }\ninstance: { shutdown_timeout: 7s }");
        rig.tick();
        let record = rig.store.instances.get_mut(&1).expect("it");
        (record.phase, record.served, record.detail) = (phase, served, Some("as it was".into()));
        rig.restart_after(5_000, |_| found.clone());
        let wants = rig.wants();
        (rig, wants)
    }

    fn stop(wants: &[Want]) -> StopOrder {
        match wants {
            [Want { order: Order::Stop(order), .. }] => order.clone(),
            _ => panic!("one stop: {wants:?}"),
        }
    }

    #[test]
    fn every_phase_meets_everything_that_can_be_found() {
        let cut_off = "the daemon ended during its launch";
        let half_made = "its guest was gone when the daemon came back";
        let gone = "its VMM was gone when the daemon came back";
        for phase in PHASES.into_iter().filter(|phase| *phase != Phase::Gone) {
            for found in
                [Found::Running(running()), Found::Unreachable(running()), Found::HalfMade, Found::Nothing]
            {
                let (rig, wants) = back(phase, true, found.clone());
                let record = rig.record(1);
                let runs = matches!(found, Found::Running(_));
                let (after, detail) = match (phase, &found) {
                    (Phase::Terminating | Phase::Failed | Phase::Refused, _) => (phase, "as it was"),
                    (Phase::Pending | Phase::Creating, Found::Running(_)) => (Phase::Booting, ""),
                    (Phase::Pending | Phase::Creating, _) => (Phase::Failed, cut_off),
                    (_, Found::Running(_) | Found::Unreachable(_)) => (phase, "as it was"),
                    (Phase::Draining, Found::HalfMade) => (Phase::Terminating, half_made),
                    (Phase::Draining, Found::Nothing) => (Phase::Terminating, gone),
                    (_, Found::HalfMade) => (Phase::Failed, half_made),
                    (_, Found::Nothing) => (Phase::Failed, gone),
                };
                let context = format!("{phase}, {found:?}");
                assert_eq!(
                    (record.phase, record.detail.as_deref().unwrap_or("")),
                    (after, detail),
                    "{context}"
                );
                let adopted = after.may_answer() && found != Found::HalfMade && found != Found::Nothing;
                assert_eq!(record.vmm.is_some(), adopted, "{context}");
                assert_eq!(record.not_contained.len(), usize::from(adopted), "{context}");
                match after {
                    // One that began to end before the restart is not told before that is stored.
                    Phase::Terminating if phase == Phase::Terminating => {
                        let grace_ms = if runs { 7_000 } else { 0 };
                        assert_eq!(stop(&wants).grace_ms, grace_ms, "{context}");
                        assert_eq!(stop(&wants).failure.is_some(), !runs, "{context}");
                    }
                    after if after.may_answer() => {
                        let [Want { order: Order::Run { phase, .. }, .. }] = wants.as_slice() else {
                            panic!("{context}: {wants:?}")
                        };
                        assert_eq!(*phase, after, "{context}");
                    }
                    _ => assert!(wants.is_empty(), "{context}: {wants:?}"),
                }
            }
        }
    }

    #[test]
    fn one_that_ended_while_it_drained_is_removed_once_that_is_stored() {
        let (mut rig, wants) = back(Phase::Draining, true, Found::Nothing);
        assert!(wants.is_empty());
        rig.tick();
        let failure = Some("its VMM was gone when the daemon came back".to_owned());
        assert_eq!(rig.stops(), [(1, StopOrder { grace_ms: 0, failure })]);
        rig.tick();
        assert_eq!(rig.stops(), [], "told once");
    }

    #[test]
    fn one_that_never_served_is_not_asked_to_shut_down() {
        let (_, wants) = back(Phase::Terminating, false, Found::Running(running()));
        assert_eq!(stop(&wants).grace_ms, 0);
    }

    #[test]
    fn the_grace_of_an_unhealthy_one_begins_anew() {
        let (rig, _) = back(Phase::Unhealthy, true, Found::Running(running()));
        let record = rig.record(1);
        assert_eq!(record.phase_since_ms, rig.now.wall_ms);
        assert_eq!(record.phase_since_lived_ms, rig.store.state().clock.lived_ms);
        let (rig, _) = back(Phase::InService, true, Found::Running(running()));
        assert!(rig.record(1).phase_since_ms < rig.now.wall_ms);
    }

    #[test]
    fn what_it_knew_of_its_start_stays_when_it_cannot_be_asked() {
        let (mut rig, _) = back(Phase::InService, true, Found::Running(running()));
        rig.tick();
        rig.restart_after(1_000, |_| Found::Unreachable(Running::default()));
        let record = rig.record(1);
        assert_eq!((record.vmm, record.start.as_deref()), (running().process, Some("cold")));
    }

    #[test]
    fn nothing_ticks_before_all_is_found() {
        let mut rig = Rig::new("");
        rig.machine = SetMachine::new(Rig::start(&rig.store, true), rig.now);
        assert!(rig.machine.is_busy());
        rig.tick();
        let token = rig.send(super::super::Command::Scale { capacity: 3 });
        assert!(rig.effects.iter().all(|effect| !matches!(effect, Effect::Commit(_))));
        rig.run(super::super::Input::InventoryComplete);
        assert!(rig.replies[&token].is_ok(), "what came early waited");
        rig.run(super::super::Input::InventoryComplete);
        assert!(!rig.machine.is_busy());
    }

    #[test]
    fn each_owner_has_an_epoch_of_its_own_and_instances_keep_that_of_their_creator() {
        let mut rig = Rig::serving("capacity: { min: 1, max: 10 }");
        rig.restart_after(1_000, |_| Found::Running(running()));
        rig.wish = 2;
        rig.tick();
        let epochs: Vec<u64> = rig.store.instances.values().map(|record| record.epoch).collect();
        assert_eq!((epochs, rig.store.state().epoch), (vec![1, 2], 2));
        let uids: Vec<&str> = rig.store.instances.values().map(|record| record.uid.as_str()).collect();
        assert_eq!(uids, ["0000000000000007-1", "0000000000000007-2"]);
    }
}
