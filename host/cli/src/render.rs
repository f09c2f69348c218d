//! Tables, pairs and JSON on standard output.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Row, Table, presets};
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
    writeln!(io.out, "{}", steering_escaped(&text))?;
    Ok(())
}

/// The API's JSON in one line.
pub(super) fn json_line(value: &impl Serialize, io: &mut Io<'_>) -> Outcome {
    let text = serde_json::to_string(value).map_err(io::Error::from)?;
    writeln!(io.out, "{}", steering_escaped(&text))?;
    Ok(())
}

/// JSON that says the same without characters that steer a terminal: manifests and parameters may hold any.
fn steering_escaped(json: &str) -> Cow<'_, str> {
    let strange = |c: char| c != '\n' && regatta_util::steers(c);
    if !json.contains(strange) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match strange(c) {
            // They stand in strings alone.
            true => c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text += &format!("\\u{unit:04x}")),
            false => text.push(c),
        }
    }
    Cow::Owned(text)
}

/// A table of columns without lines between them.
pub(super) struct Columns {
    table: Table,
    gap: usize,
    colour: bool,
    /// Headings of those that may leave the table, the first one first.
    long: Vec<String>,
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
        let bold = |text: &&str| {
            if colour { Cell::new(text).add_attribute(comfy_table::Attribute::Bold) } else { Cell::new(text) }
        };
        let table = plain_table(headings.iter().map(bold).collect(), gap, colour);
        Self { table, gap, colour, long: Vec::new() }
    }

    /// With columns that stand below their row, wrapped, when a terminal is too narrow for all of them: the first one first, and no
    /// more than needed.
    pub(super) fn folding(mut self, long: &[&str]) -> Self {
        self.long = long.iter().map(|heading| (*heading).to_owned()).collect();
        self
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
        let headings = headings(&self.table);
        let mut folded = Vec::new();
        let widths = self.table.column_max_content_widths();
        let width = |folded: &[usize]| {
            let kept = widths.iter().enumerate().filter(|(column, _)| !folded.contains(column));
            kept.map(|(_, width)| usize::from(*width) + self.gap).sum::<usize>().saturating_sub(self.gap)
        };
        if let Some(columns) = io.out_width {
            let mut long = self.long.iter().filter_map(|name| headings.iter().position(|it| it == name));
            while indent + width(&folded) > columns
                && let Some(column) = long.next()
            {
                folded.push(column);
            }
        }
        let mut below = vec![Vec::new(); self.table.row_count()];
        let mut table = plain_table(unfolded(self.table.header(), &folded), self.gap, self.colour);
        for (row, below) in self.table.row_iter().zip(&mut below) {
            table.add_row(unfolded(Some(row), &folded));
            let cells: Vec<String> = row.cell_iter().map(Cell::content).collect();
            below.extend(folded.iter().rev().filter_map(|&column| {
                let content = cells.get(column).filter(|it| !matches!(it.as_str(), "" | "-"))?;
                Some(format!("{}: {content}", headings[column].to_lowercase()))
            }));
        }
        let fold = indent + FOLD;
        let room = io.out_width.map_or(usize::MAX, |columns| columns.saturating_sub(fold));
        let text = table.trim_fmt();
        // Above the first row is the heading; the rows of a table that nothing has left may have several lines.
        let mut below = below.into_iter();
        for (number, line) in text.lines().enumerate() {
            writeln!(io.out, "{:indent$}{}", "", line.trim_end())?;
            if folded.is_empty() || number == 0 {
                continue;
            }
            for line in below.next().unwrap_or_default().iter().flat_map(|text| wrapped(text, room)) {
                writeln!(io.out, "{:fold$}{line}", "")?;
            }
        }
        Ok(())
    }
}

/// Spaces before what stands below its row.
pub(super) const FOLD: usize = 4;

/// Never fitted to the terminal by itself: a line that is broken anywhere can neither be grepped nor copied.
fn plain_table(headings: Vec<Cell>, gap: usize, colour: bool) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if colour {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(headings);
    for column in table.column_iter_mut() {
        column.set_padding((0, gap as u16));
    }
    table
}

fn headings(table: &Table) -> Vec<String> {
    table.header().into_iter().flat_map(Row::cell_iter).map(Cell::content).collect()
}

/// The cells of a row that stay in the table.
fn unfolded(row: Option<&Row>, folded: &[usize]) -> Vec<Cell> {
    let cells = row.into_iter().flat_map(Row::cell_iter).enumerate();
    cells.filter(|(column, _)| !folded.contains(column)).map(|(_, cell)| cell.clone()).collect()
}

/// `text` in lines of at most `width` characters, as far as its words allow: a longer one, such as a path, stays whole. JSON
/// is broken after commas.
pub(super) fn wrapped(text: &str, width: usize) -> Vec<String> {
    let (mut lines, mut line) = (Vec::new(), String::new());
    // Counted as it grows: a line that is never broken may have a million words.
    let mut column = 0_usize;
    for word in text.split_whitespace() {
        for (index, part) in word.split_inclusive(',').enumerate() {
            let space = usize::from(index == 0 && column > 0);
            let chars = part.chars().count();
            if column > 0 && column.saturating_add(space + chars) > width {
                lines.push(std::mem::take(&mut line));
                column = 0;
            }
            if space == 1 && column > 0 {
                line.push(' ');
                column += 1;
            }
            line.push_str(part);
            column += chars;
        }
    }
    lines.push(line);
    lines
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
    fn text_is_broken_between_words_and_after_commas() {
        let wrapped = |text, width| super::wrapped(text, width).join("\n");
        assert_eq!(wrapped("Name of  the metric.", 11), "Name of the\nmetric.");
        assert_eq!(wrapped("a incomprehensibilities b", 5), "a\nincomprehensibilities\nb");
        assert_eq!(wrapped("Name of the metric.", usize::MAX), "Name of the metric.");
        assert_eq!(wrapped(r#"at {"a":1,"b":2} now"#, 9), "at\n{\"a\":1,\n\"b\":2}\nnow");
        assert_eq!(wrapped("", 10), "");
    }

    #[test]
    fn nothing_that_steers_a_terminal_gets_through() {
        assert_eq!(plain("größer → 5\nnext"), "größer → 5\nnext");
        assert_eq!(plain("\x1b]0;title\x07\t\u{9b}2J"), r"\u{1b}]0;title\u{7}\t\u{9b}2J");
        assert_eq!(plain_line("a\nb\n"), "a b");
    }

    #[test]
    fn json_is_the_same_and_steers_nothing() {
        let value = json!({"a": "\u{9b}31m\u{202e}\u{e0001}\u{7f}\u{1b}", "ö": ["日本", "\n"]});
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        let text = steering_escaped(&pretty);
        assert!(!text.contains(|c: char| c != '\n' && regatta_util::steers(c)), "{text}");
        assert!(text.contains("\\u009b31m\\u202e\\udb40\\udc01\\u007f") && text.contains("日本"), "{text}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }

    #[test]
    fn leaves_have_the_paths_of_changes() {
        let document = json!({"b": {"c": 1, "d": null, "e": []}, "a": ["x", {"y": true}]});
        let found = leaves(&document);
        let expected = [("a[0]", "x"), ("a[1].y", "true"), ("b.c", "1"), ("b.e", "[]")];
        assert_eq!(found, expected.map(|(path, value)| (path.to_owned(), value.to_owned())));
    }
}
