//! Reads wanted series out of Prometheus text.
//!
//! The text exposition format 0.0.4, the OpenMetrics text format as far as
//! samples go, and the quoted names of Prometheus 3. Strict about what a sample
//! is: a line that cannot be read gives no value. Tolerant about what
//! does not matter: comments of any kind, blank lines, CRLF, a missing last line
//! end, timestamps and exemplars.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use std::collections::BTreeSet;

use regatta_core::manifest::nearest;
use regatta_core::metrics::VALUE_MAX;
use thiserror::Error;

/// Largest page.
pub const LIMIT_BYTES: usize = 1 << 20;
/// Most samples on a page.
pub const LIMIT_SAMPLES: usize = 10_000;
/// How many samples are looked at for a name that was meant.
const SIMILAR_AMONG: usize = 500;

/// Why a page could not be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TextError {
    /// More than [`LIMIT_BYTES`].
    #[error("{bytes} bytes, more than {LIMIT_BYTES}")]
    TooLarge {
        /// Size of the page.
        bytes: usize,
    },
    /// More than [`LIMIT_SAMPLES`].
    #[error("line {line}: more than {LIMIT_SAMPLES} samples")]
    TooManySamples {
        /// Line of the first sample too many, from 1.
        line: usize,
    },
}

/// Why a page gives no value of a series.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum SeriesError {
    /// No sample has that name.
    #[error("no such series{}", .similar.as_ref().map(|near| format!("; did you mean `{near}`?")).unwrap_or_default())]
    Absent {
        /// A name on the page that is close to it.
        similar: Option<String>,
    },
    /// A line that cannot be read; that of the series, or the page's first when the series is nowhere else.
    #[error("line {line}: expected {expected}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What should have been there.
        expected: &'static str,
    },
    /// The sum of its samples is beyond [`VALUE_MAX`], or none of them is a number.
    #[error("the value is {value:e}: ignored")]
    OutOfRange {
        /// The sum.
        value: f64,
    },
}

/// Reads the page once and returns the sum over all samples (label sets) of each
/// wanted series, in the order of `wanted`. Samples that are NaN or infinite do
/// not count. A line that cannot be read costs the series that it names, if any.
///
/// # Errors
/// [`TextError`]; total on arbitrary bytes.
pub fn scan<S: AsRef<str>>(page: &[u8], wanted: &[S]) -> Result<Vec<Result<f64, SeriesError>>, TextError> {
    if page.len() > LIMIT_BYTES {
        return Err(TextError::TooLarge { bytes: page.len() });
    }
    let mut found: Vec<Option<Result<f64, SeriesError>>> = vec![None; wanted.len()];
    let mut first_broken = None;
    let mut samples = 0;
    for (index, text) in page.split(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        let (name, value) = match Line(text).sample() {
            Ok(None) => continue,
            Ok(Some((name, value))) => (name, Ok(value)),
            Err(expected) => {
                let broken = SeriesError::Syntax { line, expected };
                first_broken.get_or_insert_with(|| broken.clone());
                (Line(text).leading_name(), Err(broken))
            }
        };
        samples += 1;
        if samples > LIMIT_SAMPLES {
            return Err(TextError::TooManySamples { line });
        }
        for (found, wanted) in found.iter_mut().zip(wanted) {
            if wanted.as_ref().as_bytes() == name {
                *found = Some(match (found.take(), &value) {
                    (Some(Err(broken @ SeriesError::Syntax { .. })), _) => Err(broken),
                    (_, Err(broken)) => Err(broken.clone()),
                    (Some(Ok(sum)), Ok(value)) if value.is_finite() => Ok(sum + value),
                    (Some(Ok(sum)), Ok(_)) => Ok(sum),
                    (_, Ok(value)) if value.is_finite() => Ok(*value),
                    (_, Ok(value)) => Err(SeriesError::OutOfRange { value: *value }),
                });
            }
        }
    }
    let values = found.into_iter().zip(wanted).map(|(found, wanted)| match found {
        // Finite values may still add up to infinity.
        Some(Ok(value)) if value.abs() > VALUE_MAX => Err(SeriesError::OutOfRange { value }),
        Some(found) => found,
        None => Err(first_broken
            .clone()
            .unwrap_or_else(|| SeriesError::Absent { similar: similar(page, wanted.as_ref()) })),
    });
    Ok(values.collect())
}

/// The name on the page that is closest to `wanted`, if it is close. Only the first names are looked at: a page is scanned often.
fn similar(page: &[u8], wanted: &str) -> Option<String> {
    let samples = page.split(|&byte| byte == b'\n').filter_map(|text| Line(text).sample().ok()?);
    let names: BTreeSet<&str> =
        samples.take(SIMILAR_AMONG).filter_map(|(name, _)| std::str::from_utf8(name).ok()).collect();
    let names = names.into_iter().filter(|name| name.bytes().all(|byte| byte.is_ascii_graphic()));
    nearest(wanted, names).map(str::to_owned)
}

/// What should have been there.
type Expected = &'static str;

/// What is left of a line.
struct Line<'a>(&'a [u8]);

impl<'a> Line<'a> {
    /// The name and value on the line; none on a blank or comment line.
    fn sample(mut self) -> Result<Option<(&'a [u8], f64)>, Expected> {
        if let Some(text) = self.0.strip_suffix(b"\r") {
            self.0 = text;
        }
        self.blanks();
        if matches!(self.peek(), None | Some(b'#')) {
            return Ok(None);
        }
        let name = if self.eat(b'{') {
            let name = self.quoted()?;
            self.blanks();
            if !self.eat(b'}') {
                if !self.eat(b',') {
                    return Err("`,` or `}` after the quoted name");
                }
                self.labels()?;
            }
            name
        } else {
            let name = self.name().ok_or("the name of a series")?;
            self.blanks();
            if self.eat(b'{') {
                self.labels()?;
            }
            name
        };
        self.blanks();
        let value = self.number().ok_or("a number as the value")?;
        self.blanks();
        if !matches!(self.peek(), None | Some(b'#')) {
            self.number().ok_or("a time stamp or the end of the line")?;
            self.blanks();
        }
        // An exemplar, which nobody here asks for.
        match self.peek() {
            None | Some(b'#') => Ok(Some((name, value))),
            Some(_) => Err("the end of the line"),
        }
    }

    /// The name that the line begins with, even if the rest cannot be read; empty for none.
    fn leading_name(mut self) -> &'a [u8] {
        self.blanks();
        if self.eat(b'{') { self.quoted().unwrap_or_default() } else { self.name().unwrap_or_default() }
    }

    /// Labels up to and including the closing brace.
    fn labels(&mut self) -> Result<(), Expected> {
        loop {
            self.blanks();
            if self.eat(b'}') {
                return Ok(());
            }
            if self.peek() == Some(b'"') {
                self.quoted()?;
            } else {
                self.name().ok_or("the name of a label or `}`")?;
            }
            self.blanks();
            if !self.eat(b'=') {
                return Err("`=` after the name of a label");
            }
            self.blanks();
            self.quoted()?;
            self.blanks();
            if !self.eat(b',') && self.peek() != Some(b'}') {
                return Err("`,` or `}` after a label");
            }
        }
    }

    /// A quoted string as it stands, escapes unresolved.
    fn quoted(&mut self) -> Result<&'a [u8], Expected> {
        if !self.eat(b'"') {
            return Err("`\"`");
        }
        let mut escaped = false;
        for (index, &byte) in self.0.iter().enumerate() {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => {
                    let text = &self.0[..index];
                    self.0 = &self.0[index + 1..];
                    return Ok(text);
                }
                _ => {}
            }
        }
        Err("a closing `\"`")
    }

    fn name(&mut self) -> Option<&'a [u8]> {
        let is_first = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_' || byte == b':';
        if !self.peek().is_some_and(is_first) {
            return None;
        }
        Some(self.take_while(|byte| is_first(byte) || byte.is_ascii_digit()))
    }

    fn number(&mut self) -> Option<f64> {
        let word = self.take_while(|byte| byte != b' ' && byte != b'\t');
        std::str::from_utf8(word).ok()?.parse().ok()
    }

    fn blanks(&mut self) {
        self.take_while(|byte| byte == b' ' || byte == b'\t');
    }

    fn take_while(&mut self, holds: impl Fn(u8) -> bool) -> &'a [u8] {
        let end = self.0.iter().position(|&byte| !holds(byte)).unwrap_or(self.0.len());
        let (taken, rest) = self.0.split_at(end);
        self.0 = rest;
        taken
    }

    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    fn eat(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        if found {
            self.0 = &self.0[1..];
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn one(page: &str, name: &str) -> Result<f64, SeriesError> {
        scan(page.as_bytes(), &[name]).expect("within the limits").remove(0)
    }

    fn values(page: &str, names: &[&str]) -> Vec<Option<f64>> {
        scan(page.as_bytes(), names).expect("within the limits").into_iter().map(Result::ok).collect()
    }

    fn absent(similar: Option<&str>) -> Result<f64, SeriesError> {
        Err(SeriesError::Absent { similar: similar.map(str::to_owned) })
    }

    #[test]
    fn a_page_as_guests_write_it() {
        let page = r#"# HELP http_requests_total The total number of HTTP requests.
# TYPE http_requests_total counter
http_requests_total{method="post",code="200"} 1027 1395066363000
http_requests_total{method="post",code="400"}    3 1395066363000

# Escaping in label values:
msdos_file_access_time_seconds{path="C:\\DIR\\FILE.TXT",error="Cannot find file:\n\"FILE.TXT\"}"} 1.458255915e9
metric_without_timestamp_and_labels 12.47
something_weird{problem="division by zero"} +Inf -3982045
http_request_duration_seconds_bucket{le="+Inf",} 144320
http_requests_total_bucket{le="8.0"} 7 # {trace_id="x"} 0.67 1520879607.789
{"guest.load", zone="a"} 0.25
{"guest.load"} 0.5
# EOF"#;
        let wanted = [
            "guest.load",
            "something_weird",
            "http_requests_total",
            "no_such",
            "http_request_duration_seconds_bucket",
        ];
        assert_eq!(values(page, &wanted), [Some(0.75), None, Some(1030.0), None, Some(144_320.0)]);
        let crlf = page.replace('\n', "\r\n");
        assert_eq!(values(&crlf, &wanted), values(page, &wanted));
    }

    #[test]
    fn a_name_is_the_whole_name() {
        assert_eq!(one("load_1 5\nload 2\nmy:load 7", "load"), Ok(2.0));
        assert_eq!(
            one("load", "load"),
            Err(SeriesError::Syntax { line: 1, expected: "a number as the value" })
        );
    }

    #[test]
    fn what_is_not_a_measurement_is_named() {
        for value in ["NaN", "nan", "+Inf", "-Inf", "Inf", "1.7976931348623157e308", "-1e22"] {
            let found = one(&format!("x {value}"), "x");
            assert!(matches!(found, Err(SeriesError::OutOfRange { .. })), "{value}: {found:?}");
        }
        assert_eq!(one("x NaN\nx{a=\"b\"} 3", "x"), Ok(3.0));
        assert_eq!(one("x 3\nx{a=\"b\"} NaN", "x"), Ok(3.0));
        let twice = one("x 1e308\nx{a=\"b\"} 1e308", "x");
        assert_eq!(twice, Err(SeriesError::OutOfRange { value: f64::INFINITY }));
        let text = one("x 1e308", "x").expect_err("out of range").to_string();
        assert_eq!(text, "the value is 1e308: ignored");
    }

    #[test]
    fn a_series_that_is_not_there_is_told_from_one_that_was_misspelled() {
        assert_eq!(one("", "load"), absent(None));
        assert_eq!(one("requests_total 1\nload 2", "requets_total"), absent(Some("requests_total")));
        assert_eq!(one("{\"lo\u{1b}d\"} 2", "load"), absent(None), "names are not repeated unseen");
        let text = one("load 2", "loda").expect_err("absent").to_string();
        assert_eq!(text, "no such series; did you mean `load`?");
    }

    #[test]
    fn a_line_that_cannot_be_read_costs_its_own_series_only() {
        let page = "ok 1\nx{a=b} 5\nx 2\nlater 3";
        assert_eq!(values(page, &["ok", "x", "later"]), [Some(1.0), None, Some(3.0)]);
        let first = SeriesError::Syntax { line: 2, expected: "`\"`" };
        assert_eq!(one(page, "x"), Err(first.clone()), "half a sum is not the sum");
        assert_eq!(one(page, "other"), Err(first), "it may have been on that line");
    }

    #[test]
    fn mistakes_name_their_line() {
        for (text, expected) in [
            ("1x 5", "the name of a series"),
            ("x{a=\"b\" 5", "`,` or `}` after a label"),
            ("x{a=\"b} 5", "a closing `\""),
            ("x{a=\"b\\\"} 5", "a closing `\""),
            ("x{a} 5", "`=` after the name of a label"),
            ("x{=\"b\"} 5", "the name of a label or `}`"),
            ("x{a=b} 5", "`\""),
            ("x{a=\"b\"}", "a number as the value"),
            ("x five", "a number as the value"),
            ("x 5 soon", "a time stamp or the end of the line"),
            ("x 5 1 2", "the end of the line"),
            ("<html>", "the name of a series"),
            ("{\"x\" 5", "`,` or `}` after the quoted name"),
        ] {
            let error = one(&format!("# a comment\nok 1\n{text}\nok 2\n"), "no").unwrap_err();
            let SeriesError::Syntax { line, expected: found } = error else { panic!("{text}: {error}") };
            assert_eq!(line, 3, "{text}");
            assert!(found.starts_with(expected), "{text}: expected {expected}, found {found}");
        }
    }

    #[test]
    fn pages_have_limits() {
        let many = "x 1\n".repeat(LIMIT_SAMPLES);
        assert_eq!(one(&many, "x"), Ok(10_000.0));
        assert_eq!(
            scan(format!("{many}y 1").as_bytes(), &["x"]),
            Err(TextError::TooManySamples { line: LIMIT_SAMPLES + 1 })
        );
        let large = vec![b'#'; LIMIT_BYTES + 1];
        assert_eq!(scan(&large, &["x"]), Err(TextError::TooLarge { bytes: LIMIT_BYTES + 1 }));
    }

    fn label_value() -> impl Strategy<Value = String> {
        "[ -~é☃\n]{0,12}".prop_map(|text| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n"))
    }

    proptest! {
        /// Whatever comes, it is read or refused; nothing panics.
        #[test]
        fn total_on_arbitrary_bytes(page in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = scan(&page, &["x"]);
        }

        /// The same close to the grammar, where the interesting mistakes are.
        #[test]
        fn total_on_almost_text(page in "([a-z:_]{0,3}|[{}\",=\\\\# \n\r\t.]|[0-9e+-]{0,4}|NaN|Inf){0,60}") {
            if let Err(SeriesError::Syntax { line, .. }) = one(&page, "x") {
                prop_assert!(line >= 1 && line <= page.split('\n').count());
            }
        }

        /// What is written is what is read, among other series.
        #[test]
        fn sums_what_was_written(
            samples in proptest::collection::vec(
                (0_usize..3, proptest::collection::vec(("[a-z_][a-z0-9_]{0,5}", label_value()), 0..3),
                 -1_000_000_i32..1_000_000, any::<bool>()),
                0..30,
            ),
        ) {
            let names = ["alpha", "alpha_total", "b:eta"];
            let mut page = String::new();
            let mut sums = [None; 3];
            for (which, labels, value, timed) in &samples {
                let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}=\"{v}\"")).collect();
                let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
                let time = if *timed { " 1700000000000" } else { "" };
                page.push_str(&format!("{}{labels} {value}{time}\n", names[*which]));
                *sums[*which].get_or_insert(0.0) += f64::from(*value);
            }
            prop_assert_eq!(values(&page, &names), sums);
        }
    }
}
