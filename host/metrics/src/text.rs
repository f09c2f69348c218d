//! Reads wanted series out of Prometheus text.
//!
//! The text exposition format 0.0.4, the OpenMetrics text format as far as
//! samples go, and the quoted names of Prometheus 3. Strict about what a sample
//! is, since half a page read wrongly is worse than none; tolerant about what
//! does not matter: comments of any kind, blank lines, CRLF, a missing last line
//! end, timestamps and exemplars.
//!
//! Source: <https://prometheus.io/docs/instrumenting/exposition_formats/>.

use thiserror::Error;

/// Largest page.
pub const LIMIT_BYTES: usize = 1 << 20;
/// Most samples on a page.
pub const LIMIT_SAMPLES: usize = 10_000;

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
    /// A line is no sample.
    #[error("line {line}: expected {expected}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What should have been there.
        expected: &'static str,
    },
}

/// Reads the page once and returns the sum over all samples (label sets) of each
/// wanted series, in the order of `wanted`. None for a series that is not there
/// or whose samples are all NaN or infinite: no number that one could act on.
///
/// # Errors
/// [`TextError`]; total on arbitrary bytes. Lines of other series count too.
pub fn scan<S: AsRef<str>>(page: &[u8], wanted: &[S]) -> Result<Vec<Option<f64>>, TextError> {
    if page.len() > LIMIT_BYTES {
        return Err(TextError::TooLarge { bytes: page.len() });
    }
    let mut sums = vec![None; wanted.len()];
    let mut samples = 0;
    for (index, text) in page.split(|&byte| byte == b'\n').enumerate() {
        let line = index + 1;
        let sample = Line(text).sample().map_err(|expected| TextError::Syntax { line, expected })?;
        let Some((name, value)) = sample else { continue };
        samples += 1;
        if samples > LIMIT_SAMPLES {
            return Err(TextError::TooManySamples { line });
        }
        if !value.is_finite() {
            continue;
        }
        for (sum, wanted) in sums.iter_mut().zip(wanted) {
            if wanted.as_ref().as_bytes() == name {
                *sum = Some(sum.unwrap_or(0.0) + value);
            }
        }
    }
    // Finite values may still add up to infinity.
    Ok(sums.into_iter().map(|sum| sum.filter(|sum| sum.is_finite())).collect())
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

    fn one(page: &str, name: &str) -> Result<Option<f64>, TextError> {
        scan(page.as_bytes(), &[name]).map(|values| values[0])
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
        assert_eq!(
            scan(page.as_bytes(), &wanted).unwrap(),
            [Some(0.75), None, Some(1030.0), None, Some(144_320.0)]
        );
        let crlf = page.replace('\n', "\r\n");
        assert_eq!(scan(crlf.as_bytes(), &wanted), scan(page.as_bytes(), &wanted));
    }

    #[test]
    fn a_name_is_the_whole_name() {
        assert_eq!(one("load_1 5\nload 2\nmy:load 7", "load"), Ok(Some(2.0)));
        assert_eq!(
            one("load", "load"),
            Err(TextError::Syntax { line: 1, expected: "a number as the value" })
        );
    }

    #[test]
    fn no_number_to_act_on_is_no_value() {
        for value in ["NaN", "nan", "+Inf", "-Inf", "Inf"] {
            assert_eq!(one(&format!("x {value}"), "x"), Ok(None), "{value}");
        }
        assert_eq!(one("x NaN\nx{a=\"b\"} 3", "x"), Ok(Some(3.0)));
        assert_eq!(one("x 1e308\nx{a=\"b\"} 1e308", "x"), Ok(None));
        assert_eq!(one("", "x"), Ok(None));
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
            let error = one(&format!("# a comment\nok 1\n{text}\nok 2\n"), "ok").unwrap_err();
            let TextError::Syntax { line, expected: found } = error else { panic!("{text}: {error}") };
            assert_eq!(line, 3, "{text}");
            assert!(found.starts_with(expected), "{text}: expected {expected}, found {found}");
        }
    }

    #[test]
    fn pages_have_limits() {
        let many = "x 1\n".repeat(LIMIT_SAMPLES);
        assert_eq!(one(&many, "x"), Ok(Some(10_000.0)));
        assert_eq!(
            one(&format!("{many}y 1"), "x"),
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
            if let Err(TextError::Syntax { line, .. }) = scan(page.as_bytes(), &["x"]) {
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
            prop_assert_eq!(scan(page.as_bytes(), &names).unwrap(), sums);
        }
    }
}
