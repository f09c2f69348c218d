//! A measured figure beside its target.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

/// One figure, as it is printed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Figure {
    /// Its name, as `--only` takes it.
    pub(crate) name: &'static str,
    /// What is promised, for people.
    pub(crate) target: &'static str,
    /// The value that the target is about.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The value may be at most this.
    pub(crate) at_most: f64,
    /// Whether everything that the target says holds.
    pub(crate) met: bool,
    /// How it was measured, in one line.
    pub(crate) method: &'static str,
    /// What else was measured on the way.
    pub(crate) detail: Value,
}

/// A promise, before it is measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Promise {
    /// As in [`Figure`].
    pub(crate) name: &'static str,
    /// As in [`Figure`].
    pub(crate) target: &'static str,
    /// As in [`Figure`].
    pub(crate) unit: &'static str,
    /// As in [`Figure`].
    pub(crate) at_most: f64,
    /// As in [`Figure`].
    pub(crate) method: &'static str,
}

impl Promise {
    /// The figure. `also` is what else must hold.
    pub(crate) fn measured(self, value: f64, also: bool, detail: Value) -> Figure {
        let Self { name, target, unit, at_most, method } = self;
        Figure {
            name,
            target,
            value: rounded(value),
            unit,
            at_most,
            met: value <= at_most && also,
            method,
            detail,
        }
    }
}

/// Four significant digits: no measurement here is more exact.
pub(crate) fn rounded(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    let scale = 10f64.powi(3 - value.abs().log10().floor() as i32);
    (value * scale).round() / scale
}

/// Microseconds.
pub(crate) fn us(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e6)
}

/// Milliseconds.
pub(crate) fn ms(duration: Duration) -> f64 {
    rounded(duration.as_secs_f64() * 1e3)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROMISE: Promise = Promise { name: "n", target: "t", unit: "µs", at_most: 150.0, method: "m" };

    #[test]
    fn a_target_is_met_up_to_its_value() {
        let met = |value, also| PROMISE.measured(value, also, Value::Null).met;
        assert!(met(150.0, true));
        assert!(!met(150.01, true));
        assert!(!met(1.0, false), "something else does not hold");
        assert!(!met(f64::NAN, true), "nothing was measured");
    }

    #[test]
    fn rounding_keeps_four_digits() {
        assert_eq!(rounded(123_456.0), 123_500.0);
        assert_eq!(rounded(0.001_234_56), 0.001_235);
        assert_eq!(rounded(0.0), 0.0);
    }
}
