//! What the guest is going to do by itself, in the order of modelled time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::clock::Nanos;

/// Something that happens at a modelled moment.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A line of the boot log.
    Say(String),
    /// Drivers find their devices.
    Activate,
    /// The network card is configured.
    LinkUp,
    /// The service starts.
    Up,
    Crash,
    Hang,
    Panic,
    Reset,
    PowerOff,
    /// Lets go of a device.
    Eject(String),
    VcpusRemoved,
    Ballooned(u64),
}

/// A queue of timers; those of the same moment go off in the order they were set.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Nanos, u64, Timer)>>,
    set: u64,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Nanos, timer: Timer) {
        self.heap.push(Reverse((at, self.set, timer)));
        self.set += 1;
    }

    /// When the next one goes off.
    pub(crate) fn next(&self) -> Option<Nanos> {
        self.heap.peek().map(|Reverse((at, ..))| *at)
    }

    /// Takes the next one that is due.
    pub(crate) fn take_due(&mut self, now: Nanos) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, timer))| timer)
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.heap.clear();
    }
}
