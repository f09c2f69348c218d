//! A freeze: nothing that serves is removed, by scale-in, by repair or by a roll-out.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::mutant::{self, Mutant};
use crate::plan::Budget;

/// Refuses scale-in while the set is frozen, and leaves the plan nothing to spend on replacing what serves.
#[derive(Debug, Clone, Copy)]
pub(super) struct FreezeGuard;

impl Guard for FreezeGuard {
    fn name(&self) -> GuardName {
        GuardName::Freeze
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        if proposed >= desired || mutant::is(Mutant::FreezeLetsScaleInThrough) {
            return None;
        }
        Some((desired, reason(context, format!("scale-in to {proposed} refused: "))?))
    }

    fn limit(&self, context: &GuardContext<'_>) -> Option<(Budget, Reason)> {
        let reason = reason(context, String::new())?;
        let budget = Budget { unavailable: 0, surge: 0, ..Budget::UNLIMITED };
        (!mutant::is(Mutant::FreezeLetsRepairThrough)).then_some((budget, reason))
    }
}

/// Why nothing is removed; none when the set is not frozen.
fn reason(context: &GuardContext<'_>, what: String) -> Option<Reason> {
    let told = context.in_force.frozen_told(&context.observation.set, context.at())?;
    let text = format!("{what}{told}");
    Some(Reason { code: "frozen".into(), text: text.into(), evidence: Vec::new() })
}
