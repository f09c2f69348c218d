//! The text of a manifest and places in it.

use serde_saphyr::Location;

/// Characters of a line that are kept to show a problem.
const EXCERPT_CHARS: usize = 120;
/// Characters before the place, when the line is longer than that.
const EXCERPT_BEFORE: usize = 40;

/// A stretch of the source, within one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Place {
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// First byte.
    pub(crate) start_byte: usize,
    /// Length in bytes; may run over the end of the line, may be 0.
    pub(crate) len_bytes: usize,
}

impl Place {
    /// The first character of the source.
    pub(crate) const START: Self = Self { line: 1, column: 1, start_byte: 0, len_bytes: 0 };
}

/// The text of a manifest, with the name it is shown under.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Name of the file, for people.
    pub(crate) name: String,
    /// The text.
    pub(crate) text: String,
}

/// The line around a place, cut to a width that a person can read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Excerpt {
    /// The line, or the part of it around the place.
    pub(crate) text: String,
    /// First character of the place within `text`, from 0.
    pub(crate) start: u32,
    /// Characters of the place within `text`, at least 1.
    pub(crate) len: u32,
}

impl Source {
    /// A place as the parser gives it; the start when it gives none.
    pub(crate) fn place(&self, location: &Location) -> Place {
        let narrow = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        let wide = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        if location.line() == 0 {
            return Place::START;
        }
        let (line, column) = (narrow(location.line()), narrow(location.column()));
        // Syntax errors come without bytes.
        let start_byte = match location.span().byte_offset() {
            Some(byte) => wide(byte),
            None => self.byte_of(line, column),
        };
        Place { line, column, start_byte, len_bytes: wide(location.span().byte_len().unwrap_or(0)) }
    }

    /// The byte at a line and column, both from 1.
    fn byte_of(&self, line: u32, column: u32) -> usize {
        let lines = self.text.split_inclusive('\n').take(line.saturating_sub(1) as usize);
        let start = lines.map(str::len).sum::<usize>();
        let rest = self.text.get(start..).unwrap_or("");
        start + rest.chars().take(column.saturating_sub(1) as usize).map(char::len_utf8).sum::<usize>()
    }

    /// The text at a place; empty for a place that is not of this source.
    pub(crate) fn slice(&self, place: Place) -> &str {
        self.text.get(place.start_byte..place.start_byte.saturating_add(place.len_bytes)).unwrap_or("")
    }

    /// The place of the byte `at`.
    pub(crate) fn place_of_byte(&self, at: usize) -> Place {
        let before = self.text.get(..at).unwrap_or(&self.text);
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Place { line: narrow(line), column: narrow(column), start_byte: before.len(), len_bytes: 1 }
    }

    /// The line around a place.
    pub(crate) fn excerpt(&self, place: Place) -> Excerpt {
        let at = self.floor(place.start_byte);
        let is_break = |c: char| c == '\n' || c == '\r';
        let line_start = self.text[..at].rfind(is_break).map_or(0, |i| i + 1);
        let line_end = self.text[at..].find(is_break).map_or(self.text.len(), |i| at + i);
        let end = self.floor(at.saturating_add(place.len_bytes)).clamp(at, line_end);
        let before = self.text[line_start..at].chars().count();
        let inside = self.text[at..end].chars().count();
        let line = &self.text[line_start..line_end];
        let narrow = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        if before + inside <= EXCERPT_CHARS
            && line.len() <= EXCERPT_CHARS * 4
            && line.chars().count() <= EXCERPT_CHARS
        {
            return Excerpt { text: line.to_owned(), start: narrow(before), len: narrow(inside.max(1)) };
        }
        let skipped = before.saturating_sub(EXCERPT_BEFORE);
        let mut text = if skipped > 0 { "…".to_owned() } else { String::new() };
        text.extend(line.chars().skip(skipped).take(EXCERPT_CHARS));
        if line.chars().nth(skipped + EXCERPT_CHARS).is_some() {
            text.push('…');
        }
        let start = before - skipped + usize::from(skipped > 0);
        let len = inside.clamp(1, EXCERPT_CHARS.saturating_sub(before - skipped).max(1));
        Excerpt { text, start: narrow(start), len: narrow(len) }
    }

    /// The nearest character boundary at or before `at`.
    fn floor(&self, at: usize) -> usize {
        self.text.floor_char_boundary(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(text: &str) -> Source {
        Source { name: "set.yaml".into(), text: text.into() }
    }

    #[test]
    fn an_excerpt_is_the_line_of_the_place() {
        let source = source("a: 1\r\n日本: xyz\nc: 3");
        let place = Place { line: 2, column: 5, start_byte: 14, len_bytes: 3 };
        assert_eq!(source.slice(place), "xyz");
        assert_eq!(source.excerpt(place), Excerpt { text: "日本: xyz".into(), start: 4, len: 3 });
    }

    #[test]
    fn a_long_line_is_cut_around_the_place() {
        let text = format!("{}X{}", "é".repeat(5_000), "z".repeat(5_000));
        let source = source(&text);
        let excerpt = source.excerpt(Place { line: 1, column: 5_001, start_byte: 10_000, len_bytes: 4_000 });
        assert_eq!(excerpt.text.chars().nth(excerpt.start as usize), Some('X'));
        assert!(excerpt.text.chars().count() <= EXCERPT_CHARS + 2);
        assert!(((excerpt.start + excerpt.len) as usize) <= excerpt.text.chars().count());
    }

    #[test]
    fn a_place_outside_the_text_is_harmless() {
        let source = source("é");
        for (start_byte, len_bytes) in [(0, 9), (1, 1), (2, 5), (99, 1), (usize::MAX, usize::MAX)] {
            let place = Place { line: 1, column: 1, start_byte, len_bytes };
            assert!(source.excerpt(place).len >= 1);
            let _ = source.slice(place);
        }
    }
}
