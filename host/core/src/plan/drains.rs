//! Finishes drains.

use super::draft::Draft;
use super::{Action, PlannedInstance, RemovalCause, Report, requests};
use crate::phase::Phase;
use crate::requested::Requested;
use crate::set_process::SetProcess;

/// Removes draining instances that have finished their connections, or had their time to; restarts those that drained for that.
pub(super) fn finish(draft: &mut Draft<'_>) -> Report {
    let timeout_ms = draft.input.drain_timeout_ms;
    let suspended = draft.input.is_suspended(SetProcess::Terminate);
    let over = |i: &PlannedInstance<'_>| {
        let told = i.requested == Some(Requested::Restarting);
        let waits = suspended && i.requested.is_none();
        i.phase == Phase::Draining && !waits && (told || i.drained || i.in_phase_ms >= timeout_ms)
    };
    let over = draft.take(over);
    draft.returning += requests::returning(over.iter().copied());
    let cause = |drained| if drained { RemovalCause::Drained } else { RemovalCause::DrainTimeout };
    let action = |i: &&PlannedInstance<'_>| match i.requested {
        Some(requested) if requested.is_restart() => Action::Restart { id: i.id },
        _ => Action::Terminate { id: i.id, cause: cause(i.drained) },
    };
    Report { actions: over.iter().map(action).collect(), ..Report::default() }
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
