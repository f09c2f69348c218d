//! Suspending what a set does by itself.

use std::collections::BTreeSet;

use crate::event::EventKind;
use crate::phase::InstanceEvent;
use crate::set_process::SetProcess;
use crate::state::SetState;

use super::super::SetMachine;
use super::{Change, Step};

impl SetMachine {
    pub(super) fn processes(&self, suspend: &BTreeSet<SetProcess>, resume: &BTreeSet<SetProcess>) -> Step {
        let suspended: BTreeSet<SetProcess> = self
            .state
            .suspended
            .union(suspend)
            .filter(|process| !resume.contains(process))
            .copied()
            .collect();
        // Repair may have suspended itself as well.
        let by_itself = self.state.repair.suspended && resume.contains(&SetProcess::Repair);
        if suspended == self.state.suspended && !by_itself {
            return Step::Nothing;
        }
        let mut before = self.state.suspended.clone();
        before.extend(by_itself.then_some(SetProcess::Repair));
        let names = |of: &BTreeSet<SetProcess>, before: &BTreeSet<SetProcess>| {
            of.difference(before).map(|process| process.as_str()).collect::<Vec<_>>().join(", ")
        };
        let told = [("suspended", names(&suspended, &before)), ("resumed", names(&before, &suspended))];
        let told = told.iter().filter(|(_, names)| !names.is_empty());
        let text: Vec<String> = told.map(|(what, names)| format!("{what}: {names}")).collect();
        let mut next = SetState { suspended, ..self.state.clone() };
        if by_itself {
            next.repair = Default::default();
        }
        let text = format!("processes {}", text.join("; "));
        Step::Store(Box::new(Change::new(next, EventKind::ProcessesChanged, text)))
    }

    /// Probes found something out. While health checks are suspended, what is unhealthy is only remembered.
    pub(in crate::machine) fn on_probed(&mut self, id: u32, event: InstanceEvent, detail: Option<String>) {
        let withholds =
            event == InstanceEvent::BecameUnhealthy && self.state.suspended.contains(&SetProcess::Health);
        if let Some(instance) = self.instances.get_mut(&id) {
            instance.withheld = withholds.then(|| detail.clone());
        }
        if !withholds {
            self.meet(id, event, detail);
        }
    }

    /// What was withheld while health checks were suspended is news now.
    pub(super) fn tell_withheld(&mut self) {
        if self.state.suspended.contains(&SetProcess::Health) {
            return;
        }
        let withheld = |(id, it): (&u32, &mut super::super::Instance)| Some((*id, it.withheld.take()?));
        let withheld: Vec<_> = self.instances.iter_mut().filter_map(withheld).collect();
        for (id, detail) in withheld {
            self.meet(id, InstanceEvent::BecameUnhealthy, detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::Report;
    use crate::machine::testing::Rig;
    use crate::machine::{Command, Effect, InstanceAction};
    use crate::phase::Phase;

    fn set(rig: &mut Rig, suspend: &[SetProcess], resume: &[SetProcess]) {
        let of = |list: &[SetProcess]| list.iter().copied().collect();
        rig.command(Command::Processes { suspend: of(suspend), resume: of(resume) }).expect("done");
    }

    #[test]
    fn what_is_suspended_is_stored_told_and_a_problem() {
        let mut rig = Rig::serving("");
        set(&mut rig, &[SetProcess::Launch, SetProcess::Repair], &[]);
        set(&mut rig, &[SetProcess::Launch], &[]);
        rig.restart_after(1_000, |_| crate::agent::Found::Running(Default::default()));
        let told = "processes launch, repair are suspended by an operator: `regatta process resume web launch repair`";
        assert_eq!(rig.machine.problems(), [told]);
        set(&mut rig, &[], &SetProcess::ALL);
        assert_eq!(rig.machine.problems(), [""; 0]);
        let told = ["processes suspended: launch, repair", "processes resumed: launch, repair"];
        assert_eq!(rig.store.told(EventKind::ProcessesChanged), told);
    }

    #[test]
    fn without_launch_nothing_is_created() {
        let mut rig = Rig::serving("");
        set(&mut rig, &[SetProcess::Launch], &[]);
        rig.wish = 4;
        rig.tick();
        assert_eq!(rig.phases().len(), 2);
        assert!(
            rig.machine.problems().contains(&"2 instances short: process launch is suspended".to_owned())
        );
        set(&mut rig, &[], &[SetProcess::Launch]);
        rig.tick();
        assert_eq!(rig.phases().len(), 4);
    }

    #[test]
    fn without_terminate_nothing_goes_but_what_an_operator_names() {
        let mut rig = Rig::serving("repair: { max_unhealthy: 100, grace: 0s }");
        rig.wish = 3;
        rig.tick();
        rig.serve(3);
        set(&mut rig, &[SetProcess::Terminate], &[]);
        rig.wish = 0;
        rig.probed(1, InstanceEvent::BecameUnhealthy, None);
        rig.report(2, Report::Exited { why: "gone".into() });
        rig.command(Command::Instance { id: 3, action: InstanceAction::Delete { shrink: false } })
            .expect("done");
        rig.tick();
        rig.tick();
        let expected = [(1, Phase::Unhealthy), (2, Phase::Failed), (3, Phase::Terminating)];
        assert_eq!(rig.phases(), expected);
        set(&mut rig, &[], &[SetProcess::Terminate]);
        rig.tick();
        assert!(rig.phases().iter().all(|(_, phase)| *phase == Phase::Terminating), "{:?}", rig.phases());
    }

    #[test]
    fn without_health_nothing_becomes_unhealthy_until_it_is_resumed() {
        let mut rig = Rig::serving("");
        set(&mut rig, &[SetProcess::Health], &[]);
        rig.probed(1, InstanceEvent::BecameUnhealthy, None);
        rig.probed(2, InstanceEvent::BecameUnhealthy, None);
        rig.probed(2, InstanceEvent::BecameHealthy, None);
        rig.report(2, Report::GuestRebooted);
        rig.tick_after(3_600_000);
        assert_eq!(rig.phases(), [(1, Phase::InService), (2, Phase::Booting)], "however long it boots");
        set(&mut rig, &[], &[SetProcess::Health]);
        assert_eq!(rig.record(1).phase, Phase::Unhealthy);
        rig.tick();
        assert_eq!(rig.record(2).phase, Phase::Terminating);
    }

    #[test]
    fn without_repair_unhealthy_instances_stay() {
        let mut rig = Rig::serving("repair: { max_unhealthy: 100, grace: 0s }");
        set(&mut rig, &[SetProcess::Repair], &[]);
        rig.probed(1, InstanceEvent::BecameUnhealthy, None);
        rig.tick_after(60_000);
        assert_eq!(rig.record(1).phase, Phase::Unhealthy);
        assert!(
            rig.machine.problems().contains(&"1 instance unhealthy: process repair is suspended".to_owned())
        );
    }

    #[test]
    fn repair_that_does_not_help_suspends_itself_and_an_operator_resumes_it() {
        let more = "capacity: { min: 1, max: 1, initial: 1 }\nrepair: { max_unhealthy: 100, grace: 0s }";
        let mut rig = Rig::serving(more);
        let mut id = 1;
        for round in 0..4 {
            rig.probed(id, InstanceEvent::BecameUnhealthy, None);
            rig.tick_after(60_000);
            if round == 3 {
                break;
            }
            assert_eq!(rig.record(id).phase, Phase::Terminating, "repair {round}");
            for _ in 0..60 {
                if rig.record(rig.store.state().next_instance_id - 1).phase == Phase::Pending {
                    break;
                }
                rig.tick();
            }
            id = rig.store.state().next_instance_id - 1;
            assert!(rig.record(id).repaired);
            rig.serve(id);
        }
        assert_eq!(rig.record(id).phase, Phase::Unhealthy);
        assert_eq!(rig.store.told(EventKind::RepairHeld).len(), 1);
        rig.restart_after(1_000, |_| crate::agent::Found::Running(Default::default()));
        rig.tick_after(120_000);
        assert_eq!(rig.record(id).phase, Phase::Unhealthy, "it is stored");
        set(&mut rig, &[], &[SetProcess::Repair]);
        assert_eq!(rig.store.told(EventKind::ProcessesChanged), ["processes resumed: repair"]);
        rig.tick();
        assert_eq!(rig.record(id).phase, Phase::Terminating);
    }

    #[test]
    fn a_repair_by_restart_keeps_the_instance_and_counts_until_it_has_helped() {
        let mut rig = Rig::serving("repair: { max_unhealthy: 100, grace: 0s, action: restart }");
        rig.probed(1, InstanceEvent::BecameUnhealthy, None);
        rig.tick();
        assert_eq!(rig.wants().iter().filter_map(|want| want.restart).collect::<Vec<_>>(), [1]);
        rig.report(1, Report::GuestRebooted);
        rig.probed(1, InstanceEvent::BecameHealthy, None);
        assert!(rig.record(1).repaired && rig.record(1).phase == Phase::InService);
        rig.tick_after(120_000);
        assert!(!rig.record(1).repaired, "it has helped");
        assert_eq!(rig.phases().len(), 2);
    }

    #[test]
    fn without_policy_nobody_is_asked_and_the_capacity_stays() {
        let mut rig = Rig::serving("");
        set(&mut rig, &[SetProcess::Policy], &[]);
        rig.wish = 5;
        rig.effects.clear();
        rig.tick();
        assert!(rig.effects.iter().all(|effect| !matches!(effect, Effect::Ask { .. })));
        assert_eq!(rig.store.state().desired, 2);
        rig.command(Command::Scale { capacity: 3 }).expect("operators may");
        rig.tick();
        assert_eq!(rig.phases().len(), 3);
        set(&mut rig, &[], &[SetProcess::Policy]);
        rig.tick();
        assert_eq!(rig.store.state().desired, 5);
    }
}
