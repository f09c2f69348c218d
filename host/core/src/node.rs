//! Where instances run.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};

/// A name that very many instances share: cheap to copy.
macro_rules! shared_name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(from = "String")]
        pub struct $name(pub Arc<str>);

        impl From<String> for $name {
            fn from(name: String) -> Self {
                Self(name.into())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

shared_name! {
    /// A host that runs instances.
    NodeId
}
shared_name! {
    /// Nodes that fail together, for example a rack.
    FaultDomain
}

/// Where an instance runs. What was stored before there were nodes has none: it reads as the only one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(default)]
pub struct Placement {
    /// The host.
    pub node: NodeId,
    /// Its fault domain.
    pub domain: FaultDomain,
}

impl Default for Placement {
    /// The only node of a daemon that runs alone.
    fn default() -> Self {
        Self { node: NodeId("local".into()), domain: FaultDomain("local".into()) }
    }
}

/// Where each of many instances runs: few places and many indices, so that a record stays small and cheap to copy.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placements {
    /// The places, each once.
    places: Vec<Placement>,
    /// For each instance, the index of its place.
    of: Vec<u16>,
}

impl Placements {
    /// The place of the instance with that index.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Placement> {
        self.places.get(usize::from(*self.of.get(index)?))
    }

    /// Appends the place of the next instance. Of more than 65,536 places, the rest count as the last one.
    pub fn push(&mut self, place: &Placement) {
        let index = self.places.iter().rposition(|known| known == place).unwrap_or_else(|| {
            self.places.push(place.clone());
            self.places.len() - 1
        });
        self.of.push(u16::try_from(index).unwrap_or(u16::MAX));
    }
}

impl<'a> FromIterator<&'a Placement> for Placements {
    fn from_iter<T: IntoIterator<Item = &'a Placement>>(places: T) -> Self {
        let mut placements = Self::default();
        places.into_iter().for_each(|place| placements.push(place));
        placements
    }
}
