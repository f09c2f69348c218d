//! What a policy wants.

use crate::{MAX_CAPACITY, Reason, Tick};

/// What a policy wants of its scale set.
///
/// ```
/// use regatta_sdk::{Outcome, Reason};
///
/// let outcome = Outcome::capacity(5)
///     .standby(1)
///     .victims([3, 1])
///     .wake_after_ms(1_000)
///     .because(Reason::new("rush-hour", "the shops open at nine").with("in-minutes", 4));
/// assert_eq!((outcome.capacity, outcome.standby), (5, Some(1)));
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Instances in service. The host clamps it to the set's bounds and says so
    /// in the record, so a policy may ask for what it really needs.
    pub capacity: u32,
    /// Instances in standby; none leaves the set's own setting.
    pub standby: Option<u32>,
    /// Ids of the instances to remove first on a scale-in, best first.
    pub victims: Vec<u32>,
    /// Wish for an earlier next tick.
    pub wake_after_ms: Option<u64>,
    /// Why, most important first.
    pub reasons: Vec<Reason>,
}

impl Outcome {
    /// Asks for `capacity` instances in service, at most [`MAX_CAPACITY`].
    ///
    /// ```
    /// use regatta_sdk::{MAX_CAPACITY, Outcome};
    /// assert_eq!(Outcome::capacity(4).capacity, 4);
    /// assert_eq!(Outcome::capacity(u32::MAX).capacity, MAX_CAPACITY);
    /// ```
    #[must_use]
    pub fn capacity(capacity: u32) -> Self {
        Self {
            capacity: capacity.min(MAX_CAPACITY),
            standby: None,
            victims: Vec::new(),
            wake_after_ms: None,
            reasons: Vec::new(),
        }
    }

    /// Asks for the whole number of instances that carry a demand counted in instances' worth, as
    /// [`instances_for`] rounds it.
    ///
    /// # Errors
    /// When it is not a number of instances: NaN, an infinity, less than 0. The error names the
    /// line; `as u32` would make 0 of it, or as many as there can be.
    ///
    /// ```
    /// use regatta_sdk::Outcome;
    /// assert_eq!(Outcome::for_demand(2.1).unwrap().capacity, 3);
    /// let error = Outcome::for_demand(0.0 / 0.0).unwrap_err();
    /// assert!(error.starts_with("the demand is NaN, which is not a number of instances ("));
    /// ```
    #[track_caller]
    pub fn for_demand(demand: f64) -> Result<Self, String> {
        let at = std::panic::Location::caller();
        let not_a_number = || {
            format!(
                "the demand is {demand}, which is not a number of instances ({}:{})",
                at.file(),
                at.line()
            )
        };
        instances_for(demand).map(Self::capacity).ok_or_else(not_a_number)
    }

    /// Asks for the capacity that is in force.
    ///
    /// ```
    /// use regatta_sdk::{Outcome, Reason, Tick};
    /// fn decide(tick: &Tick<'_>) -> Outcome {
    ///     Outcome::keep(tick).because(Reason::new("content", "all is well"))
    /// }
    /// ```
    #[must_use]
    pub fn keep(tick: &Tick<'_>) -> Self {
        Self::capacity(tick.desired)
    }

    /// Adds a reason, after those it has. The host keeps 32.
    ///
    /// ```
    /// use regatta_sdk::{Outcome, Reason};
    /// let outcome = Outcome::capacity(2).because(Reason::new("first", "")).because(Reason::new("second", ""));
    /// assert_eq!(outcome.reasons[1].code, "second");
    /// ```
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reasons.push(reason);
        self
    }

    /// Asks for `standby` instances in standby.
    ///
    /// ```
    /// assert_eq!(regatta_sdk::Outcome::capacity(2).standby(1).standby, Some(1));
    /// ```
    #[must_use]
    pub fn standby(mut self, standby: u32) -> Self {
        self.standby = Some(standby.min(MAX_CAPACITY));
        self
    }

    /// Names the instances to remove first, best first. They must exist.
    ///
    /// ```
    /// assert_eq!(regatta_sdk::Outcome::capacity(2).victims([7, 3]).victims, [7, 3]);
    /// ```
    #[must_use]
    pub fn victims(mut self, victims: impl Into<Vec<u32>>) -> Self {
        self.victims = victims.into();
        self
    }

    /// Wishes for the next tick in `ms` milliseconds, if that is earlier.
    ///
    /// ```
    /// assert_eq!(regatta_sdk::Outcome::capacity(2).wake_after_ms(500).wake_after_ms, Some(500));
    /// ```
    #[must_use]
    pub fn wake_after_ms(mut self, ms: u64) -> Self {
        self.wake_after_ms = Some(ms);
        self
    }
}

/// The whole number of instances that carry a demand counted in instances' worth: rounded up,
/// but not because of the last bits of a sum of floats; [`MAX_CAPACITY`] for more than that. None
/// for what is not a number of instances: NaN, an infinity, less than 0.
///
/// ```
/// use regatta_sdk::{MAX_CAPACITY, instances_for};
/// assert_eq!(instances_for(2.1), Some(3));
/// assert_eq!(instances_for(0.1 * 3.0 / 0.1), Some(3)); // and not 4 for 3.0000000000000004
/// assert_eq!(instances_for(1e300), Some(MAX_CAPACITY));
/// assert_eq!(instances_for(f64::NAN).or(instances_for(f64::INFINITY)).or(instances_for(-1.0)), None);
/// ```
#[must_use]
pub fn instances_for(demand: f64) -> Option<u32> {
    let nearest = demand.round();
    if !demand.is_finite() || nearest < 0.0 {
        return None;
    }
    let close = (demand - nearest).abs() <= 1e-9 * demand.max(1.0);
    let whole = if close { nearest } else { demand.ceil() };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to what a u32 can hold"
    )]
    Some(whole.clamp(0.0, f64::from(MAX_CAPACITY)) as u32)
}
