//! Native tests of policies: ticks made by hand, and a policy that runs over
//! them as it would in the host, parameters and state as text and all.

use std::cell::RefCell;

use crate::bindings::regatta::policy::types::{Manifest, Outcome as WitOutcome};
use crate::log::Level;
use crate::tick::Source;
use crate::{
    Aggregate, Counts, Freshness, Instance, InstanceState, InstanceTable, LastDecision, MetricColumn,
    MetricRequest, MetricValue, MetricWindow, Outcome, Policy, Problem, StaleValue, Tick, TickData, run,
};

thread_local! {
    static LOG: RefCell<Vec<(Level, String)>> = const { RefCell::new(Vec::new()) };
}

pub(crate) fn capture(level: Level, message: &str) {
    LOG.with_borrow_mut(|log| log.push((level, message.to_owned())));
}

/// Takes what the policies of this thread have logged so far.
#[must_use]
pub fn take_log() -> Vec<(Level, String)> {
    LOG.take()
}

/// A tick made by hand. Unless told otherwise: set `test`, tick 1 at 1,000,000
/// ms, generation 1, bounds 1 to 1,000, desired as many as are in service.
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
    #[must_use]
    pub fn at(mut self, now_ms: u64, number: u64) -> Self {
        (self.data.now_ms, self.data.number) = (now_ms, number);
        self
    }

    /// Sets the name of the scale set and the generation of its manifest.
    #[must_use]
    pub fn set(mut self, name: &str, generation: u64) -> Self {
        (self.data.set, self.data.generation) = (name.to_owned(), generation);
        self
    }

    /// Sets the least and the greatest capacity.
    #[must_use]
    pub fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.data.min, self.data.max) = (min, max);
        self
    }

    /// Sets the capacity in force.
    #[must_use]
    pub fn desired(mut self, desired: u32) -> Self {
        self.desired = Some(desired);
        self
    }

    /// Adds `count` instances in `state`; ids go up from 1.
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
    #[must_use]
    pub fn metric(self, name: &str, values: &[f64]) -> Self {
        self.push(name, Values::InService(values.to_vec()))
    }

    /// Adds a metric with one value per instance, in order.
    #[must_use]
    pub fn metric_rows(self, name: &str, values: &[MetricValue]) -> Self {
        self.push(name, Values::Rows(values.to_vec()))
    }

    /// Adds a metric of the whole set.
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
    /// metric added last.
    #[must_use]
    pub fn window(mut self, samples: &[(u64, f64)]) -> Self {
        if let Some(metric) = self.metrics.last_mut() {
            (metric.window.at_ms, metric.window.value) = samples.iter().copied().unzip();
        }
        self
    }

    /// Sets what the last tick decided.
    #[must_use]
    pub fn last(mut self, last: LastDecision) -> Self {
        self.data.last = Some(last);
        self
    }

    /// Sets the schedule entries in force.
    #[must_use]
    pub fn schedule(mut self, names: &[&str]) -> Self {
        self.data.schedule = names.iter().map(|&name| name.to_owned()).collect();
        self
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

    fn aggregate(&self, name: &str) -> Aggregate {
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

    /// The tick as a policy that asked for `metrics` sees it.
    fn data(&self, metrics: &[MetricRequest], params: &serde_json::Value) -> TickData {
        let mut data = self.data.clone();
        data.desired = self.desired.unwrap_or(data.counts.in_service);
        data.metrics = resolve(metrics, params).iter().map(|name| self.aggregate(name)).collect();
        data
    }
}

/// The names that `metrics` stand for, with JSON pointers looked up in `params`.
fn resolve(metrics: &[MetricRequest], params: &serde_json::Value) -> Vec<String> {
    let mut names = Vec::new();
    for request in metrics {
        if !request.name.starts_with('/') {
            names.push(request.name.clone());
            continue;
        }
        match params.pointer(&request.name) {
            Some(serde_json::Value::String(name)) => names.push(name.clone()),
            Some(serde_json::Value::Array(list)) => {
                names.extend(list.iter().filter_map(|name| name.as_str()).map(str::to_owned));
            }
            _ => {}
        }
    }
    names
}

fn count_of(counts: &mut Counts, state: InstanceState) -> &mut u32 {
    match state {
        InstanceState::Pending => &mut counts.pending,
        InstanceState::Creating => &mut counts.creating,
        InstanceState::Booting => &mut counts.booting,
        InstanceState::Initializing => &mut counts.initializing,
        InstanceState::InService => &mut counts.in_service,
        InstanceState::Standby => &mut counts.standby,
        InstanceState::Unhealthy => &mut counts.unhealthy,
        InstanceState::Draining => &mut counts.draining,
        InstanceState::Terminating => &mut counts.terminating,
        InstanceState::Failed => &mut counts.failed,
    }
}

/// What the host does: fresh values, or the stale ones when none is fresh.
fn fold(name: &str, values: impl Iterator<Item = MetricValue>) -> Aggregate {
    let (mut fresh, mut stale, mut missing, mut oldest_ms) = (Vec::new(), Vec::new(), 0, 0);
    for value in values {
        match value {
            MetricValue::Fresh(value) => fresh.push(value),
            MetricValue::Stale(StaleValue { value, age_ms }) => {
                stale.push(value);
                oldest_ms = u64::max(oldest_ms, age_ms);
            }
            MetricValue::Missing => missing += 1,
        }
    }
    let count = |values: &[f64]| u32::try_from(values.len()).unwrap_or(u32::MAX);
    let used = if fresh.is_empty() { &stale } else { &fresh };
    let wrap = |value: f64| match (fresh.is_empty(), stale.is_empty()) {
        (false, _) => MetricValue::Fresh(value),
        (true, false) => MetricValue::Stale(StaleValue { value, age_ms: oldest_ms }),
        (true, true) => MetricValue::Missing,
    };
    let mut sum = 0.0;
    for value in used {
        sum += value;
    }
    Aggregate {
        name: name.to_owned(),
        mean: wrap(sum / f64::from(count(used).max(1))),
        sum: wrap(sum),
        min: wrap(used.iter().copied().fold(f64::INFINITY, f64::min)),
        max: wrap(used.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        fresh: count(&fresh),
        stale: count(&stale),
        missing,
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

/// A policy with its parameters and its state, as a scale set has it.
#[derive(Debug)]
pub struct TestPolicy<P> {
    params: String,
    state: Vec<u8>,
    policy: std::marker::PhantomData<P>,
}

impl<P: Policy> TestPolicy<P> {
    /// Starts a policy with these parameters, given as JSON text.
    ///
    /// # Errors
    /// All problems of the parameters.
    pub fn new(params: &str) -> Result<Self, Vec<Problem>> {
        run::validate::<P>(params)?;
        Ok(Self { params: params.to_owned(), state: Vec::new(), policy: std::marker::PhantomData })
    }

    /// Runs one tick and keeps the state that comes out.
    ///
    /// # Errors
    /// What the policy says when it has no outcome.
    pub fn tick(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        let outcome = decide::<P>(tick, &self.params, &self.state)?;
        self.state = outcome.state;
        Ok(Outcome {
            capacity: outcome.capacity,
            standby: outcome.standby,
            victims: outcome.victims,
            wake_after_ms: outcome.wake_after_ms,
            reasons: outcome.reasons,
        })
    }

    /// The state that the next tick gets.
    #[must_use]
    pub fn state(&self) -> &[u8] {
        &self.state
    }
}

/// What the export `describe` answers.
#[must_use]
pub fn describe<P: Policy>() -> Manifest {
    run::describe::<P>()
}

/// What the export `validate` answers.
///
/// # Errors
/// All problems of the parameters.
pub fn validate<P: Policy>(params: &str) -> Result<(), Vec<Problem>> {
    run::validate::<P>(params)
}

/// What the export `decide` answers.
///
/// # Errors
/// What the policy says when it has no outcome.
pub fn decide<P: Policy>(tick: &TestTick, params: &str, state: &[u8]) -> Result<WitOutcome, String> {
    let value = serde_json::from_str(params).unwrap_or(serde_json::Value::Null);
    let data = tick.data(&P::describe().metrics, &value);
    run::decide::<P>(&Tick::new(data, tick), params, state)
}
