//! Words of others: guests, policies, VMMs, files.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use crate::words::{cut, one_line, steers};

/// Bytes that it may have; longer ones end in `…`.
pub const SAID_BYTES: usize = 8 << 10;

/// A text that somebody else may have written, or a sentence of ours with their words in it: one line, without control, format and
/// bidirectional characters (they are spelled out), bounded. So it can forge no row, screen, log or file, wherever it is shown.
///
/// There is no other way to one, reading a stored one included: records of versions that did not have this type read as this one would
/// have written them, and so they are decided again alike.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize), serde(transparent))]
pub struct Said(String);

impl Said {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Said {
    fn from(text: &str) -> Self {
        // What is cut off need not be spelled out.
        Self(cut(one_line(cut(text, SAID_BYTES).as_ref()).as_ref(), SAID_BYTES).into_owned())
    }
}

impl From<String> for Said {
    fn from(text: String) -> Self {
        let plain = text.len() <= SAID_BYTES && !text.contains(steers);
        if plain { Self(text) } else { Self::from(text.as_str()) }
    }
}

impl From<Said> for String {
    fn from(said: Said) -> Self {
        said.0
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Said {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

impl Deref for Said {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for Said {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Said {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl PartialEq<str> for Said {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Said {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl PartialEq<String> for Said {
    fn eq(&self, other: &String) -> bool {
        self.0 == *other
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_is_one_line_that_steers_nothing() {
        let said = Said::from("a\nb\u{1b}[2J \u{202e}live\u{9b}".to_owned());
        assert_eq!(said, r"a\nb\u{1b}[2J \u{202e}live\u{9b}");
        assert_eq!(Said::from("Größe 5 → 6 · 日本"), "Größe 5 → 6 · 日本");
    }

    #[cfg(feature = "serde")]
    #[test]
    fn it_is_so_however_it_was_stored() {
        let read: Said = serde_json::from_str(r#""a\u001b\nb""#).expect("a text");
        assert_eq!(read, r"a\u{1b}\nb");
        assert_eq!(serde_json::to_string(&read).expect("JSON"), r#""a\\u{1b}\\nb""#);
    }

    #[test]
    fn it_is_bounded_however_much_must_be_spelled_out() {
        let said = Said::from("\u{1b}".repeat(1 << 20));
        assert!(said.len() <= SAID_BYTES && said.ends_with('…'), "{} bytes", said.len());
        assert_eq!(Said::from("x".repeat(SAID_BYTES)).len(), SAID_BYTES);
    }

    proptest! {
        #[test]
        fn what_was_said_stays_as_it_is(text in "(\\PC|[\u{0}-\u{1f}\u{200b}-\u{202e}]){0,300}") {
            let said = Said::from(text.as_str());
            prop_assert!(!said.contains(steers));
            prop_assert_eq!(&Said::from(said.as_str()), &said);
            prop_assert_eq!(Said::from(text), said);
        }
    }
}
