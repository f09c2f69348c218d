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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;
    use std::time::Duration;

    use super::*;

    #[test]
    fn heavy_ones_leave_room_for_light_ones() {
        let gate = Gate::new(4, 2);
        let mut heavy = vec![gate.enter(Lane::Heavy), gate.enter(Lane::Heavy)];
        thread::scope(|scope| {
            let (entered, news) = mpsc::channel();
            let gate = &gate;
            scope.spawn(move || {
                let permit = gate.enter(Lane::Heavy);
                entered.send(()).unwrap();
                drop(permit);
            });
            // Both enter, though a heavy one was there first.
            let light = [gate.enter(Lane::Light), gate.enter(Lane::Light)];
            // A light one that leaves makes no room for a heavy one.
            drop(light);
            assert!(news.recv_timeout(Duration::from_millis(50)).is_err());
            drop(heavy.pop());
            news.recv_timeout(Duration::from_secs(60)).unwrap();
        });
    }

    #[test]
    fn no_more_than_all_are_in() {
        let gate = Gate::new(3, 2);
        let inside = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for n in 0..16 {
                let (gate, inside) = (&gate, &inside);
                scope.spawn(move || {
                    for _ in 0..200 {
                        let lane = if n % 2 == 0 { Lane::Heavy } else { Lane::Light };
                        let _permit = gate.enter(lane);
                        let others = inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        assert!(others < 3, "{others} others");
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }
}
