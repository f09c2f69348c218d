//! What became of the requests: every one counted, and how long each took.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// What became of one request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Outcome {
    /// 2xx, with the whole body.
    Served,
    /// Any other status.
    Status(u16),
    /// No connection: refused or unreachable.
    Refused,
    /// The connection ended before the answer did.
    CutOff,
    /// No whole answer in time.
    TimedOut,
    /// Too many were under way already: it was not sent. A limit of the load generator, yet the
    /// request was due, so it counts as not served.
    NotSent,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Served => f.write_str("served"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Refused => f.write_str("refused"),
            Self::CutOff => f.write_str("cut off"),
            Self::TimedOut => f.write_str("timed out"),
            Self::NotSent => f.write_str("not sent"),
        }
    }
}

/// All requests so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    /// Requests that became due.
    pub(crate) due: u64,
    outcomes: BTreeMap<Outcome, u64>,
    /// One entry per served request, microseconds from when it was due.
    latencies_us: Vec<u32>,
}

impl Tally {
    /// A request became due.
    pub(crate) fn begin(&mut self) {
        self.due += 1;
    }

    /// A request ended. `took` counts from when it was due, not from when it was sent: otherwise
    /// a generator that falls behind would hide the wait (coordinated omission).
    pub(crate) fn end(&mut self, outcome: Outcome, took: Duration) {
        if outcome == Outcome::Served {
            self.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        }
        *self.outcomes.entry(outcome).or_default() += 1;
    }

    /// Requests that ended well.
    pub(crate) fn served(&self) -> u64 {
        self.outcomes.get(&Outcome::Served).copied().unwrap_or(0)
    }

    /// Requests that ended, well or not.
    pub(crate) fn ended(&self) -> u64 {
        self.outcomes.values().sum()
    }

    /// Requests that ended, but not well.
    pub(crate) fn failed(&self) -> u64 {
        self.ended() - self.served()
    }

    /// Requests under way.
    pub(crate) fn in_flight(&self) -> u64 {
        self.due - self.ended()
    }

    /// How often each kind of failure happened, such as `status 503: 4`.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.outcomes
            .iter()
            .filter(|(outcome, _)| **outcome != Outcome::Served)
            .map(|(outcome, count)| format!("{outcome}: {count}"))
            .collect()
    }

    /// The time within which this share (0 to 1) of the served requests was answered;
    /// none if none was. Nearest rank, exact.
    pub(crate) fn percentiles<const N: usize>(&self, shares: [f64; N]) -> Option<[Duration; N]> {
        let us = regatta_util::percentiles(&self.latencies_us, shares)?;
        Some(us.map(|us| Duration::from_micros(us.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_request_is_counted_once() {
        let mut tally = Tally::default();
        for _ in 0..5 {
            tally.begin();
        }
        tally.end(Outcome::Served, Duration::from_millis(1));
        tally.end(Outcome::Status(503), Duration::ZERO);
        tally.end(Outcome::Status(503), Duration::ZERO);
        tally.end(Outcome::Refused, Duration::ZERO);
        assert_eq!((tally.served(), tally.failed(), tally.in_flight()), (1, 3, 1));
        assert_eq!(tally.failures(), ["status 503: 2", "refused: 1"]);
    }

    #[test]
    fn percentiles_are_nearest_rank() {
        let mut tally = Tally::default();
        assert_eq!(tally.percentiles([0.5]), None);
        for ms in (1..=100).rev() {
            tally.begin();
            tally.end(Outcome::Served, Duration::from_millis(ms));
        }
        let ms = Duration::from_millis;
        assert_eq!(tally.percentiles([0.0, 0.5, 0.99, 1.0]), Some([ms(1), ms(50), ms(99), ms(100)]));
    }
}
