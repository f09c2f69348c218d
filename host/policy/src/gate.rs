//! Lets a limited number of calls through at once, and keeps room for those that are soon over.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Who wants to go through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// Soon over, as far as is known.
    Light,
    /// Overran its limits the last time, or nobody knows yet: never all of the room, so that light ones need not wait
    /// for the deadlines of others.
    Heavy,
}

/// A door with a number of permits.
pub(crate) struct Gate {
    free: Mutex<Free>,
    freed: Condvar,
}

struct Free {
    all: u32,
    heavy: u32,
}

impl Gate {
    /// `all` at once, of these at most `heavy` heavy ones.
    pub(crate) fn new(all: u32, heavy: u32) -> Self {
        Self { free: Mutex::new(Free { all, heavy }), freed: Condvar::new() }
    }

    /// Waits for a permit.
    pub(crate) fn enter(&self, lane: Lane) -> Permit<'_> {
        let full = |free: &mut Free| free.all == 0 || (lane == Lane::Heavy && free.heavy == 0);
        let mut free = self.freed.wait_while(self.free(), full).unwrap_or_else(PoisonError::into_inner);
        free.all -= 1;
        free.heavy -= u32::from(lane == Lane::Heavy);
        Permit { gate: self, lane }
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One that was let through.
pub(crate) struct Permit<'a> {
    gate: &'a Gate,
    lane: Lane,
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let mut free = self.gate.free();
        free.all += 1;
        free.heavy += u32::from(self.lane == Lane::Heavy);
        drop(free);
        // All: the first to wake might be one that may not go yet.
        self.gate.freed.notify_all();
    }
}
