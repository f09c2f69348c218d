//! The contract's records, under short names, with an example each. Their fields are described
//! in `sdk/wit`.

/// A metric folded over the instances in service.
///
/// ```
/// use regatta_sdk::{MetricValue, Tick};
/// fn spread(tick: &Tick<'_>) -> Option<f64> {
///     let load = tick.aggregate("load")?;
///     Some(load.max.fresh()? - load.min.fresh()?)
/// }
/// ```
pub use crate::bindings::regatta::policy::types::Aggregate;

/// Instances by state.
///
/// ```
/// use regatta_sdk::Tick;
/// fn is_whole(tick: &Tick<'_>) -> bool {
///     tick.counts.in_service == tick.desired && tick.counts.unhealthy == 0
/// }
/// ```
pub use crate::bindings::regatta::policy::types::Counts;

/// The state of an instance.
///
/// ```
/// use regatta_sdk::{InstanceState, Tick};
/// fn failed(tick: &Tick<'_>) -> Vec<u32> {
///     tick.instances().in_state(InstanceState::Failed).map(|row| row.id).collect()
/// }
/// ```
pub use crate::bindings::regatta::policy::types::InstanceState;

/// What the last tick decided, and what the guards made of it.
///
/// ```
/// use regatta_sdk::Tick;
/// fn was_cut(tick: &Tick<'_>) -> bool {
///     tick.last.as_ref().is_some_and(|last| last.wanted.is_some_and(|wanted| wanted > last.granted))
/// }
/// ```
pub use crate::bindings::regatta::policy::types::LastDecision;

/// A metric that a policy asks for; made by [`Describe::metric`](crate::Describe::metric).
///
/// ```
/// use regatta_sdk::MetricRequest;
/// let request = MetricRequest { name: "utilization".to_owned(), window_ms: 60_000 };
/// # drop(request);
/// ```
pub use crate::bindings::regatta::policy::types::MetricRequest;

/// A measured value. "No data" can never read as zero: it has to be asked for, and then it says
/// what it is.
///
/// ```
/// use regatta_sdk::MetricValue;
/// fn told(value: MetricValue) -> String {
///     match value {
///         MetricValue::Fresh(value) => format!("{value}"),
///         MetricValue::Stale(stale) => format!("{} of {} ms ago", stale.value, stale.age_ms),
///         MetricValue::Missing => "not known".to_owned(),
///     }
/// }
/// assert_eq!(told(MetricValue::Missing), "not known");
/// ```
pub use crate::bindings::regatta::policy::types::MetricValue;

/// A problem of the parameters: where (JSON pointer) and what.
///
/// ```
/// use regatta_sdk::Problem;
/// let problem = Problem { path: "/target".to_owned(), message: "must be above 0".to_owned() };
/// # drop(problem);
/// ```
pub use crate::bindings::regatta::policy::types::Problem;

/// Why a policy decided as it did: a stable code, a sentence, and what it rests on.
///
/// ```
/// use regatta_sdk::Reason;
/// let reason = Reason::new("above-target", "load is 0.9, above its target 0.5").number("mean", 0.9).with("warming", 2);
/// assert_eq!(reason.evidence.len(), 2);
/// ```
pub use crate::bindings::regatta::policy::types::Reason;

/// The last known value of a metric, and its age.
///
/// ```
/// use regatta_sdk::{MetricValue, StaleValue};
/// let value = MetricValue::Stale(StaleValue { value: 0.5, age_ms: 90_000 });
/// assert_eq!(value.fresh(), None);
/// ```
pub use crate::bindings::regatta::policy::types::StaleValue;

/// Whether a value in a [`MetricColumn`] is fresh.
///
/// ```
/// use regatta_sdk::{Freshness, MetricColumn};
/// fn all_fresh(column: &MetricColumn) -> bool {
///     column.status.iter().all(|&status| status == Freshness::Fresh)
/// }
/// ```
pub use crate::bindings::regatta::policy::observe::Freshness;

/// All instances that are not gone, in columns of one length, ordered by id.
///
/// ```
/// use regatta_sdk::Tick;
/// fn generations_behind(tick: &Tick<'_>) -> usize {
///     tick.instances().generation.iter().filter(|&&generation| generation < tick.generation).count()
/// }
/// ```
pub use crate::bindings::regatta::policy::observe::InstanceTable;

/// A metric in columns, one value per row of the [`InstanceTable`]. Where `status` is not
/// `fresh`, `value` is not a value to act on: [`MetricColumn::readings`] keeps the two together.
///
/// ```
/// use regatta_sdk::{Reading, Tick};
/// fn busiest(tick: &Tick<'_>) -> Option<f64> {
///     tick.metric("load").readings().filter_map(Reading::fresh).reduce(f64::max)
/// }
/// ```
pub use crate::bindings::regatta::policy::observe::MetricColumn;

/// Past values of a metric, oldest first: the newest 60 ticks one by one, older ones the coarser the older they are (at most
/// one tick and a sixtieth of their age apart, as long as there was data), each the mean of the ticks that it stands for.
///
/// ```
/// use regatta_sdk::Tick;
/// /// What the load will be in five minutes if it goes on like this.
/// fn forecast(tick: &Tick<'_>) -> Option<f64> {
///     let window = tick.window("load").since_ms(tick.now_ms.saturating_sub(600_000));
///     Some(tick.mean("load").fresh()? + window.trend_per_s()? * 300.0)
/// }
/// ```
pub use crate::bindings::regatta::policy::observe::MetricWindow;
