//! Upgrades: which instances are outdated, when one begins, and the way back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::instance_model::differences;
use crate::manifest::{ScaleSet, UpgradeMode};
use crate::mutant::{self, Mutant};
use crate::phase::Phase;
use crate::plan::upgrade_order;
use crate::record::UpgradeFacts;
use crate::state::{ImageDigests, InstanceRecord, SetState};
use crate::upgrade::{Upgrade, UpgradeStatus};

use super::{Effect, SetMachine};

/// Generations whose instances are not as a manifest says, and in what they differ.
#[derive(Debug, Clone, Default)]
pub struct Models {
    differing: BTreeMap<u64, Arc<[String]>>,
}

impl Models {
    /// Compares each generation with the manifest in force.
    pub(super) fn of(state: &SetState, manifests: &BTreeMap<u64, Arc<ScaleSet>>) -> Self {
        let mut others = manifests.clone();
        others.remove(&state.generation);
        Self::under((&state.set, &state.image), &state.images, &others)
    }

    /// Compares each generation with a manifest and what its image is.
    #[must_use]
    pub fn under(
        (set, image): (&ScaleSet, &ImageDigests),
        images: &BTreeMap<u64, ImageDigests>,
        manifests: &BTreeMap<u64, Arc<ScaleSet>>,
    ) -> Self {
        let differing = manifests.iter().filter_map(|(&generation, manifest)| {
            let paths = differences((manifest, images.get(&generation)), (set, Some(image)));
            (!paths.is_empty()).then_some((generation, paths.into()))
        });
        Self { differing: differing.collect() }
    }

    fn is_current(&self, generation: u64) -> bool {
        !self.differing.contains_key(&generation)
    }

    /// Those of `instances` that an upgrade would replace, in its order, and in what they differ.
    pub fn outdated<'a>(
        &self,
        instances: impl Iterator<Item = &'a InstanceRecord>,
    ) -> Vec<(u32, Arc<[String]>)> {
        let outdated = instances.filter(|it| is_replaceable(it) && !self.is_current(it.generation));
        upgrade_order(outdated.map(|it| (it.id, it.generation, it.phase)).collect())
            .into_iter()
            .filter_map(|(id, generation)| Some((id, Arc::clone(self.differing.get(&generation)?))))
            .collect()
    }
}

/// An upgrade may replace it, if it is outdated.
fn is_replaceable(record: &InstanceRecord) -> bool {
    record.phase.counts_as_capacity() && !record.protection.from_actions()
}

/// A way back to what instances were made of before an upgrade.
#[derive(Debug, Clone)]
pub struct RollBack {
    /// The manifest in force with the instance model from before.
    pub set: ScaleSet,
    /// What its instances start from.
    pub image: ImageDigests,
}

impl SetMachine {
    /// Generations that differ from the manifest in force.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.models
    }

    /// The manifests that live instances were made from, and the one in force, by generation.
    #[must_use]
    pub fn manifests(&self) -> &BTreeMap<u64, Arc<ScaleSet>> {
        &self.manifests
    }

    /// Instances that differ from the manifest in force, in the order in which an upgrade would replace them, and in what.
    #[must_use]
    pub fn outdated(&self) -> Vec<(u32, Arc<[String]>)> {
        self.models.outdated(self.living())
    }

    /// What an operator has to know of an upgrade that does not go its usual course.
    pub(super) fn upgrade_problem(&self) -> Option<String> {
        let upgrade = self.state.upgrade.as_ref()?;
        let (to, set) = (upgrade.to, &self.state.set.name);
        let why = upgrade.why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        match upgrade.status {
            UpgradeStatus::Paused => Some(format!(
                "the upgrade to generation {to} is paused{why}; `regatta upgrade resume {set}` goes on, `rollback` goes back"
            )),
            UpgradeStatus::RollbackDue | UpgradeStatus::RollingBack => {
                Some(format!("the upgrade is being rolled back{why}"))
            }
            UpgradeStatus::Failed => Some(format!(
                "the upgrade failed{why}; apply a manifest that works, or `regatta upgrade start {set}`"
            )),
            UpgradeStatus::Rolling
            | UpgradeStatus::Completed
            | UpgradeStatus::RolledBack
            | UpgradeStatus::Canceled => None,
        }
    }

    /// What a plan may rest on when it goes on with an upgrade.
    pub(super) fn upgrade_facts(&self) -> Option<UpgradeFacts> {
        let mut upgrade = self.state.upgrade.clone().filter(|_| !self.state.deleting)?;
        if mutant::is(Mutant::UpgradeIgnoresPause) && upgrade.status == UpgradeStatus::Paused {
            upgrade.status = UpgradeStatus::Rolling;
        }
        let used: BTreeSet<u64> = self.living().map(|record| record.generation).collect();
        let current = used.into_iter().filter(|generation| self.models.is_current(*generation)).collect();
        upgrade.status.replaces().then_some(UpgradeFacts { upgrade, current })
    }

    /// The upgrade of a set whose next state, with another manifest, is `next`.
    pub(super) fn upgrade_after_update(&self, next: &SetState, rolls_back: bool) -> Option<Upgrade> {
        let before = self.state.upgrade.as_ref();
        let under_way = before.filter(|it| !it.status.has_ended());
        let models = Models::of(next, &self.manifests);
        let is_outdated = |generation: u64| !models.is_current(generation);
        let outdated = u32::try_from(models.outdated(self.living()).len()).unwrap_or(u32::MAX);
        let begun = |from, status| Upgrade::new(from, next.generation, status, self.now.wall_ms, outdated);
        let ended = |upgrade: &Upgrade, why: &str| {
            let mut upgrade = Upgrade { ended_ms: Some(self.now.wall_ms), ..upgrade.clone() };
            upgrade.stop(UpgradeStatus::Canceled, why);
            upgrade
        };
        match under_way {
            Some(upgrade) if rolls_back => Some(Upgrade {
                why: upgrade.why.clone(),
                started_ms: upgrade.started_ms,
                ..begun(upgrade.from, UpgradeStatus::RollingBack)
            }),
            // What instances are made of stays: so does the upgrade to it.
            Some(upgrade) if !is_outdated(self.state.generation) => {
                Some(Upgrade { to: next.generation, ..upgrade.clone() })
            }
            Some(upgrade) if outdated == 0 || next.set.upgrade.mode == UpgradeMode::Manual => {
                Some(ended(upgrade, &format!("generation {} was applied", next.generation)))
            }
            Some(upgrade) => Some(begun(upgrade.from, UpgradeStatus::Rolling)),
            None if outdated == 0 || next.set.upgrade.mode == UpgradeMode::Manual => before.cloned(),
            None => Some(begun(self.present_model(), UpgradeStatus::Rolling)),
        }
    }

    /// The generation that instances are of, as far as they are of one: what a rollback goes back to.
    pub(super) fn present_model(&self) -> u64 {
        let serving = self.living().filter(|record| record.phase == Phase::InService);
        let mut of: BTreeMap<u64, u32> = BTreeMap::new();
        serving.for_each(|record| *of.entry(record.generation).or_default() += 1);
        let most = of.into_iter().max_by_key(|&(generation, count)| (count, generation));
        most.map_or(self.state.generation, |(generation, _)| generation)
    }

    /// While a rollback is due, each tick asks for it again.
    pub(super) fn roll_back_if_due(&self, effects: &mut Vec<Effect>) {
        let due = self.state.upgrade.as_ref().filter(|it| it.status == UpgradeStatus::RollbackDue);
        if let Some(upgrade) = due
            && !self.state.deleting
            && !mutant::is(Mutant::ForgetRollback)
        {
            effects.extend(self.way_back(upgrade).map(|back| Effect::RollBack(Box::new(back))));
        }
    }

    /// Only what instances are made of goes back; limits, health, policies and all the rest stay as they are.
    fn way_back(&self, upgrade: &Upgrade) -> Option<RollBack> {
        let before = self.manifests.get(&upgrade.from)?;
        let image = self.state.images.get(&upgrade.from).unwrap_or(&self.state.image).clone();
        let set = ScaleSet {
            image: before.image.clone(),
            instance: before.instance.clone(),
            network: before.network.clone(),
            ..self.state.set.clone()
        };
        Some(RollBack { set, image })
    }
}
