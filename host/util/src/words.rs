//! Words of others (guests, policies, files) among words of ours.

use std::borrow::Cow;

/// Characters that are not seen but change how others are: format characters, among them those that reverse the direction of
/// writing, and separators of lines (Unicode categories Cf, Zl and Zp).
const UNSEEN: &[(char, char)] = &[
    ('\u{ad}', '\u{ad}'),
    ('\u{600}', '\u{605}'),
    ('\u{61c}', '\u{61c}'),
    ('\u{6dd}', '\u{6dd}'),
    ('\u{70f}', '\u{70f}'),
    ('\u{890}', '\u{891}'),
    ('\u{8e2}', '\u{8e2}'),
    ('\u{180e}', '\u{180e}'),
    ('\u{200b}', '\u{200f}'),
    ('\u{2028}', '\u{202e}'),
    ('\u{2060}', '\u{206f}'),
    ('\u{feff}', '\u{feff}'),
    ('\u{fff9}', '\u{fffb}'),
    ('\u{110bd}', '\u{110bd}'),
    ('\u{110cd}', '\u{110cd}'),
    ('\u{13430}', '\u{1343f}'),
    ('\u{1bca0}', '\u{1bca3}'),
    ('\u{1d173}', '\u{1d17a}'),
    ('\u{e0001}', '\u{e007f}'),
];

/// Whether a character could change what is seen around it: a control or a format character.
#[must_use]
pub fn steers(c: char) -> bool {
    c.is_control() || UNSEEN.iter().any(|(first, last)| (first..=last).contains(&&c))
}

/// A text in one line, with what [`steers`] spelled out: it can imitate neither a row of ours nor other words.
#[must_use]
pub fn one_line(text: &str) -> Cow<'_, str> {
    spelled_out(text, steers)
}

/// The same over several lines, as the text has them.
#[must_use]
pub fn lines(text: &str) -> Cow<'_, str> {
    spelled_out(text, |c| c != '\n' && steers(c))
}

/// At most so many bytes of a text, at the end of a character; what was cut ends in `…`.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> Cow<'_, str> {
    if text.len() <= bytes {
        return Cow::Borrowed(text);
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    Cow::Owned(format!("{}…", &text[..end]))
}

fn spelled_out(text: &str, strange: impl Fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(&strange) {
        return Cow::Borrowed(text);
    }
    let spell = |c: char| if strange(c) { c.escape_default().to_string() } else { c.to_string() };
    Cow::Owned(text.chars().map(spell).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_cuts_at_the_end_of_a_character() {
        assert_eq!(cut("héllo", 6), "héllo");
        assert_eq!(cut("hééééé", 7), "hé…");
        assert_eq!(cut("", 0), "");
    }

    #[test]
    fn what_is_not_seen_is_spelled_out_and_all_else_stays() {
        assert_eq!(one_line("Größe 5 → 6 · 日本"), "Größe 5 → 6 · 日本");
        assert!(matches!(one_line("plain"), Cow::Borrowed(_)));
        assert_eq!(one_line("a\nb\r\u{1b}[2J\u{9b}"), "a\\nb\\r\\u{1b}[2J\\u{9b}");
        assert_eq!(one_line("\u{202e}live\u{200b}\u{2028}"), "\\u{202e}live\\u{200b}\\u{2028}");
        assert_eq!(lines("a\nb\t\u{feff}"), "a\nb\\t\\u{feff}");
    }
}
