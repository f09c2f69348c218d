//! For how long an operator's word counts.

use serde::{Deserialize, Serialize};

use crate::event::Actor;
use crate::mutant::{self, Mutant};
use crate::state::Moment;
use regatta_util::Said;

/// For how long an operator's word counts, whose it is, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Term {
    /// Since when, Unix milliseconds, for people.
    pub since_ms: u64,
    /// Until then on the set's own clock, [`crate::time::SetClock::lived_ms`]: a daemon that is away or a wall clock that jumps
    /// ends nothing. None: until an operator ends it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_lived_ms: Option<u64>,
    /// Who said so.
    pub actor: Actor,
    /// Why; may be empty.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    pub reason: Said,
}

impl Term {
    /// One that begins at `at` and lasts for `for_ms`, or until an operator ends it.
    #[must_use]
    pub fn begin(at: Moment, for_ms: Option<u64>, actor: Actor, reason: &str) -> Self {
        Self {
            since_ms: at.wall_ms,
            until_lived_ms: for_ms.map(|for_ms| at.lived_ms.saturating_add(for_ms)),
            actor,
            reason: reason.into(),
        }
    }

    /// Whether it has ended by then, on the set's own clock.
    #[must_use]
    pub fn is_over(&self, lived_ms: u64) -> bool {
        self.until_lived_ms.is_some_and(|until_ms| lived_ms >= until_ms) && !mutant::is(Mutant::TermNeverEnds)
    }

    /// When it ends as people count, Unix milliseconds, if the daemon runs until then; none for no end.
    #[must_use]
    pub fn until_ms(&self, at: Moment) -> Option<u64> {
        self.until_lived_ms.map(|until_ms| at.wall_ms.saturating_add(until_ms.saturating_sub(at.lived_ms)))
    }

    /// How long it lasts, for people: `until 2026-12-01 05:10:00Z`, or until the command that ends it.
    #[must_use]
    pub fn told(&self, at: Moment, ended_by: &str) -> String {
        let until = match self.until_ms(at) {
            Some(until_ms) => format!("until {}", utc(until_ms)),
            None => format!("until `{ended_by}`"),
        };
        format!("{until} ({})", self.by())
    }

    /// Whose word it is, and why: `by ann: load test`.
    #[must_use]
    pub fn by(&self) -> String {
        let reason = if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) };
        format!("by {}{reason}", self.actor)
    }
}

/// A time as people read it, to the second: `2026-12-01 05:10:00Z`.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{unix_ms} ms"), |time| time.strftime("%Y-%m-%d %H:%M:%SZ").to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_term_ends_on_the_clock_of_the_set_and_is_told_on_the_wall_clock() {
        let at = Moment { wall_ms: 1_795_444_267_250, lived_ms: 5_000 };
        let term = Term::begin(at, Some(60_000), Actor::User("ann".into()), "load test");
        assert_eq!((term.is_over(64_999), term.is_over(65_000)), (false, true));
        assert_eq!(term.told(at, "regatta resume web"), "until 2026-11-23 14:32:07Z (by ann: load test)");
        // The daemon was away for an hour: that counts for nothing.
        let later = Moment { wall_ms: at.wall_ms + 3_600_000, lived_ms: 35_000 };
        assert_eq!(term.until_ms(later), Some(later.wall_ms + 30_000));
        let open = Term::begin(at, None, Actor::User("ann".into()), "");
        assert!(!open.is_over(u64::MAX));
        assert_eq!(open.told(at, "regatta resume web"), "until `regatta resume web` (by ann)");
    }
}
