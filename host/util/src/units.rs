//! Quantities as people write them: `250ms`, `1m30s`, `64MiB`.
//!
//! A bare number is refused on purpose: whether `30` means seconds or
//! milliseconds, bytes or mebibytes, is exactly what a reader cannot see.

use std::time::Duration;

/// Units of time, longest first, in milliseconds.
const TIME: &[(&str, u64)] = &[("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// Units of size, largest first, in bytes. The short ones are powers of 1024 as
/// well, as QEMU and Cloud Hypervisor read them.
const SIZE: &[(&str, u64)] = &[
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("T", 1 << 40),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
    ("B", 1),
];

/// Why a text is not a quantity. `Display` continues a sentence that begins with
/// the text itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// A number alone.
    #[error("has no unit")]
    NoUnit,
    /// A unit that is not in the list.
    #[error("has the unknown unit `{0}`")]
    UnknownUnit(String),
    /// Not a number followed by a unit.
    #[error("is not a number followed by a unit")]
    Malformed,
    /// `1s1m`, `1s1s`.
    #[error("does not name its units from large to small, each once")]
    Order,
    /// `0.5ms`, `1.3B`.
    #[error("is not a whole number of {0}")]
    Fraction(&'static str),
    /// Does not fit 64 bits.
    #[error("is too large")]
    TooLarge,
}

/// Reads a duration: numbers with the units `d`, `h`, `m`, `s`, `ms`, from large
/// to small (`1m30s`, `1.5s`). Returns milliseconds.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration_ms(text: &str) -> Result<u64, QuantityError> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut shortest = u64::MAX;
    loop {
        let part = take_part(rest, TIME, "milliseconds")?;
        if part.factor >= shortest {
            return Err(QuantityError::Order);
        }
        shortest = part.factor;
        total = total.checked_add(part.value).ok_or(QuantityError::TooLarge)?;
        if part.rest.is_empty() {
            return Ok(total);
        }
        rest = part.rest;
    }
}

/// As [`parse_duration_ms`], for a command line.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    parse_duration_ms(text).map(Duration::from_millis)
}

/// Reads a size: one number with a unit `B`, `KiB`, `MiB`, `GiB`, `TiB`, or the
/// short `K`, `M`, `G`, `T`, which mean the same powers of 1024. Returns bytes.
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_size_bytes(text: &str) -> Result<u64, QuantityError> {
    let part = take_part(text, SIZE, "bytes")?;
    if part.rest.is_empty() { Ok(part.value) } else { Err(QuantityError::Malformed) }
}

/// Writes a duration with the largest unit that needs no fraction: `90s`, `2m`,
/// `0s`. [`parse_duration_ms`] reads it back.
#[must_use]
pub fn format_duration_ms(ms: u64) -> String {
    if ms == 0 { "0s".to_owned() } else { format(ms, TIME) }
}

/// Writes a size with the largest unit that needs no fraction: `64MiB`.
/// [`parse_size_bytes`] reads it back.
#[must_use]
pub fn format_size_bytes(bytes: u64) -> String {
    if bytes == 0 { "0B".to_owned() } else { format(bytes, SIZE) }
}

fn format(value: u64, units: &[(&str, u64)]) -> String {
    // The last unit is 1, so one always divides.
    let (unit, factor) =
        units.iter().find(|(_, factor)| value.is_multiple_of(*factor)).copied().unwrap_or(("", 1));
    format!("{}{unit}", value / factor)
}

struct Part<'t> {
    value: u64,
    factor: u64,
    rest: &'t str,
}

/// Takes `<digits>[.<digits>]<letters>` off the front of `text`.
fn take_part<'t>(
    text: &'t str,
    units: &[(&str, u64)],
    smallest: &'static str,
) -> Result<Part<'t>, QuantityError> {
    let (whole, rest) = split_while(text, |c| c.is_ascii_digit());
    if whole.is_empty() {
        return Err(QuantityError::Malformed);
    }
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => {
            let (fraction, rest) = split_while(rest, |c| c.is_ascii_digit());
            if fraction.is_empty() {
                return Err(QuantityError::Malformed);
            }
            (fraction.trim_end_matches('0'), rest)
        }
        None => ("", rest),
    };
    let (unit, rest) = split_while(rest, char::is_alphabetic);
    if unit.is_empty() {
        return Err(if rest.is_empty() { QuantityError::NoUnit } else { QuantityError::Malformed });
    }
    let Some(&(_, factor)) = units.iter().find(|(name, _)| *name == unit) else {
        return Err(QuantityError::UnknownUnit(unit.to_owned()));
    };
    // No unit divides into more than 12 decimal places of the smallest one (a
    // size has at most 2^40, whose fractions end after 40 places, but nobody
    // writes those), and `whole` and `fraction` together must fit 128 bits.
    let whole: u64 = whole.parse().map_err(|_| QuantityError::TooLarge)?;
    if fraction.len() > 12 {
        return Err(QuantityError::Fraction(smallest));
    }
    let scale = 10_u128.pow(u32::try_from(fraction.len()).unwrap_or(0));
    let fraction: u128 = if fraction.is_empty() { 0 } else { fraction.parse().unwrap_or(0) };
    let scaled = (u128::from(whole) * scale + fraction)
        .checked_mul(u128::from(factor))
        .ok_or(QuantityError::TooLarge)?;
    if !scaled.is_multiple_of(scale) {
        return Err(QuantityError::Fraction(smallest));
    }
    let value = u64::try_from(scaled / scale).map_err(|_| QuantityError::TooLarge)?;
    Ok(Part { value, factor, rest })
}

fn split_while(text: &str, keep: impl Fn(char) -> bool) -> (&str, &str) {
    text.split_at(text.find(|c| !keep(c)).unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_as_people_write_them() {
        let cases = [("250ms", 250), ("1s", 1_000), ("2m", 120_000), ("1m30s", 90_000), ("1.5s", 1_500)];
        for (text, ms) in cases {
            assert_eq!(parse_duration_ms(text), Ok(ms), "{text}");
        }
        assert_eq!(parse_duration_ms("1d1h1m1s1ms"), Ok(90_061_001));
        assert_eq!(parse_duration_ms("0s"), Ok(0));
    }

    #[test]
    fn what_is_no_duration_says_why() {
        use QuantityError::{Fraction, Malformed, NoUnit, Order, TooLarge, UnknownUnit};
        let cases = [
            ("", Malformed),
            ("30", NoUnit),
            ("s", Malformed),
            ("1 s", Malformed),
            ("-1s", Malformed),
            ("1.s", Malformed),
            ("5sec", UnknownUnit("sec".into())),
            ("5µs", UnknownUnit("µs".into())),
            ("1s1m", Order),
            ("1s1s", Order),
            ("0.5ms", Fraction("milliseconds")),
            ("99999999999999999999s", TooLarge),
            ("18446744073709551615d", TooLarge),
        ];
        for (text, error) in cases {
            assert_eq!(parse_duration_ms(text), Err(error), "{text}");
        }
    }

    #[test]
    fn sizes_as_people_write_them() {
        let cases = [("512MiB", 512 << 20), ("1GiB", 1 << 30), ("64M", 64 << 20), ("1.5K", 1536), ("7B", 7)];
        for (text, bytes) in cases {
            assert_eq!(parse_size_bytes(text), Ok(bytes), "{text}");
        }
        assert_eq!(parse_size_bytes("64MB"), Err(QuantityError::UnknownUnit("MB".into())));
        assert_eq!(parse_size_bytes("1K1B"), Err(QuantityError::Malformed));
        assert_eq!(parse_size_bytes("0.3B"), Err(QuantityError::Fraction("bytes")));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(value: u64) {
            prop_assert_eq!(parse_duration_ms(&format_duration_ms(value)), Ok(value));
            prop_assert_eq!(parse_size_bytes(&format_size_bytes(value)), Ok(value));
        }

        #[test]
        fn no_text_panics(text in "[0-9.a-zA-Zµ -]{0,40}|.{0,20}") {
            let _ = (parse_duration_ms(&text), parse_size_bytes(&text));
        }
    }
}
