//! Rows out of columns.

use crate::{Freshness, InstanceState, InstanceTable, MetricColumn};

/// One row of an [`InstanceTable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    /// Ordinal within the set; never reused.
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

impl InstanceTable {
    /// The rows, in order of id.
    pub fn rows(&self) -> impl Iterator<Item = Instance> + '_ {
        let columns = self.id.iter().zip(&self.state).zip(&self.state_since_ms);
        let columns = columns.zip(&self.created_ms).zip(&self.generation).zip(&self.protected);
        columns.map(|(((((&id, &state), &state_since_ms), &created_ms), &generation), &protected)| Instance {
            id,
            state,
            state_since_ms,
            created_ms,
            generation,
            protected,
        })
    }
}

/// One instance's value of a metric.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// Sampled recently enough to act on.
    Fresh(f64),
    /// The last known value, too old to be trusted.
    Stale(f64),
    /// There is none.
    Missing,
}

impl MetricColumn {
    /// The readings, in the order of [`InstanceTable::rows`].
    pub fn readings(&self) -> impl Iterator<Item = Reading> + '_ {
        self.value.iter().zip(&self.status).map(|(&value, status)| match status {
            Freshness::Fresh => Reading::Fresh(value),
            Freshness::Stale => Reading::Stale(value),
            Freshness::Missing => Reading::Missing,
        })
    }
}
