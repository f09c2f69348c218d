//! The metrics of a set over the last while: windows of values, rates out of counters, and what policies ask for.

pub mod downsample;
mod no_value;
pub mod rate;
pub mod windows;
mod wishes;

pub use no_value::{MetricGap, NoValue, NoValueKind, Reading, VALUE_MAX};
pub use rate::{CounterRate, CpuShare, WrappingRate};
pub use windows::{MetricSpec, SetWindows};
pub use wishes::{MAX_WISHES, MetricWish, WishProblem, check_wishes, longest_wishes};

/// Built-in metric: share of its virtual CPUs that an instance uses, 0 to 1, per instance.
pub const CPU: &str = "cpu";
/// Built-in metric: resident memory of an instance's VMM process, bytes, per instance.
pub const MEMORY: &str = "memory";
/// Built-in metric: load-balancer connections open on an instance, per instance.
pub const CONNECTIONS: &str = "connections";
/// Built-in metric: connections that the load balancer accepts per second, per set.
pub const CONNECTION_RATE: &str = "connection_rate";
