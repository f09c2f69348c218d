//! What operators want of one instance: an intent that is stored with it, and carried out by the next ticks.

use crate::event::EventKind;
use crate::phase::Phase;
use crate::requested::{Requested, returns};
use crate::state::SetState;

use super::super::{CommandError, InstanceAction, SetMachine};
use super::{Change, Mark, Step};

impl SetMachine {
    pub(super) fn instance_action(&self, id: u32, action: InstanceAction) -> Result<Step, CommandError> {
        let name = self.living_name(id)?;
        let conflict = |why: String| Err(CommandError::Conflict(why));
        let Some(record) = self.instances.get(&id).map(|instance| &instance.record) else {
            return Ok(Step::Nothing);
        };
        let leaves = record.phase == Phase::Terminating
            || record.phase == Phase::Draining && !returns(record.phase, record.requested);
        if leaves || matches!(record.requested, Some(Requested::Replace | Requested::Delete)) {
            return conflict(format!("{name} is already being removed"));
        }
        let mut next = self.state.clone();
        let (requested, what) = match action {
            InstanceAction::Replace => (Requested::Replace, "is to be replaced".to_owned()),
            InstanceAction::Restart => {
                if record.requested.is_some() {
                    return Ok(Step::Nothing);
                }
                if !record.phase.may_answer() {
                    return conflict(format!(
                        "{name} is {}: only a running guest can be restarted",
                        record.phase
                    ));
                }
                (Requested::Restart, "is to be restarted".to_owned())
            }
            InstanceAction::Delete { shrink: false } => (Requested::Delete, "is to be deleted".to_owned()),
            InstanceAction::Delete { shrink: true } => {
                let (desired, min) = (next.desired, next.set.capacity.min);
                if desired <= min {
                    return conflict(format!(
                        "the capacity is {desired} and the set's minimum is {min}: lower `capacity.min` first, or delete {name} \
                         without shrinking"
                    ));
                }
                next = SetState { desired: desired - 1, ..next };
                (Requested::Delete, format!("is to be deleted, capacity {desired} → {}", desired - 1))
            }
        };
        let change = Change::new(next, EventKind::InstanceRequested, format!("{name} {what}"));
        Ok(Step::Store(Box::new(Change { mark: Some((id, Mark::Requested(requested))), ..change })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::{Order, Report};
    use crate::machine::testing::Rig;
    use crate::machine::{Command, TrafficReading};
    use crate::protection::Protection;

    const LB: &str = "load_balancer: { listen: \"127.0.0.1:8000\", drain_timeout: 30s }";

    fn asked(rig: &mut Rig, id: u32, action: InstanceAction) {
        rig.command(Command::Instance { id, action }).expect("accepted");
    }

    fn busy(rig: &mut Rig, open: u32) {
        rig.facts.traffic = Some(TrafficReading { open: [(2, open)].into(), ..Default::default() });
    }

    /// The restarts that nodes were told since the last look.
    fn told(rig: &mut Rig) -> Vec<(u32, u32)> {
        rig.wants().into_iter().filter_map(|want| Some((want.id, want.restart?))).collect()
    }

    #[test]
    fn a_restart_waits_for_connections_and_is_told_until_it_is_done() {
        let mut rig = Rig::serving(LB);
        busy(&mut rig, 3);
        asked(&mut rig, 2, InstanceAction::Restart);
        rig.tick();
        rig.tick();
        assert_eq!((rig.record(2).phase, told(&mut rig)), (Phase::Draining, vec![]));
        assert_eq!(rig.phases().len(), 2, "it returns: nothing takes its place");
        busy(&mut rig, 0);
        for _ in 0..2 {
            rig.tick();
            assert_eq!(told(&mut rig), [(2, 1)], "the same restart");
        }
        rig.report(2, Report::NotRestarted { why: "busy".into() });
        assert_eq!(rig.record(2).detail.as_deref(), Some("busy"));
        rig.report(2, Report::GuestRebooted);
        rig.tick();
        assert_eq!((rig.record(2).phase, rig.record(2).requested), (Phase::Booting, None));
        assert_eq!(rig.store.told(EventKind::Restarted), ["web-2 was restarted"]);
        assert_eq!(told(&mut rig), []);
    }

    #[test]
    fn a_replacement_drains_whatever_protects_it_and_another_comes() {
        let mut rig = Rig::serving(LB);
        rig.command(Command::Protect { id: 2, protection: Protection::All }).expect("protected");
        asked(&mut rig, 2, InstanceAction::Replace);
        let again = rig.refused(Command::Instance { id: 2, action: InstanceAction::Restart });
        assert_eq!(again, CommandError::Conflict("web-2 is already being removed".into()));
        rig.restart_after(1_000, |_| crate::agent::Found::Running(Default::default()));
        rig.tick();
        let phases = rig.phases();
        assert_eq!(phases, [(1, Phase::InService), (2, Phase::Draining), (3, Phase::Pending)]);
        rig.tick();
        assert_eq!(rig.record(2).phase, Phase::Terminating);
        let stops = rig.wants().into_iter().filter(|want| matches!(want.order, Order::Stop(_)));
        assert_eq!(stops.map(|want| want.id).collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_deletion_shrinks_the_set_if_asked_and_not_below_its_minimum() {
        let mut rig = Rig::serving("capacity: { min: 1, max: 4, initial: 2 }");
        asked(&mut rig, 1, InstanceAction::Delete { shrink: true });
        assert_eq!(rig.store.state().desired, 1);
        rig.wish = 1;
        rig.tick();
        assert_eq!(rig.phases(), [(1, Phase::Draining), (2, Phase::InService)]);
        let error = rig.refused(Command::Instance { id: 2, action: InstanceAction::Delete { shrink: true } });
        assert!(matches!(error, CommandError::Conflict(why) if why.contains("minimum is 1")));
        let told = ["web-1 is to be deleted, capacity 2 → 1"];
        assert_eq!(rig.store.told(EventKind::InstanceRequested), told);
    }

    #[test]
    fn a_restart_of_what_does_not_run_is_refused() {
        let mut rig = Rig::new("");
        rig.tick();
        let error = rig.refused(Command::Instance { id: 1, action: InstanceAction::Restart });
        let why = "web-1 is pending: only a running guest can be restarted";
        assert_eq!(error, CommandError::Conflict(why.into()));
    }
}
