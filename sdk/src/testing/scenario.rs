//! A set in the course of time.

use std::ops::Range;

use super::history::{Row, Run};
use super::model::Model;
use super::{Load, Subject};

/// What a metric of a scenario measures.
///
/// ```
/// use regatta_sdk::testing::{Scenario, Signal};
/// let scenario = Scenario::new().instance_capacity(200.0).metric("requests", Signal::PerInstance);
/// # drop(scenario);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Signal {
    /// Per instance: its share of the load, as a part of what it can carry, times
    /// [`Scenario::full_at`]. It goes past that when there is more load than the set can carry.
    #[default]
    Utilization,
    /// Per instance: its share of the load, in the load's own unit.
    PerInstance,
    /// Of the set: the load.
    Total,
}

/// A small model of a set under load, in which a policy decides tick by tick: its decisions are
/// clamped to the bounds, instances take ticks to boot, and the load spreads evenly over those in
/// service. Pure: the same scenario and policy give the same [`Run`].
///
/// The metrics are those that the policy asks for, all of them [`Signal::Utilization`], unless
/// [`Scenario::metric`] says otherwise.
///
/// ```
/// # use regatta_sdk::prelude::*;
/// # struct Proportional;
/// # impl Policy for Proportional {
/// #     type Params = NoParams;
/// #     type State = ();
/// #     fn describe() -> Describe { Describe::new("proportional", "1.0.0", "").metric("utilization") }
/// #     fn decide(tick: &Tick<'_>, _: &NoParams, _: &mut ()) -> Result<Outcome, String> {
/// #         Ok(match tick.sum("utilization").known("utilization") {
/// #             Ok(sum) => Outcome::capacity(instances_for(sum / 0.5).unwrap_or(tick.desired).max(1)),
/// #             Err(why) => Outcome::keep(tick).because(why),
/// #         })
/// #     }
/// # }
/// use regatta_sdk::testing::{Load, Scenario, TestPolicy};
///
/// let mut policy = TestPolicy::<Proportional>::new("{}").unwrap();
/// let run = Scenario::new()
///     .bounds(1, 20)
///     .start(4)
///     .boot_ticks(3)
///     .load(Load::new().hold(2.0, 10).ramp(8.0, 20).hold(8.0, 30))
///     .gap(40..50)
///     .run(&mut policy);
/// assert_eq!(run.last_size(), 16);
/// assert_eq!(run.oscillations(), 0);
/// assert!(run.settled_at().unwrap() <= 31);
/// ```
#[derive(Debug, Clone)]
pub struct Scenario {
    load: Load,
    ticks: Option<u64>,
    seed: u64,
    noise: f64,
    gaps: Vec<Range<u64>>,
    stale: Vec<Range<u64>>,
    pub(super) tick_ms: u64,
    pub(super) instance_capacity: f64,
    pub(super) full: f64,
    pub(super) min: u32,
    pub(super) max: u32,
    pub(super) start: u32,
    pub(super) boot_ticks: u64,
    pub(super) drain_ticks: u64,
    pub(super) metrics: Vec<(String, Signal)>,
}

impl Default for Scenario {
    fn default() -> Self {
        Self::new()
    }
}

impl Scenario {
    /// A set of one instance (1 to 100 allowed) that can carry a load of 1 each, under a load of
    /// 1, for 60 ticks of 5 s; instances boot for 2 ticks and drain for 1.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new();
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self {
            load: Load::from(1.0),
            ticks: None,
            seed: 1,
            noise: 0.0,
            gaps: Vec::new(),
            stale: Vec::new(),
            tick_ms: 5_000,
            instance_capacity: 1.0,
            full: 1.0,
            min: 1,
            max: 100,
            start: 1,
            boot_ticks: 2,
            drain_ticks: 1,
            metrics: Vec::new(),
        }
    }

    /// Sets the load; the scenario lasts as long as it does. A number, a list of (ticks, load), or
    /// a [`Load`].
    ///
    /// ```
    /// # use regatta_sdk::testing::{Load, Scenario};
    /// let calm = Scenario::new().load(3.0);
    /// let steps = Scenario::new().load([(20, 3.0), (40, 9.0)]);
    /// let day = Scenario::new().load(Load::new().wave(5.0, 3.0, 288, 600));
    /// # drop((calm, steps, day));
    /// ```
    #[must_use]
    pub fn load(mut self, load: impl Into<Load>) -> Self {
        self.load = load.into();
        self
    }

    /// Makes it last another number of ticks than its load.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().load(3.0).ticks(1_000);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn ticks(mut self, ticks: u64) -> Self {
        self.ticks = Some(ticks);
        self
    }

    /// Sets the time from tick to tick, milliseconds.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().tick_ms(60_000);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn tick_ms(mut self, tick_ms: u64) -> Self {
        self.tick_ms = tick_ms;
        self
    }

    /// Sets the load that one instance can carry, above 0.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// // Requests per second.
    /// let scenario = Scenario::new().instance_capacity(250.0).load([(60, 1_000.0)]);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn instance_capacity(mut self, load: f64) -> Self {
        self.instance_capacity = load;
        self
    }

    /// Sets what [`Signal::Utilization`] reads for an instance that is full: 1 unless set; 100 for
    /// a policy that thinks in percent.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let percent = Scenario::new().full_at(100.0);
    /// # drop(percent);
    /// ```
    #[must_use]
    pub fn full_at(mut self, value: f64) -> Self {
        self.full = value;
        self
    }

    /// Sets the least and the greatest capacity.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().bounds(2, 50);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn bounds(mut self, min: u32, max: u32) -> Self {
        (self.min, self.max) = (min, max.max(min));
        self
    }

    /// Sets how many instances are in service at the first tick.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().start(8);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn start(mut self, instances: u32) -> Self {
        self.start = instances;
        self
    }

    /// Sets for how many ticks a new instance is on its way: with 0 it serves at the next tick.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let slow = Scenario::new().boot_ticks(24);
    /// # drop(slow);
    /// ```
    #[must_use]
    pub fn boot_ticks(mut self, ticks: u64) -> Self {
        self.boot_ticks = ticks;
        self
    }

    /// Sets for how many ticks an instance that goes is still to be seen, draining.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().drain_ticks(0);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn drain_ticks(mut self, ticks: u64) -> Self {
        self.drain_ticks = ticks;
        self
    }

    /// Takes all metrics away in these ticks (the first is 1).
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().gap(20..30).gap(40..41);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn gap(mut self, ticks: Range<u64>) -> Self {
        self.gaps.push(ticks);
        self
    }

    /// Lets all metrics stay at what they were before these ticks, older with each of them.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().stale(20..30);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn stale(mut self, ticks: Range<u64>) -> Self {
        self.stale.push(ticks);
        self
    }

    /// Makes what is measured differ from the load by up to this share of it, out of a seed.
    ///
    /// ```
    /// # use regatta_sdk::testing::Scenario;
    /// let scenario = Scenario::new().noise(0.05, 42);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn noise(mut self, share: f64, seed: u64) -> Self {
        (self.noise, self.seed) = (share, seed);
        self
    }

    /// Adds a metric. With the first one, those that the policy asks for are no longer provided by
    /// themselves.
    ///
    /// ```
    /// # use regatta_sdk::testing::{Scenario, Signal};
    /// let scenario = Scenario::new().metric("utilization", Signal::Utilization).metric("queue", Signal::Total);
    /// # drop(scenario);
    /// ```
    #[must_use]
    pub fn metric(mut self, name: &str, signal: Signal) -> Self {
        self.metrics.push((name.to_owned(), signal));
        self
    }

    /// Lets the policy decide every tick, from a fresh state. When it gives no outcome, the size
    /// stays, as it does in a real set.
    ///
    /// ```
    /// # use regatta_sdk::Outcome;
    /// # use regatta_sdk::testing::{Scenario, Subject, TestTick};
    /// # struct Fixed(u32);
    /// # impl Subject for Fixed {
    /// #     fn reset(&mut self) {}
    /// #     fn decide(&mut self, _: &TestTick) -> Result<Outcome, String> { Ok(Outcome::capacity(self.0)) }
    /// # }
    /// let run = Scenario::new().bounds(1, 4).run(&mut Fixed(9));
    /// assert_eq!((run.rows()[0].wanted, run.rows()[0].granted), (Some(9), 4));
    /// ```
    pub fn run<S: Subject + ?Sized>(&self, subject: &mut S) -> Run {
        subject.reset();
        let mut model = Model::new(self, subject.metrics(), self.seed);
        let rows: Vec<Row> = (1..=self.ticks.unwrap_or(self.load.ticks()))
            .map(|number| model.step(number, self.load.at(number), subject))
            .collect();
        Run { rows, tick_ms: self.tick_ms, start: self.start.clamp(self.min, self.max) }
    }

    pub(super) fn noise_share(&self) -> f64 {
        self.noise
    }

    pub(super) fn is_gap(&self, tick: u64) -> bool {
        self.gaps.iter().any(|ticks| ticks.contains(&tick))
    }

    pub(super) fn is_stale(&self, tick: u64) -> bool {
        self.stale.iter().any(|ticks| ticks.contains(&tick))
    }
}
