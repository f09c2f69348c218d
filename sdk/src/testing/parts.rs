//! What a tick made by hand holds.

use crate::{Counts, InstanceTable, LastDecision, MetricValue, MetricWindow};

/// What a [`TestTick`](super::TestTick) holds: see [`TestTick::parts`](super::TestTick::parts).
///
/// ```
/// use regatta_sdk::testing::{TestTick, TickParts};
/// let parts: TickParts = TestTick::new().set("web", 2).parts();
/// assert_eq!(parts.set, "web");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TickParts {
    /// Wall clock of the tick, Unix milliseconds.
    pub now_ms: u64,
    /// Number of the tick.
    pub number: u64,
    /// Name of the scale set.
    pub set: String,
    /// Generation of the manifest.
    pub generation: u64,
    /// Least capacity.
    pub min: u32,
    /// Greatest capacity.
    pub max: u32,
    /// Capacity in force.
    pub desired: u32,
    /// Instances by state.
    pub counts: Counts,
    /// The instances.
    pub instances: InstanceTable,
    /// All metrics that the set has, whether a policy asked for them or not.
    pub metrics: Vec<TestMetric>,
    /// What the last tick decided.
    pub last: Option<LastDecision>,
    /// Schedule entries in force.
    pub schedule: Vec<String>,
}

/// A metric of a [`TestTick`](super::TestTick).
///
/// ```
/// use regatta_sdk::{MetricValue, testing::{Scope, TestTick}};
/// let metric = &TestTick::new().set_metric("queue", MetricValue::Fresh(3.0)).parts().metrics[0];
/// assert_eq!((metric.name.as_str(), metric.scope), ("queue", Scope::Set));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TestMetric {
    /// Its name.
    pub name: String,
    /// What it is measured on.
    pub scope: Scope,
    /// One value per row of the instance table, or exactly one for the set.
    pub values: Vec<MetricValue>,
    /// Past values, oldest first.
    pub window: MetricWindow,
}

/// What a metric is measured on.
///
/// ```
/// use regatta_sdk::testing::Scope;
/// assert_ne!(Scope::Instance, Scope::Set);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One value per instance.
    Instance,
    /// One value for the set.
    Set,
}
