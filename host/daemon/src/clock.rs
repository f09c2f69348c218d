//! The clocks of the daemon: the only place that reads them for the core.

use std::io;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use regatta_core::time::{AwakeClock, Time};

/// Between two beats: what lies further apart was spent stopped.
const BEAT: Duration = Duration::from_millis(250);

static CLOCK: OnceLock<(Instant, Mutex<AwakeClock>)> = OnceLock::new();

fn clock() -> &'static (Instant, Mutex<AwakeClock>) {
    CLOCK.get_or_init(|| (Instant::now(), Mutex::default()))
}

/// Starts the thread that tells time in which the daemon runs from time in which it is stopped (SIGSTOP, a suspended machine).
///
/// # Errors
/// No thread can be had.
pub(crate) fn start() -> io::Result<()> {
    let beat = || loop {
        let (origin, awake) = clock();
        awake.lock().unwrap_or_else(PoisonError::into_inner).beat(millis(origin.elapsed()));
        std::thread::sleep(BEAT);
    };
    std::thread::Builder::new().name("regatta-clock".to_owned()).spawn(beat).map(drop)
}

/// Now, on the wall clock and on the clock that only runs while the daemon does.
#[must_use]
pub(crate) fn now() -> Time {
    Time { wall_ms: now_ms(), mono_ms: mono_ms_at(Instant::now()) }
}

/// For how long this process was stopped since it began, milliseconds.
#[must_use]
pub(crate) fn stopped_ms() -> u64 {
    let (origin, _) = clock();
    let monotonic = Instant::now();
    millis(monotonic.saturating_duration_since(*origin)).saturating_sub(mono_ms_at(monotonic))
}

/// A moment of the recent past on the clock that only runs while the daemon does.
#[must_use]
pub(crate) fn mono_ms_at(moment: Instant) -> u64 {
    let (origin, awake) = clock();
    let awake = awake.lock().unwrap_or_else(PoisonError::into_inner);
    awake.now_ms(millis(moment.saturating_duration_since(*origin)))
}

/// Unix milliseconds.
#[must_use]
pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
