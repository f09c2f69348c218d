//! `tolerance`: small changes are not worth it, as with the Kubernetes HPA.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;

/// Ignores changes of less than a share of the size.
#[derive(Debug, Clone, Copy)]
pub(super) struct ToleranceGuard {
    pub(super) percent: u32,
}

impl Guard for ToleranceGuard {
    fn name(&self) -> GuardName {
        GuardName::Tolerance
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        let (change, percent) = (proposed.abs_diff(desired), self.percent);
        if u64::from(change) * 100 > u64::from(desired) * u64::from(percent) {
            return None;
        }
        let reason = Reason {
            code: "tolerance".into(),
            text: format!("{desired} → {proposed} is a change of at most {percent}%").into(),
            evidence: vec![("change".into(), change.to_string().into())],
        };
        Some((desired, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{context, observation};

    #[test]
    fn a_change_counts_from_its_share_of_the_size() {
        let passes = |desired, proposed| {
            let observation = observation(0, 100, desired);
            let context = context(&observation);
            ToleranceGuard { percent: 10 }.narrow(&context, context.memory, proposed).is_none()
        };
        assert!(passes(5, 6), "one of few is never little");
        assert!(!passes(20, 22) && !passes(20, 18));
        assert!(passes(20, 23) && passes(20, 17));
        assert!(passes(0, 1));
    }
}
