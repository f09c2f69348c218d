//! The frozen input of a tick: everything that a policy may see.

use serde::{Deserialize, Serialize};

use crate::decision::Reason;
use crate::instance_state::InstanceState;
use crate::metric::{Aggregate, MetricValue};

/// Everything that a policy may see in one tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Observation {
    /// Name of the scale set.
    pub set: String,
    /// Number of the tick, from 1, never reused within a set.
    pub tick: u64,
    /// Wall clock of the tick, Unix milliseconds.
    pub now_ms: u64,
    /// Generation of the manifest; a decision of an older one is dropped.
    pub generation: u64,
    /// Least capacity.
    pub min: u32,
    /// Greatest capacity.
    pub max: u32,
    /// Capacity in force before this tick.
    pub desired: u32,
    /// All instances that are not gone.
    pub instances: InstanceTable,
    /// Metrics, sorted by name.
    pub metrics: Vec<MetricObservation>,
    /// What the last tick decided; none on the first.
    pub last: Option<LastDecision>,
    /// Schedule entries in force, by name.
    pub schedule: Vec<String>,
}

/// The instances in columns, all of one length, ordered by id.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTable {
    /// Ordinal within the set; never reused.
    pub id: Vec<u32>,
    /// State.
    pub state: Vec<InstanceState>,
    /// When it entered that state, Unix milliseconds.
    pub state_since_ms: Vec<u64>,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: Vec<u64>,
    /// Generation of the manifest that it was made from.
    pub generation: Vec<u64>,
    /// Protected from scale-in.
    pub protected: Vec<bool>,
}

/// One row of an [`InstanceTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceRow {
    /// Ordinal within the set.
    pub id: u32,
    /// State.
    pub state: InstanceState,
    /// When it entered that state, Unix milliseconds.
    pub state_since_ms: u64,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: u64,
    /// Generation of the manifest that it was made from.
    pub generation: u64,
    /// Protected from scale-in.
    pub protected: bool,
}

impl InstanceRow {
    /// Whether it came into service so short a time ago that its values do not count yet.
    #[must_use]
    pub fn warms_up(&self, now_ms: u64, warm_up_ms: u64) -> bool {
        self.state == InstanceState::InService && now_ms.saturating_sub(self.state_since_ms) < warm_up_ms
    }
}

impl InstanceTable {
    /// No rows yet, with room for that many.
    #[must_use]
    pub fn with_capacity(rows: usize) -> Self {
        Self {
            id: Vec::with_capacity(rows),
            state: Vec::with_capacity(rows),
            state_since_ms: Vec::with_capacity(rows),
            created_ms: Vec::with_capacity(rows),
            generation: Vec::with_capacity(rows),
            protected: Vec::with_capacity(rows),
        }
    }

    /// Appends a row.
    pub fn push(&mut self, row: InstanceRow) {
        self.id.push(row.id);
        self.state.push(row.state);
        self.state_since_ms.push(row.state_since_ms);
        self.created_ms.push(row.created_ms);
        self.generation.push(row.generation);
        self.protected.push(row.protected);
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.id.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// The rows, in order. Rows past the shortest column do not exist.
    pub fn rows(&self) -> impl Iterator<Item = InstanceRow> + '_ {
        let columns = self.id.iter().zip(&self.state).zip(&self.state_since_ms);
        let columns = columns.zip(&self.created_ms).zip(&self.generation).zip(&self.protected);
        columns.map(|(((((&id, &state), &state_since_ms), &created_ms), &generation), &protected)| {
            InstanceRow { id, state, state_since_ms, created_ms, generation, protected }
        })
    }

    /// How many instances are in `state`.
    #[must_use]
    pub fn count(&self, state: InstanceState) -> u32 {
        u32::try_from(self.state.iter().filter(|&&s| s == state).count()).unwrap_or(u32::MAX)
    }
}

/// One metric of a tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MetricObservation {
    /// Name, for example `utilization`.
    pub name: String,
    /// Whether it is measured per instance or once for the whole set.
    pub scope: MetricScope,
    /// Per instance: one value per row of the instance table, in its order.
    /// Per set: exactly one value.
    pub values: Vec<MetricValue>,
    /// Past values of the set (the mean over the instances in service, or the
    /// set's value), oldest first, without the one of this tick.
    pub window: Vec<WindowSample>,
}

/// What a metric is measured on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MetricScope {
    /// One value per instance.
    Instance,
    /// One value for the set.
    Set,
}

/// A past value of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct WindowSample {
    /// When it was sampled, Unix milliseconds.
    pub at_ms: u64,
    /// The value.
    pub value: f64,
}

/// What the last tick decided, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LastDecision {
    /// Number of that tick.
    pub tick: u64,
    /// Capacity that the policy wanted; none if it failed.
    pub wanted: Option<u32>,
    /// Capacity that the guards let through.
    pub granted: u32,
    /// The policy's reasons.
    pub reasons: Vec<Reason>,
    /// Names of the guards that changed the decision.
    pub narrowed_by: Vec<String>,
}

impl Observation {
    /// Folds one metric over the instances in service (or returns the set's
    /// value as an aggregate of one). Instances that are still warming, draining
    /// or broken do not distort it.
    #[must_use]
    pub fn aggregate(&self, metric: &MetricObservation) -> Aggregate {
        match metric.scope {
            MetricScope::Set => Aggregate::of(metric.values.iter().copied()),
            MetricScope::Instance => Aggregate::of(
                metric
                    .values
                    .iter()
                    .zip(&self.instances.state)
                    .filter(|&(_, &state)| state == InstanceState::InService)
                    .map(|(&value, _)| value),
            ),
        }
    }

    /// The metric of that name.
    #[must_use]
    pub fn metric(&self, name: &str) -> Option<&MetricObservation> {
        self.metrics.iter().find(|metric| metric.name == name)
    }
}
