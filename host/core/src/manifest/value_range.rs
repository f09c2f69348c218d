//! Which values of a metric count.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics::VALUE_MAX;

/// The lowest and the highest value of a metric that count; both are numbers, the first is less than the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ValueRange(f64, f64);

// It holds no NaN.
impl Eq for ValueRange {}

impl ValueRange {
    /// Every value that is a measurement: what sets had that were stored before there were ranges.
    pub const ALL: Self = Self(-VALUE_MAX, VALUE_MAX);

    /// A range, if it is one within [`ValueRange::ALL`].
    #[must_use]
    pub fn new(low: f64, high: f64) -> Option<Self> {
        (low < high && low >= -VALUE_MAX && high <= VALUE_MAX).then_some(Self(low, high))
    }

    /// Whether a value counts. NaN does not.
    #[must_use]
    pub fn contains(self, value: f64) -> bool {
        (self.0..=self.1).contains(&value)
    }

    /// Both ends.
    pub(crate) fn ends(self) -> [f64; 2] {
        [self.0, self.1]
    }
}

impl Default for ValueRange {
    fn default() -> Self {
        Self::ALL
    }
}

impl fmt::Display for ValueRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {}]", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_ends_in_order() {
        let range = ValueRange::new(-1.5, 100.0).expect("a range");
        assert!([-1.5, 0.0, 100.0].into_iter().all(|value| range.contains(value)));
        assert!([-1.6, 100.1, f64::NAN, f64::INFINITY].into_iter().all(|value| !range.contains(value)));
        assert_eq!(range.to_string(), "[-1.5, 100]");
        for (low, high) in [(1.0, 1.0), (2.0, 1.0), (f64::NAN, 1.0), (0.0, f64::INFINITY), (0.0, 1e22)] {
            assert_eq!(ValueRange::new(low, high), None, "{low} to {high}");
        }
    }
}
