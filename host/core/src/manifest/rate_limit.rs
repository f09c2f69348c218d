//! How far a set may move within a period.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::units::format_duration_ms;

/// How far a set may move within a period: a share of its size or a number of instances, whichever is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RateLimit {
    /// Percent of the size.
    pub percent: u32,
    /// Instances.
    pub count: u32,
    /// The period, milliseconds.
    pub period_ms: u64,
}

impl RateLimit {
    /// No limit: what sets had that were stored before there were limits.
    pub const NONE: Self = Self { percent: 0, count: u32::MAX, period_ms: 0 };

    /// How many instances from that size.
    #[must_use]
    pub fn step(self, size: u32) -> u32 {
        let share = u64::from(size) * u64::from(self.percent) / 100;
        u32::try_from(share).unwrap_or(u32::MAX).max(self.count)
    }
}

impl Default for RateLimit {
    fn default() -> Self {
        Self::NONE
    }
}

impl fmt::Display for RateLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { percent, count, period_ms } = *self;
        write!(f, "at most {percent}% or {count} instances per {}", format_duration_ms(period_ms))
    }
}
