//! YAML as a tree in which every key and value knows its place.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, NonFiniteFloatPolicy, Options, Spanned};

use super::problem::quote;
use super::report::{Report, child, item};
use super::source::{Place, Source};

/// Mappings and lists within each other.
const MAX_DEPTH: usize = 32;
/// Keys and values of a document, those that aliases repeat included.
const MAX_NODES: usize = 50_000;

/// A YAML value with its place.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Node {
    /// The value.
    pub(crate) value: Value,
    /// Where it is; for a value that an alias repeats, the alias.
    pub(crate) place: Place,
}

/// A YAML value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    /// Nothing, `~` or `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number from 0.
    Unsigned(u64),
    /// A whole number below 0.
    Negative(i64),
    /// Any other number; may be infinite or NaN.
    Float(f64),
    /// Text.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in the order of the document.
    Map(Vec<Entry>),
}

/// One entry of a mapping.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The key. Entries whose key is not text were reported and are not here.
    pub(crate) key: String,
    /// Where the key is.
    pub(crate) key_place: Place,
    /// The value.
    pub(crate) node: Node,
}

impl Node {
    /// The entries of a mapping.
    pub(crate) fn entries(&self) -> &[Entry] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The value of a key of a mapping.
    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key == key)
    }
}

impl Value {
    /// The number that it is.
    #[expect(clippy::cast_precision_loss, reason = "as precise as a metric is")]
    pub(crate) fn number(&self) -> Option<f64> {
        match *self {
            Self::Unsigned(value) => Some(value as f64),
            Self::Negative(value) => Some(value as f64),
            Self::Float(value) => Some(value),
            _ => None,
        }
    }

    /// What it is, within a sentence: `the number 3`, `a list`.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Null => "nothing".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Unsigned(value) => format!("the number {value}"),
            Self::Negative(value) => format!("the number {value}"),
            Self::Float(value) => format!("the number {value}"),
            Self::Text(text) => format!("the text {}", quote(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a mapping".to_owned(),
        }
    }
}

/// Parses `source`. Broken YAML is one problem; keys that are given twice or are
/// no text are one each.
///
/// None when there is no tree to go on with.
pub(crate) fn parse(source: &Source, report: &Report<'_>) -> Option<Node> {
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(&source.text, options()) {
        Ok(raw) => Some(build(raw, source, report, "")),
        Err(error) => {
            report_syntax(&error, report);
            None
        }
    }
}

fn options() -> Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_NODES,
            max_documents: 2,
            max_aliases: 1_000,
            max_anchors: 1_000,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_NODES },
        // Forwarded to us, so that each of them is a problem of its own.
        duplicate_keys: DuplicateKeyPolicy::PassThrough,
        // YAML 1.2: `no` is a text, `0755` and `1_000` are not numbers.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        non_finite_float_policy: NonFiniteFloatPolicy::PassThrough,
        reject_unsupported_tags: true,
        with_snippet: false,
    }
}

/// Says what the parser found, in the words of the manifest.
fn report_syntax(error: &serde_saphyr::Error, report: &Report<'_>) {
    use serde_saphyr::Error;
    let place = error.location().map_or(Place::START, |location| report.source().place(&location));
    let mut error = error.without_snippet();
    while let Error::AliasError { error: inner, .. } = error {
        error = inner;
    }
    let (message, hint) = match error {
        Error::MultipleDocuments { .. } => {
            ("a second document begins here".to_owned(), Some("one file holds one scale set"))
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            (format!("more than {MAX_DEPTH} mappings or lists within each other"), None)
        }
        Error::Budget { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            (format!("the document is too large: more than {MAX_NODES} values, or too many aliases"), None)
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            ("this alias stands within the value that it repeats".to_owned(), None)
        }
        Error::InvalidScalar { .. } => ("this value does not fit its tag".to_owned(), None),
        other => (without_location(other), None),
    };
    report.push(String::new(), place, format!("not valid YAML: {message}"), hint.map(str::to_owned));
}

/// The parser's own words, without the place that they end with.
fn without_location(error: &serde_saphyr::Error) -> String {
    let mut text = error.to_string();
    if let Some(at) = text.rfind(" at line ") {
        text.truncate(at);
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200).collect()
}

/// The tree as the parser gives it: keys may still be anything.
enum Raw {
    Scalar(Value),
    List(Vec<Spanned<Raw>>),
    Map(Vec<(Spanned<Raw>, Spanned<Raw>)>),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }
    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }
    fn visit_none<E>(self) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Null))
    }
    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Bool(value)))
    }
    fn visit_u64<E>(self, value: u64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Unsigned(value)))
    }
    fn visit_i64<E>(self, value: i64) -> Result<Raw, E> {
        // `-0` comes this way too.
        Ok(Raw::Scalar(u64::try_from(value).map_or(Value::Negative(value), Value::Unsigned)))
    }
    fn visit_f64<E>(self, value: f64) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Float(value)))
    }
    fn visit_str<E>(self, value: &str) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value.to_owned())))
    }
    fn visit_string<E>(self, value: String) -> Result<Raw, E> {
        Ok(Raw::Scalar(Value::Text(value)))
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Raw::List(items))
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Map(entries))
    }
}

/// Checks the keys. Recursion is bounded by [`MAX_DEPTH`].
fn build(raw: Spanned<Raw>, source: &Source, report: &Report<'_>, path: &str) -> Node {
    let place = source.place(&raw.referenced);
    let value = match raw.value {
        Raw::Scalar(value) => value,
        Raw::List(items) => Value::List(
            items
                .into_iter()
                .enumerate()
                .map(|(i, raw)| build(raw, source, report, &item(path, i)))
                .collect(),
        ),
        Raw::Map(raw_entries) => {
            let mut lines = HashMap::new();
            let mut entries = Vec::with_capacity(raw_entries.len());
            for (raw_key, raw_value) in raw_entries {
                let key_place = source.place(&raw_key.referenced);
                let key = match raw_key.value {
                    Raw::Scalar(Value::Text(key)) => key,
                    other => {
                        let written = source.slice(key_place);
                        let scalar = matches!(other, Raw::Scalar(_)) && !written.is_empty();
                        let hint = scalar.then(|| format!("put it in quotes: \"{written}\""));
                        report.push(path.to_owned(), key_place, "a key must be a text".to_owned(), hint);
                        continue;
                    }
                };
                let node = build(raw_value, source, report, &child(path, &key));
                if let Some(first) = lines.get(&key) {
                    let message = format!("is given twice, first on line {first}");
                    report.push(child(path, &key), key_place, message, None);
                    continue;
                }
                lines.insert(key.clone(), key_place.line);
                entries.push(Entry { key, key_place, node });
            }
            Value::Map(entries)
        }
    };
    Node { value, place }
}
