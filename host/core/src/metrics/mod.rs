//! The metrics of a set over the last while: windows of values, rates out of counters, and what policies ask for.

pub mod downsample;
mod no_value;
pub mod rate;
pub mod windows;
mod wishes;

pub use no_value::{MetricGap, NoValue, NoValueKind, Reading, VALUE_MAX};
pub use rate::{CounterRate, CpuShare, WrappingRate};
pub use windows::{MetricSpec, SetWindows};
pub use wishes::{
    MAX_WISHES, MetricWish, UnknownMetric, WishProblem, cannot_start_from_zero, check_wishes, longest_wishes,
    unknown_metrics,
};

use crate::manifest::ScaleSet;

/// Built-in metric: share of its virtual CPUs that an instance uses, 0 to 1, per instance.
pub const CPU: &str = "cpu";
/// Built-in metric: resident memory of an instance's VMM process, bytes, per instance.
pub const MEMORY: &str = "memory";
/// Built-in metric: load-balancer connections open on an instance, per instance.
pub const CONNECTIONS: &str = "connections";
/// Built-in metric: connections that the load balancer accepts per second, per set.
pub const CONNECTION_RATE: &str = "connection_rate";
/// Built-in metric: connections that wait for an instance, and those that waited in vain since the last tick, per set.
pub const CONNECTIONS_WAITING: &str = "connections_waiting";

/// The metrics that a set has: the built-in ones and those of its manifest.
#[must_use]
pub fn specs_of(set: &ScaleSet) -> Vec<MetricSpec> {
    let mut specs =
        vec![MetricSpec::per_instance(CPU, set.tick_ms), MetricSpec::per_instance(MEMORY, set.tick_ms)];
    if set.load_balancer.is_some() {
        specs.push(MetricSpec::per_instance(CONNECTIONS, set.tick_ms));
        specs.push(MetricSpec::per_set(CONNECTION_RATE, set.tick_ms));
        specs.push(MetricSpec::per_set(CONNECTIONS_WAITING, set.tick_ms));
    }
    specs.extend(set.metrics.iter().map(|metric| MetricSpec::per_instance(&metric.name, set.tick_ms)));
    specs
}
