//! The upgrade of a set's instances to another model: what is stored of it, and when its next batch may begin.

use serde::{Deserialize, Serialize};

use crate::manifest::{UpgradeMode, UpgradePolicy};
use crate::mutant::{self, Mutant};
use regatta_util::Said;

/// An upgrade as it is stored: that of a set which runs, or its last one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upgrade {
    /// Generation that a rollback goes back to.
    pub from: u64,
    /// Generation of the manifest that instances are brought to.
    pub to: u64,
    /// How it is with it.
    pub status: UpgradeStatus,
    /// Why it is so, when that is not the usual course.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Said>,
    /// When it began, Unix milliseconds.
    pub started_ms: u64,
    /// When it ended, Unix milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_ms: Option<u64>,
    /// Outdated instances that there were to replace.
    pub total: u32,
    /// How many of them may be replaced by the end of the present batch.
    pub target: u32,
    /// Since when that batch is complete and its instances are in service, on the set's own clock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_ms: Option<u64>,
    /// New instances that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failed: Vec<u32>,
}

/// How it is with an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeStatus {
    /// Outdated instances are replaced.
    Rolling,
    /// An operator, or too many new instances that do not do well, stopped it.
    Paused,
    /// It has failed; the manifest goes back next.
    RollbackDue,
    /// Its new instances are replaced by those from before.
    RollingBack,
    /// All instances are up to date.
    Completed,
    /// All instances are what they were before.
    RolledBack,
    /// An operator or another manifest ended it.
    Canceled,
    /// Neither forth nor back.
    Failed,
}

impl UpgradeStatus {
    /// The status as users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rolling => "rolling",
            Self::Paused => "paused",
            Self::RollbackDue => "rollback-due",
            Self::RollingBack => "rolling-back",
            Self::Completed => "completed",
            Self::RolledBack => "rolled-back",
            Self::Canceled => "canceled",
            Self::Failed => "failed",
        }
    }

    /// Whether it replaces instances.
    #[must_use]
    pub fn replaces(self) -> bool {
        matches!(self, Self::Rolling | Self::RollingBack)
    }

    /// Whether it is over.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Self::Completed | Self::RolledBack | Self::Canceled | Self::Failed)
    }
}

/// What a tick sees of the instances that an upgrade is about.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Outdated instances that are left to replace.
    pub left: u32,
    /// New instances that are not in service yet, those included that are missing.
    pub awaited: u32,
    /// New instances that are unhealthy.
    pub unhealthy: u32,
    /// New instances that have failed.
    pub failed: Vec<u32>,
}

/// What an upgrade waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpgradeWait {
    /// The end of a pause or of a checkpoint, in so many milliseconds.
    Pause(u64),
}

impl Upgrade {
    /// One that begins.
    #[must_use]
    pub fn new(from: u64, to: u64, status: UpgradeStatus, started_ms: u64, total: u32) -> Self {
        Self {
            from,
            to,
            status,
            why: None,
            started_ms,
            ended_ms: None,
            total,
            target: 0,
            settled_ms: None,
            failed: Vec::new(),
        }
    }

    /// How many outdated instances are replaced.
    #[must_use]
    pub fn done(&self, left: u32) -> u32 {
        self.total.saturating_sub(left)
    }

    /// How many outdated instances may be replaced now.
    #[must_use]
    pub fn may_replace(&self, left: u32) -> u32 {
        if self.status.replaces() { self.target.saturating_sub(self.done(left)) } else { 0 }
    }

    /// Stops it for a reason.
    pub fn stop(&mut self, status: UpgradeStatus, why: impl Into<Said>) {
        (self.status, self.why) = (status, Some(why.into()));
    }

    /// Takes in what a tick sees, at `lived_ms` on the set's own clock: goes on to the next batch when its time has come, stops when too
    /// many new instances do not do well. Returns what it waits for.
    pub fn advance(&mut self, seen: &Progress, policy: &UpgradePolicy, lived_ms: u64) -> Option<UpgradeWait> {
        if !self.status.replaces() {
            return None;
        }
        for id in &seen.failed {
            if !self.failed.contains(id) {
                self.failed.push(*id);
            }
        }
        self.total = self.total.max(seen.left);
        if self.target == 0 {
            self.target = self.next_target(policy);
        }
        let bad = u32::try_from(self.failed.len()).unwrap_or(u32::MAX).saturating_add(seen.unhealthy);
        let allowed = percent_down(self.target, policy.max_unhealthy_upgraded_percent);
        if bad > allowed && !mutant::is(Mutant::UpgradeIgnoresHealth) {
            self.breach(bad, allowed, policy);
            return None;
        }
        if seen.left == 0 {
            self.target = self.total;
        }
        if seen.left > self.total - self.target || seen.awaited > 0 {
            self.settled_ms = None;
            return None;
        }
        let wait_ms = match self.status {
            UpgradeStatus::RollingBack => 0,
            _ if mutant::is(Mutant::UpgradeForgetsBake) => 0,
            _ => self.wait_ms(policy),
        };
        let settled_ms = *self.settled_ms.get_or_insert(lived_ms);
        let waited_ms = lived_ms.saturating_sub(settled_ms);
        if waited_ms < wait_ms {
            return Some(UpgradeWait::Pause(wait_ms - waited_ms));
        }
        self.settled_ms = None;
        if self.target < self.total {
            self.target = self.next_target(policy);
        } else if self.status == UpgradeStatus::RollingBack {
            self.status = UpgradeStatus::RolledBack;
        } else {
            self.status = UpgradeStatus::Completed;
        }
        None
    }

    fn breach(&mut self, bad: u32, allowed: u32, policy: &UpgradePolicy) {
        let s = if bad == 1 { "" } else { "s" };
        let why = format!(
            "{bad} new instance{s} failed or unhealthy, at most {allowed} of {} may be (upgrade.max_unhealthy_upgraded)",
            self.target
        );
        let status = match self.status {
            UpgradeStatus::RollingBack => UpgradeStatus::Failed,
            _ if policy.rollback => UpgradeStatus::RollbackDue,
            _ => UpgradeStatus::Paused,
        };
        self.stop(status, why);
    }

    /// Where the batch after the present one ends: after its share, or at a checkpoint before that.
    fn next_target(&self, policy: &UpgradePolicy) -> u32 {
        let end = self.target.saturating_add(policy.batch(self.total)).min(self.total);
        if policy.mode == UpgradeMode::AllAtOnce {
            return end;
        }
        let checkpoints = policy.checkpoints.iter().filter(|_| self.status == UpgradeStatus::Rolling);
        let checkpoints = checkpoints.map(|it| percent_up(self.total, it.percent));
        checkpoints.filter(|at| *at > self.target).min().map_or(end, |at| at.min(end))
    }

    /// How long it waits once the present batch is complete.
    fn wait_ms(&self, policy: &UpgradePolicy) -> u64 {
        if policy.mode == UpgradeMode::AllAtOnce {
            return 0;
        }
        let here = policy.checkpoints.iter().filter(|it| percent_up(self.total, it.percent) == self.target);
        let bake_ms = here.map(|it| it.bake_ms).max();
        let pause_ms = if self.target < self.total { policy.pause_ms } else { 0 };
        bake_ms.unwrap_or(0).max(pause_ms)
    }
}

impl UpgradePolicy {
    /// Instances of a batch, of so many in all.
    #[must_use]
    pub fn batch(&self, total: u32) -> u32 {
        match self.mode {
            UpgradeMode::AllAtOnce => total,
            _ => percent_down(total, self.max_batch_percent).max(1),
        }
    }

    /// Instances that there may be beyond that capacity.
    #[must_use]
    pub fn surge(&self, capacity: u32) -> u32 {
        match self.mode {
            UpgradeMode::AllAtOnce => 0,
            _ => percent_up(capacity, self.max_surge_percent).max(u32::from(self.never_moves(capacity))),
        }
    }

    /// Instances that may be missing from that capacity.
    #[must_use]
    pub fn unavailable(&self, capacity: u32) -> u32 {
        match self.mode {
            UpgradeMode::AllAtOnce => capacity,
            _ => percent_down(capacity, self.max_unavailable_percent),
        }
    }

    /// A small set whose shares round down to nothing gets one instance more, or it could never be upgraded.
    fn never_moves(&self, capacity: u32) -> bool {
        self.max_surge_percent == 0 && percent_down(capacity, self.max_unavailable_percent) == 0
    }
}

fn percent_down(of: u32, percent: u32) -> u32 {
    u32::try_from(u64::from(of) * u64::from(percent) / 100).unwrap_or(u32::MAX)
}

fn percent_up(of: u32, percent: u32) -> u32 {
    u32::try_from((u64::from(of) * u64::from(percent)).div_ceil(100)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::Checkpoint;

    fn rolling(total: u32) -> Upgrade {
        Upgrade::new(1, 2, UpgradeStatus::Rolling, 0, total)
    }

    fn policy() -> UpgradePolicy {
        UpgradePolicy { mode: UpgradeMode::Rolling, ..UpgradePolicy::default() }
    }

    /// Where each batch of an upgrade without trouble ends, and how long it waits there.
    fn batches(mut upgrade: Upgrade, policy: &UpgradePolicy) -> Vec<(u32, u64)> {
        let (mut batches, mut now_ms, mut waited_ms) = (Vec::new(), 0, 0);
        while upgrade.status.replaces() {
            let target = upgrade.target;
            let left = upgrade.total - target;
            let wait = upgrade.advance(&Progress { left, ..Progress::default() }, policy, now_ms);
            if let Some(UpgradeWait::Pause(ms)) = wait {
                (now_ms, waited_ms) = (now_ms + ms, ms);
            } else if target > 0 {
                batches.push((target, std::mem::take(&mut waited_ms)));
            }
        }
        batches
    }

    #[test]
    fn batches_end_at_their_share_and_at_checkpoints() {
        assert_eq!(batches(rolling(10), &policy()), [(2, 0), (4, 0), (6, 0), (8, 0), (10, 0)]);
        assert_eq!(batches(rolling(3), &policy()), [(1, 0), (2, 0), (3, 0)], "at least one");
        let checkpoints =
            vec![Checkpoint { percent: 5, bake_ms: 600_000 }, Checkpoint { percent: 50, bake_ms: 7_000 }];
        let canary = UpgradePolicy { checkpoints, pause_ms: 1_000, max_batch_percent: 30, ..policy() };
        assert_eq!(
            batches(rolling(20), &canary),
            [(1, 600_000), (7, 1_000), (10, 7_000), (16, 1_000), (20, 0)],
            "nothing follows the last batch"
        );
        let at_once = UpgradePolicy { mode: UpgradeMode::AllAtOnce, ..canary };
        assert_eq!(batches(rolling(20), &at_once), [(20, 0)]);
    }

    #[test]
    fn a_batch_is_complete_when_its_instances_are_in_service() {
        let mut upgrade = rolling(10);
        let seen = |left, awaited| Progress { left, awaited, ..Progress::default() };
        let policy = UpgradePolicy { pause_ms: 5_000, ..policy() };
        assert_eq!(upgrade.advance(&seen(10, 0), &policy, 0), None);
        assert_eq!((upgrade.target, upgrade.may_replace(10), upgrade.may_replace(9)), (2, 2, 1));
        assert_eq!(upgrade.advance(&seen(8, 2), &policy, 1_000), None);
        assert_eq!(upgrade.advance(&seen(8, 0), &policy, 2_000), Some(UpgradeWait::Pause(5_000)));
        assert_eq!(upgrade.advance(&seen(8, 1), &policy, 3_000), None, "one is missing again");
        assert_eq!(upgrade.advance(&seen(8, 0), &policy, 4_000), Some(UpgradeWait::Pause(5_000)));
        assert_eq!(upgrade.may_replace(8), 0);
        assert_eq!(upgrade.advance(&seen(8, 0), &policy, 9_000), None);
        assert_eq!((upgrade.target, upgrade.may_replace(8)), (4, 2));
    }

    #[test]
    fn too_many_bad_new_instances_end_it() {
        let bad = |failed: &[u32], unhealthy| Progress {
            left: 50,
            unhealthy,
            failed: failed.to_vec(),
            ..Progress::default()
        };
        let run = |policy: &UpgradePolicy, status, seen: &[Progress]| {
            let mut upgrade = Upgrade { status, ..rolling(50) };
            for seen in seen {
                upgrade.advance(seen, policy, 0);
            }
            (upgrade.status, upgrade.why.map(|why| why.to_string()))
        };
        let (status, why) = run(&policy(), UpgradeStatus::Rolling, &[bad(&[7], 1)]);
        assert_eq!((status, why), (UpgradeStatus::Rolling, None), "2 of 10 may");
        let three = [bad(&[7], 0), bad(&[8], 0), bad(&[8], 1)];
        let (status, why) = run(&policy(), UpgradeStatus::Rolling, &three);
        assert_eq!(status, UpgradeStatus::RollbackDue);
        assert_eq!(
            why.as_deref(),
            Some(
                "3 new instances failed or unhealthy, at most 2 of 10 may be (upgrade.max_unhealthy_upgraded)"
            )
        );
        let stays = UpgradePolicy { rollback: false, ..policy() };
        assert_eq!(run(&stays, UpgradeStatus::Rolling, &three).0, UpgradeStatus::Paused);
        assert_eq!(run(&policy(), UpgradeStatus::RollingBack, &three).0, UpgradeStatus::Failed);
    }

    #[test]
    fn a_set_can_always_be_upgraded() {
        let tight = UpgradePolicy { max_surge_percent: 0, max_unavailable_percent: 10, ..policy() };
        assert_eq!((tight.surge(5), tight.unavailable(5)), (1, 0));
        assert_eq!((tight.surge(10), tight.unavailable(10)), (0, 1));
        assert_eq!((policy().surge(3), policy().unavailable(3)), (1, 0));
    }

    proptest! {
        /// However instances come and go, an upgrade ends, its target only rises, and it never passes the total.
        #[test]
        fn an_upgrade_ends(
            total in 1..60_u32,
            batch in 1..=100_u32,
            pause_ms in 0..5_000_u64,
            at in proptest::collection::btree_map(1..=100_u32, 0..5_000_u64, 0..4),
        ) {
            let checkpoints = at.into_iter().map(|(percent, bake_ms)| Checkpoint { percent, bake_ms }).collect();
            let policy = UpgradePolicy { max_batch_percent: batch, pause_ms, checkpoints, ..policy() };
            let mut upgrade = rolling(total);
            let (mut left, mut now_ms) = (total, 0);
            for _ in 0..2_000 {
                let before = upgrade.target;
                upgrade.advance(&Progress { left, ..Progress::default() }, &policy, now_ms);
                prop_assert!(upgrade.target >= before && upgrade.target <= upgrade.total);
                left -= upgrade.may_replace(left).min(1);
                now_ms += 1_000;
            }
            prop_assert_eq!((left, upgrade.status), (0, UpgradeStatus::Completed));
        }
    }
}
