//! Why a policy decided as it did.

use crate::Reason;

impl Reason {
    /// A reason with a stable machine code (`above-target`) and a sentence for people.
    ///
    /// ```
    /// use regatta_sdk::Reason;
    /// let reason = Reason::new("above-target", "load is 0.9, above its target 0.5");
    /// assert_eq!(reason.code, "above-target");
    /// ```
    #[must_use]
    pub fn new(code: &str, text: impl Into<String>) -> Self {
        Self { code: code.to_owned(), text: text.into(), evidence: Vec::new() }
    }

    /// Adds what it rests on: a name and a value.
    ///
    /// ```
    /// use regatta_sdk::Reason;
    /// let reason = Reason::new("warming", "three are on their way").with("warming", 3);
    /// assert_eq!(reason.evidence, [("warming".to_owned(), "3".to_owned())]);
    /// ```
    #[must_use]
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.evidence.push((name.to_owned(), value.to_string()));
        self
    }

    /// Adds a measured number, rounded for people (see [`short`]).
    ///
    /// ```
    /// use regatta_sdk::Reason;
    /// let reason = Reason::new("above-target", "busy").number("mean", 0.823_456);
    /// assert_eq!(reason.evidence[0].1, "0.8235");
    /// ```
    #[must_use]
    pub fn number(self, name: &str, value: f64) -> Self {
        self.with(name, short(value))
    }
}

/// A measured number for people: about four significant digits, no trailing zeros.
///
/// ```
/// assert_eq!(regatta_sdk::short(0.823_456), "0.8235");
/// assert_eq!(regatta_sdk::short(12.0), "12");
/// assert_eq!(regatta_sdk::short(48_123.7), "48124");
/// assert_eq!(regatta_sdk::short(1.234_567e300), "1.235e300");
/// ```
#[must_use]
pub fn short(value: f64) -> String {
    if !value.is_finite() || value == 0.0 {
        return value.to_string();
    }
    let decimals = match value.abs() {
        m if m >= 1e9 => return format!("{value:.3e}"),
        m if m >= 1000.0 => 0,
        m if m >= 100.0 => 1,
        m if m >= 10.0 => 2,
        m if m >= 1.0 => 3,
        m if m >= 0.001 => 4,
        _ => return format!("{value:.3e}"),
    };
    let text = format!("{value:.decimals$}");
    if decimals == 0 {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
