//! When a set ticks, and when a command may hold it.

use std::time::Duration;

use tokio::time::{Instant, Interval, MissedTickBehavior};

/// The pace of a set.
pub(super) struct Pace {
    ticks: Interval,
    next_due: Instant,
    /// The tick under way.
    begun: Option<Instant>,
    just_ticked: bool,
    /// How long a command holds the set, at most, as far as is known.
    command_takes: Duration,
}

impl Pace {
    /// A tick now, and one every `tick_ms` from here on.
    pub(super) fn new(tick_ms: u64) -> Self {
        let ticks = interval(tick_ms);
        let command_takes = Duration::ZERO;
        Self { ticks, next_due: Instant::now(), begun: None, just_ticked: false, command_takes }
    }

    /// Waits until a tick is due. Returns how late it is.
    pub(super) async fn due(&mut self) -> Duration {
        let due = self.ticks.tick().await;
        self.next_due = due + self.ticks.period();
        self.begun = Some(Instant::now());
        due.elapsed()
    }

    /// Whether a command may begin now. It holds the set while it is stored: none is begun when a tick would have to wait for it,
    /// but for one right after each tick, so that commands are not put off forever.
    pub(super) fn may_command(&self, now: Instant) -> bool {
        self.just_ticked || now + self.command_takes <= self.next_due
    }

    /// A command begins.
    pub(super) fn command_begins(&mut self) {
        self.just_ticked = false;
    }

    /// A command held the set for this long. The longest of late counts, forgotten gradually; half a tick is left to commands
    /// in any case.
    pub(super) fn command_took(&mut self, held: Duration) {
        self.command_takes = (self.command_takes * 9 / 10).max(held).min(self.ticks.period() / 2);
    }

    /// The machine has nothing under way any more. Returns how long the tick took that has just ended, if one has.
    pub(super) fn tick_ended(&mut self) -> Option<Duration> {
        let took = self.begun.take()?.elapsed();
        self.just_ticked = true;
        Some(took)
    }

    /// A policy wishes for the next tick after this time at the latest.
    pub(super) fn hurry(&mut self, earliest: Duration) {
        if earliest < self.ticks.period() {
            self.ticks.reset_after(earliest);
            self.next_due = Instant::now() + earliest;
        }
    }

    /// Follows the manifest.
    pub(super) fn follow(&mut self, tick_ms: u64) {
        if self.ticks.period() != Duration::from_millis(tick_ms) {
            self.ticks = interval(tick_ms);
        }
    }
}

fn interval(tick_ms: u64) -> Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(tick_ms));
    // A tick that comes late is not made up for: the next one sees everything anyway.
    interval.set_missed_tick_behavior(MissedTickBehavior::Skip);
    interval
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// A tick has begun; nobody waits for the next one.
    async fn ticking() -> Pace {
        let mut pace = Pace::new(3_600_000);
        pace.due().await;
        pace
    }

    #[tokio::test]
    async fn a_command_begins_when_it_ends_before_the_next_tick_or_right_after_one() {
        let mut pace = ticking().await;
        pace.command_took(MS * 300);
        let last_moment = pace.next_due - MS * 300;
        assert!(pace.may_command(last_moment) && !pace.may_command(last_moment + MS));
        assert!(pace.tick_ended().is_some());
        assert!(pace.may_command(last_moment + MS), "right after a tick");
        pace.command_begins();
        assert!(!pace.may_command(last_moment + MS));
        assert_eq!(pace.tick_ended(), None, "no tick is under way");
    }

    #[tokio::test]
    async fn a_slow_command_leaves_half_a_tick_and_is_forgotten() {
        let mut pace = ticking().await;
        let late = pace.next_due - MS * 1_000;
        pace.command_took(MS * 3_600_000);
        assert!(pace.may_command(pace.next_due - MS * 1_800_000) && !pace.may_command(late));
        for _ in 0..100 {
            pace.command_took(Duration::ZERO);
        }
        assert!(pace.may_command(late));
    }

    #[tokio::test]
    async fn an_earlier_tick_is_heeded_and_a_later_one_is_not() {
        let mut pace = ticking().await;
        let due = pace.next_due;
        pace.hurry(MS * 7_200_000);
        assert_eq!(pace.next_due, due);
        pace.hurry(MS);
        assert!(pace.next_due < due);
        pace.due().await;
        pace.follow(60);
        assert_eq!(pace.ticks.period(), MS * 60);
    }
}
