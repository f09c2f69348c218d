//! `max_cost`: no more instances than the set may cost.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::MaxCost;

/// Scales out only to what the set may cost. A set that already costs more stays: nothing is removed for its price.
#[derive(Debug, Clone, Copy)]
pub(super) struct MaxCostGuard(pub(super) MaxCost);

impl Guard for MaxCostGuard {
    fn name(&self) -> GuardName {
        GuardName::MaxCost
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let affordable = self.0.instances();
        let desired = context.observation.desired;
        if proposed <= desired || proposed <= affordable {
            return None;
        }
        let (most, MaxCost { per_instance_hour, per_hour }) = (affordable.max(desired), self.0);
        let reason = Reason {
            code: "max-cost".into(),
            text: format!(
                "scale-out to {proposed} limited to {most}: {per_hour} an hour pays for {affordable} instances at {per_instance_hour}"
            )
            .into(),
            evidence: vec![("affordable".into(), affordable.to_string().into())],
        };
        Some((most, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{context, observation};

    #[test]
    fn it_limits_scale_out_to_what_is_affordable_and_removes_nothing() {
        let narrowed = |desired, proposed| {
            let observation = observation(0, 100, desired);
            let context = context(&observation);
            let guard = MaxCostGuard(MaxCost { per_instance_hour: 0.1, per_hour: 0.8 });
            guard.narrow(&context, context.memory, proposed).map(|(size, _)| size)
        };
        assert_eq!(narrowed(5, 8), None, "0.8 / 0.1 are eight, whatever floating point makes of it");
        assert_eq!(narrowed(5, 9), Some(8));
        assert_eq!(narrowed(12, 20), Some(12));
        assert_eq!(narrowed(12, 11), None);
    }
}
