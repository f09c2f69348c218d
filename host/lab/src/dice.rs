//! Everything random of a world: one seeded generator.

use std::ops::RangeInclusive;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// The dice of one world.
#[derive(Debug)]
pub(crate) struct Dice(SmallRng);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// True in this many cases of a thousand.
    pub(crate) fn per_mille(&mut self, per_mille: u32) -> bool {
        self.0.random_range(0..1_000) < per_mille
    }

    /// Both ends are possible.
    pub(crate) fn within(&mut self, range: RangeInclusive<u64>) -> u64 {
        self.0.random_range(range)
    }

    pub(crate) fn small(&mut self, range: RangeInclusive<u32>) -> u32 {
        self.0.random_range(range)
    }

    /// 0 to 1.
    pub(crate) fn share(&mut self) -> f64 {
        self.0.random_range(0.0..1.0)
    }

    /// Mostly short, now and then long, never longer than `most`.
    pub(crate) fn delay_ms(&mut self, usual: u64, most: u64) -> u64 {
        if self.per_mille(50) { self.within(0..=most) } else { self.within(0..=usual) }
    }

    /// One of them; none of nothing.
    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        if of.is_empty() { None } else { Some(of[self.0.random_range(0..of.len())].clone()) }
    }
}
