//! Reads fields as the table says, and reports what does not fit.

use std::borrow::Cow;

use super::fields::MANIFEST;
use super::formats::{self, Complaint};
use super::hints::{describe, nearest, other_fields};
use super::node::{Entry, Node, Value};
use super::problem::quote;
use super::report::{Invalid, Report, child, item};
use super::schema::{Field, Kind, Object, Presence};
use super::source::Place;
use super::units::{self, QuantityError};
use super::value_range::ValueRange;
use crate::metrics::VALUE_MAX;

/// A mapping of the manifest, with the table of its fields.
pub(crate) struct Section<'t> {
    report: &'t Report<'t>,
    object: &'static Object,
    path: String,
    /// Where a missing field is reported: the section's own key.
    place: Place,
    entries: &'t [Entry],
    /// Fields that an unknown one was probably meant to be.
    meant: Vec<&'static str>,
}

/// One value, with what it may be.
pub(crate) struct Item<'t> {
    report: &'t Report<'t>,
    kind: &'static Kind,
    path: String,
    /// Where the field as a whole is: its key, or its place in a list.
    place: Place,
    node: Cow<'t, Node>,
    /// The mapping that might stand in place of a word.
    other: Option<&'static Object>,
}

impl<'t> Section<'t> {
    /// The manifest itself. Unknown fields are reported.
    pub(crate) fn root(report: &'t Report<'t>, node: &'t Node) -> Result<Self, Invalid> {
        match &node.value {
            Value::Map(entries) => Ok(Self::open(report, &MANIFEST, String::new(), Place::START, entries)),
            Value::Null => Err(report.push(String::new(), Place::START, "is empty".into(), None)),
            other => {
                let message = format!("expected a mapping, found {}", other.describe());
                Err(report.push(String::new(), node.place, message, None))
            }
        }
    }

    fn open(
        report: &'t Report<'t>,
        object: &'static Object,
        path: String,
        place: Place,
        entries: &'t [Entry],
    ) -> Self {
        let mut meant = Vec::new();
        for entry in entries.iter().filter(|entry| object.field(&entry.key).is_none()) {
            if report.is_crowded() {
                report.push(child(&path, &entry.key), entry.key_place, "unknown field".into(), None);
                continue;
            }
            let near = nearest(&entry.key, object.fields.iter().map(|field| field.name));
            let hint = match near {
                Some(name) => format!("did you mean `{name}`?"),
                None => other_fields(object, &path, &entry.key),
            };
            meant.extend(near);
            report.push(child(&path, &entry.key), entry.key_place, "unknown field".into(), Some(hint));
        }
        Self { report, object, path, place, entries, meant }
    }

    /// A field that must be there, or has a default.
    pub(crate) fn item(&self, name: &str) -> Result<Item<'t>, Invalid> {
        let field = self.field(name);
        if let Some(item) = self.given(field)? {
            return Ok(item);
        }
        let node = match field.presence {
            // A default that was not meant would lead to problems that are none.
            Presence::Default(_) if self.meant.contains(&name) => return Err(Invalid),
            Presence::Default(text) => Node { value: scalar(text), place: self.place },
            Presence::Empty => Node { value: Value::Map(Vec::new()), place: self.place },
            // One mistake, one problem: the misspelt field has been reported.
            Presence::Required if self.meant.contains(&name) => return Err(Invalid),
            Presence::Required | Presence::Optional => {
                let what = describe(&field.kind);
                let path = child(&self.path, name);
                return Err(self.report.push(
                    path,
                    self.place,
                    "is missing".into(),
                    Some(format!("expected {what}")),
                ));
            }
        };
        let path = child(&self.path, name);
        Ok(Item {
            report: self.report,
            kind: &field.kind,
            path,
            place: self.place,
            node: Cow::Owned(node),
            other: None,
        })
    }

    /// A field that may be left out.
    pub(crate) fn optional(&self, name: &str) -> Result<Option<Item<'t>>, Invalid> {
        self.given(self.field(name))
    }

    /// Whether the field is there, readable or not.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == name)
    }

    /// Whether some field is unknown, which has been reported: it may have been meant to be any.
    pub(crate) fn has_unknown(&self) -> bool {
        self.entries.iter().any(|entry| self.object.field(&entry.key).is_none())
    }

    /// Reports a problem of a field: at its value, or at the section when the
    /// field is not there.
    pub(crate) fn complain(&self, name: &str, message: impl Into<String>, hint: Option<String>) -> Invalid {
        let entry = self.entries.iter().find(|entry| entry.key == name);
        let place = entry.map_or(self.place, visible);
        self.report.push(child(&self.path, name), place, message.into(), hint)
    }

    /// Reports a problem of the section as a whole.
    pub(crate) fn complain_here(&self, message: impl Into<String>, hint: Option<String>) -> Invalid {
        self.report.push(self.path.clone(), self.place, message.into(), hint)
    }

    fn field(&self, name: &str) -> &'static Field {
        // A name that the table does not have is a mistake in this crate, which
        // every test that reads a manifest finds.
        self.object.field(name).unwrap_or_else(|| unreachable!("no field {name} in the table"))
    }

    fn given(&self, field: &'static Field) -> Result<Option<Item<'t>>, Invalid> {
        let Some(entry) = self.entries.iter().find(|entry| entry.key == field.name) else { return Ok(None) };
        let path = child(&self.path, field.name);
        if entry.node.value == Value::Null {
            let hint = match field.presence {
                Presence::Required => format!("expected {}", describe(&field.kind)),
                _ => format!("expected {}, or leave the field out", describe(&field.kind)),
            };
            return Err(self.report.push(path, visible(entry), "has no value".into(), Some(hint)));
        }
        let node = Cow::Borrowed(&entry.node);
        Ok(Some(Item {
            report: self.report,
            kind: &field.kind,
            path,
            place: entry.key_place,
            node,
            other: None,
        }))
    }
}

/// Where to show a value: an empty one has no place of its own.
fn visible(entry: &Entry) -> Place {
    let block = matches!(entry.node.value, Value::Map(_) | Value::List(_));
    if block || entry.node.place.len_bytes == 0 { entry.key_place } else { entry.node.place }
}

impl<'t> Item<'t> {
    /// Settles on one of several shapes by what the value looks like.
    pub(crate) fn choose(self) -> Result<Self, Invalid> {
        let Kind::Either(kinds) = self.kind else { return Ok(self) };
        let fits = |kind: &&'static Kind| {
            matches!(
                (kind, &self.node.value),
                (Kind::Object(_) | Kind::Json, Value::Map(_))
                    | (Kind::Boolean, Value::Bool(_))
                    | (Kind::Text(_) | Kind::Choice(_), Value::Text(_))
            )
        };
        match kinds.iter().find(fits) {
            Some(kind) => Ok(Self { other: self.kind.object(), kind, ..self }),
            None => Err(self.mismatch()),
        }
    }

    /// Whether the value is a mapping.
    pub(crate) fn is_mapping(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(crate) fn integer<T: TryFrom<u64>>(self) -> Result<T, Invalid> {
        let Kind::Integer { min, max } = *self.kind else { return Err(self.mismatch()) };
        let value = match self.node.value {
            Value::Unsigned(value) => value,
            Value::Negative(value) => {
                return Err(self.complain(format!("must be from {min} to {max}, is {value}"), None));
            }
            _ => return Err(self.mismatch()),
        };
        match T::try_from(value) {
            Ok(narrow) if (min..=max).contains(&value) => Ok(narrow),
            _ => Err(self.complain(format!("must be from {min} to {max}, is {value}"), None)),
        }
    }

    pub(crate) fn boolean(self) -> Result<bool, Invalid> {
        match (&self.kind, &self.node.value) {
            (Kind::Boolean, Value::Bool(value)) => Ok(*value),
            _ => Err(self.mismatch()),
        }
    }

    /// Milliseconds.
    pub(crate) fn duration_ms(self) -> Result<u64, Invalid> {
        let Kind::Duration { min_ms, max_ms } = *self.kind else { return Err(self.mismatch()) };
        let text = self.quantity(&["250ms", "5s", "2m"])?;
        let ms = units::parse_duration_ms(&text).map_err(|error| {
            self.not_a_quantity(
                &text,
                &error,
                "units are `ms`, `s`, `m`, `h`, `d`: for example `250ms`, `1m30s`",
            )
        })?;
        if (min_ms..=max_ms).contains(&ms) {
            return Ok(ms);
        }
        let (min, max) = (units::format_duration_ms(min_ms), units::format_duration_ms(max_ms));
        Err(self.complain(format!("must be from {min} to {max}, is {}", quote(&text)), None))
    }

    /// Bytes.
    pub(crate) fn size_bytes(self) -> Result<u64, Invalid> {
        let Kind::Size { min_bytes, max_bytes, multiple_bytes } = *self.kind else {
            return Err(self.mismatch());
        };
        let text = self.quantity(&["MiB", "GiB"])?;
        let bytes = units::parse_size_bytes(&text).map_err(|error| {
            self.not_a_quantity(
                &text,
                &error,
                "units are `B`, `KiB`, `MiB`, `GiB`, `TiB`: for example `512MiB`",
            )
        })?;
        if !(min_bytes..=max_bytes).contains(&bytes) {
            let (min, max) = (units::format_size_bytes(min_bytes), units::format_size_bytes(max_bytes));
            return Err(self.complain(format!("must be from {min} to {max}, is {}", quote(&text)), None));
        }
        if !bytes.is_multiple_of(multiple_bytes) {
            let step = units::format_size_bytes(multiple_bytes);
            return Err(self.complain(format!("must be a multiple of {step}, is {}", quote(&text)), None));
        }
        Ok(bytes)
    }

    /// A text in the field's format.
    pub(crate) fn text(self) -> Result<String, Invalid> {
        self.parse(|text| Ok(text.to_owned()))
    }

    /// A text in the field's format, as something else.
    pub(crate) fn parse<T>(self, parse: impl FnOnce(&str) -> Result<T, Complaint>) -> Result<T, Invalid> {
        let Kind::Text(format) = *self.kind else { return Err(self.mismatch()) };
        let text = match &self.node.value {
            Value::Text(text) => text.as_str(),
            // A digest may look like a number.
            Value::Unsigned(_) | Value::Float(_) if format == formats::Format::Sha256 => {
                self.report.source().slice(self.node.place)
            }
            _ => return Err(self.mismatch()),
        };
        match format.check(text).and_then(|()| parse(text)) {
            Ok(value) => Ok(value),
            Err(complaint) => Err(self.complain(complaint.message, complaint.hint)),
        }
    }

    /// One of the words of the field.
    pub(crate) fn word(self) -> Result<&'static str, Invalid> {
        let Kind::Choice(words) = *self.kind else { return Err(self.mismatch()) };
        let Value::Text(text) = &self.node.value else { return Err(self.mismatch()) };
        if let Some(word) = words.iter().find(|word| *word == text) {
            return Ok(word);
        }
        let near = nearest(text, words.iter().copied()).map(|word| format!("did you mean `{word}`? "));
        let or = self.other.map(|object| format!(", or {}", describe(&Kind::Object(object))));
        let allowed = formats::list(words);
        let hint = format!("{}allowed: {allowed}{}", near.unwrap_or_default(), or.unwrap_or_default());
        Err(self.complain(format!("unknown value {}", quote(text)), Some(hint)))
    }

    /// A mapping with fields.
    pub(crate) fn section(self) -> Result<Section<'t>, Invalid> {
        let (Some(object), Value::Map(_)) = (self.kind.object(), &self.node.value) else {
            return Err(self.mismatch());
        };
        let entries = match self.node {
            Cow::Borrowed(node) => node.entries(),
            // Only a default is owned, and that is empty.
            Cow::Owned(_) => &[],
        };
        Ok(Section::open(self.report, object, self.path, self.place, entries))
    }

    /// The sections of a list.
    pub(crate) fn sections(self) -> Result<Vec<Result<Section<'t>, Invalid>>, Invalid> {
        let Kind::List { of, max } = *self.kind else { return Err(self.mismatch()) };
        let Cow::Borrowed(Node { value: Value::List(nodes), .. }) = self.node else {
            return Err(self.mismatch());
        };
        if nodes.len() > max {
            return Err(
                self.complain(format!("must not have more than {max} elements, has {}", nodes.len()), None)
            );
        }
        let open = |(index, node): (usize, &'t Node)| {
            let path = item(&self.path, index);
            match &node.value {
                Value::Map(entries) => Ok(Section::open(self.report, of, path, node.place, entries)),
                other => {
                    let message = format!("expected a mapping, found {}", other.describe());
                    let place = if node.place.len_bytes == 0 { self.place } else { node.place };
                    Err(self.report.push(path, place, message, None))
                }
            }
        };
        Ok(nodes.iter().enumerate().map(open).collect())
    }

    /// The texts of a list, each in the field's format.
    pub(crate) fn texts<T>(self, parse: impl Fn(&str) -> Result<T, Complaint>) -> Result<Vec<T>, Invalid> {
        let Kind::Texts { of, max } = *self.kind else { return Err(self.mismatch()) };
        let Value::List(nodes) = &self.node.value else { return Err(self.mismatch()) };
        if nodes.len() > max {
            return Err(
                self.complain(format!("must not have more than {max} elements, has {}", nodes.len()), None)
            );
        }
        let read = |(index, node): (usize, &Node)| {
            let refuse = |message: String, hint| {
                let place = if node.place.len_bytes == 0 { self.place } else { node.place };
                Err(self.report.push(item(&self.path, index), place, message, hint))
            };
            match &node.value {
                Value::Text(text) => match of.check(text).and_then(|()| parse(text)) {
                    Ok(value) => Ok(value),
                    Err(complaint) => refuse(complaint.message, complaint.hint),
                },
                other => refuse(format!("expected {}, found {}", of.describe(), other.describe()), None),
            }
        };
        let read: Vec<_> = nodes.iter().enumerate().map(read).collect();
        read.into_iter().collect()
    }

    /// A number greater than 0, and not beyond what a metric may be.
    pub(crate) fn positive(self) -> Result<f64, Invalid> {
        let (Kind::Positive, Some(number)) = (self.kind, self.node.value.number()) else {
            return Err(self.mismatch());
        };
        match number > 0.0 && number <= VALUE_MAX {
            true => Ok(number),
            false => Err(self.complain(format!("must be greater than 0, is {number}"), None)),
        }
    }

    /// Two numbers, the first less than the second.
    pub(crate) fn range(self) -> Result<ValueRange, Invalid> {
        let (Kind::Range, Value::List(nodes)) = (self.kind, &self.node.value) else {
            return Err(self.mismatch());
        };
        let ends: Option<Vec<f64>> = nodes.iter().map(|node| node.value.number()).collect();
        let Some([low, high]) = ends.as_deref() else {
            return Err(self.complain("must be two numbers, such as `[0, 1]`", None));
        };
        let range = ValueRange::new(*low, *high);
        range.ok_or_else(|| {
            let message = format!("must be from a number to a greater one, is from {low} to {high}");
            self.complain(message, Some(format!("both within ±{VALUE_MAX:e}")))
        })
    }

    /// A mapping as JSON.
    pub(crate) fn json(self) -> Result<serde_json::Value, Invalid> {
        if !self.is_mapping() {
            return Err(self.mismatch());
        }
        json(self.report, &self.node, &self.path)
    }

    /// Reports a problem of this value.
    pub(crate) fn complain(&self, message: impl Into<String>, hint: Option<String>) -> Invalid {
        let block = matches!(self.node.value, Value::Map(_) | Value::List(_));
        let place = if block || self.node.place.len_bytes == 0 { self.place } else { self.node.place };
        self.report.push(self.path.clone(), place, message.into(), hint)
    }

    /// The text of a quantity; a bare number is told what it might mean.
    fn quantity(&self, units: &[&str]) -> Result<String, Invalid> {
        match &self.node.value {
            Value::Text(text) => Ok(text.clone()),
            Value::Unsigned(_) | Value::Negative(_) | Value::Float(_) => {
                let written = self.report.source().slice(self.node.place);
                let hint = match self.kind {
                    Kind::Duration { .. } => format!("did you mean `{written}s` or `{written}ms`?"),
                    _ => format!("did you mean `{written}{}` or `{written}{}`?", units[0], units[1]),
                };
                Err(self.complain(format!("`{written}` has no unit"), Some(hint)))
            }
            _ => Err(self.mismatch()),
        }
    }

    fn not_a_quantity(&self, text: &str, error: &QuantityError, units: &str) -> Invalid {
        self.complain(format!("{} {error}", quote(text)), Some(units.to_owned()))
    }

    /// Reports that the value is of another type.
    fn mismatch(&self) -> Invalid {
        let hint = match (self.kind, &self.node.value) {
            (Kind::Integer { .. }, Value::Text(text)) if text.parse::<u64>().is_ok() => {
                Some(format!("without quotes: {text}"))
            }
            (Kind::Integer { .. }, Value::Text(text)) if text.contains('_') => {
                Some("YAML numbers are written without `_`".to_owned())
            }
            (Kind::Boolean | Kind::Either([Kind::Boolean, ..]), Value::Text(text)) => {
                match text.to_ascii_lowercase().as_str() {
                    "yes" | "on" | "y" | "true" => Some("did you mean `true`?".to_owned()),
                    "no" | "off" | "n" | "false" => Some("did you mean `false`?".to_owned()),
                    _ => None,
                }
            }
            (Kind::Text(_) | Kind::Choice(_), Value::Unsigned(_) | Value::Float(_) | Value::Bool(_)) => {
                Some(format!(
                    "as a text it is written in quotes: \"{}\"",
                    self.report.source().slice(self.node.place)
                ))
            }
            (Kind::List { .. }, Value::Map(_)) => Some("begin every element with `- `".to_owned()),
            _ => None,
        };
        let message = format!("expected {}, found {}", describe(self.kind), self.node.value.describe());
        self.complain(message, hint)
    }
}

/// A default of the table, as JSON.
pub(crate) fn default_value(text: &str) -> serde_json::Value {
    match scalar(text) {
        Value::Bool(value) => value.into(),
        Value::Unsigned(value) => value.into(),
        _ => text.into(),
    }
}

/// A default of the table, as the parser would have read it.
fn scalar(text: &str) -> Value {
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => text.parse().map_or_else(|_| Value::Text(text.to_owned()), Value::Unsigned),
    }
}

/// A value as JSON. What JSON cannot hold is reported.
fn json(report: &Report<'_>, node: &Node, path: &str) -> Result<serde_json::Value, Invalid> {
    use serde_json::Value as Json;
    Ok(match &node.value {
        Value::Null => Json::Null,
        Value::Bool(value) => Json::Bool(*value),
        Value::Unsigned(value) => Json::from(*value),
        Value::Negative(value) => Json::from(*value),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => Json::Number(number),
            None => {
                let message = format!("{value} cannot be handed to a policy");
                return Err(report.push(path.to_owned(), node.place, message, None));
            }
        },
        Value::Text(text) => Json::String(text.clone()),
        Value::List(nodes) => {
            let items: Vec<_> = nodes
                .iter()
                .enumerate()
                .map(|(index, node)| json(report, node, &item(path, index)))
                .collect();
            Json::Array(items.into_iter().collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let entries: Vec<_> = entries
                .iter()
                .map(|entry| Ok((entry.key.clone(), json(report, &entry.node, &child(path, &entry.key))?)))
                .collect();
            Json::Object(entries.into_iter().collect::<Result<_, _>>()?)
        }
    })
}
