//! Whether a set's loop still turns, told without asking it: a loop that hangs cannot say so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// A tick that is late by this many of its periods, and by [`LATE_MIN`], hangs.
const PERIODS: u32 = 5;
/// A loaded host delays short ticks by more than a few of their periods.
const LATE_MIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the loop of one set is at.
#[derive(Debug)]
pub(crate) struct Beat {
    set: String,
    state: Mutex<State>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    period: Duration,
    ticked: Instant,
    at: &'static str,
    told: bool,
}

/// A loop that hangs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stuck {
    /// Since its last tick began.
    pub(crate) since: Duration,
    /// In what.
    pub(crate) at: &'static str,
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "stuck: no tick for {} s, last seen {}", self.since.as_secs(), self.at)
    }
}

impl Beat {
    pub(super) fn new(set: &str, tick_ms: u64) -> Self {
        let period = Duration::from_millis(tick_ms);
        let state = State { period, ticked: Instant::now(), at: "adopting instances", told: false };
        Self { set: set.to_owned(), state: Mutex::new(state) }
    }

    pub(super) fn ticks(&self, tick_ms: u64) {
        let mut state = self.state();
        state.period = Duration::from_millis(tick_ms);
        state.ticked = Instant::now();
    }

    /// What the loop does from now on.
    pub(super) fn at(&self, at: &'static str) {
        self.state().at = at;
    }

    /// How it hangs; none if it does not.
    pub(crate) fn stuck(&self) -> Option<Stuck> {
        self.state().stuck(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn stuck(&self, now: Instant) -> Option<Stuck> {
        let since = now.saturating_duration_since(self.ticked);
        let late = since > (self.period * PERIODS).max(self.period + LATE_MIN);
        late.then_some(Stuck { since, at: self.at })
    }
}

/// The loops that are watched, by a thread of their own: what hangs may be the runtime.
#[derive(Debug, Clone, Default)]
pub(crate) struct Watchdog(Arc<Mutex<Vec<Weak<Beat>>>>);

impl Watchdog {
    /// Starts the thread; it ends with the process.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub(crate) fn start() -> std::io::Result<Self> {
        let watchdog = Self::default();
        let watched = watchdog.clone();
        thread::Builder::new().name("regatta-watchdog".to_owned()).spawn(move || {
            loop {
                thread::sleep(LOOK_EVERY);
                watched.look(Instant::now());
            }
        })?;
        Ok(watchdog)
    }

    pub(super) fn watch(&self, beat: &Arc<Beat>) {
        self.beats().push(Arc::downgrade(beat));
    }

    /// Tells once of each loop that hangs, and once when it turns again.
    fn look(&self, now: Instant) {
        self.beats().retain(|beat| {
            let Some(beat) = beat.upgrade() else { return false };
            let mut state = beat.state();
            let stuck = state.stuck(now);
            if stuck.is_some() != state.told {
                state.told = stuck.is_some();
                match stuck {
                    Some(stuck) => tracing::error!(set = beat.set, "{stuck}; its VMs keep running"),
                    None => tracing::info!(set = beat.set, "the set ticks again"),
                }
            }
            true
        });
    }

    fn beats(&self) -> MutexGuard<'_, Vec<Weak<Beat>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_that_does_not_tick_is_stuck_after_some_periods() {
        let second = Duration::from_secs(1);
        let state = |period| State { period, ticked: Instant::now(), at: "storing the tick", told: false };
        let stuck = |state: State, after| state.stuck(state.ticked + after);
        assert_eq!(stuck(state(second), second * 11), None);
        assert_eq!(
            stuck(state(second), second * 12).map(|stuck| stuck.to_string()).as_deref(),
            Some("stuck: no tick for 12 s, last seen storing the tick")
        );
        assert_eq!(stuck(state(second * 60), second * 300), None);
        assert!(stuck(state(second * 60), second * 301).is_some());
        assert_eq!(stuck(state(second / 50), second * 5), None, "a loaded host");
    }

    #[test]
    fn the_watchdog_tells_once_and_forgets_sets_that_ended() {
        let watchdog = Watchdog::default();
        let beat = Arc::new(Beat::new("web", 1_000));
        watchdog.watch(&beat);
        let later = Instant::now() + Duration::from_secs(60);
        watchdog.look(later);
        assert!(beat.state().told);
        beat.ticks(1_000);
        watchdog.look(Instant::now());
        assert!(!beat.state().told);
        drop(beat);
        watchdog.look(later);
        assert!(watchdog.beats().is_empty());
    }
}
