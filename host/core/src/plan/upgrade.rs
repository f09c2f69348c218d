//! Replaces outdated instances, batch by batch.

use std::collections::HashSet;

use super::budget::count;
use super::draft::Draft;
use super::{Action, PlanInput, PlanNote, PlannedInstance, RemovalCause, Report};
use crate::manifest::UpgradePolicy;
use crate::mutant::{self, Mutant};
use crate::phase::Phase;
use crate::set_process::SetProcess;
use crate::upgrade::{Progress, Upgrade, UpgradeWait};

/// An upgrade that the plan shall go on with.
#[derive(Debug, Clone, Copy)]
pub struct UpgradeInput<'a> {
    /// As it was after the last tick.
    pub upgrade: &'a Upgrade,
    /// Generations whose instances are up to date.
    pub current: &'a [u64],
    /// Instances that failed since the last tick.
    pub failed: &'a [u32],
    /// How the set wants it done.
    pub policy: &'a UpgradePolicy,
    /// The set's own clock.
    pub lived_ms: u64,
}

impl UpgradeInput<'_> {
    fn is_outdated(&self, instance: &PlannedInstance<'_>) -> bool {
        !self.current.contains(&instance.generation) || mutant::is(Mutant::UpgradeReplacesAll)
    }

    fn progress(&self, draft: &Draft<'_>) -> Progress {
        let mut seen = Progress::default();
        for instance in draft.input.instances {
            match (self.is_outdated(instance), instance.phase) {
                (false, Phase::Failed) if self.failed.contains(&instance.id) => seen.failed.push(instance.id),
                (false, Phase::Unhealthy) => seen.unhealthy += 1,
                (false, phase) if phase.is_warming() => seen.awaited += 1,
                _ => {}
            }
        }
        seen.left = count(draft.rest().filter(|it| self.may_go(it)).count());
        seen.awaited += draft.input.capacity.saturating_sub(draft.counted());
        seen
    }

    /// What the upgrade is about: outdated, and not protected.
    fn may_go(&self, instance: &PlannedInstance<'_>) -> bool {
        self.is_outdated(instance)
            && instance.phase.counts_as_capacity()
            && !instance.protection.from_actions()
    }
}

/// Goes on with an upgrade. Outdated instances that serve nobody go first; those that serve drain as long as enough others
/// are in service, which is what the surge is for.
pub(super) fn replace(draft: &mut Draft<'_>) -> Report {
    let Some(input) = draft.input.upgrade else { return Report::default() };
    let (capacity, policy) = (draft.input.capacity, input.policy);
    let seen = input.progress(draft);
    let mut upgrade = input.upgrade.clone();
    let mut report = Report::default();
    if let Some(UpgradeWait::Pause(in_ms)) = upgrade.advance(&seen, policy, input.lived_ms) {
        report.notes.push(PlanNote::UpgradeWaits {
            done: upgrade.done(seen.left),
            total: upgrade.total,
            in_ms,
        });
    }
    let mut may_go = upgrade.may_replace(seen.left);
    if let Some(why) = held(draft.input).filter(|_| may_go > 0) {
        report.notes.push(PlanNote::UpgradeFrozen { why: why.into() });
        may_go = 0;
    }
    draft.upgrade = Some(upgrade);
    if may_go == 0 {
        return report;
    }
    let cause = RemovalCause::Upgrade;
    let idle = |it: &PlannedInstance<'_>| input.may_go(it) && it.phase != Phase::InService;
    for instance in take_oldest(draft, may_go, idle) {
        report.actions.push(Action::Terminate { id: instance.id, cause });
        may_go -= 1;
    }
    let of_phase = |draft: &Draft<'_>, phase| count(draft.rest().filter(|it| it.phase == phase).count());
    let (serving, unhealthy) = (of_phase(draft, Phase::InService), of_phase(draft, Phase::Unhealthy));
    let of = serving + unhealthy;
    let max_percent = policy.max_unhealthy_percent;
    if u64::from(unhealthy) * 100 > u64::from(of) * u64::from(max_percent) {
        report.notes.push(PlanNote::UpgradeHeld { unhealthy, of, max_percent });
        return report;
    }
    let floor = capacity.saturating_sub(policy.unavailable(capacity));
    let spare = match mutant::is(Mutant::UpgradeIgnoresFloor) {
        true => serving,
        false => serving.saturating_sub(floor),
    };
    for instance in take_oldest(draft, may_go.min(spare), |it| input.may_go(it)) {
        report.actions.push(Action::Drain { id: instance.id, cause });
        may_go -= 1;
    }
    draft.surge = may_go.min(policy.surge(capacity)).min(draft.budget.surge);
    draft.upgraded = count(report.actions.len());
    report
}

/// Why nothing may be replaced at all.
fn held(input: &PlanInput<'_>) -> Option<&'static str> {
    if input.budget.unavailable == 0 {
        return Some("a guard lets nothing be replaced");
    }
    let suspended = |process: SetProcess, why| input.is_suspended(process).then_some(why);
    suspended(SetProcess::Terminate, "process terminate is suspended")
        .or_else(|| suspended(SetProcess::Launch, "process launch is suspended"))
}

/// Takes that many of those that `wanted` picks: of the oldest generation first, then of the oldest instances.
fn take_oldest<'a>(
    draft: &mut Draft<'a>,
    many: u32,
    wanted: impl Fn(&PlannedInstance<'_>) -> bool,
) -> Vec<&'a PlannedInstance<'a>> {
    let mut oldest: Vec<_> = draft.rest().filter(|it| wanted(it)).collect();
    oldest.sort_by_key(|it| (it.generation, it.id));
    let ids: HashSet<u32> = oldest.iter().take(many as usize).map(|it| it.id).collect();
    draft.take(|it| ids.contains(&it.id))
}

/// The order in which an upgrade replaces outdated instances: those that serve nobody, then the oldest.
#[must_use]
pub fn upgrade_order(mut outdated: Vec<(u32, u64, Phase)>) -> Vec<(u32, u64)> {
    outdated.sort_by_key(|&(id, generation, phase)| (phase == Phase::InService, generation, id));
    outdated.into_iter().map(|(id, generation, _)| (id, generation)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::UpgradeMode;
    use crate::plan::testing::{fleet, input};
    use crate::plan::{Budget, plan};
    use crate::protection::Protection;
    use crate::upgrade::UpgradeStatus;

    fn rolling(total: u32, target: u32) -> Upgrade {
        Upgrade { target, ..Upgrade::new(1, 2, UpgradeStatus::Rolling, 0, total) }
    }

    fn policy() -> UpgradePolicy {
        UpgradePolicy { mode: UpgradeMode::Rolling, ..UpgradePolicy::default() }
    }

    /// What a plan does about instances of these phases and generations, the second being the one in force.
    fn planned(
        of: &[(Phase, u64)],
        capacity: u32,
        upgrade: &Upgrade,
        policy: &UpgradePolicy,
    ) -> (Vec<u32>, Vec<u32>, usize, Upgrade) {
        let mut instances = fleet(&of.iter().map(|it| it.0).collect::<Vec<_>>());
        instances.iter_mut().zip(of).for_each(|(instance, of)| instance.generation = of.1);
        let mut input = input(&instances, capacity);
        input.generation = 2;
        input.repair.enabled = false;
        input.upgrade = Some(UpgradeInput { upgrade, current: &[2], failed: &[], policy, lived_ms: 0 });
        let plan = plan(&input);
        let of_kind = |drains: bool| {
            let taken = plan.actions.iter().filter(|it| match it {
                Action::Drain { cause, .. } => drains && *cause == RemovalCause::Upgrade,
                Action::Terminate { cause, .. } => !drains && *cause == RemovalCause::Upgrade,
                Action::Create { .. } | Action::Restart { .. } => false,
            });
            taken.map(Action::id).collect()
        };
        let created = plan.actions.iter().filter(|it| matches!(it, Action::Create { .. })).count();
        (of_kind(true), of_kind(false), created, plan.upgrade.expect("an upgrade"))
    }

    use Phase::{Booting, InService, Unhealthy};

    #[test]
    fn new_instances_come_first_and_old_ones_drain_when_they_serve() {
        let old = [(InService, 1); 10];
        let (drained, ended, created, upgrade) = planned(&old, 10, &rolling(10, 0), &policy());
        assert_eq!((drained.len(), ended.len(), created, upgrade.target), (0, 0, 2, 2));
        let mut of = old.to_vec();
        of.extend([(Booting, 2), (Booting, 2)]);
        let (drained, ended, created, _) = planned(&of, 10, &rolling(10, 2), &policy());
        assert_eq!((drained.len(), ended.len(), created), (0, 0, 0), "nobody is given up for one that boots");
        of[10].0 = InService;
        let (drained, _, created, _) = planned(&of, 10, &rolling(10, 2), &policy());
        assert_eq!((drained, created), (vec![1], 0));
    }

    #[test]
    fn some_may_be_missing_instead() {
        let policy = UpgradePolicy { max_surge_percent: 0, max_unavailable_percent: 30, ..policy() };
        let (drained, _, created, _) = planned(&[(InService, 1); 10], 10, &rolling(10, 5), &policy);
        assert_eq!((drained, created), (vec![1, 2, 3], 3));
        let at_once = UpgradePolicy { mode: UpgradeMode::AllAtOnce, ..policy };
        let (drained, _, created, _) = planned(&[(InService, 1); 10], 10, &rolling(10, 0), &at_once);
        assert_eq!((drained.len(), created), (10, 10));
    }

    #[test]
    fn those_that_serve_nobody_go_first_and_the_healthy_stay_while_too_many_are_unhealthy() {
        let mut of = vec![(InService, 1); 8];
        of.extend([(Unhealthy, 1), (Booting, 1)]);
        let (drained, ended, created, _) = planned(&of, 10, &rolling(10, 2), &policy());
        assert_eq!((drained, ended, created), (vec![], vec![9, 10], 2));
        let of = [(InService, 1), (InService, 1), (Unhealthy, 1), (Unhealthy, 1), (InService, 2)];
        let (drained, ended, _, _) = planned(&of, 2, &rolling(5, 4), &policy());
        assert_eq!((drained, ended), (vec![1], vec![3, 4]), "the unhealthy are gone, the rest is well");
        let (drained, ended, _, _) = planned(&of, 4, &rolling(5, 2), &policy());
        assert_eq!((drained, ended), (vec![], vec![3]), "one is still unhealthy");
    }

    #[test]
    fn a_paused_upgrade_and_a_frozen_set_stay_as_they_are() {
        let paused = Upgrade { status: UpgradeStatus::Paused, ..rolling(10, 2) };
        let (drained, ended, created, _) = planned(&[(InService, 1); 10], 10, &paused, &policy());
        assert_eq!((drained.len(), ended.len(), created), (0, 0, 0));
        let instances = fleet(&[InService; 2]);
        let (upgrade, policy) = (rolling(2, 1), policy());
        let mut input = input(&instances, 2);
        input.budget = Budget::NONE;
        input.upgrade = Some(UpgradeInput {
            upgrade: &upgrade,
            current: &[9],
            failed: &[],
            policy: &policy,
            lived_ms: 0,
        });
        let plan = plan(&input);
        assert_eq!(
            (plan.actions, plan.notes),
            (vec![], vec![PlanNote::UpgradeFrozen { why: "a guard lets nothing be replaced".into() }])
        );
    }

    #[test]
    fn protected_instances_stay_and_the_upgrade_ends_without_them() {
        let mut instances = fleet(&[InService; 2]);
        instances[0].protection = Protection::All;
        instances[1].generation = 2;
        let (upgrade, policy) = (rolling(1, 1), policy());
        let mut input = input(&instances, 2);
        input.upgrade = Some(UpgradeInput {
            upgrade: &upgrade,
            current: &[2],
            failed: &[],
            policy: &policy,
            lived_ms: 0,
        });
        let plan = plan(&input);
        assert!(plan.actions.is_empty());
        assert_eq!(plan.upgrade.map(|it| it.status), Some(UpgradeStatus::Completed));
    }

    #[test]
    fn the_order_that_is_told_is_the_one_that_is_kept() {
        let of = vec![(1, 2, InService), (2, 1, InService), (3, 2, Unhealthy), (4, 1, Booting)];
        assert_eq!(upgrade_order(of).into_iter().map(|it| it.0).collect::<Vec<_>>(), [4, 3, 2, 1]);
    }
}
