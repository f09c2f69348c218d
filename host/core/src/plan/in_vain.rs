//! Repairs that do not help: what replaces an unhealthy instance turns unhealthy, again and again.

use serde::{Deserialize, Serialize};

use super::budget::count;
use super::draft::Draft;
use super::{Action, Plan, PlannedInstance, RemovalCause};
use crate::phase::Phase;

/// Repairs in a row that did not help after which repair suspends itself.
pub const IN_VAIN_MAX: u32 = 3;

/// How long what a repair made has to serve until it has helped, milliseconds.
pub const HELPED_AFTER_MS: u64 = 120_000;

/// What repair remembers from tick to tick.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepairMemory {
    /// Repairs that did not help since one last did: what they made turned unhealthy itself.
    pub in_vain: u32,
    /// Instances that were removed by repair and are not replaced yet.
    #[serde(default)]
    pub owed: u32,
    /// Repair has suspended itself, until no instance is unhealthy or an operator resumes it.
    pub suspended: bool,
}

impl RepairMemory {
    /// Whether there is nothing to remember.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Whether what a repair made has served long enough for it to have helped.
#[must_use]
pub fn has_helped(phase: Phase, in_phase_ms: u64) -> bool {
    phase == Phase::InService && in_phase_ms >= HELPED_AFTER_MS
}

/// Begins a tick: what helped counts, and a set without unhealthy instances is repaired again when it needs that.
pub(super) fn begin(draft: &mut Draft<'_>) {
    let helped = draft.rest().any(|i| i.repaired && has_helped(i.phase, i.in_phase_ms));
    let unhealthy = draft.rest().any(|i| i.phase == Phase::Unhealthy && !i.protection.from_actions());
    let memory = &mut draft.repair_memory;
    if memory.suspended && !unhealthy || !memory.suspended && helped {
        *memory = RepairMemory { owed: memory.owed, ..RepairMemory::default() };
    }
}

/// How many of the instances that this plan creates take the place of some that repair removed, now or before.
#[must_use]
pub fn replaced(owed: u32, plan: &Plan) -> u32 {
    let (removed, created) = removed_and_created(plan);
    created.min(owed + removed)
}

/// Ends a tick: what it could not replace is owed, as far as anything is short.
pub(super) fn end(draft: &Draft<'_>, plan: &mut Plan) {
    let (removed, created) = removed_and_created(plan);
    let short = draft.input.capacity.saturating_sub(draft.counted() + created);
    let owed = (draft.repair_memory.owed + removed).saturating_sub(created).min(short);
    plan.repair_memory = RepairMemory { owed, ..draft.repair_memory };
}

/// How many instances a plan removes as unhealthy, and how many it creates.
fn removed_and_created(plan: &Plan) -> (u32, u32) {
    let removed = |it: &&Action| matches!(it, Action::Terminate { cause: RemovalCause::Unhealthy, .. });
    let created = |it: &&Action| matches!(it, Action::Create { .. });
    let actions = &plan.actions;
    (count(actions.iter().filter(removed).count()), count(actions.iter().filter(created).count()))
}

/// Counts those that are about to be repaired and were made by a repair. Whether repair may act.
pub(super) fn may_repair(draft: &mut Draft<'_>, due: &[&PlannedInstance<'_>]) -> bool {
    let again = count(due.iter().filter(|i| i.repaired).count());
    let memory = &mut draft.repair_memory;
    if !memory.suspended {
        memory.in_vain = memory.in_vain.saturating_add(again);
        memory.suspended = memory.in_vain >= IN_VAIN_MAX;
    }
    !memory.suspended
}

#[cfg(test)]
mod tests {
    use super::super::{PlanNote, plan};
    use super::*;
    use crate::plan::testing::{fleet, input};

    #[test]
    fn after_three_repairs_in_vain_repair_suspends_itself_until_all_is_well() {
        let mut instances = fleet(&[Phase::Unhealthy, Phase::InService]);
        let mut memory = RepairMemory::default();
        let mut repaired = |instances: &[PlannedInstance<'_>]| {
            let mut input = input(instances, 2);
            input.repair_memory = memory;
            let plan = plan(&input);
            memory = plan.repair_memory;
            let told = plan.notes.contains(&PlanNote::RepairInVain { unhealthy: 1, in_vain: IN_VAIN_MAX });
            let acts = plan.actions.iter().any(|it| matches!(it, Action::Terminate { .. }));
            assert_eq!(told, memory.suspended);
            (acts, memory.in_vain)
        };
        assert_eq!(repaired(&instances), (true, 0), "the first repair is none in vain");
        instances[0].repaired = true;
        assert_eq!(repaired(&instances), (true, 1));
        assert_eq!(repaired(&instances), (true, 2));
        assert_eq!(repaired(&instances), (false, 3));
        assert_eq!(repaired(&instances), (false, 3), "as long as it is unhealthy");
        instances[0].phase = Phase::InService;
        assert_eq!(repaired(&instances), (false, 0), "it resumes by itself");
        instances[0].phase = Phase::Unhealthy;
        assert_eq!(repaired(&instances), (true, 1));
        (instances[1].repaired, instances[1].in_phase_ms) = (true, HELPED_AFTER_MS);
        assert_eq!(repaired(&instances), (true, 1), "another one has helped meanwhile");
    }
}
