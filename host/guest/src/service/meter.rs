//! How busy the workers were lately. Pure: time is an argument.

use std::collections::VecDeque;
use std::time::Duration;

/// Over how long the share is taken.
const WINDOW: Duration = Duration::from_secs(2);
/// Changes that are remembered; with more of them in one window the oldest are forgotten, and the window is shorter.
const MAX_CHANGES: usize = 4096;

/// The busy workers over time.
#[derive(Debug)]
pub(crate) struct Meter {
    workers: usize,
    busy: usize,
    /// From when on, how many were busy, and worker-seconds worked until then.
    changes: VecDeque<(Duration, usize, f64)>,
}

impl Meter {
    /// All workers idle since time zero.
    pub(crate) fn new(workers: usize) -> Self {
        Self { workers, busy: 0, changes: VecDeque::from([(Duration::ZERO, 0, 0.0)]) }
    }

    /// How many are busy.
    pub(crate) fn busy(&self) -> usize {
        self.busy
    }

    /// One more is busy.
    pub(crate) fn start(&mut self, now: Duration) {
        self.change(now, self.busy + 1);
    }

    /// One fewer is busy.
    pub(crate) fn finish(&mut self, now: Duration) {
        self.change(now, self.busy.saturating_sub(1));
    }

    fn change(&mut self, now: Duration, busy: usize) {
        let worked = self.worked(now);
        self.busy = busy;
        self.changes.push_back((now, busy, worked));
        let start = now.saturating_sub(WINDOW);
        // The last change before the window says how busy it began.
        while self.changes.len() > MAX_CHANGES || self.changes.get(1).is_some_and(|(at, ..)| *at <= start) {
            self.changes.pop_front();
        }
    }

    /// Worker-seconds worked until a time that is not before the oldest change.
    fn worked(&self, at: Duration) -> f64 {
        let before = self.changes.iter().rev().find(|(since, ..)| *since <= at).or(self.changes.front());
        before.map_or(0.0, |(since, busy, worked)| {
            worked + at.saturating_sub(*since).as_secs_f64() * *busy as f64
        })
    }

    /// Busy share over the last [`WINDOW`], 0 to 1.
    pub(crate) fn utilization(&self, now: Duration) -> f64 {
        let oldest = self.changes.front().map_or(Duration::ZERO, |(at, ..)| *at);
        let start = now.saturating_sub(WINDOW).max(oldest);
        let span = now.saturating_sub(start).as_secs_f64() * self.workers as f64;
        if span <= 0.0 { 0.0 } else { ((self.worked(now) - self.worked(start)) / span).clamp(0.0, 1.0) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn s(tenths: u64) -> Duration {
        Duration::from_millis(tenths * 100)
    }

    #[test]
    fn the_share_is_that_of_the_window() {
        let mut meter = Meter::new(2);
        meter.start(s(10));
        meter.finish(s(20));
        assert!((meter.utilization(s(20)) - 0.25).abs() < 1e-9, "one of two for one of two seconds");
        assert!((meter.utilization(s(35)) - 0.125).abs() < 1e-9, "half of it is still in the window");
        assert_eq!(meter.utilization(s(40)), 0.0);
        meter.start(s(40));
        meter.start(s(40));
        assert_eq!(meter.utilization(s(60)), 1.0);
        assert_eq!(meter.utilization(s(600)), 1.0, "busy all along, though nothing changes");
    }

    proptest! {
        #[test]
        fn it_is_a_share_and_memory_is_bounded(steps in proptest::collection::vec((any::<bool>(), 0..50u64), 0..300)) {
            let mut meter = Meter::new(4);
            let mut now = Duration::ZERO;
            for (start, pause) in steps {
                now += Duration::from_millis(pause);
                if start && meter.busy() < 4 { meter.start(now) } else { meter.finish(now) }
                let share = meter.utilization(now);
                prop_assert!((0.0..=1.0).contains(&share), "{share}");
                prop_assert!(meter.changes.len() <= MAX_CHANGES);
            }
        }
    }
}
