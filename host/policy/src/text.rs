//! Strings that guests gave, cut to what is kept.

use regatta_util::Said;

/// `text` cut to at most `bytes` bytes, at the end of a character.
pub(crate) fn capped(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

/// `text` as [`Said`] of at most `bytes` bytes: what is spelled out is longer than it was.
pub(crate) fn said(text: String, bytes: usize) -> Said {
    let said = Said::from(capped(text, bytes));
    if said.len() <= bytes { said } else { capped(said.into(), bytes).into() }
}

#[cfg(test)]
mod tests {
    use super::{capped, said};

    #[test]
    fn what_is_spelled_out_is_no_longer_than_the_rest() {
        assert_eq!(said("plain".to_owned(), 8), "plain");
        let steering = said("\u{202e}".repeat(100), 20);
        assert!(
            steering.starts_with(r"\u{202e}") && steering.ends_with('…') && steering.len() <= 20,
            "{steering}"
        );
    }

    #[test]
    fn it_cuts_at_the_end_of_a_character() {
        assert_eq!(capped("héllo".to_owned(), 6), "héllo");
        assert_eq!(capped("hééééé".to_owned(), 7), "hé…");
        assert_eq!(capped(String::new(), 0), "");
    }
}
