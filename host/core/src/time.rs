//! Time as a set knows it.
//!
//! Durations (time-outs, grace, back-off, drains) are measured on a clock that only runs while the daemon does; the wall clock
//! is for people, schedules and records. A wall clock that jumps, a daemon that was stopped and a laptop that slept therefore
//! time nothing out by themselves.

use serde::{Deserialize, Serialize};

/// A moment, as the shell reads it for the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Time {
    /// Wall clock, Unix milliseconds. May jump.
    pub wall_ms: u64,
    /// Milliseconds on a clock that never jumps and runs only while this process does; comparable within one process only.
    pub mono_ms: u64,
}

/// How fast the clock of a set approaches the wall clock: one part in so many. A cooldown that a policy measures on it is
/// never off by more than that share.
const SLEW_DIVISOR: u64 = 8;

/// How far it may be off without being corrected, so that the jitter of two clocks does not show in records.
const TOLERANCE_MS: u64 = 1_000;

/// The clocks of one set. Stored with it, so that they continue where they were when a daemon comes back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetClock {
    /// How long daemons have run this set, milliseconds. Durations are measured on it.
    pub lived_ms: u64,
    /// What policies see as the time, Unix milliseconds: never jumps, never runs backward, and approaches the wall clock by
    /// at most an eighth of the time that passes.
    pub steady_ms: u64,
}

impl SetClock {
    /// The clock of a set that begins now.
    #[must_use]
    pub fn starting_at(wall_ms: u64) -> Self {
        Self { lived_ms: 0, steady_ms: wall_ms }
    }

    /// Lets `passed_ms` pass; `wall_ms` is what the wall clock says after it.
    pub fn advance(&mut self, passed_ms: u64, wall_ms: u64) {
        self.lived_ms = self.lived_ms.saturating_add(passed_ms);
        let due_ms = self.steady_ms.saturating_add(passed_ms);
        let off_ms = wall_ms.abs_diff(due_ms).saturating_sub(TOLERANCE_MS);
        let slew_ms = off_ms.min(passed_ms / SLEW_DIVISOR);
        self.steady_ms = if wall_ms >= due_ms { due_ms + slew_ms } else { due_ms - slew_ms };
    }
}

/// Longest time between two beats of [`AwakeClock`] that counts as having been awake.
const AWAKE_MS_MAX: u64 = 1_000;

/// Milliseconds during which this process was able to run, out of a monotonic clock that also counts while it is stopped.
///
/// Somebody has to [`beat`](Self::beat) several times a second; what lies further apart is time in which the process was
/// stopped (SIGSTOP, a suspended machine), and does not count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AwakeClock {
    awake_ms: u64,
    beat_at_ms: u64,
}

impl AwakeClock {
    /// Counts the time since the last beat. `monotonic_ms` must not go back.
    pub fn beat(&mut self, monotonic_ms: u64) {
        self.awake_ms = self.now_ms(monotonic_ms);
        self.beat_at_ms = self.beat_at_ms.max(monotonic_ms);
    }

    /// The time awake at `monotonic_ms`.
    #[must_use]
    pub fn now_ms(&self, monotonic_ms: u64) -> u64 {
        self.awake_ms + monotonic_ms.saturating_sub(self.beat_at_ms).min(AWAKE_MS_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOUR_MS: u64 = 3_600_000;

    #[test]
    fn a_wall_clock_that_jumps_is_approached_slowly() {
        for wall_ms in [100 * HOUR_MS + HOUR_MS, 100 * HOUR_MS - HOUR_MS] {
            let mut clock = SetClock::starting_at(100 * HOUR_MS);
            clock.advance(8_000, wall_ms);
            assert_eq!(clock.lived_ms, 8_000);
            assert_eq!(clock.steady_ms.abs_diff(100 * HOUR_MS + 8_000), 1_000);
        }
    }

    #[test]
    fn time_in_which_the_process_was_stopped_does_not_count() {
        let mut clock = AwakeClock::default();
        clock.beat(0);
        clock.beat(250);
        assert_eq!(clock.now_ms(400), 400);
        // Stopped for ten minutes; whoever looks first sees at most a second of it.
        assert_eq!(clock.now_ms(600_250), 1_250);
        clock.beat(600_250);
        assert_eq!(clock.now_ms(600_350), 1_350);
    }

    proptest! {
        /// The set's clock never runs backward, and an eighth is all that it gains or loses.
        #[test]
        fn the_clock_of_a_set_is_steady(start in 0..u64::MAX / 4, steps in proptest::collection::vec((0..100_000_u64, 0..u64::MAX / 4), 0..50)) {
            let mut clock = SetClock::starting_at(start);
            for (passed_ms, wall_ms) in steps {
                let before = clock;
                clock.advance(passed_ms, wall_ms);
                prop_assert_eq!(clock.lived_ms, before.lived_ms + passed_ms);
                let ran_ms = clock.steady_ms.checked_sub(before.steady_ms).expect("it ran backward");
                prop_assert!(ran_ms.abs_diff(passed_ms) <= passed_ms / SLEW_DIVISOR);
            }
        }

        /// Whenever one looks and however often: awake time never runs backward.
        #[test]
        fn awake_time_rises(steps in proptest::collection::vec((0..5_000_u64, any::<bool>()), 0..50)) {
            let (mut clock, mut now_ms, mut last_ms) = (AwakeClock::default(), 0, 0);
            for (passed_ms, beat) in steps {
                now_ms += passed_ms;
                if beat {
                    clock.beat(now_ms);
                }
                let awake_ms = clock.now_ms(now_ms);
                prop_assert!(awake_ms >= last_ms && awake_ms <= now_ms);
                last_ms = awake_ms;
            }
        }
    }
}
