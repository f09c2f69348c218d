//! What is wrong with a manifest, as data and as text for people.

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use serde::{Deserialize, Serialize};

/// Problems that are listed; the rest is only counted.
pub const MAX_PROBLEMS: usize = 100;

/// One problem of a manifest, with its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Field, for example `metrics[0].name`; empty for the document as a whole.
    pub path: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong: a lower-case fragment.
    pub message: String,
    /// What to do about it, when that can be told.
    pub hint: Option<String>,
    /// The source line, or the part of a long one around the place.
    pub excerpt: String,
    /// First marked character of the excerpt, from 0.
    pub mark_start: u32,
    /// Number of marked characters, at least 1.
    pub mark_len: u32,
}

/// All problems of a manifest, in the order of their places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{file} has {}", count(*.total))]
pub struct Problems {
    /// Name of the file, for people.
    pub file: String,
    /// At least one, at most [`MAX_PROBLEMS`].
    pub problems: Vec<Problem>,
    /// How many there are in all.
    pub total: usize,
}

fn count(total: usize) -> String {
    if total == 1 { "1 problem".to_owned() } else { format!("{total} problems") }
}

impl Problem {
    /// The problem as text, with the source line and a caret below it; several
    /// lines without a final newline, without colours.
    #[must_use]
    pub fn render(&self, file: &str) -> String {
        let title = if self.path.is_empty() {
            self.message.clone()
        } else {
            format!("{}: {}", self.path, self.message)
        };
        let start = byte_of_char(&self.excerpt, self.mark_start as usize);
        let end =
            byte_of_char(&self.excerpt, (self.mark_start as usize).saturating_add(self.mark_len as usize));
        let snippet = Snippet::source(self.excerpt.as_str())
            .line_start(self.line as usize)
            .path(file)
            .annotation(AnnotationKind::Primary.span(start..end));
        let mut group = Group::with_title(Level::ERROR.primary_title(title)).element(snippet);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        let renderer = Renderer::plain().decor_style(DecorStyle::Ascii).term_width(4096);
        let text = renderer.render(&[group]);
        // The renderer counts the column within the excerpt, which may be cut out
        // of a longer line.
        let (line, counted) = (self.line, self.mark_start.saturating_add(1));
        if counted == self.column {
            return text;
        }
        text.replacen(&format!("{file}:{line}:{counted}\n"), &format!("{file}:{line}:{}\n", self.column), 1)
    }
}

impl Problems {
    /// All problems as text for people, and a last line that counts them.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        for problem in &self.problems {
            text.push_str(&problem.render(&self.file));
            text.push_str("\n\n");
        }
        text.push_str(&self.to_string());
        if self.total > self.problems.len() {
            text.push_str(&format!(", the first {} are shown", self.problems.len()));
        }
        text.push('\n');
        text
    }
}

fn byte_of_char(text: &str, at: usize) -> usize {
    text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte)
}

/// A user's text inside a message: quoted, without control characters, cut when long.
pub(crate) fn quote(text: &str) -> String {
    const MAX: usize = 40;
    let mut short: String = text.chars().take(MAX).flat_map(char::escape_debug).collect();
    // `escape_debug` also escapes quotes, which reads badly between backticks.
    short = short.replace("\\\"", "\"").replace("\\'", "'");
    if text.chars().nth(MAX).is_some() {
        short.push('…');
    }
    format!("`{short}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(excerpt: &str, mark_start: u32, mark_len: u32) -> Problem {
        Problem {
            path: "capacity.min".into(),
            line: 17,
            column: 9,
            message: "must not be greater than `max`".into(),
            hint: Some("lower it".into()),
            excerpt: excerpt.into(),
            mark_start,
            mark_len,
        }
    }

    #[test]
    fn the_caret_stands_below_tabs_and_wide_characters() {
        let expected = "\
error: capacity.min: must not be greater than `max`
  --> set.yaml:17:9
   |
17 | min:    日本 900
   |              ^^^
   |
   = help: lower it";
        assert_eq!(problem("min:\t日本 900", 8, 3).render("set.yaml"), expected);
    }

    #[test]
    fn the_column_of_a_cut_line_is_the_one_in_the_file() {
        let mut problem = problem("…abc…", 1, 3);
        problem.column = 5_001;
        assert!(problem.render("set.yaml").contains("--> set.yaml:17:5001\n"));
    }

    #[test]
    fn marks_outside_the_excerpt_do_not_panic() {
        for (start, len) in [(0, 0), (3, 1), (99, 1), (u32::MAX, u32::MAX)] {
            let _ = problem("abc", start, len).render("set.yaml");
            let _ = problem("", start, len).render("set.yaml");
        }
    }

    #[test]
    fn a_quoted_text_is_short_and_without_control_characters() {
        assert_eq!(quote("a\nb\u{1b}"), "`a\\nb\\u{1b}`");
        assert_eq!(quote(&"x".repeat(99)), format!("`{}…`", "x".repeat(40)));
    }
}
