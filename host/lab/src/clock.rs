//! The clocks of a world: true time, the wall clock that jumps, and the clock of the daemon's process, which only runs while
//! the process does.

use regatta_core::time::Time;

/// What a process that was stopped may take of the time for its own, as `AwakeClock` measures it.
const SEEN_OF_A_STOP_MS: u64 = 1_000;

/// True time starts here, so that a wall clock can go back by days.
const EPOCH_MS: u64 = 1_700_000_000_000;

/// The clocks of one world.
#[derive(Debug, Default)]
pub(crate) struct Clock {
    /// True time, milliseconds from the beginning.
    pub(crate) real_ms: u64,
    wall_offset_ms: i64,
    /// True time in which no daemon's process ran, finished stops only.
    asleep_ms: u64,
    /// When the process was stopped or ended, and until when, if it is known.
    stop: Option<(u64, Option<u64>)>,
}

impl Clock {
    /// What a daemon reads now.
    pub(crate) fn time(&self) -> Time {
        Time { wall_ms: self.wall_ms(), mono_ms: self.awake_ms() }
    }

    pub(crate) fn wall_ms(&self) -> u64 {
        (EPOCH_MS + self.real_ms).saturating_add_signed(self.wall_offset_ms)
    }

    /// How long daemons have run in this world.
    pub(crate) fn awake_ms(&self) -> u64 {
        self.real_ms - self.asleep_ms - self.lost_of_stop(self.real_ms)
    }

    /// How long none ran.
    pub(crate) fn asleep_ms(&self) -> u64 {
        self.real_ms - self.awake_ms()
    }

    fn lost_of_stop(&self, now_ms: u64) -> u64 {
        match self.stop {
            None => 0,
            // A stopped process sees a little of it; one that has ended sees nothing.
            Some((since, Some(until))) => (now_ms.min(until) - since).saturating_sub(SEEN_OF_A_STOP_MS),
            Some((since, None)) => now_ms - since,
        }
    }

    /// Moves true time on.
    pub(crate) fn to(&mut self, real_ms: u64) {
        self.real_ms = self.real_ms.max(real_ms);
        if let Some((_, Some(until))) = self.stop
            && self.real_ms >= until
        {
            self.wake();
        }
    }

    /// Until when the process is stopped, if it is.
    pub(crate) fn stopped_until(&self) -> Option<u64> {
        self.stop.and_then(|(_, until)| until)
    }

    /// The process is stopped for so long.
    pub(crate) fn stop_for(&mut self, ms: u64) {
        if self.stop.is_none() {
            self.stop = Some((self.real_ms, Some(self.real_ms + ms)));
        }
    }

    /// The process ends.
    pub(crate) fn end(&mut self) {
        self.wake();
        self.stop = Some((self.real_ms, None));
    }

    /// A process runs.
    pub(crate) fn wake(&mut self) {
        self.asleep_ms += self.lost_of_stop(self.real_ms);
        self.stop = None;
    }

    pub(crate) fn jump_wall(&mut self, by_ms: i64) {
        self.wall_offset_ms += by_ms;
    }
}
