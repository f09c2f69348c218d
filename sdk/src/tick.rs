//! What a policy sees.

use std::ops::Deref;

pub use crate::bindings::regatta::policy::types::Tick as TickData;
use crate::{Aggregate, Counts, InstanceTable, MetricColumn, MetricValue, MetricWindow};

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
pub struct Tick<'a> {
    data: TickData,
    source: &'a dyn Source,
}

impl Deref for Tick<'_> {
    type Target = TickData;
    fn deref(&self) -> &TickData {
        &self.data
    }
}

impl<'a> Tick<'a> {
    pub(crate) fn new(data: TickData, source: &'a dyn Source) -> Self {
        Self { data, source }
    }

    /// Instances that are on their way into service.
    #[must_use]
    pub fn warming(&self) -> u32 {
        self.counts.warming()
    }

    /// A metric folded over the instances in service; none if `describe` did not
    /// ask for it.
    #[must_use]
    pub fn aggregate(&self, name: &str) -> Option<&Aggregate> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    /// The mean of a metric over the instances in service; missing if `describe`
    /// did not ask for it.
    #[must_use]
    pub fn mean(&self, name: &str) -> MetricValue {
        self.aggregate(name).map_or(MetricValue::Missing, |aggregate| aggregate.mean)
    }

    /// All instances that are not gone, ordered by id.
    #[must_use]
    pub fn instances(&self) -> InstanceTable {
        self.source.instances()
    }

    /// A metric's value for each row of [`Tick::instances`]; empty for a metric of
    /// the whole set or an unknown one.
    #[must_use]
    pub fn metric(&self, name: &str) -> MetricColumn {
        self.source.metric(name)
    }

    /// Past values of a metric, oldest first, as far back as `describe` asked.
    #[must_use]
    pub fn window(&self, name: &str) -> MetricWindow {
        self.source.window(name)
    }
}

impl Counts {
    /// Instances that are on their way into service.
    #[must_use]
    pub fn warming(&self) -> u32 {
        self.pending
            .saturating_add(self.creating)
            .saturating_add(self.booting)
            .saturating_add(self.initializing)
    }
}
