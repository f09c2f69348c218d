//! Strings that guests gave, cut to what is kept.

/// `text` cut to at most `bytes` bytes, at the end of a character.
pub(crate) fn capped(mut text: String, bytes: usize) -> String {
    if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8())));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::capped;

    #[test]
    fn it_cuts_at_the_end_of_a_character() {
        assert_eq!(capped("héllo".to_owned(), 6), "héllo");
        assert_eq!(capped("hééééé".to_owned(), 7), "hé…");
        assert_eq!(capped(String::new(), 0), "");
    }
}
