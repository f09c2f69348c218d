//! What an upgrade may do, and that it ends.

use std::collections::BTreeMap;

use regatta_core::instance_model::differences;
use regatta_core::machine::Effect;
use regatta_core::manifest::UpgradePolicy;
use regatta_core::phase::Phase;
use regatta_core::plan::{Action, RemovalCause};
use regatta_core::record::TickRecord;
use regatta_core::state::{InstanceRecord, SetState};
use regatta_core::upgrade::{Upgrade, UpgradeStatus};

use super::Checks;
use crate::store::{Store, StoredSet};

impl Checks {
    pub(super) fn upgrade(
        &mut self,
        store: &Store,
        before: &StoredSet,
        next: &SetState,
        after: &BTreeMap<u32, InstanceRecord>,
        record: &TickRecord,
    ) {
        let (set, tick) = (&before.state.set, record.observation.tick);
        let name = &set.name;
        let running = before.state.upgrade.as_ref().filter(|it| it.status.replaces());
        let mut drains = false;
        for action in &record.plan.actions {
            let (Action::Drain { id, cause } | Action::Terminate { id, cause }) = action else { continue };
            if *cause != RemovalCause::Upgrade {
                continue;
            }
            drains |= matches!(action, Action::Drain { .. });
            self.hold(running.is_some(), "upgrade", || {
                let status = before.state.upgrade.as_ref().map(|it| it.status.as_str());
                format!("tick {tick} upgrades {name}-{id}, the upgrade is {status:?}")
            });
            let Some(was) = before.instances.get(id) else { continue };
            self.hold(!was.protection.from_actions(), "upgrade", || {
                format!("{name}-{id} is protected and is upgraded")
            });
            let of =
                before.state.manifests.get(&was.generation).and_then(|digest| store.manifests.get(digest));
            let image = |generation: &u64| before.state.images.get(generation);
            let differs = of.is_none_or(|of| {
                let new = (set, Some(&before.state.image));
                !differences((of, image(&was.generation)), new).is_empty()
            });
            self.hold(differs, "upgrade", || format!("{name}-{id} is upgraded and was up to date"));
        }
        let granted = record.guards.granted;
        let serving = after.values().filter(|it| it.phase == Phase::InService).count();
        let floor = granted.saturating_sub(set.upgrade.unavailable(granted)) as usize;
        self.hold(!drains || serving >= floor, "floor", || {
            format!("tick {tick} of set {name} upgrades and leaves {serving} in service, {floor} shall be")
        });
        let (Some(was), Some(is)) = (running, &next.upgrade) else { return };
        self.hold(is.target >= was.target || is.to != was.to, "upgrade", || {
            format!("tick {tick} of set {name}: the upgrade goes back from {} to {}", was.target, is.target)
        });
        self.health(&set.upgrade, record, was, is);
        self.bake(before, record, was, is);
    }

    /// A rollback that is due is asked for at every tick.
    pub(crate) fn on_effects(&mut self, state: &SetState, effects: &[Effect]) {
        let due = state.upgrade.as_ref().is_some_and(|it| it.status == UpgradeStatus::RollbackDue);
        let ticked = effects.iter().any(|effect| matches!(effect, Effect::Ticked(_)));
        let asked = effects.iter().any(|effect| matches!(effect, Effect::RollBack(_)));
        self.hold(!(ticked && due && !state.deleting) || asked, "upgrade", || {
            format!("the rollback of set {} is due, and nobody is asked for it", state.set.name)
        });
    }

    /// An upgrade whose new instances fail does not go on.
    fn health(&mut self, policy: &UpgradePolicy, record: &TickRecord, was: &Upgrade, is: &Upgrade) {
        let Some(facts) = &record.facts.upgrade else { return };
        let now: Vec<u32> = record.changes.iter().filter(|it| it.is_failure()).map(|it| it.id).collect();
        let failed = record.observation.instances.rows().zip(&record.facts.phase).filter(|(row, phase)| {
            **phase == Phase::Failed
                && now.contains(&row.id)
                && facts.current.contains(&row.generation)
                && !was.failed.contains(&row.id)
        });
        let failed = failed.count() + was.failed.len();
        let allowed = is.target as usize * policy.max_unhealthy_upgraded_percent as usize / 100;
        self.hold(failed <= allowed || !is.status.replaces(), "upgrade", || {
            format!(
                "tick {} of set {}: {failed} of {} new instances failed, and the upgrade goes on",
                record.observation.tick, record.observation.set, is.target
            )
        });
    }

    /// From the end of one batch to the next passes as long as the manifest says.
    fn bake(&mut self, before: &StoredSet, record: &TickRecord, was: &Upgrade, is: &Upgrade) {
        let (set, now_ms) = (&record.observation.set, record.facts.lived_ms);
        let policy = &before.state.set.upgrade;
        let moved = is.target > was.target || is.status != was.status || is.to != was.to;
        let since_ms = match moved {
            true => self.batch_since_ms.insert(set.clone(), now_ms),
            false => self.batch_since_ms.get(set).copied(),
        };
        let at = |percent: u32| (u64::from(was.total) * u64::from(percent)).div_ceil(100);
        let here = policy.checkpoints.iter().filter(|it| at(it.percent) == u64::from(was.target));
        let bake_ms = here.map(|it| it.bake_ms).max().unwrap_or(0);
        let goes_on = is.target > was.target && was.target > 0 && was.status == UpgradeStatus::Rolling;
        // All are gone for other reasons: nothing is left to wait for.
        let nothing_left = is.target == is.total;
        let baked = since_ms.is_none_or(|since_ms| now_ms.saturating_sub(since_ms) >= bake_ms);
        self.hold(!goes_on || baked || nothing_left, "bake", || {
            format!(
                "tick {} of set {set} goes on after {:?} ms of {bake_ms}",
                record.observation.tick,
                since_ms.map(|at| now_ms - at)
            )
        });
    }
}
