//! What a policy sees.

use std::cell::OnceCell;
use std::fmt;
use std::ops::Deref;

use crate::bindings::regatta::policy::types;
use crate::{Aggregate, Counts, Instance, InstanceTable, MetricColumn, MetricValue, MetricWindow, Reading};

/// The plain fields of a tick; a [`Tick`] dereferences to them.
///
/// ```
/// use regatta_sdk::{Tick, TickData};
///
/// fn at_the_limit(tick: &TickData) -> bool {
///     tick.desired >= tick.max
/// }
/// fn decide(tick: &Tick<'_>) -> bool {
///     at_the_limit(tick)
/// }
/// ```
pub use types::Tick as TickData;

/// Where bulk data comes from: the host's imports in a guest, a [`TestTick`] in a
/// native test.
///
/// [`TestTick`]: crate::testing::TestTick
pub(crate) trait Source {
    fn instances(&self) -> InstanceTable;
    fn metric(&self, name: &str) -> MetricColumn;
    fn window(&self, name: &str) -> MetricWindow;
}

/// One tick of a scale set, as its policy sees it. Its plain fields are those of
/// [`TickData`]; bulk data is fetched when a method asks for it.
///
/// ```
/// use regatta_sdk::{Outcome, Tick};
///
/// /// Two more than are busy; the quietest go first.
/// fn decide(tick: &Tick<'_>) -> Outcome {
///     let busy = tick.rows_with("load").filter(|(_, load)| load.fresh().is_some_and(|load| load > 0.5));
///     let wanted = u32::try_from(busy.count()).unwrap_or(u32::MAX).saturating_add(2);
///     Outcome::capacity(wanted).victims(tick.quietest("load", 10))
/// }
/// ```
pub struct Tick<'a> {
    data: TickData,
    source: &'a dyn Source,
    instances: OnceCell<InstanceTable>,
}

impl fmt::Debug for Tick<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.data.fmt(f)
    }
}

impl Deref for Tick<'_> {
    type Target = TickData;
    fn deref(&self) -> &TickData {
        &self.data
    }
}

impl<'a> Tick<'a> {
    pub(crate) fn new(data: TickData, source: &'a dyn Source) -> Self {
        Self { data, source, instances: OnceCell::new() }
    }

    /// Instances that are on their way into service.
    ///
    /// ```
    /// use regatta_sdk::{Outcome, Tick};
    /// fn decide(tick: &Tick<'_>) -> Outcome {
    ///     if tick.warming() > 0 { Outcome::keep(tick) } else { Outcome::capacity(tick.desired + 1) }
    /// }
    /// ```
    #[must_use]
    pub fn warming(&self) -> u32 {
        self.counts.warming()
    }

    /// A metric folded over the instances in service; none if `describe` did not
    /// ask for it.
    ///
    /// ```
    /// use regatta_sdk::{MetricValue, Tick};
    /// fn hottest(tick: &Tick<'_>) -> MetricValue {
    ///     tick.aggregate("temperature").map_or(MetricValue::Missing, |metric| metric.max)
    /// }
    /// ```
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The mean of a metric over the instances in service (or the value of a metric of the
    /// set); missing if `describe` did not ask for it.
    ///
    /// ```
    /// use regatta_sdk::Tick;
    /// fn is_busy(tick: &Tick<'_>) -> Option<bool> {
    ///     Some(tick.mean("load").fresh()? > 0.8)
    /// }
    /// ```
    #[must_use]
    pub fn mean(&self, name: &str) -> MetricValue {
        self.aggregate(name).map_or(MetricValue::Missing, |aggregate| aggregate.mean)
    }

    /// The sum of a metric over the instances in service (or the value of a metric of the
    /// set); missing if `describe` did not ask for it.
    ///
    /// ```
    /// use regatta_sdk::Tick;
    /// fn requests(tick: &Tick<'_>) -> Option<f64> {
    ///     tick.sum("requests").within_ms(30_000)
    /// }
    /// ```
    #[must_use]
    pub fn sum(&self, name: &str) -> MetricValue {
        self.aggregate(name).map_or(MetricValue::Missing, |aggregate| aggregate.sum)
    }

    /// All instances that are not gone, ordered by id. Fetched once per tick.
    ///
    /// ```
    /// use regatta_sdk::Tick;
    /// fn oldest_ms(tick: &Tick<'_>) -> Option<u64> {
    ///     tick.instances().in_service().map(|row| row.age_ms(tick.now_ms)).max()
    /// }
    /// ```
    #[must_use]
    pub fn instances(&self) -> &InstanceTable {
        self.instances.get_or_init(|| self.source.instances())
    }

    /// A metric's value for each row of [`Tick::instances`], in columns; empty for a metric of
    /// the whole set or an unknown one. Fetched with each call.
    ///
    /// ```
    /// use regatta_sdk::{Freshness, Tick};
    /// fn measured(tick: &Tick<'_>) -> usize {
    ///     tick.metric("load").status.iter().filter(|&&status| status == Freshness::Fresh).count()
    /// }
    /// ```
    #[must_use]
    pub fn metric(&self, name: &str) -> MetricColumn {
        self.source.metric(name)
    }

    /// Each instance with its value of a metric, in order of id; [`Reading::Missing`] for all of
    /// them when the metric is one of the whole set or unknown.
    ///
    /// ```
    /// use regatta_sdk::Tick;
    /// fn overloaded(tick: &Tick<'_>) -> Vec<u32> {
    ///     let hot = tick.rows_with("load").filter(|(_, load)| load.fresh().is_some_and(|load| load > 0.95));
    ///     hot.map(|(row, _)| row.id).collect()
    /// }
    /// ```
    pub fn rows_with(&self, metric: &str) -> impl Iterator<Item = (Instance, Reading)> + '_ {
        let column = self.metric(metric);
        let mut at = 0..column.value.len().min(column.status.len());
        self.instances().rows().map(move |row| {
            let reading = at.next().map_or(Reading::Missing, |at| column.reading(at));
            (row, reading)
        })
    }

    /// Ids of the `count` instances in service that a metric says are the least busy, least
    /// first: for [`Outcome::victims`](crate::Outcome::victims). Protected ones are left out;
    /// those without a fresh value come last; among equals the lower id comes first.
    ///
    /// ```
    /// use regatta_sdk::{Outcome, Tick};
    /// fn one_less(tick: &Tick<'_>) -> Outcome {
    ///     Outcome::capacity(tick.desired.saturating_sub(1)).victims(tick.quietest("load", 1))
    /// }
    /// ```
    #[must_use]
    pub fn quietest(&self, metric: &str, count: usize) -> Vec<u32> {
        let rows = self.rows_with(metric).filter(|(row, _)| row.is_in_service() && !row.protected);
        let mut rows: Vec<(f64, u32)> =
            rows.map(|(row, load)| (load.fresh().unwrap_or(f64::INFINITY), row.id)).collect();
        rows.sort_unstable_by(|one, other| one.0.total_cmp(&other.0).then(one.1.cmp(&other.1)));
        rows.truncate(count);
        rows.into_iter().map(|(_, id)| id).collect()
    }

    /// Past values of a metric (the mean over the instances in service, or the set's value),
    /// oldest first, as far back as `describe` asked, without the one of this tick. Fetched with
    /// each call.
    ///
    /// ```
    /// use regatta_sdk::Tick;
    /// fn is_rising(tick: &Tick<'_>) -> bool {
    ///     tick.window("load").trend_per_s().is_some_and(|slope| slope > 0.001)
    /// }
    /// ```
    #[must_use]
    pub fn window(&self, name: &str) -> MetricWindow {
        self.source.window(name)
    }
}

impl Counts {
    /// Instances that are on their way into service: pending, creating, booting, initializing.
    ///
    /// ```
    /// use regatta_sdk::{InstanceState, testing::TestTick};
    /// let tick = TestTick::new().instances(InstanceState::Pending, 1).instances(InstanceState::Booting, 2);
    /// assert_eq!(tick.parts().counts.warming(), 3);
    /// ```
    #[must_use]
    pub fn warming(&self) -> u32 {
        self.pending
            .saturating_add(self.creating)
            .saturating_add(self.booting)
            .saturating_add(self.initializing)
    }
}
