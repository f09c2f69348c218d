//! Carries out what operators ask for single instances. Neither protection nor a budget holds an operator back.

use super::budget::count;
use super::draft::Draft;
use super::{Action, PlannedInstance, RemovalCause, Report};
use crate::phase::Phase;
use crate::requested::Requested;

/// Drains what is to go or to be restarted, and removes or restarts at once what nobody is connected to yet.
pub(super) fn carry_out(draft: &mut Draft<'_>) -> Report {
    let mut report = Report::default();
    for instance in draft.take(|i| action(i).is_some()) {
        let stays = instance.requested.is_some_and(Requested::is_restart);
        if instance.phase.counts_as_capacity() {
            let side = if stays { &mut draft.returning } else { &mut draft.lost };
            *side += 1;
        }
        report.actions.extend(action(instance));
    }
    report
}

fn action(instance: &PlannedInstance<'_>) -> Option<Action> {
    let (id, cause) = (instance.id, RemovalCause::Requested);
    match (instance.requested?, instance.phase) {
        (Requested::Restarting, phase) if phase.may_answer() => Some(Action::Restart { id }),
        (_, Phase::InService | Phase::Unhealthy) => Some(Action::Drain { id, cause }),
        (Requested::Restart, Phase::Booting | Phase::Initializing) => Some(Action::Restart { id }),
        (Requested::Replace | Requested::Delete, phase) if phase.is_warming() => {
            Some(Action::Terminate { id, cause })
        }
        _ => None,
    }
}

/// How many of these drain only to be restarted.
pub(super) fn returning<'a>(instances: impl Iterator<Item = &'a PlannedInstance<'a>>) -> u32 {
    count(instances.filter(|i| crate::requested::returns(i.phase, i.requested)).count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::plan;
    use crate::plan::testing::{fleet, input};
    use crate::protection::Protection;

    fn asked(phase: Phase, requested: Requested) -> Vec<Action> {
        let mut instances = fleet(&[phase]);
        instances[0].requested = Some(requested);
        instances[0].protection = Protection::All;
        let input = input(&instances, 0);
        let mut draft = Draft::new(&input);
        carry_out(&mut draft).actions
    }

    #[test]
    fn each_request_in_each_phase() {
        let (id, cause) = (1, RemovalCause::Requested);
        use Requested::{Delete, Replace, Restart, Restarting};
        for requested in [Replace, Delete, Restart] {
            for phase in [Phase::InService, Phase::Unhealthy] {
                assert_eq!(asked(phase, requested), [Action::Drain { id, cause }]);
            }
        }
        for phase in [Phase::Pending, Phase::Creating] {
            assert_eq!(asked(phase, Replace), [Action::Terminate { id, cause }]);
            assert_eq!(asked(phase, Restart), [], "there is no guest yet");
        }
        for phase in [Phase::Booting, Phase::Initializing] {
            assert_eq!(asked(phase, Delete), [Action::Terminate { id, cause }]);
            assert_eq!(asked(phase, Restart), [Action::Restart { id }]);
            assert_eq!(asked(phase, Restarting), [Action::Restart { id }], "told again until it is done");
        }
        assert_eq!(asked(Phase::Terminating, Delete), []);
    }

    #[test]
    fn one_that_goes_is_replaced_and_one_that_returns_is_not() {
        let mut instances = fleet(&[Phase::InService; 2]);
        instances[0].requested = Some(Requested::Replace);
        instances[1].requested = Some(Requested::Restart);
        let plan_of = |instances: &[PlannedInstance<'_>]| plan(&input(instances, 2)).actions;
        let actions = plan_of(&instances);
        assert!(
            matches!(
                actions[..],
                [Action::Drain { id: 1, .. }, Action::Drain { id: 2, .. }, Action::Create { .. }]
            ),
            "{actions:?}"
        );
        instances[0].requested = None;
        (instances[1].phase, instances[1].in_phase_ms) = (Phase::Draining, 0);
        assert_eq!(plan_of(&instances), []);
        instances[1].drained = true;
        assert_eq!(plan_of(&instances), [Action::Restart { id: 2 }]);
    }

    #[test]
    fn what_failed_goes_when_asked_whatever_protects_it() {
        let mut instances = fleet(&[Phase::Failed]);
        instances[0].protection = Protection::All;
        assert_eq!(plan(&input(&instances, 0)).actions, []);
        instances[0].requested = Some(Requested::Delete);
        let expected = [Action::Terminate { id: 1, cause: RemovalCause::Failed }];
        assert_eq!(plan(&input(&instances, 0)).actions, expected);
    }
}
