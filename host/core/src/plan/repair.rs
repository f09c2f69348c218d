//! Removes what has been unhealthy for too long, few at a time.

use std::cmp::Reverse;
use std::collections::HashSet;

use super::budget::{Budget, count};
use super::draft::Draft;
use super::{Action, PlanNote, PlannedInstance, RemovalCause, Report, in_vain};
use crate::manifest::RepairAction;
use crate::phase::Phase;
use crate::set_process::SetProcess;

/// Removes instances that have been unhealthy for longer than their grace, the longest first and as many as the budget
/// allows; their replacements are created by the step that creates what is missing. Or restarts them, if the set wants that.
pub(super) fn remove(draft: &mut Draft<'_>) -> Report {
    let input = draft.input;
    let is_due =
        |i: &&PlannedInstance<'_>| i.phase == Phase::Unhealthy && i.in_phase_ms >= input.repair.grace_ms;
    let mut due: Vec<_> = draft.rest().filter(is_due).collect();
    let left_alone = due.extract_if(.., |i| i.protection.from_actions()).count();
    let mut report = Report::default();
    if left_alone > 0 {
        report.notes.push(PlanNote::ProtectedFromActions { instances: count(left_alone), failed: false });
    }
    let unhealthy = count(due.len());
    if unhealthy == 0 {
        return report;
    }
    if input.is_suspended(SetProcess::Repair) {
        report.notes.push(PlanNote::RepairSuspended { unhealthy });
        return report;
    }
    let restarts = input.repair.action == RepairAction::Restart;
    if input.is_suspended(SetProcess::Terminate) && !restarts {
        report.notes.push(PlanNote::RemovalSuspended { instances: unhealthy });
        return report;
    }
    let sick = count(draft.rest().filter(|i| i.phase == Phase::Unhealthy).count());
    let of = sick + count(draft.rest().filter(|i| i.phase == Phase::InService).count());
    let max_percent = input.repair.max_unhealthy_percent;
    if input.repair.enabled && sick > 1 && u64::from(sick) * 100 > u64::from(of) * u64::from(max_percent) {
        report.notes.push(PlanNote::RepairHeld { unhealthy: sick, of, max_percent });
        return report;
    }
    if !input.repair.enabled {
        report.notes.push(PlanNote::RepairOff { unhealthy });
        return report;
    }
    let hold_ms = input.repair.hold_after_apply_ms;
    if let Some(since_ms) = input.since_change_ms.filter(|since_ms| *since_ms < hold_ms) {
        due.retain(|i| i.in_phase_ms > since_ms);
        let held = unhealthy - count(due.len());
        if held > 0 {
            report.notes.push(PlanNote::RepairAfterApply { unhealthy: held, in_ms: hold_ms - since_ms });
        }
    }
    let unhealthy = count(due.len());
    let now = unhealthy.min(draft.budget.unavailable);
    if now < unhealthy {
        let at_once = Budget::repairs_at_once(input);
        report.notes.push(PlanNote::RepairLimited { unhealthy, now, at_once });
    }
    due.sort_by_key(|i| (Reverse(i.in_phase_ms), i.id));
    due.truncate(now as usize);
    if !in_vain::may_repair(draft, &due) {
        let in_vain = draft.repair_memory.in_vain;
        return Report { notes: vec![PlanNote::RepairInVain { unhealthy, in_vain }], ..report };
    }
    let ids: HashSet<u32> = due.iter().map(|i| i.id).collect();
    draft.take(|i| ids.contains(&i.id));
    draft.budget.unavailable -= now;
    *if restarts { &mut draft.returning } else { &mut draft.lost } += now;
    let action = |i: &&PlannedInstance<'_>| match restarts {
        true => Action::Restart { id: i.id },
        false => Action::Terminate { id: i.id, cause: RemovalCause::Unhealthy },
    };
    report.actions = due.iter().map(action).collect();
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{fleet, input};
    use crate::protection::Protection;

    #[test]
    fn those_go_first_that_have_been_unhealthy_for_longest() {
        let mut instances = fleet(&[Phase::Unhealthy; 3]);
        instances[1].in_phase_ms += 1;
        let input = input(&instances, 3);
        let mut draft = Draft::new(&input);
        let report = remove(&mut draft);
        assert_eq!(report.actions, [Action::Terminate { id: 2, cause: RemovalCause::Unhealthy }]);
        assert_eq!(report.notes, [PlanNote::RepairLimited { unhealthy: 3, now: 1, at_once: 1 }]);
        assert_eq!((draft.budget.unavailable, draft.lost, draft.counted()), (0, 1, 2));
    }

    #[test]
    fn a_set_may_have_them_restarted_which_still_counts_and_spends_the_budget() {
        let mut instances = fleet(&[Phase::Unhealthy; 2]);
        let mut of_two = input(&instances, 2);
        of_two.repair.action = RepairAction::Restart;
        let mut draft = Draft::new(&of_two);
        assert_eq!(remove(&mut draft).actions, [Action::Restart { id: 1 }]);
        assert_eq!((draft.lost, draft.counted()), (0, 2));
        instances[0].requested = Some(crate::requested::Requested::Restarting);
        let mut of_two = input(&instances, 2);
        of_two.repair.action = RepairAction::Restart;
        assert_eq!(crate::plan::plan(&of_two).actions, [Action::Restart { id: 1 }], "again, and nobody else");
    }

    #[test]
    fn one_that_is_protected_from_all_actions_is_not_repaired() {
        let mut instances = fleet(&[Phase::Unhealthy; 2]);
        (instances[0].protection, instances[1].protection) = (Protection::All, Protection::ScaleIn);
        let input = input(&instances, 2);
        let report = remove(&mut Draft::new(&input));
        assert_eq!(report.actions, [Action::Terminate { id: 2, cause: RemovalCause::Unhealthy }]);
        assert_eq!(report.notes, [PlanNote::ProtectedFromActions { instances: 1, failed: false }]);
    }

    #[test]
    fn most_of_a_set_is_not_replaced_at_once_but_a_single_instance_is() {
        let held = |phases: &[Phase]| {
            let instances = fleet(phases);
            let mut input = input(&instances, count(phases.len()));
            input.repair.max_unhealthy_percent = 50;
            let report = remove(&mut Draft::new(&input));
            assert_eq!(report.actions.is_empty(), matches!(report.notes[..], [PlanNote::RepairHeld { .. }]));
            report.actions.is_empty()
        };
        use Phase::{Booting, Draining, InService, Unhealthy};
        assert!(!held(&[Unhealthy]));
        assert!(!held(&[Unhealthy, InService]));
        assert!(held(&[Unhealthy, Unhealthy]));
        assert!(!held(&[Unhealthy, Unhealthy, InService, InService]));
        assert!(
            held(&[Unhealthy, Unhealthy, InService, Booting, Draining]),
            "only those that should serve count"
        );
    }

    #[test]
    fn what_became_unhealthy_under_a_new_manifest_is_not_replaced_at_once() {
        let mut instances = fleet(&[Phase::Unhealthy; 2]);
        instances[0].in_phase_ms = 70_000;
        instances[1].in_phase_ms = 30_000;
        let mut input = input(&instances, 2);
        (input.repair.hold_after_apply_ms, input.since_change_ms) = (60_000, Some(40_000));
        let report = remove(&mut Draft::new(&input));
        assert_eq!(
            report.actions,
            [Action::Terminate { id: 1, cause: RemovalCause::Unhealthy }],
            "unhealthy before"
        );
        let held = PlanNote::RepairAfterApply { unhealthy: 1, in_ms: 20_000 };
        assert_eq!(report.notes, std::slice::from_ref(&held));
        assert_eq!(
            held.to_string(),
            "1 instance unhealthy since the manifest was changed: repair waits another 20 s (repair.hold_after_apply)"
        );
        for since_change_ms in [None, Some(60_000)] {
            input.since_change_ms = since_change_ms;
            let report = remove(&mut Draft::new(&input));
            assert!(matches!(report.notes[..], [PlanNote::RepairLimited { unhealthy: 2, now: 1, .. }]));
        }
    }

    #[test]
    fn a_guard_may_stop_repair_and_a_set_may_do_without() {
        let instances = fleet(&[Phase::Unhealthy]);
        let mut input = input(&instances, 1);
        input.budget = Budget { unavailable: 0, ..Budget::UNLIMITED };
        let report = remove(&mut Draft::new(&input));
        assert_eq!(report.notes, [PlanNote::RepairLimited { unhealthy: 1, now: 0, at_once: 0 }]);
        assert!(report.actions.is_empty());
        input.repair.enabled = false;
        let report = remove(&mut Draft::new(&input));
        assert_eq!(report.notes, [PlanNote::RepairOff { unhealthy: 1 }]);
        assert!(report.actions.is_empty());
    }
}
