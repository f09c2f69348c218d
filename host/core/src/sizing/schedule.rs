//! Schedules of the manifest: which entries cover a moment, and since when.
//!
//! Nothing is remembered of starts and ends: what counts is what covers now. So a clock that jumps and a daemon that was away
//! over a start or an end both come to the right state.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::{TimeZone, TimeZoneDatabase};
use serde::{Deserialize, Serialize};

use super::Cron;

/// An entry of `schedules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScheduleEntry {
    /// Its name, unique among the entries.
    pub name: String,
    /// When it is in force.
    pub when: When,
    /// The time zone of its local times.
    pub time_zone: Zone,
    /// Least capacity meanwhile; none leaves it.
    pub min: Option<u32>,
    /// Greatest capacity meanwhile; none leaves it.
    pub max: Option<u32>,
    /// Capacity to go to once when it begins; none leaves it.
    pub capacity: Option<u32>,
    /// Nothing that serves is removed meanwhile.
    pub freeze: bool,
}

/// When an entry is in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum When {
    /// Again and again.
    Recurring {
        /// When it begins.
        cron: Cron,
        /// How long it lasts, milliseconds of real time.
        duration_ms: u64,
    },
    /// Once.
    Fixed {
        /// When it begins, as the manifest has it.
        start: String,
        /// When it ends, likewise.
        end: String,
        /// The same, Unix milliseconds.
        start_ms: u64,
        /// The same, Unix milliseconds.
        end_ms: u64,
    },
}

impl ScheduleEntry {
    /// When it began, Unix milliseconds, if it is in force at that moment of the wall clock.
    #[must_use]
    pub fn covers(&self, wall_ms: u64) -> Option<u64> {
        match &self.when {
            When::Recurring { cron, duration_ms } => {
                let after = timestamp(wall_ms.checked_sub(*duration_ms)?)?;
                let start = cron.latest(&self.time_zone.zone, timestamp(wall_ms)?, after)?;
                u64::try_from(start.as_millisecond()).ok()
            }
            When::Fixed { start_ms, end_ms, .. } => {
                (*start_ms <= wall_ms && wall_ms < *end_ms).then_some(*start_ms)
            }
        }
    }

    /// When it begins next after that moment, Unix milliseconds.
    #[must_use]
    pub fn next_ms(&self, wall_ms: u64) -> Option<u64> {
        match &self.when {
            When::Recurring { cron, .. } => {
                let next = cron.next(&self.time_zone.zone, timestamp(wall_ms)?)?;
                u64::try_from(next.as_millisecond()).ok()
            }
            When::Fixed { start_ms, .. } => Some(*start_ms).filter(|start_ms| *start_ms > wall_ms),
        }
    }
}

fn timestamp(unix_ms: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(unix_ms).ok()?).ok()
}

/// A time zone by its IANA name, from the database that is part of the program: the same on every machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

impl TryFrom<String> for Zone {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        match TimeZoneDatabase::bundled().get(&name) {
            Ok(zone) => Ok(Self { name: zone.iana_name().unwrap_or(&name).to_owned(), zone }),
            Err(_) => {
                Err("is not a time zone of the IANA database, such as `Europe/Berlin` or `UTC`".to_owned())
            }
        }
    }
}

impl Default for Zone {
    fn default() -> Self {
        Self { name: "UTC".to_owned(), zone: TimeZone::UTC }
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> Self {
        zone.name
    }
}

impl Zone {
    /// Its name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// A moment as manifests write it, Unix milliseconds: RFC 3339 with an offset, or a local time of this zone.
    ///
    /// # Errors
    /// What is wrong with it, as a lower-case fragment.
    pub fn moment(&self, text: &str) -> Result<u64, String> {
        let local = || self.zone.to_timestamp(text.parse::<DateTime>().ok()?).ok();
        let moment = text.parse::<Timestamp>().ok().or_else(local);
        let ms = moment.and_then(|moment| u64::try_from(moment.as_millisecond()).ok());
        ms.ok_or_else(|| {
            "is not a time such as `2026-12-24T08:00` (local) or `2026-12-24T08:00:00+01:00`".to_owned()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(when: When, zone: &str) -> ScheduleEntry {
        let time_zone = Zone::try_from(zone.to_owned()).expect("a zone");
        ScheduleEntry {
            name: "day".into(),
            when,
            time_zone,
            min: None,
            max: None,
            capacity: None,
            freeze: false,
        }
    }

    fn ms(text: &str) -> u64 {
        Zone::try_from("UTC".to_owned()).and_then(|zone| zone.moment(text)).expect("a time")
    }

    #[test]
    fn an_entry_covers_from_its_start_to_its_end() {
        let cron = Cron::parse("0 8 * * *").expect("an expression");
        let day = entry(When::Recurring { cron, duration_ms: 10 * 3_600_000 }, "Europe/Berlin");
        let start = ms("2026-12-01T07:00:00Z");
        for (at, covers) in [
            ("2026-12-01T06:59:59Z", None),
            ("2026-12-01T07:00:00Z", Some(start)),
            ("2026-12-01T16:59:59Z", Some(start)),
            ("2026-12-01T17:00:00Z", None),
        ] {
            assert_eq!(day.covers(ms(at)), covers, "{at}");
        }
        assert_eq!(day.next_ms(start), Some(ms("2026-12-02T07:00:00Z")));
    }

    #[test]
    fn longer_than_its_period_it_always_covers_since_the_latest_start() {
        let cron = Cron::parse("0 * * * *").expect("an expression");
        let always = entry(When::Recurring { cron, duration_ms: 7_200_000 }, "UTC");
        assert_eq!(always.covers(ms("2026-12-01T07:30:00Z")), Some(ms("2026-12-01T07:00:00Z")));
    }

    #[test]
    fn local_and_absolute_times_are_read() {
        let berlin = Zone::try_from("europe/berlin".to_owned()).expect("a zone");
        assert_eq!(berlin.as_str(), "Europe/Berlin");
        let eight = ms("2026-12-24T07:00:00Z");
        for text in [
            "2026-12-24T08:00",
            "2026-12-24T08:00:00",
            "2026-12-24 08:00",
            "2026-12-24T07:00:00Z",
            "2026-12-24T09:00:00+02:00",
        ] {
            assert_eq!(berlin.moment(text), Ok(eight), "{text}");
        }
        assert!(berlin.moment("tomorrow").is_err());
        assert!(Zone::try_from("Mars/Olympus".to_owned()).is_err());
    }
}
