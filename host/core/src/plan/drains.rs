//! Finishes drains.

use super::draft::Draft;
use super::{Action, PlannedInstance, RemovalCause, Report};
use crate::phase::Phase;

/// Removes draining instances that have finished their connections, or had their time to.
pub(super) fn finish(draft: &mut Draft<'_>) -> Report {
    let timeout_ms = draft.input.drain_timeout_ms;
    let over =
        |i: &PlannedInstance<'_>| i.phase == Phase::Draining && (i.drained || i.in_phase_ms >= timeout_ms);
    let cause = |drained| if drained { RemovalCause::Drained } else { RemovalCause::DrainTimeout };
    let actions =
        draft.take(over).iter().map(|i| Action::Terminate { id: i.id, cause: cause(i.drained) }).collect();
    Report { actions, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{fleet, input};

    #[test]
    fn a_drain_ends_when_the_instance_is_empty_or_its_time_is_up() {
        let mut instances = fleet(&[Phase::Draining, Phase::Draining, Phase::Draining, Phase::InService]);
        (instances[0].in_phase_ms, instances[1].in_phase_ms, instances[2].in_phase_ms) = (29_999, 0, 30_000);
        instances[1].drained = true;
        let input = input(&instances, 3);
        let expected = [
            Action::Terminate { id: 2, cause: RemovalCause::Drained },
            Action::Terminate { id: 3, cause: RemovalCause::DrainTimeout },
        ];
        assert_eq!(finish(&mut Draft::new(&input)).actions, expected);
    }
}
