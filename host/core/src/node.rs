//! Where instances run.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A host that runs instances.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct NodeId(pub String);

/// Nodes that fail together, for example a rack.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FaultDomain(pub String);

/// Where an instance runs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
// On the fields of a flattened struct serde only knows the defaults of the struct itself; records of version 1 have neither.
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
        Self { node: NodeId("local".to_owned()), domain: FaultDomain("local".to_owned()) }
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Display for FaultDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
