//! The agent of a node.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// Who an instance is, on the node that runs it. Written into the instance's own directory before anything else, so that a
/// running VM can always be told apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Name of its set.
    pub set: String,
    /// Ordinal within the set.
    pub id: u32,
    /// Unique over all sets and times.
    pub uid: String,
    /// Epoch of the owner that created it.
    pub epoch: u64,
    /// Generation of the manifest that it is made from.
    pub generation: u64,
    /// When it was first wanted, Unix milliseconds.
    pub created_ms: u64,
    /// Where the host reaches the guest; 0.0.0.0 without a network.
    pub address: Ipv4Addr,
}
