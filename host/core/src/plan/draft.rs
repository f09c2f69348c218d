//! A plan in the making.

use super::budget::{Budget, count};
use super::{PlanInput, PlannedInstance, RepairMemory, requests};
use crate::upgrade::Upgrade;

/// What is left for the steps that follow: instances that no step has taken yet, and the rest of the budget.
///
/// A step can only name an instance by taking it out of the draft, so no instance is named twice.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    pub(super) input: &'a PlanInput<'a>,
    rest: Vec<&'a PlannedInstance<'a>>,
    pub(super) budget: Budget,
    /// Broken instances that this plan removes and that count as capacity no longer: what is created first replaces them.
    pub(super) lost: u32,
    /// Instances beyond the capacity that an upgrade wants for a while.
    pub(super) surge: u32,
    /// Outdated instances that this plan gives up.
    pub(super) upgraded: u32,
    /// The upgrade after this tick.
    pub(super) upgrade: Option<Upgrade>,
    /// Instances that this plan has taken and that still count as capacity: they are restarted.
    pub(super) returning: u32,
    /// What repair remembers.
    pub(super) repair_memory: RepairMemory,
}

impl<'a> Draft<'a> {
    pub(super) fn new(input: &'a PlanInput<'a>) -> Self {
        Self {
            input,
            rest: input.instances.iter().collect(),
            budget: Budget::of(input),
            lost: 0,
            surge: 0,
            upgraded: 0,
            upgrade: None,
            returning: 0,
            repair_memory: input.repair_memory,
        }
    }

    /// The instances that no step has taken, in their order.
    pub(super) fn rest(&self) -> impl Iterator<Item = &'a PlannedInstance<'a>> {
        self.rest.iter().copied()
    }

    /// Takes the instances that `wanted` picks out of the draft, in their order.
    pub(super) fn take(
        &mut self,
        mut wanted: impl FnMut(&PlannedInstance<'_>) -> bool,
    ) -> Vec<&'a PlannedInstance<'a>> {
        self.rest.extract_if(.., |instance| wanted(instance)).collect()
    }

    /// How many instances there are that count towards the capacity.
    pub(super) fn counted(&self) -> u32 {
        let counted = self.rest.iter().filter(|instance| instance.phase.counts_as_capacity()).count();
        count(counted) + self.returning + requests::returning(self.rest.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;
    use crate::plan::testing::{fleet, input};

    #[test]
    fn what_a_step_took_is_not_there_for_the_next() {
        let instances = fleet(&[Phase::InService, Phase::Failed, Phase::Booting]);
        let input = input(&instances, 1);
        let mut draft = Draft::new(&input);
        assert_eq!(draft.take(|i| i.id != 3).iter().map(|i| i.id).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(draft.rest().map(|i| i.id).collect::<Vec<_>>(), [3]);
        assert!(draft.take(|i| i.id == 1).is_empty());
        assert_eq!(draft.counted(), 1);
    }
}
