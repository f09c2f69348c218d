//! Metric sources, windows in memory, and exposition.
//!
//! Everything that measures gives numbers with the time at which they were
//! taken; [`SetWindows`] keeps them for a while and freezes them into what a
//! policy sees. Nothing in this crate does I/O or reads a clock.
//!
//! * [`text`] reads the guests' Prometheus text,
//! * [`rate`] makes rates and shares out of counters,
//! * [`windows`] knows what is fresh, stale and missing,
//! * [`exposition`] shows the daemon's own metrics.

pub mod exposition;
mod lb_totals;
pub mod rate;
pub mod text;
pub mod windows;

pub use exposition::Exposition;
pub use lb_totals::LbTotals;
pub use rate::{CounterRate, CpuShare, WrappingRate};
pub use windows::{MetricSpec, SetWindows};

/// Built-in metric: share of its virtual CPUs that an instance uses, 0 to 1, per instance.
pub const CPU: &str = "cpu";
/// Built-in metric: resident memory of an instance's VMM process, bytes, per instance.
pub const MEMORY: &str = "memory";
/// Built-in metric: load-balancer connections open on an instance, per instance.
pub const CONNECTIONS: &str = "connections";
/// Built-in metric: connections that the load balancer accepts per second, per set.
pub const CONNECTION_RATE: &str = "connection_rate";
