//! A tick made by hand.

use super::fold::{count_of, fold};
use super::parts::{Scope, TestMetric, TickParts};
use crate::tick::Source;
use crate::{
    Aggregate, Counts, Freshness, Instance, InstanceState, InstanceTable, LastDecision, MetricColumn,
    MetricValue, MetricWindow, TickData,
};

/// A tick made by hand. Unless told otherwise: set `test`, tick 1 at 1,000,000
/// ms, generation 1, bounds 1 to 1,000, desired as many as are in service.
///
/// ```
/// use regatta_sdk::InstanceState;
/// use regatta_sdk::testing::TestTick;
///
/// let tick = TestTick::new()
///     .at(60_000, 12)
///     .bounds(2, 20)
///     .instances(InstanceState::InService, 3)
///     .instances(InstanceState::Booting, 1)
///     .desired(4)
///     .metric("load", &[0.9, 0.8, 0.7])
///     .window(&[(50_000, 0.6), (55_000, 0.7)]);
/// assert_eq!(tick.parts().counts.in_service, 3);
/// ```
#[derive(Debug, Clone)]
pub struct TestTick {
    data: TickData,
    desired: Option<u32>,
    table: InstanceTable,
    metrics: Vec<Metric>,
}

#[derive(Debug, Clone)]
struct Metric {
    name: String,
    values: Values,
    window: MetricWindow,
}

#[derive(Debug, Clone)]
enum Values {
    /// Of the instances in service, in order; the others have none.
    InService(Vec<f64>),
    /// One per row.
    Rows(Vec<MetricValue>),
    /// One for the set.
    Set(MetricValue),
}

impl Default for TestTick {
    fn default() -> Self {
        Self::new()
    }
}

impl TestTick {
    /// A tick of an empty set.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// let tick = TestTick::new();
    /// assert_eq!((tick.parts().min, tick.parts().max), (1, 1_000));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        let counts = Counts {
            pending: 0,
            creating: 0,
            booting: 0,
            initializing: 0,
            in_service: 0,
            standby: 0,
            unhealthy: 0,
            draining: 0,
            terminating: 0,
            failed: 0,
        };
        Self {
            data: TickData {
                now_ms: 1_000_000,
                number: 1,
                set: "test".to_owned(),
                generation: 1,
                min: 1,
                max: 1_000,
                desired: 0,
                counts,
                last: None,
                schedule: Vec::new(),
                metrics: Vec::new(),
            },
            desired: None,
            table: InstanceTable {
                id: Vec::new(),
                state: Vec::new(),
                state_since_ms: Vec::new(),
                created_ms: Vec::new(),
                generation: Vec::new(),
                protected: Vec::new(),
            },
            metrics: Vec::new(),
        }
    }

    /// Sets the clock, Unix milliseconds, and the number of the tick.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// let tick = TestTick::new().at(60_000, 12);
    /// assert_eq!((tick.parts().now_ms, tick.parts().number), (60_000, 12));
    /// ```
    #[must_use]
    pub fn at(mut self, now_ms: u64, number: u64) -> Self {
        (self.data.now_ms, self.data.number) = (now_ms, number);
        self
    }

    /// Sets the name of the scale set and the generation of its manifest.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// assert_eq!(TestTick::new().set("web", 3).parts().generation, 3);
    /// ```
    #[must_use]
    pub fn set(mut self, name: &str, generation: u64) -> Self {
        (self.data.set, self.data.generation) = (name.to_owned(), generation);
        self
    }

    /// Sets the least and the greatest capacity.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// assert_eq!(TestTick::new().bounds(2, 20).parts().max, 20);
    /// ```
    #[must_use]
    pub fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.data.min, self.data.max) = (min, max);
        self
    }

    /// Sets the current capacity.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// assert_eq!(TestTick::new().desired(4).parts().desired, 4);
    /// ```
    #[must_use]
    pub fn desired(mut self, desired: u32) -> Self {
        self.desired = Some(desired);
        self
    }

    /// Adds `count` instances in `state`; ids go up from 1.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::InstanceState;
    /// let tick = TestTick::new().instances(InstanceState::InService, 3);
    /// assert_eq!(tick.parts().instances.id, [1, 2, 3]);
    /// ```
    #[must_use]
    pub fn instances(mut self, state: InstanceState, count: u32) -> Self {
        for _ in 0..count {
            let now_ms = self.data.now_ms;
            let id = self.table.id.last().map_or(1, |last| last + 1);
            let generation = self.data.generation;
            let row = Instance {
                id,
                state,
                state_since_ms: now_ms,
                created_ms: now_ms,
                generation,
                protected: false,
            };
            self = self.instance(row);
        }
        self
    }

    /// Adds one instance. Ids must go up.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::{Instance, InstanceState};
    /// let row = Instance {
    ///     id: 7, state: InstanceState::InService, state_since_ms: 9, created_ms: 5, generation: 1, protected: true,
    /// };
    /// assert_eq!(TestTick::new().instance(row).parts().instances.get(7), Some(row));
    /// ```
    #[must_use]
    pub fn instance(mut self, row: Instance) -> Self {
        self.table.id.push(row.id);
        self.table.state.push(row.state);
        self.table.state_since_ms.push(row.state_since_ms);
        self.table.created_ms.push(row.created_ms);
        self.table.generation.push(row.generation);
        self.table.protected.push(row.protected);
        *count_of(&mut self.data.counts, row.state) += 1;
        self
    }

    /// Adds a metric with fresh values of the instances in service, in order;
    /// those past the last value have none.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::{InstanceState, MetricValue};
    /// let tick = TestTick::new().instances(InstanceState::InService, 2).metric("load", &[0.5]);
    /// assert_eq!(tick.parts().metrics[0].values, [MetricValue::Fresh(0.5), MetricValue::Missing]);
    /// ```
    #[must_use]
    pub fn metric(self, name: &str, values: &[f64]) -> Self {
        self.push(name, Values::InService(values.to_vec()))
    }

    /// Adds a metric with one value per instance, in order.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::{InstanceState, MetricValue};
    /// let values = [MetricValue::Fresh(0.5), MetricValue::Missing];
    /// let tick = TestTick::new().instances(InstanceState::InService, 2).metric_rows("load", &values);
    /// assert_eq!(tick.parts().metrics[0].values, values);
    /// ```
    #[must_use]
    pub fn metric_rows(self, name: &str, values: &[MetricValue]) -> Self {
        self.push(name, Values::Rows(values.to_vec()))
    }

    /// Adds a metric of the whole set.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::{MetricValue, testing::Scope};
    /// let tick = TestTick::new().set_metric("queue", MetricValue::Fresh(12.0));
    /// assert_eq!(tick.parts().metrics[0].scope, Scope::Set);
    /// ```
    #[must_use]
    pub fn set_metric(self, name: &str, value: MetricValue) -> Self {
        self.push(name, Values::Set(value))
    }

    fn push(mut self, name: &str, values: Values) -> Self {
        let window = MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        self.metrics.push(Metric { name: name.to_owned(), values, window });
        self
    }

    /// Sets the past values (Unix milliseconds and value, oldest first) of the
    /// metric added last. A policy sees those that it asked for: see
    /// [`Describe::metric_window`](crate::Describe::metric_window).
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::MetricValue;
    /// let tick = TestTick::new().set_metric("queue", MetricValue::Fresh(12.0)).window(&[(1_000, 10.0), (2_000, 11.0)]);
    /// assert_eq!(tick.parts().metrics[0].window.value, [10.0, 11.0]);
    /// ```
    #[must_use]
    pub fn window(mut self, samples: &[(u64, f64)]) -> Self {
        if let Some(metric) = self.metrics.last_mut() {
            (metric.window.at_ms, metric.window.value) = samples.iter().copied().unzip();
        }
        self
    }

    /// Sets what the last tick decided.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// # use regatta_sdk::LastDecision;
    /// let last = LastDecision { tick: 11, wanted: Some(9), granted: 5, reasons: Vec::new(), narrowed_by: vec!["limits".to_owned()] };
    /// assert_eq!(TestTick::new().last(last).parts().last.unwrap().granted, 5);
    /// ```
    #[must_use]
    pub fn last(mut self, last: LastDecision) -> Self {
        self.data.last = Some(last);
        self
    }

    /// Sets the schedule entries in force.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// assert_eq!(TestTick::new().schedule(&["night"]).parts().schedule, ["night"]);
    /// ```
    #[must_use]
    pub fn schedule(mut self, names: &[&str]) -> Self {
        self.data.schedule = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    /// Everything that is in the tick, for those who turn it into something else: the values of
    /// metrics are one per row (or one for the set), whatever way they were given.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let parts = TestTick::new().instances(InstanceState::InService, 2).metric("load", &[0.5, 0.6]).parts();
    /// assert_eq!((parts.desired, parts.metrics[0].values.len()), (2, 2));
    /// ```
    #[must_use]
    pub fn parts(&self) -> TickParts {
        let data = self.data.clone();
        let metrics = self.metrics.iter().map(|metric| {
            let (scope, values) = match (&metric.values, self.rows(&metric.values)) {
                (Values::Set(value), _) => (Scope::Set, vec![*value]),
                (_, rows) => (Scope::Instance, rows.unwrap_or_default()),
            };
            TestMetric { name: metric.name.clone(), scope, values, window: metric.window.clone() }
        });
        TickParts {
            now_ms: data.now_ms,
            number: data.number,
            set: data.set,
            generation: data.generation,
            min: data.min,
            max: data.max,
            desired: self.desired.unwrap_or(data.counts.in_service),
            counts: data.counts,
            instances: self.table.clone(),
            metrics: metrics.collect(),
            last: data.last,
            schedule: data.schedule,
        }
    }

    fn find(&self, name: &str) -> Option<&Metric> {
        self.metrics.iter().find(|metric| metric.name == name)
    }

    fn rows(&self, values: &Values) -> Option<Vec<MetricValue>> {
        match values {
            Values::Set(_) => None,
            Values::Rows(rows) => Some(rows.clone()),
            Values::InService(values) => {
                let mut values = values.iter();
                let value = |&state: &InstanceState| match state {
                    InstanceState::InService => {
                        values.next().map_or(MetricValue::Missing, |&value| MetricValue::Fresh(value))
                    }
                    _ => MetricValue::Missing,
                };
                Some(self.table.state.iter().map(value).collect())
            }
        }
    }

    pub(super) fn aggregate(&self, name: &str) -> Aggregate {
        let Some(metric) = self.find(name) else {
            return Aggregate { missing: self.data.counts.in_service, ..fold(name, std::iter::empty()) };
        };
        match (self.rows(&metric.values), &metric.values) {
            (None, Values::Set(value)) => fold(name, std::iter::once(*value)),
            (rows, _) => {
                let rows = rows.unwrap_or_default();
                let in_service = rows.iter().zip(&self.table.state);
                let in_service = in_service.filter(|&(_, &state)| state == InstanceState::InService);
                fold(name, in_service.map(|(&value, _)| value))
            }
        }
    }

    /// The tick without its metrics.
    pub(super) fn data(&self) -> TickData {
        TickData { desired: self.desired.unwrap_or(self.data.counts.in_service), ..self.data.clone() }
    }
}

impl Source for TestTick {
    fn instances(&self) -> InstanceTable {
        self.table.clone()
    }

    fn metric(&self, name: &str) -> MetricColumn {
        let rows = self.find(name).and_then(|metric| self.rows(&metric.values)).unwrap_or_default();
        let (value, status) = rows
            .into_iter()
            .map(|value| match value {
                MetricValue::Fresh(value) => (value, Freshness::Fresh),
                MetricValue::Stale(stale) => (stale.value, Freshness::Stale),
                MetricValue::Missing => (f64::NAN, Freshness::Missing),
            })
            .unzip();
        MetricColumn { value, status }
    }

    fn window(&self, name: &str) -> MetricWindow {
        let none = || MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        self.find(name).map_or_else(none, |metric| metric.window.clone())
    }
}
