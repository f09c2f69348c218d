//! What an instance is protected from.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// What an operator protects an instance from. Neither level keeps operators from removing it, nor from deleting its set.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Protection {
    /// Nothing.
    #[default]
    None,
    /// From scale-in: the set does not remove it because there are more than wanted.
    ScaleIn,
    /// From all actions of the set: it is not removed, drained, repaired or upgraded either.
    All,
}

impl Protection {
    /// All levels.
    pub const ALL: [Self; 3] = [Self::None, Self::ScaleIn, Self::All];

    /// The name that users read and write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::ScaleIn => "scale-in",
            Self::All => "all",
        }
    }

    /// Whether a scale-in passes it by.
    #[must_use]
    pub fn from_scale_in(self) -> bool {
        self != Self::None
    }

    /// Whether everything that the set does by itself passes it by.
    #[must_use]
    pub fn from_actions(self) -> bool {
        self == Self::All
    }
}

/// Stored as earlier versions know it, a flag; the level that they do not know is a word.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Stored {
    Flag(bool),
    Level(Level),
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Level {
    All,
}

impl Serialize for Protection {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::None => Stored::Flag(false),
            Self::ScaleIn => Stored::Flag(true),
            Self::All => Stored::Level(Level::All),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Protection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match Stored::deserialize(deserializer)? {
            Stored::Flag(false) => Self::None,
            Stored::Flag(true) => Self::ScaleIn,
            Stored::Level(Level::All) => Self::All,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_stored_as_the_flag_that_it_was() {
        for (protection, json) in
            [(Protection::None, "false"), (Protection::ScaleIn, "true"), (Protection::All, "\"all\"")]
        {
            assert_eq!(serde_json::to_string(&protection).expect("writes"), json);
            assert_eq!(serde_json::from_str::<Protection>(json).expect("reads"), protection);
        }
        serde_json::from_str::<Protection>("\"most\"").expect_err("no level");
    }
}
