//! Metric values that can never be mistaken for zero when there is no data.

use serde::{Deserialize, Serialize};

/// A metric as it was known when the observation was frozen.
///
/// As JSON: a number when fresh, `null` when missing, `[value, age_ms]` when stale.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MetricValue {
    /// Sampled recently enough to act on.
    Fresh(f64),
    /// The last known value, too old to be trusted.
    Stale {
        /// The last known value.
        value: f64,
        /// How long ago it was sampled.
        age_ms: u64,
    },
    /// Never sampled, or so long ago that it was dropped.
    Missing,
}

impl MetricValue {
    /// The value if it is fresh.
    #[must_use]
    pub fn fresh(self) -> Option<f64> {
        match self {
            Self::Fresh(value) => Some(value),
            Self::Stale { .. } | Self::Missing => None,
        }
    }
}

impl Serialize for MetricValue {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match *self {
            Self::Fresh(value) => serializer.serialize_f64(value),
            Self::Stale { value, age_ms } => (value, age_ms).serialize(serializer),
            Self::Missing => serializer.serialize_none(),
        }
    }
}

impl<'de> Deserialize<'de> for MetricValue {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = MetricValue;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a number, null, or [value, age in ms]")
            }
            fn visit_f64<E>(self, value: f64) -> Result<MetricValue, E> {
                Ok(MetricValue::Fresh(value))
            }
            #[expect(clippy::cast_precision_loss, reason = "a JSON integer stands for a float here")]
            fn visit_u64<E>(self, value: u64) -> Result<MetricValue, E> {
                Ok(MetricValue::Fresh(value as f64))
            }
            #[expect(clippy::cast_precision_loss, reason = "a JSON integer stands for a float here")]
            fn visit_i64<E>(self, value: i64) -> Result<MetricValue, E> {
                Ok(MetricValue::Fresh(value as f64))
            }
            fn visit_unit<E>(self) -> Result<MetricValue, E> {
                Ok(MetricValue::Missing)
            }
            fn visit_none<E>(self) -> Result<MetricValue, E> {
                Ok(MetricValue::Missing)
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut seq: A) -> Result<MetricValue, A::Error> {
                let missing = |what| serde::de::Error::custom(format_args!("a stale value lacks its {what}"));
                let value = seq.next_element()?.ok_or_else(|| missing("value"))?;
                let age_ms = seq.next_element()?.ok_or_else(|| missing("age"))?;
                Ok(MetricValue::Stale { value, age_ms })
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

/// One metric folded over the instances in service.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Aggregate {
    /// Mean of the fresh values; of the stale ones when none is fresh.
    pub mean: MetricValue,
    /// Their sum.
    pub sum: MetricValue,
    /// Their least.
    pub min: MetricValue,
    /// Their greatest.
    pub max: MetricValue,
    /// In-service instances with a fresh value.
    pub fresh: u32,
    /// In-service instances whose value is stale.
    pub stale: u32,
    /// In-service instances without a value.
    pub missing: u32,
}

impl Aggregate {
    /// Folds `values`. Fresh values win; stale ones stand in only when no value
    /// is fresh (their age is then the greatest among them).
    #[must_use]
    pub fn of(values: impl IntoIterator<Item = MetricValue>) -> Self {
        let mut fresh = Fold::default();
        let mut stale = Fold::default();
        let mut oldest_ms = 0;
        let mut missing = 0;
        for value in values {
            match value {
                MetricValue::Fresh(value) => fresh.add(value),
                MetricValue::Stale { value, age_ms } => {
                    stale.add(value);
                    oldest_ms = oldest_ms.max(age_ms);
                }
                MetricValue::Missing => missing += 1,
            }
        }
        let fold = if fresh.count > 0 { &fresh } else { &stale };
        let of = |value: f64| match (fresh.count, stale.count) {
            (0, 0) => MetricValue::Missing,
            (0, _) => MetricValue::Stale { value, age_ms: oldest_ms },
            _ => MetricValue::Fresh(value),
        };
        Self {
            mean: of(fold.sum / f64::from(fold.count.max(1))),
            sum: of(fold.sum),
            min: of(fold.min),
            max: of(fold.max),
            fresh: fresh.count,
            stale: stale.count,
            missing,
        }
    }
}

struct Fold {
    sum: f64,
    min: f64,
    max: f64,
    count: u32,
}

impl Default for Fold {
    fn default() -> Self {
        Self { sum: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY, count: 0 }
    }
}

impl Fold {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.min = self.min.min(value);
        self.max = self.max.max(value);
        self.count += 1;
    }
}

/// Rounds a measured value to four significant digits.
///
/// Sensors are not more exact than that, and short numbers keep the record of a
/// tick small. It is done before the policy sees the value, so the recorded
/// observation is exactly what the policy saw.
#[must_use]
pub fn quantize(value: f64) -> f64 {
    if value == 0.0 || !value.is_finite() {
        return value;
    }
    // The closest float to a short decimal, so that it prints as one.
    four_digits(value.abs())
        .map_or_else(|| format!("{value:.3e}").parse().unwrap_or(value), |rounded| rounded.copysign(value))
}

/// As through decimal text, for what can be computed exactly: one rounding of a product or quotient of exact floats is
/// what a parser of decimals does. A thousand instances are rounded in every tick, and text takes 20 times as long.
fn four_digits(value: f64) -> Option<f64> {
    /// The powers of ten that are exact.
    const POWERS: [f64; 23] = [
        1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17,
        1e18, 1e19, 1e20, 1e21, 1e22,
    ];
    /// Further from a tie than the error of scaling.
    const CLEAR: f64 = 1e-9;
    let binary = i32::try_from(value.to_bits() >> 52).ok()? - 1_023;
    // The decimal exponent, or one less: 1233 / 4096 is just below log10(2).
    let decimal = (binary * 1_233) >> 12;
    [3 - decimal, 2 - decimal].into_iter().find_map(|shift| {
        let power = *POWERS.get(usize::try_from(shift.abs()).ok()?)?;
        let scaled = if shift >= 0 { value * power } else { value / power };
        if !(1_000.0..10_000.0).contains(&scaled) {
            return None;
        }
        let digits = f64::from((scaled + 0.5) as u32);
        let off = (scaled - digits).abs();
        (off < 0.5 - CLEAR).then_some(if shift >= 0 { digits / power } else { digits * power })
    })
}
