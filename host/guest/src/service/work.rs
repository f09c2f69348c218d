//! The workers: at most so many requests burn CPU time at once, the others wait.

use std::hint::black_box;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::meter::Meter;

/// Requests that may wait.
const MAX_WAITING: usize = 256;

struct State {
    meter: Meter,
    waiting: usize,
    refused: u64,
}

/// A bounded number of workers.
pub(crate) struct Workers {
    count: usize,
    started: Instant,
    state: Mutex<State>,
    free: Condvar,
}

/// How loaded the workers are.
pub(crate) struct Load {
    pub(crate) in_flight: usize,
    pub(crate) waiting: usize,
    pub(crate) refused: u64,
    pub(crate) utilization: f64,
}

impl Workers {
    pub(crate) fn new(count: usize) -> Self {
        let state = State { meter: Meter::new(count), waiting: 0, refused: 0 };
        Self { count, started: Instant::now(), state: Mutex::new(state), free: Condvar::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Uses this much CPU time on a worker, as soon as one is free; `false` when too many wait already.
    pub(crate) fn burn(&self, work: Duration) -> bool {
        let mut state = self.state();
        if state.meter.busy() >= self.count {
            if state.waiting >= MAX_WAITING {
                state.refused += 1;
                return false;
            }
            state.waiting += 1;
            while state.meter.busy() >= self.count {
                state = self.free.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            state.waiting -= 1;
        }
        state.meter.start(self.started.elapsed());
        drop(state);
        burn(work);
        self.state().meter.finish(self.started.elapsed());
        self.free.notify_one();
        true
    }

    pub(crate) fn load(&self) -> Load {
        let state = self.state();
        Load {
            in_flight: state.meter.busy() + state.waiting,
            waiting: state.waiting,
            refused: state.refused,
            utilization: state.meter.utilization(self.started.elapsed()),
        }
    }
}

/// CPU time of this thread.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

fn burn(work: Duration) {
    if work.is_zero() {
        return;
    }
    let end = cpu_time() + work;
    let mut sum = 0u64;
    while cpu_time() < end {
        for number in 0..1000u64 {
            sum = black_box(sum.wrapping_mul(31).wrapping_add(number));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_takes_its_cpu_time_and_workers_are_bounded() {
        let workers = Workers::new(2);
        let work = Duration::from_millis(20);
        let before = cpu_time();
        assert!(workers.burn(work));
        assert!(cpu_time() - before >= work);
        std::thread::scope(|scope| {
            for _ in 0..6 {
                scope.spawn(|| {
                    assert!(workers.burn(work));
                    assert!(workers.load().in_flight < 6);
                });
            }
        });
        let load = workers.load();
        assert_eq!((load.in_flight, load.refused), (0, 0));
        assert!(load.utilization > 0.0);
    }
}
