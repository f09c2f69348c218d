//! Rows out of the columns of the instance table and of metrics.

use crate::{Freshness, InstanceState, InstanceTable, MetricColumn};

/// One row of an [`InstanceTable`].
///
/// ```
/// use regatta_sdk::{Instance, InstanceState};
///
/// let row = Instance {
///     id: 7, state: InstanceState::InService, state_since_ms: 4_000, created_ms: 1_000, generation: 1, protected: false,
/// };
/// assert_eq!(row.age_ms(61_000), 60_000);
/// assert!(row.is_in_service() && !row.protected);
/// ```
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

impl Instance {
    /// Whether it serves traffic.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let tick = TestTick::new().instances(InstanceState::Booting, 1);
    /// let table = tick.parts().instances;
    /// assert!(table.rows().all(|row| !row.is_in_service()));
    /// ```
    #[must_use]
    pub fn is_in_service(&self) -> bool {
        self.state == InstanceState::InService
    }

    /// Time since it was first wanted, milliseconds; 0 when `now_ms` is before that.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let table = TestTick::new().at(5_000, 1).instances(InstanceState::InService, 1).parts().instances;
    /// let row = table.rows().next().unwrap();
    /// assert_eq!((row.age_ms(8_000), row.age_ms(4_000)), (3_000, 0));
    /// ```
    #[must_use]
    pub fn age_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.created_ms)
    }
}

impl InstanceTable {
    /// The rows, in order of id. Rows past the shortest column do not exist.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let table = TestTick::new().instances(InstanceState::InService, 3).parts().instances;
    /// assert_eq!(table.rows().map(|row| row.id).collect::<Vec<_>>(), [1, 2, 3]);
    /// ```
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

    /// Number of rows.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// assert_eq!(TestTick::new().instances(InstanceState::Failed, 2).parts().instances.len(), 2);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.id.len()
    }

    /// Whether there is no row.
    ///
    /// ```
    /// # use regatta_sdk::testing::TestTick;
    /// assert!(TestTick::new().parts().instances.is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.id.is_empty()
    }

    /// The instances in `state`, in order of id.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let tick = TestTick::new().instances(InstanceState::InService, 2).instances(InstanceState::Booting, 1);
    /// let table = tick.parts().instances;
    /// assert_eq!(table.in_state(InstanceState::Booting).map(|row| row.id).collect::<Vec<_>>(), [3]);
    /// ```
    pub fn in_state(&self, state: InstanceState) -> impl Iterator<Item = Instance> + '_ {
        self.rows().filter(move |row| row.state == state)
    }

    /// The instances in service, in order of id.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let tick = TestTick::new().instances(InstanceState::Draining, 1).instances(InstanceState::InService, 2);
    /// assert_eq!(tick.parts().instances.in_service().count(), 2);
    /// ```
    pub fn in_service(&self) -> impl Iterator<Item = Instance> + '_ {
        self.in_state(InstanceState::InService)
    }

    /// The instance with that id. The table is ordered, so this is a binary search.
    ///
    /// ```
    /// # use regatta_sdk::{InstanceState, testing::TestTick};
    /// let table = TestTick::new().instances(InstanceState::InService, 2).parts().instances;
    /// assert_eq!(table.get(2).map(|row| row.id), Some(2));
    /// assert_eq!(table.get(3), None);
    /// ```
    #[must_use]
    pub fn get(&self, id: u32) -> Option<Instance> {
        let at = self.id.binary_search(&id).ok()?;
        Some(Instance {
            id,
            state: *self.state.get(at)?,
            state_since_ms: *self.state_since_ms.get(at)?,
            created_ms: *self.created_ms.get(at)?,
            generation: *self.generation.get(at)?,
            protected: *self.protected.get(at)?,
        })
    }
}

/// One instance's value of a metric. As with [`MetricValue`](crate::MetricValue), "no data" is
/// never a number; the age of a stale value is not told per instance.
///
/// ```
/// use regatta_sdk::Reading;
///
/// let busiest = [Reading::Fresh(0.4), Reading::Stale(0.9), Reading::Missing]
///     .into_iter()
///     .filter_map(Reading::fresh)
///     .fold(f64::NEG_INFINITY, f64::max);
/// assert_eq!(busiest, 0.4);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Reading {
    /// Sampled recently enough to act on.
    Fresh(f64),
    /// The last known value, too old to be trusted.
    Stale(f64),
    /// There is none.
    Missing,
}

impl Reading {
    /// The value if it is fresh and a finite number.
    ///
    /// ```
    /// use regatta_sdk::Reading;
    /// assert_eq!(Reading::Fresh(0.5).fresh(), Some(0.5));
    /// assert_eq!(Reading::Fresh(f64::NAN).fresh(), None);
    /// assert_eq!(Reading::Stale(0.5).fresh(), None);
    /// ```
    #[must_use]
    pub fn fresh(self) -> Option<f64> {
        match self {
            Self::Fresh(value) if value.is_finite() => Some(value),
            Self::Fresh(_) | Self::Stale(_) | Self::Missing => None,
        }
    }
}

impl MetricColumn {
    /// The readings, in the order of [`InstanceTable::rows`].
    ///
    /// ```
    /// use regatta_sdk::{Freshness, MetricColumn, Reading};
    /// let column = MetricColumn { value: vec![0.5, f64::NAN], status: vec![Freshness::Fresh, Freshness::Missing] };
    /// assert_eq!(column.readings().collect::<Vec<_>>(), [Reading::Fresh(0.5), Reading::Missing]);
    /// ```
    pub fn readings(&self) -> impl Iterator<Item = Reading> + '_ {
        (0..self.value.len().min(self.status.len())).map(|at| self.reading(at))
    }

    /// The reading at a place that both columns have.
    pub(crate) fn reading(&self, at: usize) -> Reading {
        match (self.value.get(at), self.status.get(at)) {
            (Some(&value), Some(Freshness::Fresh)) => Reading::Fresh(value),
            (Some(&value), Some(Freshness::Stale)) => Reading::Stale(value),
            _ => Reading::Missing,
        }
    }
}
