//! Metric values that cannot be mistaken for zero when there is no data.

use crate::{Aggregate, MetricValue, Reason, StaleValue, short};

impl MetricValue {
    /// The value if it is fresh and a finite number.
    ///
    /// ```
    /// use regatta_sdk::{MetricValue, StaleValue};
    /// assert_eq!(MetricValue::Fresh(0.5).fresh(), Some(0.5));
    /// assert_eq!(MetricValue::Stale(StaleValue { value: 0.5, age_ms: 90_000 }).fresh(), None);
    /// assert_eq!(MetricValue::Missing.fresh(), None);
    /// ```
    #[must_use]
    pub fn fresh(self) -> Option<f64> {
        match self {
            Self::Fresh(value) if value.is_finite() => Some(value),
            Self::Fresh(_) | Self::Stale(_) | Self::Missing => None,
        }
    }

    /// The value if it is a finite number, fresh or sampled at most `max_age_ms` ago.
    ///
    /// ```
    /// use regatta_sdk::{MetricValue, StaleValue};
    /// let value = MetricValue::Stale(StaleValue { value: 0.5, age_ms: 90_000 });
    /// assert_eq!(value.within_ms(120_000), Some(0.5));
    /// assert_eq!(value.within_ms(60_000), None);
    /// ```
    #[must_use]
    pub fn within_ms(self, max_age_ms: u64) -> Option<f64> {
        match self {
            Self::Stale(StaleValue { value, age_ms }) if age_ms <= max_age_ms && value.is_finite() => {
                Some(value)
            }
            Self::Fresh(_) | Self::Stale(_) | Self::Missing => self.fresh(),
        }
    }

    /// The value if it is fresh and a finite number, else the reason to keep the size, ready to
    /// be given: `metric-stale`, `metric-missing` or `metric-not-a-number`.
    ///
    /// # Errors
    /// That reason; `metric` is the name that it shows.
    ///
    /// ```
    /// use regatta_sdk::{MetricValue, Outcome, Tick};
    ///
    /// fn decide(tick: &Tick<'_>) -> Outcome {
    ///     match tick.mean("load").known("load") {
    ///         Ok(mean) if mean > 0.8 => Outcome::capacity(tick.desired + 1),
    ///         Ok(_) => Outcome::keep(tick),
    ///         Err(why) => Outcome::keep(tick).because(why),
    ///     }
    /// }
    /// assert_eq!(MetricValue::Missing.known("load").unwrap_err().text, "load has no value");
    /// ```
    pub fn known(self, metric: &str) -> Result<f64, Reason> {
        match self {
            Self::Fresh(value) if value.is_finite() => Ok(value),
            Self::Fresh(value) => Err(Reason::new("metric-not-a-number", format!("{metric} is {value}"))),
            Self::Stale(stale) => {
                let age_s = short(seconds(stale.age_ms));
                Err(Reason::new("metric-stale", format!("the last value of {metric} is {age_s} s old")))
            }
            Self::Missing => Err(Reason::new("metric-missing", format!("{metric} has no value"))),
        }
    }
}

impl Aggregate {
    /// Instances in service whose value is not known now: stale or missing.
    ///
    /// ```
    /// use regatta_sdk::{Aggregate, MetricValue};
    /// let none = MetricValue::Missing;
    /// let load = Aggregate {
    ///     name: "load".to_owned(), mean: none, sum: none, min: none, max: none, fresh: 0, stale: 1, missing: 2,
    /// };
    /// assert_eq!(load.unmeasured(), 3);
    /// ```
    #[must_use]
    pub fn unmeasured(&self) -> u32 {
        self.stale.saturating_add(self.missing)
    }
}

#[expect(clippy::cast_precision_loss, reason = "an age for people, rounded anyway")]
fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_finite_value_of_the_wanted_age_counts() {
        let stale = |value, age_ms| MetricValue::Stale(StaleValue { value, age_ms });
        for (value, fresh, within, code) in [
            (MetricValue::Fresh(1.0), Some(1.0), Some(1.0), None),
            (MetricValue::Fresh(f64::NAN), None, None, Some("metric-not-a-number")),
            (MetricValue::Fresh(f64::INFINITY), None, None, Some("metric-not-a-number")),
            (stale(2.0, 100), None, Some(2.0), Some("metric-stale")),
            (stale(2.0, 101), None, None, Some("metric-stale")),
            (stale(f64::NAN, 1), None, None, Some("metric-stale")),
            (MetricValue::Missing, None, None, Some("metric-missing")),
        ] {
            assert_eq!(value.fresh(), fresh, "{value:?}");
            assert_eq!(value.within_ms(100), within, "{value:?}");
            assert_eq!(value.known("load").err().map(|reason| reason.code).as_deref(), code, "{value:?}");
        }
    }
}
