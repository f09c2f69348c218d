//! The parameters.

use regatta_sdk::Problems;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Parameters of `target-tracking`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Name of the metric. It must fall when instances are added (utilization,
    /// requests per instance); latency and queue length do not. A metric of the
    /// whole set is divided by the number of instances.
    pub metric: String,
    /// Value to keep per instance, above 0.
    pub target: f64,
    /// Deviation from the target that is left alone, as a share of it, 0 to below 1.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
    /// Greatest growth in one decision, as a factor above 1; none for no limit.
    /// One more instance is always allowed.
    #[serde(default)]
    pub max_scale_out_factor: Option<f64>,
    /// Whether it may scale in.
    #[serde(default = "default_scale_in")]
    pub scale_in: bool,
    /// Whether it may remove the last instance of a set with `min: 0` when there is no load. Only for a set with a load
    /// balancer: its waiting clients start the first instance again.
    #[serde(default)]
    pub scale_to_zero: bool,
}

fn default_tolerance() -> f64 {
    0.1
}

fn default_scale_in() -> bool {
    true
}

impl Params {
    pub(crate) fn check(&self, problems: &mut Problems) {
        problems.require(!self.metric.trim().is_empty(), "/metric", "must name a metric");
        problems.require(self.target.is_finite() && self.target > 0.0, "/target", "must be a number above 0");
        problems.require(
            (0.0..1.0).contains(&self.tolerance),
            "/tolerance",
            "must be at least 0 and below 1, for example 0.1 for 10 %",
        );
        let factor = self.max_scale_out_factor;
        problems.require(
            factor.is_none_or(|factor| factor.is_finite() && factor > 1.0),
            "/max_scale_out_factor",
            "must be above 1, for example 2 for twice the size at most",
        );
    }
}
