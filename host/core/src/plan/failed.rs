//! Removes what is broken beyond repair.

use super::budget::count;
use super::draft::Draft;
use super::{Action, PlanNote, PlannedInstance, RemovalCause, Report};
use crate::phase::Phase;
use crate::set_process::SetProcess;

/// Removes instances whose launch failed, whose VMM exited, or that their node refused. Costs no budget: they serve
/// nobody. One that is protected from all actions stays, with its disk, for whoever wanted it kept.
pub(super) fn remove(draft: &mut Draft<'_>) -> Report {
    let stays = |i: &PlannedInstance<'_>| {
        i.phase == Phase::Failed && i.protection.from_actions() && i.requested.is_none()
    };
    let suspended = draft.input.is_suspended(SetProcess::Terminate);
    let stay = count(draft.rest().filter(|i| stays(i)).count());
    let gone = draft.take(|i| {
        let waits = suspended && i.requested.is_none();
        matches!(i.phase, Phase::Failed | Phase::Refused) && !stays(i) && !waits
    });
    draft.lost += count(gone.iter().filter(|i| i.phase == Phase::Failed).count());
    let cause = |phase| if phase == Phase::Refused { RemovalCause::Refused } else { RemovalCause::Failed };
    let actions = gone.iter().map(|i| Action::Terminate { id: i.id, cause: cause(i.phase) }).collect();
    let note = PlanNote::ProtectedFromActions { instances: stay, failed: true };
    Report { actions, notes: (stay > 0).then_some(note).into_iter().collect(), ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{fleet, input};
    use crate::protection::Protection;

    #[test]
    fn failed_and_refused_instances_go() {
        let instances = fleet(&[Phase::InService, Phase::Failed, Phase::Refused]);
        let input = input(&instances, 3);
        let mut draft = Draft::new(&input);
        let expected = [
            Action::Terminate { id: 2, cause: RemovalCause::Failed },
            Action::Terminate { id: 3, cause: RemovalCause::Refused },
        ];
        assert_eq!(remove(&mut draft).actions, expected);
        assert_eq!(draft.lost, 1, "a refused one never was there");
    }

    #[test]
    fn one_that_is_protected_from_all_actions_stays() {
        let mut instances = fleet(&[Phase::Failed, Phase::Failed, Phase::Refused]);
        instances[0].protection = Protection::All;
        instances[1].protection = Protection::ScaleIn;
        instances[2].protection = Protection::All;
        let input = input(&instances, 3);
        let report = remove(&mut Draft::new(&input));
        assert_eq!(report.actions.iter().map(Action::id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(report.notes, [PlanNote::ProtectedFromActions { instances: 1, failed: true }]);
    }
}
