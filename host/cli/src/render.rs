//! Tables, pairs and JSON on standard output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use regatta_core::instance_state::INSTANCE_STATES;
use serde::Serialize;
use serde_json::Value;

use super::Io;
use super::exit::Outcome;

/// Spaces between columns.
pub(super) const GAP: usize = 3;

pub(super) const RED: &str = "\x1b[31m";
pub(super) const YELLOW: &str = "\x1b[33m";
pub(super) const GREEN: &str = "\x1b[32m";
pub(super) const BOLD: &str = "\x1b[1m";

/// `text` in a colour, or plain.
pub(super) fn paint(colour: bool, code: &str, text: &str) -> String {
    if colour { format!("{code}{text}\x1b[0m") } else { text.to_owned() }
}

/// The API's JSON, indented.
pub(super) fn json(value: &(impl Serialize + ?Sized), io: &mut Io<'_>) -> Outcome {
    let text = serde_json::to_string_pretty(value).map_err(io::Error::from)?;
    writeln!(io.out, "{text}")?;
    Ok(())
}

/// The API's JSON in one line.
pub(super) fn json_line(value: &impl Serialize, io: &mut Io<'_>) -> Outcome {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    writeln!(io.out, "{text}")?;
    Ok(())
}

/// A table of columns without lines between them.
pub(super) struct Columns {
    table: Table,
    colour: bool,
}

impl Columns {
    /// With these headings.
    pub(super) fn new(headings: &[&str], io: &Io<'_>) -> Self {
        Self::with_gap(headings, GAP, io)
    }

    /// The same, for a table that would hardly fit into 80 columns otherwise.
    pub(super) fn narrow(headings: &[&str], io: &Io<'_>) -> Self {
        Self::with_gap(headings, GAP - 1, io)
    }

    fn with_gap(headings: &[&str], gap: usize, io: &Io<'_>) -> Self {
        let colour = io.out_colour();
        let mut table = Table::new();
        // Never fitted to the terminal: a broken line can neither be grepped nor
        // copied, a long one can be scrolled.
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let bold = |text: &&str| {
            if colour { Cell::new(text).add_attribute(comfy_table::Attribute::Bold) } else { Cell::new(text) }
        };
        table.set_header(headings.iter().map(bold));
        for column in table.column_iter_mut() {
            column.set_padding((0, gap as u16));
        }
        Self { table, colour }
    }

    pub(super) fn row(&mut self, cells: Vec<Cell>) {
        self.table.add_row(cells);
    }

    /// A state, coloured by how well it is.
    pub(super) fn state(&self, state: &str) -> Cell {
        let cell = text(state);
        match (self.colour, state) {
            (false, _) => cell,
            (true, "in-service" | "ok" | "standby") => cell.fg(Color::Green),
            (true, "failed" | "unhealthy" | "problem" | "fail") => cell.fg(Color::Red),
            (true, _) => cell.fg(Color::Yellow),
        }
    }

    /// Every line indented by `indent` spaces.
    pub(super) fn print(&self, indent: usize, io: &mut Io<'_>) -> Outcome {
        for line in self.table.trim_fmt().lines() {
            writeln!(io.out, "{:indent$}{}", "", line.trim_end())?;
        }
        Ok(())
    }
}

/// Text of others (guests, policies, a manifest's author) without what could steer
/// a terminal or a reader: control characters other than line ends, and what is not seen, are spelled out.
pub(super) fn plain(text: &str) -> Cow<'_, str> {
    regatta_util::lines(text)
}

/// The same in one line.
pub(super) fn plain_line(text: &str) -> Cow<'_, str> {
    match plain(text) {
        text if text.contains('\n') => Cow::Owned(text.trim_end().replace('\n', " ")),
        text => text,
    }
}

/// A cell of text.
pub(super) fn text(value: impl ToString) -> Cell {
    Cell::new(plain_line(&value.to_string()))
}

/// A number, to the right.
pub(super) fn right(value: impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// What is not there.
pub(super) fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A label and what belongs to it.
pub(super) fn pair(label: &str, value: &str, io: &mut Io<'_>) -> Outcome {
    let label = format!("{label}:");
    let padded = paint(io.out_colour(), BOLD, &format!("{label:<16}"));
    writeln!(io.out, "{padded}{}", plain_line(value))?;
    Ok(())
}

/// Counts by state in the order of an instance's life: `4 in-service, 1 booting`.
/// Those in service come first; `without` is left out.
pub(super) fn counts(instances: &BTreeMap<String, u32>, without: &str) -> String {
    let rank = |state: &str| {
        INSTANCE_STATES.iter().position(|known| known.as_str() == state).unwrap_or(INSTANCE_STATES.len())
    };
    let mut states: Vec<_> =
        instances.iter().filter(|&(state, &count)| count > 0 && state != without).collect();
    states.sort_by_key(|(state, _)| (*state != "in-service", std::cmp::Reverse(rank(state))));
    let texts: Vec<String> = states.iter().map(|(state, count)| format!("{count} {state}")).collect();
    texts.join(", ")
}

/// The leaves of a JSON document with their paths: `capacity.min`, `files[0]`.
pub(super) fn leaves(value: &Value) -> Vec<(String, String)> {
    fn walk(path: &str, value: &Value, found: &mut Vec<(String, String)>) {
        match value {
            Value::Object(fields) if !fields.is_empty() => {
                for (name, value) in fields {
                    let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    walk(&path, value, found);
                }
            }
            Value::Array(items) if !items.is_empty() => {
                for (index, value) in items.iter().enumerate() {
                    walk(&format!("{path}[{index}]"), value, found);
                }
            }
            Value::Null => {}
            Value::String(text) => found.push((path.to_owned(), text.clone())),
            other => found.push((path.to_owned(), other.to_string())),
        }
    }
    let mut found = Vec::new();
    walk("", value, &mut found);
    found
}

/// The first 12 digits of a digest, enough to tell modules apart.
pub(super) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn counts_name_the_most_advanced_first_and_what_is_unknown() {
        let of = |states: &[(&str, u32)]| states.iter().map(|&(s, n)| (s.to_owned(), n)).collect();
        let instances = of(&[("booting", 2), ("creating", 3), ("in-service", 3), ("failed", 0)]);
        assert_eq!(counts(&instances, ""), "3 in-service, 2 booting, 3 creating");
        assert_eq!(counts(&instances, "in-service"), "2 booting, 3 creating");
        assert_eq!(counts(&of(&[("odd", 1)]), ""), "1 odd");
        assert_eq!(counts(&BTreeMap::new(), ""), "");
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(plain("größer → 5\nnext"), "größer → 5\nnext");
        assert_eq!(plain("\x1b]0;title\x07\t\u{9b}2J"), r"\u{1b}]0;title\u{7}\t\u{9b}2J");
        assert_eq!(plain_line("a\nb\n"), "a b");
    }

    #[test]
    fn leaves_have_the_paths_of_changes() {
        let document = json!({"b": {"c": 1, "d": null, "e": []}, "a": ["x", {"y": true}]});
        let found = leaves(&document);
        let expected = [("a[0]", "x"), ("a[1].y", "true"), ("b.c", "1"), ("b.e", "[]")];
        assert_eq!(found, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
    }
}
