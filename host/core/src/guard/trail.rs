//! What the guards made of a decision, as it stands in the record.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::GuardMemory;
use crate::decision::Reason;
use crate::plan::Budget;

/// What the guards made of a decision.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardTrail {
    /// Every change, in order; empty when the decision passed untouched.
    pub steps: Vec<GuardStep>,
    /// The capacity that the plan works towards.
    pub granted: u32,
    /// What the guards remember after this tick.
    #[serde(default)]
    pub memory: GuardMemory,
    /// What the guards let the plan spend at most; empty when they left its budget alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub limits: Vec<BudgetLimit>,
}

/// One change of the capacity on its way from policy to plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStep {
    /// Who changed it.
    pub guard: GuardName,
    /// Capacity before; none when the policies gave none.
    pub before: Option<u32>,
    /// Capacity after.
    pub after: u32,
    /// Why.
    pub reason: Reason,
}

/// A limit that a guard sets for the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BudgetLimit {
    /// Who set it.
    pub guard: GuardName,
    /// What the plan may spend at most.
    pub budget: Budget,
    /// Why.
    pub reason: Reason,
}

impl GuardTrail {
    /// What all guards together let the plan spend at most.
    #[must_use]
    pub fn budget(&self) -> Budget {
        self.limits.iter().fold(Budget::UNLIMITED, |budget, limit| budget.min(limit.budget))
    }

    /// Adds a step that led from `before` to `after`.
    pub(crate) fn step(&mut self, guard: GuardName, before: Option<u32>, after: u32, reason: Reason) {
        self.steps.push(GuardStep { guard, before, after, reason });
        self.granted = after;
    }

    /// Adds a step to `after`, if that is a change.
    pub(super) fn change(&mut self, guard: GuardName, after: u32, reason: Reason) {
        if after != self.granted {
            self.step(guard, Some(self.granted), after, reason);
        }
    }
}

/// Who may change a capacity on its way from policy to plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardName {
    /// `on_failure`: no policy returned a decision.
    OnFailure,
    /// A schedule entry with a capacity begins.
    Schedule,
    /// The size is held.
    Hold,
    /// The set is frozen.
    Freeze,
    /// `missing_data`: a wanted metric has no fresh value.
    MissingData,
    /// `warm_up`: the daemon was away a short while ago.
    AfterAbsence,
    /// `scale_in_stabilization`: more was wanted a short while ago.
    ScaleInStabilization,
    /// `tolerance`: the change is a small one.
    Tolerance,
    /// `flapping`: a metric would call for a scale-out at once.
    Flapping,
    /// `scale_out_cooldown` or `scale_in_cooldown`: the size has just changed.
    Cooldown,
    /// `max_cost`: more would cost too much.
    MaxCost,
    /// `scale_out_limit` or `scale_in_limit`: too much within its period.
    RateLimit,
    /// Clients wait, and the set would have no instance.
    ScaleFromZero,
    /// The set's `min` and `max`.
    Limits,
    /// The set is being deleted.
    Delete,
}

impl GuardName {
    /// Whether it also holds back the capacity of a schedule entry that begins.
    pub(super) fn narrows_schedules(self) -> bool {
        matches!(self, Self::Hold | Self::Freeze)
    }

    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::Schedule => "schedule",
            Self::Hold => "hold",
            Self::Freeze => "freeze",
            Self::MissingData => "missing-data",
            Self::AfterAbsence => "after-absence",
            Self::ScaleInStabilization => "scale-in-stabilization",
            Self::Tolerance => "tolerance",
            Self::Flapping => "flapping",
            Self::Cooldown => "cooldown",
            Self::MaxCost => "max-cost",
            Self::RateLimit => "rate-limit",
            Self::ScaleFromZero => "scale-from-zero",
            Self::Limits => "limits",
            Self::Delete => "delete",
        }
    }
}

impl fmt::Display for GuardName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trail_of_version_1_is_read() {
        let json = r#"{"steps":[{"guard":"limits","before":9,"after":5,"reason":{"code":"capped-at-max","text":"","evidence":[]}}],"granted":5}"#;
        let trail: GuardTrail = serde_json::from_str(json).expect("reads");
        assert_eq!((trail.granted, trail.steps[0].guard), (5, GuardName::Limits));
        assert_eq!((trail.budget(), trail.memory), (Budget::UNLIMITED, GuardMemory::default()));
    }

    #[test]
    fn the_tightest_limit_of_each_kind_counts() {
        let reason = Reason { code: "x".into(), text: "x".into(), evidence: Vec::new() };
        let limit = |budget| BudgetLimit { guard: GuardName::Limits, budget, reason: reason.clone() };
        let limits = vec![
            limit(Budget { creates: 5, unavailable: 3, ..Budget::UNLIMITED }),
            limit(Budget { creates: 7, unavailable: 0, ..Budget::UNLIMITED }),
        ];
        let trail = GuardTrail { limits, ..GuardTrail::default() };
        assert_eq!(trail.budget(), Budget { creates: 5, unavailable: 0, ..Budget::UNLIMITED });
    }
}
