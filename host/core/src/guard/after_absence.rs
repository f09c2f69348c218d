//! After the daemon was away, what guests show reflects that their load balancer was away, too: no scale-in yet.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::units::format_duration_ms;

/// Refuses scale-in for a while after the daemon was away.
#[derive(Debug, Clone, Copy)]
pub(super) struct AfterAbsenceGuard {
    /// For how long, milliseconds.
    pub(super) hold_ms: u64,
}

impl Guard for AfterAbsenceGuard {
    fn name(&self) -> GuardName {
        GuardName::AfterAbsence
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        let back_ms = context.lived_ms.saturating_sub(context.resumed_ms?);
        if proposed > desired || back_ms >= self.hold_ms {
            return None;
        }
        let left = format_duration_ms(self.hold_ms - back_ms);
        let reason = Reason {
            code: "after-absence".into(),
            text: format!(
                "scale-in to {proposed} held back: the daemon was away and instances warm up for {left}"
            )
            .into(),
            evidence: vec![("left".into(), left.into())],
        };
        Some((desired, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{context, observation};

    #[test]
    fn it_holds_scale_in_only_and_only_for_a_while() {
        let observation = observation(0, 10, 5);
        let narrowed = |resumed_ms, lived_ms, proposed| {
            let context = GuardContext { resumed_ms, lived_ms, ..context(&observation) };
            let guard = AfterAbsenceGuard { hold_ms: 30_000 };
            guard.narrow(&context, context.memory, proposed).map(|(capacity, _)| capacity)
        };
        assert_eq!(narrowed(None, 5_000, 3), None);
        assert_eq!(narrowed(Some(4_000), 5_000, 3), Some(5));
        assert_eq!(narrowed(Some(4_000), 5_000, 8), None);
        assert_eq!(narrowed(Some(4_000), 33_999, 3), Some(5));
        assert_eq!(narrowed(Some(4_000), 34_000, 3), None);
    }
}
