//! What the table of the manifest's fields ([`super::fields`]) is made of.
//!
//! The reader, the JSON schema and the reference page all follow this table, so
//! they cannot disagree about what a manifest may say.

use super::formats::Format;

/// A mapping with fixed fields.
#[derive(Debug)]
pub(crate) struct Object {
    /// Fields that exclude each other.
    pub(crate) exclusive: Exclusive,
    /// In the order in which people write them.
    pub(crate) fields: &'static [Field],
}

/// Fields of an [`Object`] that exclude each other. The reader checks it in its
/// own words; the JSON schema has it from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exclusive {
    None,
    ExactlyOne(&'static [&'static str]),
    AtMostOne(&'static [&'static str]),
}

/// One field of an [`Object`].
#[derive(Debug)]
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) presence: Presence,
    /// What it means: one or two sentences.
    pub(crate) doc: &'static str,
    /// A change reaches new instances only.
    pub(crate) new_instances: bool,
}

/// Whether a field must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Presence {
    /// It must.
    Required,
    /// It need not; its text says what it is then.
    Optional,
    /// It need not, and has this value then (a YAML scalar).
    Default(&'static str),
    /// A mapping that is read as empty when it is not there.
    Empty,
}

/// What a value may be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Integer {
        min: u64,
        max: u64,
    },
    Boolean,
    Duration {
        min_ms: u64,
        max_ms: u64,
    },
    Size {
        min_bytes: u64,
        max_bytes: u64,
        multiple_bytes: u64,
    },
    Text(Format),
    /// One of these words.
    Choice(&'static [&'static str]),
    Object(&'static Object),
    List {
        of: &'static Object,
        max: usize,
    },
    /// A list of texts.
    Texts {
        of: Format,
        max: usize,
    },
    /// A number greater than 0.
    Positive,
    /// Two numbers, the lowest and the highest value of something.
    Range,
    /// A mapping that is handed on as JSON.
    Json,
    /// One of several shapes; at most one of them is a mapping.
    Either(&'static [Kind]),
}

impl Object {
    /// The field of that name.
    pub(crate) fn field(&self, name: &str) -> Option<&'static Field> {
        self.fields.iter().find(|field| field.name == name)
    }
}

impl Kind {
    /// The mapping that a value of this kind may be.
    pub(crate) fn object(&self) -> Option<&'static Object> {
        match self {
            Self::Object(object) => Some(object),
            Self::Either(kinds) => kinds.iter().find_map(Kind::object),
            _ => None,
        }
    }
}
