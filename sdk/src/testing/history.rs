//! What came of a scenario.

use crate::{MetricValue, Reason};

/// One tick of a [`Run`].
///
/// ```
/// use regatta_sdk::testing::Row;
/// fn told(row: &Row) -> String {
///     format!("tick {}: {} in service under a load of {}", row.tick, row.in_service, row.load)
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Number of the tick, from 1.
    pub tick: u64,
    /// The load on the set.
    pub load: f64,
    /// Instances that the load needs when all of them are full, at least the set's minimum.
    pub needed: f64,
    /// Instances in service.
    pub in_service: u32,
    /// Instances on their way.
    pub warming: u32,
    /// Capacity in force before the decision.
    pub desired: u32,
    /// What the first metric read; of one per instance, the mean.
    pub value: MetricValue,
    /// Capacity that the policy wanted; none if it gave no outcome.
    pub wanted: Option<u32>,
    /// Capacity in force after it: what it wanted, clamped to the bounds.
    pub granted: u32,
    /// Why.
    pub reasons: Vec<Reason>,
    /// What it said when it gave no outcome.
    pub error: Option<String>,
}

impl Row {
    /// Whether the load was more than the instances in service could carry.
    ///
    /// ```
    /// use regatta_sdk::testing::{Row, Run};
    /// fn first_overload(run: &Run) -> Option<u64> {
    ///     run.rows().iter().find(|row| row.is_overloaded()).map(|row| row.tick)
    /// }
    /// ```
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.needed > f64::from(self.in_service)
    }
}

/// What came of a [`Scenario`](super::Scenario): tick by tick, in figures, and, printed with `{}`,
/// as a chart with what the policy said.
///
/// ```
/// # use regatta_sdk::Outcome;
/// # use regatta_sdk::testing::{Scenario, Subject, TestTick};
/// # struct Fixed(u32);
/// # impl Subject for Fixed {
/// #     fn reset(&mut self) {}
/// #     fn decide(&mut self, _: &TestTick) -> Result<Outcome, String> { Ok(Outcome::capacity(self.0)) }
/// # }
/// let run = Scenario::new().load([(10, 1.0), (10, 3.0)]).run(&mut Fixed(2));
/// assert_eq!((run.first_size(), run.last_size(), run.changes()), (1, 2, 1));
/// assert_eq!(run.under_provisioned_ticks(), 10);
/// println!("{run}");
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    pub(super) rows: Vec<Row>,
    pub(super) tick_ms: u64,
    pub(super) start: u32,
}

impl Run {
    /// The ticks, in order.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn sizes(run: &Run) -> Vec<u32> {
    ///     run.rows().iter().map(|row| row.granted).collect()
    /// }
    /// ```
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// Capacity in force before the first decision.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn grew(run: &Run) -> bool {
    ///     run.last_size() > run.first_size()
    /// }
    /// ```
    #[must_use]
    pub fn first_size(&self) -> u32 {
        self.start
    }

    /// Capacity in force after the last decision.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn ends_at_its_start(run: &Run) -> bool {
    ///     run.last_size() == run.first_size()
    /// }
    /// ```
    #[must_use]
    pub fn last_size(&self) -> u32 {
        self.rows.last().map_or(self.start, |row| row.granted)
    }

    /// Greatest capacity in force.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn stays_cheap(run: &Run) -> bool {
    ///     run.most() <= 10
    /// }
    /// ```
    #[must_use]
    pub fn most(&self) -> u32 {
        self.sizes().max().unwrap_or(self.start)
    }

    /// Least capacity in force.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn keeps_two(run: &Run) -> bool {
    ///     run.least() >= 2
    /// }
    /// ```
    #[must_use]
    pub fn least(&self) -> u32 {
        self.sizes().min().unwrap_or(self.start)
    }

    /// How often the current capacity changed.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn is_calm(run: &Run) -> bool {
    ///     run.changes() <= 3
    /// }
    /// ```
    #[must_use]
    pub fn changes(&self) -> usize {
        self.rows.iter().filter(|row| row.granted != row.desired).count()
    }

    /// How often the capacity changed its direction: up after down, or down after up. A load that
    /// rises and falls once makes one; under a constant load there should be none.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn is_steady(run: &Run) -> bool {
    ///     run.oscillations() == 0
    /// }
    /// ```
    #[must_use]
    pub fn oscillations(&self) -> usize {
        turns(&self.rows).count()
    }

    /// The tick from which on the capacity stayed as it was at the end; none when it changed at
    /// the very last tick.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn settles_within(run: &Run, ticks: u64) -> bool {
    ///     run.settled_at().is_some_and(|tick| tick <= ticks)
    /// }
    /// ```
    #[must_use]
    pub fn settled_at(&self) -> Option<u64> {
        let last = self.rows.iter().rposition(|row| row.granted != row.desired);
        self.rows.get(last.map_or(0, |at| at + 1)).map(|row| row.tick)
    }

    /// Ticks with more load than the instances in service could carry.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn serves_everyone(run: &Run) -> bool {
    ///     run.under_provisioned_ticks() == 0
    /// }
    /// ```
    #[must_use]
    pub fn under_provisioned_ticks(&self) -> usize {
        self.rows.iter().filter(|row| row.is_overloaded()).count()
    }

    /// Ticks with more than `factor` times the instances in service that the load needed if all
    /// were full: 2 for a policy that is to keep them half busy.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn is_thrifty(run: &Run) -> bool {
    ///     run.over_provisioned_ticks(2.5) < 20
    /// }
    /// ```
    #[must_use]
    pub fn over_provisioned_ticks(&self, factor: f64) -> usize {
        self.rows.iter().filter(|row| f64::from(row.in_service) > row.needed * factor).count()
    }

    /// Ticks in which the policy gave no outcome.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn always_answers(run: &Run) -> bool {
    ///     run.failures() == 0
    /// }
    /// ```
    #[must_use]
    pub fn failures(&self) -> usize {
        self.rows.iter().filter(|row| row.error.is_some()).count()
    }

    /// What the set cost: instances in service or on their way, summed over the ticks.
    ///
    /// ```
    /// # use regatta_sdk::testing::Run;
    /// fn cheaper<'a>(one: &'a Run, other: &'a Run) -> &'a Run {
    ///     if one.instance_ticks() <= other.instance_ticks() { one } else { other }
    /// }
    /// ```
    #[must_use]
    pub fn instance_ticks(&self) -> u64 {
        self.rows.iter().map(|row| u64::from(row.in_service) + u64::from(row.warming)).sum()
    }

    fn sizes(&self) -> impl Iterator<Item = u32> + '_ {
        std::iter::once(self.start).chain(self.rows.iter().map(|row| row.granted))
    }
}

/// The rows at which the capacity changed its direction.
pub(super) fn turns(rows: &[Row]) -> impl Iterator<Item = &Row> + '_ {
    let mut rising = None;
    rows.iter().filter(move |row| {
        if row.granted == row.desired {
            return false;
        }
        let up = row.granted > row.desired;
        rising.replace(up).is_some_and(|before| before != up)
    })
}
