//! Times and sizes as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// The system's time, Unix milliseconds.
#[must_use]
pub fn system_clock_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time as `2026-11-23 14:31:07.250Z`: UTC, so that it means the same to everybody
/// who reads it.
#[must_use]
pub fn utc(unix_ms: u64) -> String {
    let time = i64::try_from(unix_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.map_or_else(|| format!("{unix_ms} ms"), |time| time.strftime("%Y-%m-%d %H:%M:%S%.3fZ").to_string())
}

/// The same without milliseconds, for moments that nobody needs more exactly.
#[must_use]
pub fn utc_seconds(unix_ms: u64) -> String {
    regatta_core::sizing::utc(unix_ms)
}

/// The time from `since_ms` to `now_ms` by its two greatest units: `3m12s`.
#[must_use]
pub fn age(since_ms: u64, now_ms: u64) -> String {
    span(now_ms.saturating_sub(since_ms) / 1_000 * 1_000)
}

/// A span of time by its two greatest units: `250ms`, `1.5s`, `3m12s`, `2d4h`.
#[must_use]
pub fn span(span_ms: u64) -> String {
    let seconds = span_ms / 1_000;
    let two = |great: u64, unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{great}{unit}"),
        small => format!("{great}{unit}{small}{small_unit}"),
    };
    match seconds {
        0 if span_ms > 0 => format!("{span_ms}ms"),
        0..60 if span_ms.is_multiple_of(1_000) => format!("{seconds}s"),
        0..60 => format!("{}s", span_ms as f64 / 1_000.0),
        60..3_600 => two(seconds / 60, "m", seconds % 60, "s"),
        3_600..86_400 => two(seconds / 3_600, "h", seconds % 3_600 / 60, "m"),
        _ => two(seconds / 86_400, "d", seconds % 86_400 / 3_600, "h"),
    }
}

/// A size in the greatest binary unit that leaves at least 1: `64 MiB`, `1.5 GiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1_024.0 && unit + 1 < UNITS.len() {
        value /= 1_024.0;
        unit += 1;
    }
    if value.fract() == 0.0 {
        format!("{value} {}", UNITS[unit])
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// At most four decimals, no trailing zeros.
#[must_use]
pub fn number(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_with_milliseconds() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(utc(1_795_444_267_250), "2026-11-23 14:31:07.250Z");
        assert_eq!(utc(951_782_400_001), "2000-02-29 00:00:00.001Z");
        assert_eq!(utc(u64::MAX), "18446744073709551615 ms");
    }

    #[test]
    fn spans_have_two_units_at_most() {
        let spans = [
            (0, "0s"),
            (250, "250ms"),
            (1_500, "1.5s"),
            (59_000, "59s"),
            (192_000, "3m12s"),
            (180_999, "3m"),
            (3_599_999, "59m59s"),
            (3_600_000, "1h"),
            (93_600_000, "1d2h"),
            (864_000_000, "10d"),
        ];
        for (ms, text) in spans {
            assert_eq!(span(ms), text);
        }
        assert_eq!(age(1_000, 3_999), "2s");
        assert_eq!(age(5_000, 4_000), "0s", "a clock that was set back");
    }

    #[test]
    fn sizes_and_numbers_are_short() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1_023), "1023 B");
        assert_eq!(size(64 << 20), "64 MiB");
        assert_eq!(size(3 << 29), "1.5 GiB");
        assert_eq!(number(0.5), "0.5");
        assert_eq!(number(100.0), "100");
        assert_eq!(number(1.0 / 3.0), "0.3333");
        assert_eq!(number(-0.000_01), "0");
    }
}
