//! When requests are due: a rate that changes over time, and the arrivals drawn from it.
//!
//! The schedule is open-loop: arrivals do not wait for answers. Users do not wait for each other
//! either, and a closed loop would hide exactly the overload that makes a set scale out.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngExt, SeedableRng};

/// A stretch of time over which the rate goes linearly from one value to another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Segment {
    /// Length, seconds.
    pub(crate) seconds: f64,
    /// Requests per second at its begin.
    pub(crate) from: f64,
    /// Requests per second at its end.
    pub(crate) to: f64,
}

/// A rate over time, piecewise linear.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Profile {
    segments: Vec<Segment>,
}

impl Profile {
    /// Low, up, high, down, low: rates in requests per second, within `length`.
    pub(crate) fn tide(length: Duration, low: f64, high: f64) -> Self {
        let part = |share: f64, from, to| Segment { seconds: length.as_secs_f64() * share, from, to };
        Self {
            segments: vec![
                part(0.10, low, low),
                part(0.10, low, high),
                part(0.35, high, high),
                part(0.10, high, low),
                part(0.35, low, low),
            ],
        }
    }

    /// Its whole length.
    #[cfg(test)]
    pub(crate) fn length(&self) -> Duration {
        Duration::from_secs_f64(self.segments.iter().map(|segment| segment.seconds).sum())
    }

    /// Requests per second at `at` after the begin; 0 past the end.
    pub(crate) fn rate_at(&self, at: Duration) -> f64 {
        let mut rest = at.as_secs_f64();
        for segment in &self.segments {
            if rest < segment.seconds {
                let share = rest / segment.seconds;
                return segment.from + (segment.to - segment.from) * share;
            }
            rest -= segment.seconds;
        }
        0.0
    }

    /// The mean number of requests over the whole profile.
    #[cfg(test)]
    fn expected(&self) -> f64 {
        self.segments.iter().map(Segment::requests).sum()
    }

    /// Poisson arrivals at this rate, as offsets from the begin, in order.
    /// The same seed gives the same arrivals.
    pub(crate) fn arrivals(&self, seed: u64) -> Arrivals<SmallRng> {
        Arrivals {
            segments: self.segments.clone(),
            random: SmallRng::seed_from_u64(seed),
            segment: 0,
            begin: 0.0,
            used: 0.0,
        }
    }
}

impl Segment {
    /// The mean number of requests in it.
    fn requests(&self) -> f64 {
        (self.from + self.to) / 2.0 * self.seconds
    }

    /// When the mean number of requests so far reaches `requests`, in seconds from its begin:
    /// the root of `from·t + (to - from)/(2·seconds)·t² = requests`.
    fn time_of(&self, requests: f64) -> f64 {
        let slope = (self.to - self.from) / self.seconds;
        let root = (self.from * self.from + 2.0 * slope * requests).max(0.0).sqrt();
        // This form has no division by the slope, which may be 0.
        let time = 2.0 * requests / (self.from + root);
        time.clamp(0.0, self.seconds)
    }
}

/// An iterator over the moments at which requests are due.
pub(crate) struct Arrivals<R> {
    segments: Vec<Segment>,
    random: R,
    segment: usize,
    /// Begin of the segment, seconds.
    begin: f64,
    /// Mean number of requests of the segment that has been used up.
    used: f64,
}

impl<R: Rng> Iterator for Arrivals<R> {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        // In units of the mean number of requests, a Poisson process has rate one.
        let uniform: f64 = self.random.random();
        let mut step = -(1.0 - uniform).ln();
        loop {
            let segment = self.segments.get(self.segment)?;
            let left = segment.requests() - self.used;
            if step < left {
                self.used += step;
                let at = self.begin + segment.time_of(self.used);
                return Some(Duration::from_secs_f64(at));
            }
            step -= left;
            self.begin += segment.seconds;
            self.segment += 1;
            self.used = 0.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_tide_rises_and_falls() {
        let profile = Profile::tide(Duration::from_secs(100), 10.0, 200.0);
        let at = |seconds| profile.rate_at(Duration::from_secs(seconds));
        assert_eq!(profile.length(), Duration::from_secs(100));
        assert_eq!((at(0), at(30), at(80)), (10.0, 200.0, 10.0));
        assert!((at(15) - 105.0).abs() < 1e-9);
        assert_eq!(at(100), 0.0);
    }

    #[test]
    fn the_same_seed_gives_the_same_arrivals() {
        let profile = Profile::tide(Duration::from_secs(10), 10.0, 100.0);
        let one: Vec<_> = profile.arrivals(7).collect();
        assert_eq!(one, profile.arrivals(7).collect::<Vec<_>>());
        assert_ne!(one, profile.arrivals(8).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn arrivals_follow_the_profile(
            rates in prop::collection::vec((1.0..50.0f64, 0.0..400.0f64, 0.0..400.0f64), 1..6),
            seed in any::<u64>(),
        ) {
            let segments = rates
                .into_iter()
                .map(|(seconds, from, to)| Segment { seconds, from, to })
                .collect();
            let profile = Profile { segments };
            let arrivals: Vec<_> = profile.arrivals(seed).collect();
            prop_assert!(arrivals.is_sorted());
            prop_assert!(arrivals.iter().all(|at| *at <= profile.length()));
            // A Poisson count has variance = mean; seven deviations do not happen by chance.
            let expected = profile.expected();
            let off = (arrivals.len() as f64 - expected).abs();
            prop_assert!(off <= 7.0 * expected.sqrt() + 2.0, "{} for {expected}", arrivals.len());
        }
    }
}
