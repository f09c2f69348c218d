//! Waiting on conditions. No test sleeps for a fixed time.

use std::time::{Duration, Instant};

/// How long a condition may take before a test fails: long, because machines are
/// slow and busy; a test that passes does not wait for it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Looks again and again until `look` gives a value.
///
/// # Panics
/// After [`PATIENCE`], with what was last seen.
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    wait_within(PATIENCE, what, look)
}

/// As [`wait_for`], for what takes its time: guests that really boot.
///
/// # Panics
/// After `patience`, with what was last seen.
pub fn wait_within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_millis(5);
    loop {
        match look() {
            Ok(value) => return value,
            Err(seen) if Instant::now() > deadline => {
                panic!("waited {patience:?} for {what}; last seen: {seen}")
            }
            Err(_) => {
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(100));
            }
        }
    }
}
