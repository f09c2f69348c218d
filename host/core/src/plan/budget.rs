//! What one plan may spend: how much it may disrupt, and how much it may create.

use serde::{Deserialize, Serialize};

use super::PlanInput;
use crate::phase::Phase;
use crate::requested::Requested;

/// Creates per tick at most, so that one decision cannot flood the hosts.
pub const CREATES_PER_TICK_MAX: usize = 1_000;

/// What one plan may spend. All numbers count instances; `u32::MAX` means no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// Max unavailable: how many may be out of service at once because they are being replaced.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub unavailable: u32,
    /// Max surge: how many there may be beyond the granted capacity.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub surge: u32,
    /// How many may be on their way into service at once.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub in_flight: u32,
    /// How many may be created in this tick.
    #[serde(skip_serializing_if = "is_unlimited")]
    pub creates: u32,
}

impl Budget {
    /// No limit at all.
    pub const UNLIMITED: Self =
        Self { unavailable: u32::MAX, surge: u32::MAX, in_flight: u32::MAX, creates: u32::MAX };
    /// Nothing is replaced and nothing is created; removals for other reasons go on.
    pub const NONE: Self = Self { unavailable: 0, surge: 0, in_flight: 0, creates: 0 };

    /// What both allow.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Self {
            unavailable: self.unavailable.min(other.unavailable),
            surge: self.surge.min(other.surge),
            in_flight: self.in_flight.min(other.in_flight),
            creates: self.creates.min(other.creates),
        }
    }

    /// The budget of this tick: what the set's settings and its guards allow, less what is still under way. A repair
    /// that is not finished (its replacement is warming) uses up its share.
    pub(super) fn of(input: &PlanInput<'_>) -> Self {
        let warming = count(input.instances.iter().filter(|i| i.phase.is_warming()).count());
        let restarts = |i: &&super::PlannedInstance<'_>| {
            i.phase == Phase::Unhealthy && i.requested == Some(Requested::Restarting)
        };
        let restarting = count(input.instances.iter().filter(restarts).count());
        let share = Self::repairs_at_once(input);
        Self {
            unavailable: share.saturating_sub(warming + restarting),
            surge: input.budget.surge,
            in_flight: input.budget.in_flight.saturating_sub(warming),
            creates: input.budget.creates.min(count(CREATES_PER_TICK_MAX)),
        }
    }

    /// How many may be out of service for repairs at once.
    pub(super) fn repairs_at_once(input: &PlanInput<'_>) -> u32 {
        let share = u64::from(input.capacity) * u64::from(input.repair.max_percent) / 100;
        u32::try_from(share.max(1)).unwrap_or(u32::MAX).min(input.budget.unavailable)
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::UNLIMITED
    }
}

impl std::fmt::Display for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let limits = [
            ("unavailable", self.unavailable),
            ("surge", self.surge),
            ("in flight", self.in_flight),
            ("creates per tick", self.creates),
        ];
        let limits = limits.iter().filter(|(_, limit)| !is_unlimited(limit));
        let limits: Vec<String> = limits.map(|(name, limit)| format!("{name} {limit}")).collect();
        match limits.is_empty() {
            true => f.write_str("no limits"),
            false => write!(f, "at most {}", limits.join(", ")),
        }
    }
}

fn is_unlimited(limit: &u32) -> bool {
    *limit == u32::MAX
}

/// A number of instances. There are never as many as a `u32` can count.
pub(super) fn count(instances: usize) -> u32 {
    u32::try_from(instances).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{fleet, input};

    #[test]
    fn what_is_warming_uses_up_the_budget() {
        let instances = fleet(&[Phase::Booting, Phase::InService]);
        let mut input = input(&instances, 40);
        assert_eq!(
            Budget::of(&input),
            Budget { unavailable: 1, surge: u32::MAX, in_flight: u32::MAX - 1, creates: 1_000 }
        );
        input.budget = Budget { in_flight: 3, ..Budget::NONE };
        assert_eq!(Budget::of(&input), Budget { in_flight: 2, ..Budget::NONE });
    }

    #[test]
    fn limits_read_back_and_what_is_not_limited_is_not_written() {
        let budget = Budget { creates: 5, unavailable: 0, ..Budget::UNLIMITED };
        assert_eq!(budget.to_string(), "at most unavailable 0, creates per tick 5");
        let json = serde_json::to_string(&budget).expect("writes");
        assert_eq!(json, r#"{"unavailable":0,"creates":5}"#);
        assert_eq!(serde_json::from_str::<Budget>(&json).expect("reads"), budget);
    }
}
