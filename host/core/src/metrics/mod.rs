//! The metrics of a set over the last while: windows of values, rates out of counters, and what policies ask for.

pub mod rate;
pub mod windows;

use serde::{Deserialize, Serialize};

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

/// A metric that a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricWish {
    /// Name, as the manifest calls it.
    pub name: String,
    /// How far back the policy looks, milliseconds; 0 for no window.
    pub window_ms: u64,
}

/// The longest window that is asked for, by metric.
pub fn longest_wishes<'a>(
    wishes: impl IntoIterator<Item = &'a MetricWish>,
) -> std::collections::BTreeMap<String, u64> {
    let mut longest = std::collections::BTreeMap::new();
    for wish in wishes {
        let known: &mut u64 = longest.entry(wish.name.clone()).or_default();
        *known = wish.window_ms.max(*known);
    }
    longest
}
