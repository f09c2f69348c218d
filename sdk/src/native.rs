//! A policy in the process that calls it, without a sandbox around it: what measurements of the sandbox compare with.
//!
//! Tests have [`testing`](crate::testing), which makes ticks by hand. Here the caller brings the tick, and pays for nothing
//! but the policy.

use crate::bindings::regatta::policy::types;
use crate::tick::Source;
use crate::{InstanceTable, MetricColumn, MetricWindow, Policy, Tick, TickData, run};

/// What `decide` answers, as it crosses from a guest to its host.
///
/// ```
/// use regatta_sdk::native::RawOutcome;
///
/// fn wanted(outcome: &RawOutcome) -> (u32, usize) {
///     (outcome.capacity, outcome.state.len())
/// }
/// ```
pub type RawOutcome = types::Outcome;

/// Where bulk data comes from, as the host's imports in a guest. Asked only when the policy asks.
///
/// ```
/// use regatta_sdk::native::Bulk;
/// use regatta_sdk::{InstanceTable, MetricColumn, MetricWindow};
///
/// let nobody = || InstanceTable {
///     id: Vec::new(),
///     state: Vec::new(),
///     state_since_ms: Vec::new(),
///     created_ms: Vec::new(),
///     generation: Vec::new(),
///     protected: Vec::new(),
/// };
/// let bulk = Bulk {
///     instances: &nobody,
///     metric: &|_name| MetricColumn { value: vec![0.5], status: vec![regatta_sdk::Freshness::Fresh] },
///     window: &|_name| MetricWindow { at_ms: Vec::new(), value: Vec::new() },
/// };
/// assert_eq!((bulk.metric)("utilization").value, [0.5]);
/// ```
pub struct Bulk<'a> {
    /// The instance table.
    pub instances: &'a dyn Fn() -> InstanceTable,
    /// The column of a metric by its name.
    pub metric: &'a dyn Fn(&str) -> MetricColumn,
    /// Past values of a metric by its name.
    pub window: &'a dyn Fn(&str) -> MetricWindow,
}

impl std::fmt::Debug for Bulk<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bulk").finish_non_exhaustive()
    }
}

impl Source for Bulk<'_> {
    fn instances(&self) -> InstanceTable {
        (self.instances)()
    }
    fn metric(&self, name: &str) -> MetricColumn {
        (self.metric)(name)
    }
    fn window(&self, name: &str) -> MetricWindow {
        (self.window)(name)
    }
}

/// What the export `decide` does, with `params` as JSON text and `state` as bytes.
///
/// # Errors
/// What the policy says when it has no outcome.
///
/// ```
/// use regatta_sdk::native::{self, Bulk};
/// use regatta_sdk::{Describe, InstanceTable, Outcome, Policy, Tick, TickData};
///
/// struct Two;
/// impl Policy for Two {
///     type Params = Vec<()>;
///     type State = ();
///     fn describe() -> Describe {
///         Describe::new("two", "1.0.0", "Always two.")
///     }
///     fn decide(_: &Tick<'_>, _: &Vec<()>, _: &mut ()) -> Result<Outcome, String> {
///         Ok(Outcome::capacity(2))
///     }
/// }
///
/// fn decide(tick: TickData, bulk: &Bulk<'_>) -> u32 {
///     native::decide::<Two>(tick, bulk, "[]", b"").unwrap().capacity
/// }
/// ```
pub fn decide<P: Policy>(
    tick: TickData,
    bulk: &Bulk<'_>,
    params: &str,
    state: &[u8],
) -> Result<RawOutcome, String> {
    run::decide::<P>(&Tick::new(tick, bulk), params, state)
}
