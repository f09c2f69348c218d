//! What a policy wants.

use crate::{MAX_CAPACITY, Reason, Tick};

/// What a policy wants of its scale set.
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

    /// Asks for the capacity that is in force.
    #[must_use]
    pub fn keep(tick: &Tick<'_>) -> Self {
        Self::capacity(tick.desired)
    }

    /// Adds a reason, after those it has.
    #[must_use]
    pub fn because(mut self, reason: Reason) -> Self {
        self.reasons.push(reason);
        self
    }

    /// Asks for `standby` instances in standby.
    #[must_use]
    pub fn standby(mut self, standby: u32) -> Self {
        self.standby = Some(standby.min(MAX_CAPACITY));
        self
    }

    /// Names the instances to remove first, best first. They must exist.
    #[must_use]
    pub fn victims(mut self, victims: impl Into<Vec<u32>>) -> Self {
        self.victims = victims.into();
        self
    }

    /// Wishes for the next tick in `ms` milliseconds, if that is earlier.
    #[must_use]
    pub fn wake_after_ms(mut self, ms: u64) -> Self {
        self.wake_after_ms = Some(ms);
        self
    }
}
