//! Modelled time. Under the automatic clock it is real time, perhaps faster or slower; under the explicit one it stands
//! still until somebody pokes it, so that a test decides when a guest has booted.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Nanoseconds of modelled time since the process started.
pub(crate) type Nanos = u64;

/// A duration as modelled time; the longest there is if it is longer.
pub(crate) fn nanos(duration: Duration) -> Nanos {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// How modelled time passes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Mode {
    /// So many modelled seconds per real one.
    Auto(f64),
    /// Only by [`Clock::poke`].
    Explicit,
}

impl Mode {
    /// Reads `auto`, `auto:<factor>` or `explicit`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto(1.0)),
            "explicit" => Ok(Self::Explicit),
            _ => {
                let factor = text.strip_prefix("auto:").and_then(|factor| factor.parse::<f64>().ok());
                match factor {
                    Some(factor) if factor.is_finite() && (0.001..=1000.0).contains(&factor) => {
                        Ok(Self::Auto(factor))
                    }
                    _ => Err(format!(
                        "unknown clock {text:?}: expected `auto`, `auto:<0.001..1000>` or `explicit`"
                    )),
                }
            }
        }
    }
}

#[derive(Debug)]
struct State {
    mode: Mode,
    /// Modelled time at `since`.
    base: Nanos,
    since: Instant,
    wakers: Vec<Arc<OwnedFd>>,
}

/// The process's one modelled clock.
#[derive(Debug)]
pub(crate) struct Clock(Mutex<State>);

impl Clock {
    pub(crate) fn new(mode: Mode) -> Self {
        Self(Mutex::new(State { mode, base: 0, since: Instant::now(), wakers: Vec::new() }))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Modelled time now.
    pub(crate) fn now(&self) -> Nanos {
        self.with(|state| state.now())
    }

    /// Real time until a modelled moment; `None` when it will not come by itself.
    pub(crate) fn until(&self, moment: Nanos) -> Option<Duration> {
        self.with(|state| {
            let left = moment.saturating_sub(state.now());
            match state.mode {
                _ if left == 0 => Some(Duration::ZERO),
                Mode::Auto(factor) => Some(Duration::from_nanos((left as f64 / factor) as u64)),
                Mode::Explicit => None,
            }
        })
    }

    /// Moves modelled time on.
    pub(crate) fn poke(&self, by: Duration) {
        self.with(|state| {
            state.set(state.now().saturating_add(nanos(by)), state.mode);
        });
    }

    /// Changes how time passes; the time itself does not jump.
    pub(crate) fn set_mode(&self, mode: Mode) {
        self.with(|state| state.set(state.now(), mode));
    }

    /// Has this event descriptor woken whenever waiting times have changed.
    pub(crate) fn wake_on_change(&self, waker: Arc<OwnedFd>) {
        self.with(|state| {
            // Guests that are gone have dropped theirs.
            state.wakers.retain(|waker| Arc::strong_count(waker) > 1);
            state.wakers.push(waker);
        });
    }
}

impl State {
    fn now(&self) -> Nanos {
        match self.mode {
            Mode::Auto(factor) => {
                self.base.saturating_add((self.since.elapsed().as_nanos() as f64 * factor) as u64)
            }
            Mode::Explicit => self.base,
        }
    }

    fn set(&mut self, now: Nanos, mode: Mode) {
        (self.base, self.since, self.mode) = (now, Instant::now(), mode);
        for waker in &self.wakers {
            wake(waker);
        }
    }
}

/// Makes an event descriptor readable.
pub(crate) fn wake(waker: &OwnedFd) {
    // It can only fail by overflowing, and then it is readable already.
    let _ = rustix::io::write(waker, &1u64.to_ne_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explicit_time_moves_only_by_pokes() {
        let clock = Clock::new(Mode::Explicit);
        assert_eq!((clock.now(), clock.until(5)), (0, None));
        clock.poke(Duration::from_nanos(5));
        assert_eq!((clock.now(), clock.until(5)), (5, Some(Duration::ZERO)));
        clock.set_mode(Mode::Auto(1.0));
        assert!(clock.now() >= 5);
        assert!(clock.until(u64::MAX).is_some());
    }

    #[test]
    fn modes_parse_totally() {
        assert_eq!(Mode::parse("auto:10"), Ok(Mode::Auto(10.0)));
        assert_eq!(Mode::parse("explicit"), Ok(Mode::Explicit));
        for bad in ["", "auto:", "auto:0", "auto:NaN", "auto:-1", "manual"] {
            assert!(Mode::parse(bad).is_err(), "{bad}");
        }
    }
}
