//! Several decisions become one, the way every scheduler that users know does it:
//! any may scale out, all must agree to scale in, the largest wins.

use serde::{Deserialize, Serialize};

use crate::decision::{PolicyRun, Reason};
use crate::digest::Digest;

/// How the decisions of several active policies become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CombineRule {
    /// Any may scale out, all must agree to scale in, the largest wins. A policy
    /// that failed abstains, and while one abstains nothing scales in.
    #[default]
    AnyOutAllIn,
    /// The largest capacity.
    Max,
    /// The smallest capacity.
    Min,
    /// The first policy that did not fail.
    First,
}

impl CombineRule {
    /// The name that users read and write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AnyOutAllIn => "any-out-all-in",
            Self::Max => "max",
            Self::Min => "min",
            Self::First => "first",
        }
    }
}

/// What the active policies want together.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Combined {
    /// Wanted capacity; none when every policy failed.
    pub capacity: Option<u32>,
    /// Wanted standby size.
    pub standby: Option<u32>,
    /// Preferred victims, best first, without repeats.
    pub victims: Vec<u32>,
    /// The earliest wish for the next tick.
    pub wake_after_ms: Option<u64>,
    /// Reasons of the deciding policy.
    pub reasons: Vec<Reason>,
    /// Name of the policy whose capacity won.
    pub decided_by: Option<String>,
    /// SHA-256 of its module.
    #[serde(default)]
    pub decided_by_digest: Option<Digest>,
    /// What each place among the policies counted for, in the order of the manifest.
    #[serde(default)]
    pub votes: Vec<Vote>,
}

/// What one place among the policies counted for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vote {
    /// The place.
    pub slot: String,
    /// SHA-256 of the module that spoke for it.
    pub digest: Digest,
    /// Capacity; none when it abstained.
    pub capacity: Option<u32>,
}

/// Folds the runs of the active policies, in the order of the manifest.
#[must_use]
pub fn combine(rule: CombineRule, desired: u32, runs: &[PolicyRun]) -> Combined {
    let vote = |run: &PolicyRun| Vote {
        slot: run.slot.clone(),
        digest: run.digest.clone(),
        capacity: run.result.as_ref().ok().map(|decision| decision.capacity),
    };
    let votes = runs.iter().map(vote).collect();
    let decisions: Vec<_> =
        runs.iter().filter_map(|run| run.result.as_ref().ok().map(|decision| (run, decision))).collect();
    let largest = decisions.iter().copied().rev().max_by_key(|(_, decision)| decision.capacity);
    let winner = match rule {
        CombineRule::Max | CombineRule::AnyOutAllIn => largest,
        CombineRule::Min => decisions.iter().copied().min_by_key(|(_, decision)| decision.capacity),
        CombineRule::First => decisions.first().copied(),
    };
    let Some((winning_run, winning)) = winner else {
        return Combined {
            capacity: None,
            standby: None,
            victims: Vec::new(),
            wake_after_ms: None,
            reasons: Vec::new(),
            decided_by: None,
            decided_by_digest: None,
            votes,
        };
    };
    let someone_abstains = decisions.len() < runs.len();
    let mut reasons = winning.reasons.clone();
    let mut capacity = winning.capacity;
    if rule == CombineRule::AnyOutAllIn && capacity < desired && someone_abstains {
        capacity = desired;
        reasons.insert(
            0,
            Reason {
                code: "abstention-blocks-scale-in".into(),
                text: "a policy returned no decision; scale-in blocked".into(),
                evidence: Vec::new(),
            },
        );
    }
    let mut victims = Vec::new();
    for id in decisions.iter().flat_map(|(_, decision)| &decision.victims) {
        if !victims.contains(id) {
            victims.push(*id);
        }
    }
    Combined {
        capacity: Some(capacity),
        standby: winning.standby,
        victims,
        wake_after_ms: decisions.iter().filter_map(|(_, decision)| decision.wake_after_ms).min(),
        reasons,
        decided_by: Some(winning_run.name.clone().into()),
        decided_by_digest: Some(winning_run.digest.clone()),
        votes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::{Decision, FailureKind, PolicyFailure};

    fn run(capacity: Option<u32>) -> PolicyRun {
        PolicyRun {
            slot: "load".into(),
            name: format!("wants-{capacity:?}").into(),
            version: "1".into(),
            digest: "d".into(),
            params: "{}".into(),
            state_in: String::new(),
            result: capacity
                .map(|capacity| Decision {
                    capacity,
                    standby: None,
                    victims: vec![capacity],
                    wake_after_ms: Some(u64::from(capacity) * 10),
                    reasons: Vec::new(),
                })
                .ok_or(PolicyFailure { kind: FailureKind::Trap, message: "trapped".into() }),
            fuel: 0,
            duration_us: 0,
            log: Vec::new(),
        }
    }

    fn capacity(rule: CombineRule, desired: u32, wants: &[Option<u32>]) -> Option<u32> {
        combine(rule, desired, &wants.iter().copied().map(run).collect::<Vec<_>>()).capacity
    }

    #[test]
    fn any_may_scale_out_and_the_largest_wins() {
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[Some(3), Some(6), Some(5)]), Some(6));
    }

    #[test]
    fn all_must_agree_to_scale_in() {
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[Some(1), Some(3)]), Some(3));
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[Some(1), Some(4)]), Some(4));
    }

    #[test]
    fn a_failed_policy_abstains_and_blocks_scale_in_only() {
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[Some(1), None]), Some(4));
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[Some(9), None]), Some(9));
        assert_eq!(capacity(CombineRule::AnyOutAllIn, 4, &[None, None]), None);
    }

    #[test]
    fn the_other_rules_do_what_their_names_say() {
        let wants = [Some(5), Some(2), Some(9)];
        assert_eq!(capacity(CombineRule::Max, 4, &wants), Some(9));
        assert_eq!(capacity(CombineRule::Min, 4, &wants), Some(2));
        assert_eq!(capacity(CombineRule::First, 4, &wants), Some(5));
        assert_eq!(capacity(CombineRule::First, 4, &[None, Some(2)]), Some(2));
    }

    #[test]
    fn victims_are_merged_and_the_earliest_wake_wins() {
        let combined = combine(CombineRule::Max, 4, &[run(Some(5)), run(Some(2)), run(Some(5))]);
        assert_eq!(combined.victims, [5, 2]);
        assert_eq!(combined.wake_after_ms, Some(20));
    }
}
