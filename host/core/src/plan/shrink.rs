//! Gives up what is too many.

use std::collections::HashSet;

use super::budget::count;
use super::draft::Draft;
use super::{Action, PlanNote, PlannedInstance, RemovalCause, Report, order, requests};
use crate::set_process::SetProcess;

/// Gives up surplus instances: those that serve drain first, the others go at once. Protected ones stay.
pub(super) fn surplus(draft: &mut Draft<'_>) -> Report {
    let input = draft.input;
    let surplus = draft.counted().saturating_sub(input.capacity.saturating_add(draft.surge));
    if surplus == 0 {
        return Report::default();
    }
    if input.is_suspended(SetProcess::Terminate) {
        let note = PlanNote::RemovalSuspended { instances: surplus };
        return Report { notes: vec![note], ..Report::default() };
    }
    let counted = |i: &&PlannedInstance<'_>| i.phase.counts_as_capacity();
    let candidates: Vec<_> = draft.rest().filter(counted).filter(|i| !i.protection.from_scale_in()).collect();
    let mut report = Report::default();
    let returning = draft.returning + requests::returning(draft.rest());
    let kept = surplus.saturating_sub(count(candidates.len()) + returning);
    if kept > 0 {
        report.notes.push(PlanNote::Protected { surplus: kept });
    }
    let victims = order::choose(input, draft.rest().filter(counted), candidates, surplus as usize);
    let ids: HashSet<u32> = victims.iter().map(|i| i.id).collect();
    draft.take(|i| ids.contains(&i.id));
    let cause = RemovalCause::ScaleIn;
    let give_up = |i: &&PlannedInstance<'_>| match i.phase.is_warming() {
        true => Action::Terminate { id: i.id, cause },
        false => Action::Drain { id: i.id, cause },
    };
    report.actions = victims.iter().map(give_up).collect();
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;
    use crate::plan::testing::{fleet, input};
    use crate::protection::Protection;

    #[test]
    fn the_least_advanced_go_at_once_and_those_that_serve_drain() {
        let instances = fleet(&[
            Phase::InService,
            Phase::Unhealthy,
            Phase::Initializing,
            Phase::Booting,
            Phase::Creating,
            Phase::Pending,
        ]);
        let input = input(&instances, 0);
        let cause = RemovalCause::ScaleIn;
        let mut expected: Vec<_> = [6, 5, 4, 3].map(|id| Action::Terminate { id, cause }).into();
        expected.extend([2, 1].map(|id| Action::Drain { id, cause }));
        assert_eq!(surplus(&mut Draft::new(&input)).actions, expected);
    }

    #[test]
    fn preferred_victims_go_before_outdated_ones_and_those_before_the_newest() {
        let mut instances = fleet(&[Phase::InService; 5]);
        instances[1].generation = 0;
        let mut input = input(&instances, 0);
        input.victims = &[4, 1, 4, 77];
        let order: Vec<u32> = surplus(&mut Draft::new(&input)).actions.iter().map(Action::id).collect();
        assert_eq!(order, [4, 1, 2, 5, 3]);
    }

    #[test]
    fn protected_instances_stay_and_the_report_says_so() {
        let mut instances = fleet(&[Phase::InService; 3]);
        instances[0].protection = Protection::ScaleIn;
        instances[2].protection = Protection::All;
        let input = input(&instances, 1);
        let report = surplus(&mut Draft::new(&input));
        assert_eq!(report.actions, [Action::Drain { id: 2, cause: RemovalCause::ScaleIn }]);
        assert_eq!(report.notes, [PlanNote::Protected { surplus: 1 }]);
    }
}
