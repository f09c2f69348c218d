//! Metric values that cannot be mistaken for zero when there is no data.

use crate::{MetricValue, StaleValue};

impl MetricValue {
    /// The value if it is fresh and a finite number.
    #[must_use]
    pub fn fresh(self) -> Option<f64> {
        match self {
            Self::Fresh(value) if value.is_finite() => Some(value),
            Self::Fresh(_) | Self::Stale(_) | Self::Missing => None,
        }
    }

    /// The value if it is a finite number, fresh or sampled at most `max_age_ms` ago.
    #[must_use]
    pub fn within_ms(self, max_age_ms: u64) -> Option<f64> {
        match self {
            Self::Stale(StaleValue { value, age_ms }) if age_ms <= max_age_ms && value.is_finite() => {
                Some(value)
            }
            Self::Fresh(_) | Self::Stale(_) | Self::Missing => self.fresh(),
        }
    }
}
