//! What probe results mean, and when the next probe is due. Pure.
//!
//! ```text
//!            answered               passed × healthy_threshold
//!  Booting ───────────► Answering ─────────────────────────► Healthy ◄─┐
//!     └──── passed × healthy_threshold (1) ──────────────────► │       │ passed × healthy_threshold
//!                                     failed × unhealthy_threshold     │
//!                                                              ▼       │
//!                                                          Unhealthy ──┘
//! ```

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use regatta_core::manifest::Health;
use regatta_core::phase::InstanceEvent;
use thiserror::Error;

/// First pause while it boots. It grows by half each time, so that an instance
/// is found at most a third of its boot time late.
const FIRST_BOOT_PAUSE_MS: f64 = 1.0;
const BOOT_PAUSE_GROWTH: f64 = 1.5;
/// Longest pause while it boots, if the interval is not shorter.
const LONGEST_BOOT_PAUSE_MS: u64 = 1_000;
/// Longest pause between the passes that make it healthy for the first time.
const LONGEST_PASS_PAUSE_MS: u64 = 50;
/// Steady probes come this much earlier or later than the interval, at most.
const JITTER: f64 = 0.1;

/// Where the probes of an instance are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbePhase {
    /// Nothing has answered yet.
    Booting,
    /// Something answers, but has not yet passed often enough.
    Answering,
    /// It passes.
    Healthy,
    /// It was healthy and then failed too often in a row.
    Unhealthy,
}

/// What came of one probe.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeOutcome {
    /// It passed.
    Passed,
    /// It did not.
    Failed(ProbeFailure),
    /// This host could not ask, for the reason given; that says nothing about the instance.
    NotAsked(String),
}

/// Why a probe did not pass.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ProbeFailure {
    /// The instance answered that it is not well.
    #[error("status {0}")]
    Status(u16),
    /// Nobody listens; normal while it boots.
    #[error("connection refused")]
    Refused,
    /// No answer in time.
    #[error("timed out")]
    TimedOut,
    /// Anything else, in words.
    #[error("{0}")]
    Other(String),
}

impl ProbeOutcome {
    /// Something that speaks the protocol is there, well or not.
    #[must_use]
    pub fn answered(&self) -> bool {
        matches!(self, Self::Passed | Self::Failed(ProbeFailure::Status(_)))
    }
}

/// What a result changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProbeEvent {
    /// A probe was answered for the first time.
    FirstProbeAnswered,
    /// It has passed often enough in a row.
    BecameHealthy,
    /// It was healthy and has failed often enough in a row.
    BecameUnhealthy,
}

impl From<ProbeEvent> for InstanceEvent {
    fn from(event: ProbeEvent) -> Self {
        match event {
            ProbeEvent::FirstProbeAnswered => Self::FirstProbeAnswered,
            ProbeEvent::BecameHealthy => Self::BecameHealthy,
            ProbeEvent::BecameUnhealthy => Self::BecameUnhealthy,
        }
    }
}

/// The probes of one instance. Times are milliseconds of any one clock that
/// does not go backwards.
#[derive(Debug, Clone)]
pub struct ProbeState {
    phase: ProbePhase,
    interval_ms: u64,
    healthy_threshold: u32,
    unhealthy_threshold: u32,
    /// Results of the kind that the last one was, in a row.
    in_a_row: u32,
    last_passed: bool,
    boot_pause_ms: f64,
    due_ms: u64,
    rng: SmallRng,
}

impl ProbeState {
    /// Probes that begin at `now_ms`: at once for an instance that boots, at a
    /// random point of the interval for one that was already known (a daemon that
    /// comes back must not probe all its instances in one breath).
    #[must_use]
    pub fn new(health: &Health, phase: ProbePhase, seed: u64, now_ms: u64) -> Self {
        let mut state = Self {
            phase,
            interval_ms: health.interval_ms.max(1),
            healthy_threshold: health.healthy_threshold.max(1),
            unhealthy_threshold: health.unhealthy_threshold.max(1),
            in_a_row: 0,
            last_passed: false,
            boot_pause_ms: FIRST_BOOT_PAUSE_MS,
            due_ms: now_ms,
            rng: SmallRng::seed_from_u64(seed),
        };
        if matches!(phase, ProbePhase::Healthy | ProbePhase::Unhealthy) {
            state.due_ms = now_ms + state.anywhere_in_the_interval();
        }
        state
    }

    /// Where the probes are.
    #[must_use]
    pub fn phase(&self) -> ProbePhase {
        self.phase
    }

    /// When the next probe is due; a result moves it on.
    #[must_use]
    pub fn due_ms(&self) -> u64 {
        self.due_ms
    }

    /// Takes the result that came at `now_ms` of the probe that was due.
    pub fn on_result(&mut self, outcome: &ProbeOutcome, now_ms: u64) -> Vec<ProbeEvent> {
        if matches!(outcome, ProbeOutcome::NotAsked(_)) {
            self.due_ms = now_ms.saturating_add(self.pause_ms(self.phase));
            return Vec::new();
        }
        let passed = *outcome == ProbeOutcome::Passed;
        self.in_a_row = if passed == self.last_passed { self.in_a_row.saturating_add(1) } else { 1 };
        self.last_passed = passed;

        let mut events = Vec::new();
        if self.phase == ProbePhase::Booting && outcome.answered() {
            self.phase = ProbePhase::Answering;
            events.push(ProbeEvent::FirstProbeAnswered);
        }
        let before = self.phase;
        match before {
            ProbePhase::Booting => {}
            ProbePhase::Answering | ProbePhase::Unhealthy => {
                if passed && self.in_a_row >= self.healthy_threshold {
                    self.phase = ProbePhase::Healthy;
                    events.push(ProbeEvent::BecameHealthy);
                }
            }
            ProbePhase::Healthy => {
                if !passed && self.in_a_row >= self.unhealthy_threshold {
                    self.phase = ProbePhase::Unhealthy;
                    events.push(ProbeEvent::BecameUnhealthy);
                }
            }
        }
        self.due_ms = now_ms.saturating_add(self.pause_ms(before));
        events
    }

    fn pause_ms(&mut self, before: ProbePhase) -> u64 {
        match self.phase {
            ProbePhase::Answering if self.last_passed => self.interval_ms.min(LONGEST_PASS_PAUSE_MS),
            ProbePhase::Booting | ProbePhase::Answering => {
                let longest_ms = self.interval_ms.min(LONGEST_BOOT_PAUSE_MS) as f64;
                let pause_ms = self.boot_pause_ms.min(longest_ms);
                self.boot_pause_ms = (self.boot_pause_ms * BOOT_PAUSE_GROWTH).min(longest_ms);
                pause_ms.round() as u64
            }
            // Instances that were launched together get apart here.
            ProbePhase::Healthy if before == ProbePhase::Answering => self.anywhere_in_the_interval(),
            ProbePhase::Healthy | ProbePhase::Unhealthy => {
                let factor = self.rng.random_range(1.0 - JITTER..=1.0 + JITTER);
                ((self.interval_ms as f64 * factor).round() as u64).max(1)
            }
        }
    }

    fn anywhere_in_the_interval(&mut self) -> u64 {
        self.rng.random_range(1..=self.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn health(interval_ms: u64, healthy_threshold: u32, unhealthy_threshold: u32) -> Health {
        Health { probe: None, interval_ms, timeout_ms: 1_000, healthy_threshold, unhealthy_threshold }
    }

    const REFUSED: ProbeOutcome = ProbeOutcome::Failed(ProbeFailure::Refused);
    const NOT_READY: ProbeOutcome = ProbeOutcome::Failed(ProbeFailure::Status(503));

    /// Feeds `outcomes` each when due; returns what happened and when.
    fn run(state: &mut ProbeState, outcomes: &[ProbeOutcome]) -> Vec<(u64, ProbeEvent)> {
        let mut events = Vec::new();
        for outcome in outcomes {
            let now_ms = state.due_ms();
            events.extend(state.on_result(outcome, now_ms).into_iter().map(|event| (now_ms, event)));
        }
        events
    }

    #[test]
    fn a_probe_that_was_not_asked_counts_for_nothing() {
        let not_asked = || ProbeOutcome::NotAsked("Too many open files".to_owned());
        let mut state = ProbeState::new(&health(1_000, 2, 2), ProbePhase::Healthy, 1, 0);
        assert_eq!(run(&mut state, &vec![not_asked(); 100]), []);
        assert_eq!(run(&mut state, &[REFUSED, not_asked(), not_asked()]), []);
        let before_ms = state.due_ms();
        assert_eq!(run(&mut state, &[REFUSED]), [(before_ms, ProbeEvent::BecameUnhealthy)]);
        let pass = ProbeOutcome::Passed;
        assert_eq!(run(&mut state, &[pass.clone(), not_asked()]), []);
        let events = run(&mut state, &[pass]);
        assert_eq!(events.iter().map(|&(_, event)| event).collect::<Vec<_>>(), [ProbeEvent::BecameHealthy]);

        let mut boots = ProbeState::new(&health(1_000, 1, 2), ProbePhase::Booting, 1, 0);
        assert_eq!(run(&mut boots, &vec![not_asked(); 20]), []);
        assert!(boots.due_ms() > 1_000, "the pauses grow");
    }

    #[test]
    fn a_boot_is_followed_closely_and_passes_follow_each_other_quickly() {
        let mut state = ProbeState::new(&health(5_000, 3, 3), ProbePhase::Booting, 1, 100);
        assert_eq!(state.due_ms(), 100, "the first probe is due at once");
        assert_eq!(run(&mut state, &vec![REFUSED; 9]), []);
        let due_ms = state.due_ms();
        assert!((150..250).contains(&due_ms), "nine probes in the first 150 ms, got {due_ms}");
        let pass = ProbeOutcome::Passed;
        let events = run(&mut state, &[NOT_READY, pass.clone(), pass.clone(), pass]);
        assert_eq!(
            events.iter().map(|&(_, event)| event).collect::<Vec<_>>(),
            [ProbeEvent::FirstProbeAnswered, ProbeEvent::BecameHealthy]
        );
        assert_eq!(events[0].0, due_ms);
        assert!(events[1].0 - due_ms < 250, "three passes take two pauses of 50 ms, {events:?}");
        assert_eq!(state.phase(), ProbePhase::Healthy);
    }

    #[test]
    fn a_long_boot_is_not_hammered() {
        let mut state = ProbeState::new(&health(5_000, 1, 1), ProbePhase::Booting, 1, 0);
        let mut probes = 0;
        while state.due_ms() < 60_000 {
            let now_ms = state.due_ms();
            state.on_result(&REFUSED, now_ms);
            probes += 1;
        }
        assert!(probes < 90, "{probes} probes in a minute");
    }

    #[test]
    fn thresholds_count_in_a_row() {
        let mut state = ProbeState::new(&health(1_000, 2, 3), ProbePhase::Healthy, 1, 0);
        let pass = || ProbeOutcome::Passed;
        assert_eq!(run(&mut state, &[REFUSED, REFUSED, pass(), REFUSED, NOT_READY]), []);
        let events = run(&mut state, &[ProbeOutcome::Failed(ProbeFailure::TimedOut)]);
        assert_eq!(events[0].1, ProbeEvent::BecameUnhealthy);
        assert_eq!(run(&mut state, &[REFUSED, REFUSED, pass(), REFUSED, pass()]), []);
        assert_eq!(run(&mut state, &[pass()])[0].1, ProbeEvent::BecameHealthy);
    }

    #[test]
    fn known_instances_are_spread_over_the_interval() {
        let health = health(1_000, 1, 1);
        let mut slots = [0; 10];
        for seed in 0..500 {
            let mut adopted = ProbeState::new(&health, ProbePhase::Healthy, seed, 0);
            assert!((1..=1_000).contains(&adopted.due_ms()));
            slots[usize::try_from((adopted.due_ms() - 1) / 100).unwrap()] += 1;
            let due_ms = adopted.due_ms();
            adopted.on_result(&ProbeOutcome::Passed, due_ms);
            assert!((900..=1_100).contains(&(adopted.due_ms() - due_ms)), "the jitter is a tenth");
        }
        assert!(slots.iter().all(|&n| (20..=90).contains(&n)), "500 over 10 slots, got {slots:?}");
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule() {
        let health = health(1_000, 1, 1);
        let schedule = |seed| {
            let mut state = ProbeState::new(&health, ProbePhase::Booting, seed, 0);
            run(&mut state, &vec![ProbeOutcome::Passed; 20]);
            state.due_ms()
        };
        assert_eq!(schedule(3), schedule(3));
        assert_ne!(schedule(3), schedule(4));
    }

    fn outcome() -> impl Strategy<Value = ProbeOutcome> {
        prop_oneof![
            Just(ProbeOutcome::Passed),
            Just(REFUSED),
            Just(NOT_READY),
            Just(ProbeOutcome::Failed(ProbeFailure::TimedOut)),
        ]
    }

    proptest! {
        /// Against the definition: an event is said exactly when the last n
        /// results say so and the one before did not.
        #[test]
        fn events_follow_from_the_last_results(
            outcomes in proptest::collection::vec(outcome(), 0..200),
            healthy in 1_u32..5,
            unhealthy in 1_u32..5,
            interval_ms in 1_u64..10_000,
            seed: u64,
        ) {
            let mut state = ProbeState::new(&health(interval_ms, healthy, unhealthy), ProbePhase::Booting, seed, 0);
            let (mut answered, mut well) = (false, false);
            for n in 1..=outcomes.len() {
                let now_ms = state.due_ms();
                let events = state.on_result(&outcomes[n - 1], now_ms);
                let last = |count: u32, passed: bool| {
                    let count = count as usize;
                    n >= count && outcomes[n - count..n].iter().all(|o| (*o == ProbeOutcome::Passed) == passed)
                };
                let mut expected = Vec::new();
                if !answered && outcomes[n - 1].answered() {
                    answered = true;
                    expected.push(ProbeEvent::FirstProbeAnswered);
                }
                if !well && last(healthy, true) {
                    well = true;
                    expected.push(ProbeEvent::BecameHealthy);
                } else if well && last(unhealthy, false) {
                    well = false;
                    expected.push(ProbeEvent::BecameUnhealthy);
                }
                prop_assert_eq!(events, expected);
                let pause_ms = state.due_ms() - now_ms;
                prop_assert!(pause_ms >= 1 && pause_ms <= interval_ms + interval_ms / 10 + 1);
            }
        }
    }
}
