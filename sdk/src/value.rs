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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finite_value_of_the_wanted_age_counts() {
        let stale = |value, age_ms| MetricValue::Stale(StaleValue { value, age_ms });
        for (value, fresh, within) in [
            (MetricValue::Fresh(1.0), Some(1.0), Some(1.0)),
            (MetricValue::Fresh(f64::NAN), None, None),
            (MetricValue::Fresh(f64::INFINITY), None, None),
            (stale(2.0, 100), None, Some(2.0)),
            (stale(2.0, 101), None, None),
            (stale(f64::NAN, 1), None, None),
            (MetricValue::Missing, None, None),
        ] {
            assert_eq!(value.fresh(), fresh, "{value:?}");
            assert_eq!(value.within_ms(100), within, "{value:?}");
        }
    }
}
