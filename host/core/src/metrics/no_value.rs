//! Why an instance has no value of a metric.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::manifest::ValueRange;
use regatta_util::Said;

/// A value further from zero is not a measurement: it is ignored, and said so. Sums over any fleet stay finite.
pub const VALUE_MAX: f64 = 1e21;

/// What a scrape read of one metric.
pub type Reading = Result<f64, Arc<NoValue>>;

/// Why an instance has no value of a metric.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoValue {
    /// In short, for counters.
    pub kind: NoValueKind,
    /// For people.
    pub text: Said,
}

impl NoValue {
    /// Shown, and outside of what the manifest lets count.
    pub(crate) fn outside(value: f64, range: ValueRange) -> Self {
        // Short for any number.
        let value = if value.abs() < 1e6 { value.to_string() } else { format!("{value:e}") };
        let text = format!("the value is {value}, outside of metrics[].range {range}: ignored");
        Self { kind: NoValueKind::OutOfRange, text: text.into() }
    }
}

impl fmt::Display for NoValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

/// Kinds of reasons why there is no value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NoValueKind {
    /// The guest did not answer.
    NoAnswer,
    /// It answered with an error.
    Status,
    /// What it answered cannot be read.
    Unreadable,
    /// The page does not show the series.
    NoSeries,
    /// The value is not a number, or beyond [`VALUE_MAX`] or the range that the manifest gives.
    OutOfRange,
}

impl NoValueKind {
    /// The name in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoAnswer => "no-answer",
            Self::Status => "status",
            Self::Unreadable => "unreadable",
            Self::NoSeries => "no-series",
            Self::OutOfRange => "out-of-range",
        }
    }
}

/// A metric that instances in service have no fresh value of, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricGap {
    /// Name of the metric.
    pub metric: String,
    /// How many instances in service have no fresh value.
    pub instances: u32,
    /// Of how many.
    pub in_service: u32,
    /// One of them.
    pub example: u32,
    /// Why that one has none.
    pub why: Said,
}

impl MetricGap {
    /// For people, with the name of the set.
    #[must_use]
    pub fn told(&self, set: &str) -> String {
        let Self { metric, instances, in_service, example, why } = self;
        format!(
            "metric {metric}: no fresh value from {instances} of {in_service} instances ({set}-{example}: {why})"
        )
    }
}
