//! Cron expressions: five fields, as crontab(5) reads them, on the calendar of a time zone.

use jiff::Timestamp;
use jiff::civil::{Date, Time};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// How far ahead an occurrence is looked for: 29 February comes again within eight years.
const AHEAD_DAYS: u32 = 8 * 366;
/// No clock is ever put forward by more.
const GAP_MAX_S: i64 = 25 * 3_600;

/// A recurring moment of the calendar: `minute hour day-of-month month day-of-week`.
///
/// As in crontab(5), a day matches when its day of the month *or* its day of the week does, unless one of them is `*`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cron {
    text: String,
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// Both days are restricted: either is enough.
    either_day: bool,
}

const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl TryFrom<String> for Cron {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl From<Cron> for String {
    fn from(cron: Cron) -> Self {
        cron.text
    }
}

impl Cron {
    /// Reads an expression.
    ///
    /// # Errors
    /// What is wrong with it, as a lower-case fragment.
    pub fn parse(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split_whitespace().collect();
        let [minutes, hours, days, months, weekdays] = fields[..] else {
            return Err(format!(
                "has {} fields instead of 5 (minute, hour, day of month, month, day of week)",
                fields.len()
            ));
        };
        let mut cron = Self {
            text: fields.join(" "),
            minutes: set("minute", minutes, 0, 59, &[])?,
            hours: set("hour", hours, 0, 23, &[])?,
            days: set("day of month", days, 1, 31, &[])?,
            months: set("month", months, 1, 12, &MONTHS)?,
            weekdays: set("day of week", weekdays, 0, 7, &WEEKDAYS)?,
            either_day: !days.starts_with('*') && !weekdays.starts_with('*'),
        };
        // 7 is Sunday, too.
        cron.weekdays = (cron.weekdays | cron.weekdays >> 7) & 0x7f;
        let start = Timestamp::UNIX_EPOCH;
        if cron.next(&TimeZone::UTC, start).is_none() {
            return Err("never comes".to_owned());
        }
        Ok(cron)
    }

    /// The expression, its fields one space apart.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The latest occurrence at or before `at` and after `after`.
    ///
    /// A local time that does not exist (the clock is put forward over it) counts as far after the gap as it lies after its
    /// beginning; one that comes twice counts once, the first time: RFC 5545, as calendars do it.
    #[must_use]
    pub fn latest(&self, zone: &TimeZone, at: Timestamp, after: Timestamp) -> Option<Timestamp> {
        let first_day = zone.to_datetime(after).date().yesterday().ok()?;
        let mut date = zone.to_datetime(at).date();
        let mut best: Option<Timestamp> = None;
        loop {
            let on_day = self.times(date).rev().filter_map(|time| instant(zone, date, time));
            for instant in on_day.filter(|instant| *instant <= at) {
                best = best.max(Some(instant));
                if !near_transition(zone, instant) {
                    return best.filter(|best| *best > after);
                }
            }
            // Next to a gap, times of the day before may be later.
            let done = best.is_some_and(|best| zone.to_datetime(best).date() > date);
            date = date.yesterday().ok()?;
            if done || date < first_day {
                return best.filter(|best| *best > after);
            }
        }
    }

    /// The first occurrence after `after`, within eight years.
    #[must_use]
    pub fn next(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let mut date = zone.to_datetime(after).date();
        for _ in 0..=AHEAD_DAYS {
            let on_day = self.times(date).filter_map(|time| instant(zone, date, time));
            if let Some(next) = on_day.filter(|instant| *instant > after).min() {
                return Some(next);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The local times of a day, in order; none when the day does not match.
    fn times(&self, date: Date) -> impl DoubleEndedIterator<Item = Time> + '_ {
        let (hours, minutes) = if self.comes_on(date) { (self.hours, self.minutes) } else { (0, 0) };
        let hours = (0..24_i8).filter(move |hour| has(hours, *hour));
        hours.flat_map(move |hour| {
            let minutes = (0..60_i8).filter(move |minute| has(minutes, *minute));
            minutes.map(move |minute| Time::constant(hour, minute, 0, 0))
        })
    }

    fn comes_on(&self, date: Date) -> bool {
        let day = has(self.days, date.day());
        let weekday = has(self.weekdays, date.weekday().to_sunday_zero_offset());
        let fits = if self.either_day { day || weekday } else { day && weekday };
        has(self.months, date.month()) && fits
    }
}

fn has(set: u64, value: i8) -> bool {
    set >> value & 1 == 1
}

fn instant(zone: &TimeZone, date: Date, time: Time) -> Option<Timestamp> {
    zone.to_timestamp(date.to_datetime(time)).ok()
}

/// Whether the clock may have been put forward shortly before.
fn near_transition(zone: &TimeZone, instant: Timestamp) -> bool {
    let before = Timestamp::from_second(instant.as_second() - GAP_MAX_S);
    before.is_ok_and(|before| zone.to_offset(before) != zone.to_offset(instant))
}

/// The values of a field: `*`, `5`, `mon-fri`, `*/15`, `1-31/2`, and lists of them.
fn set(what: &str, text: &str, min: u64, max: u64, names: &[&str]) -> Result<u64, String> {
    let value = |text: &str| {
        let named = names.iter().position(|name| text.eq_ignore_ascii_case(name));
        let number = text.parse::<u64>().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        let value = named.map(|at| at as u64 + min).or(number);
        value
            .filter(|value| (min..=max).contains(value))
            .ok_or_else(|| format!("{what} `{text}` is not from {min} to {max}"))
    };
    let mut values = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => {
                let step = step.parse::<u64>().ok().filter(|step| (1..=max).contains(step));
                (range, step.ok_or_else(|| format!("{what} `{part}` has no valid step"))?)
            }
            None => (part, 1),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((first, last)) => (value(first)?, value(last)?),
            None if part.contains('/') => (value(range)?, max),
            None => (value(range)?, value(range)?),
        };
        if first > last {
            return Err(format!("{what} `{part}` ends before it begins"));
        }
        let step = usize::try_from(step).unwrap_or(usize::MAX);
        (first..=last).step_by(step).for_each(|value| values |= 1 << value);
    }
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        jiff::tz::TimeZoneDatabase::bundled().get(name).expect("a zone")
    }

    fn at(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    /// The occurrences in a span, forward, each of which is also the latest one a second later.
    fn all(cron: &str, name: &str, from: &str, to: &str) -> Vec<String> {
        let (cron, zone, to) = (Cron::parse(cron).expect("an expression"), zone(name), at(to));
        let (mut now, mut found) = (at(from), Vec::new());
        while let Some(next) = cron.next(&zone, now).filter(|next| *next <= to) {
            let later = Timestamp::from_second(next.as_second() + 1).expect("a time");
            assert_eq!(cron.latest(&zone, later, at(from)), Some(next), "{cron:?}");
            found.push(next.to_string());
            now = next;
        }
        found
    }

    #[test]
    fn a_local_time_that_does_not_exist_counts_after_the_gap() {
        // Berlin goes from 02:00 to 03:00 on 29 March 2026.
        let berlin = all("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-31T00:00:00Z");
        assert_eq!(berlin, ["2026-03-28T01:30:00Z", "2026-03-29T01:30:00Z", "2026-03-30T00:30:00Z"]);
        let new_york = all("30 2 8 3 *", "America/New_York", "2026-03-07T00:00:00Z", "2026-03-10T00:00:00Z");
        assert_eq!(new_york, ["2026-03-08T07:30:00Z"]);
        // Lord Howe moves by half an hour: 02:00 to 02:30 on 4 October 2026.
        let howe = all("15 2 4 10 *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", "2026-10-05T00:00:00Z");
        assert_eq!(howe, ["2026-10-03T15:45:00Z"]);
    }

    #[test]
    fn a_local_time_that_comes_twice_counts_once() {
        let berlin = all("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", "2026-10-26T12:00:00Z");
        assert_eq!(berlin, ["2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"]);
        let new_york = all("30 1 1 11 *", "America/New_York", "2026-10-31T00:00:00Z", "2026-11-03T00:00:00Z");
        assert_eq!(new_york, ["2026-11-01T05:30:00Z"]);
        let howe = all("45 1 5 4 *", "Australia/Lord_Howe", "2026-04-03T00:00:00Z", "2026-04-06T00:00:00Z");
        assert_eq!(howe, ["2026-04-04T14:45:00Z"]);
    }

    #[test]
    fn times_in_and_after_a_gap_stay_in_order() {
        let found = all("15,45 2,3 29 3 *", "Europe/Berlin", "2026-03-28T00:00:00Z", "2026-03-30T00:00:00Z");
        // 02:15 and 03:15 are the same moment, as are 02:45 and 03:45.
        assert_eq!(found, ["2026-03-29T01:15:00Z", "2026-03-29T01:45:00Z"]);
    }

    #[test]
    fn days_are_those_of_crontab() {
        let found = all("0 8 * * mon-fri", "UTC", "2026-12-04T00:00:00Z", "2026-12-08T00:00:00Z");
        assert_eq!(found, ["2026-12-04T08:00:00Z", "2026-12-07T08:00:00Z"]);
        // Both restricted: either is enough. 7 is Sunday.
        let found = all("0 0 1 * 7", "UTC", "2026-11-30T00:00:00Z", "2026-12-07T00:00:00Z");
        assert_eq!(found, ["2026-12-01T00:00:00Z", "2026-12-06T00:00:00Z"]);
        let leap = all("0 0 29 2 *", "UTC", "2026-01-01T00:00:00Z", "2029-01-01T00:00:00Z");
        assert_eq!(leap, ["2028-02-29T00:00:00Z"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("* * * *", "has 4 fields instead of 5 (minute, hour, day of month, month, day of week)"),
            ("60 * * * *", "minute `60` is not from 0 to 59"),
            ("0 8 * * fri-mon", "day of week `fri-mon` ends before it begins"),
            ("*/0 * * * *", "minute `*/0` has no valid step"),
            ("0 0 31 2 *", "never comes"),
            ("0 0 * * monday", "day of week `monday` is not from 0 to 7"),
        ] {
            assert_eq!(Cron::parse(text).expect_err(text), why);
        }
    }
}
