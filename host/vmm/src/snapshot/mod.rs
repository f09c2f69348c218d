//! Golden snapshots: a guest that has booted, kept with its memory and its disk, for others to go on from.
//!
//! A snapshot is a directory of three files of the VMM (`config.json`, `state.json`, `memory-ranges`), the root disk as it was when the
//! guest was paused, and `facts.json`. Only we can look into it: it holds a guest's memory. An instance that is restored gets hard links
//! to what its VMM must read, so removing a snapshot never takes anything away from one that runs.

#[allow(clippy::disallowed_methods, reason = "/proc/cpuinfo")]
mod key;
mod make;
mod restore;
#[allow(clippy::disallowed_methods, reason = "only we can write in the store, once a file is in it")]
mod store;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::api::ApiError;
use crate::image::ImageFormat;
use crate::instance::StopError;

pub use key::SnapshotKey;
pub(crate) use restore::{Links, Restore, remove_links, restore};
pub use store::SnapshotStore;

pub(crate) const CONFIG: &str = "config.json";
/// A machine with hundreds of disks comes to a tenth of it.
pub(crate) const CONFIG_BYTES_MAX: u64 = 1 << 20;
pub(crate) const STATE: &str = "state.json";
pub(crate) const MEMORY: &str = "memory-ranges";

/// A snapshot that instances can be restored from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoldenSnapshot {
    path: PathBuf,
    key: SnapshotKey,
    facts: Facts,
}

impl GoldenSnapshot {
    /// Its directory.
    #[must_use]
    pub fn path(&self) -> &std::path::Path {
        &self.path
    }

    /// What tells it from snapshots of other guests.
    #[must_use]
    pub fn key(&self) -> &SnapshotKey {
        &self.key
    }

    /// What it takes on disk, bytes.
    #[must_use]
    pub fn disk_bytes(&self) -> u64 {
        self.facts.disk_bytes
    }

    /// Its root disk, if it has one.
    pub(crate) fn root(&self) -> Option<(PathBuf, &RootFacts)> {
        self.facts.root.as_ref().map(|root| (self.path.join(format!("root.{}", root.format)), root))
    }
}

/// What is known of a snapshot beside the VMM's files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Facts {
    /// Version of the VMM that wrote it.
    vmm_version: String,
    /// Lengths of the files, in bytes: one that has another is not the one that was written.
    lengths: Vec<(String, u64)>,
    /// What it takes on disk, bytes.
    disk_bytes: u64,
    root: Option<RootFacts>,
}

/// A snapshot's root disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootFacts {
    pub(crate) format: ImageFormat,
    /// Size of the disk as the guest sees it, bytes.
    pub(crate) virtual_size_bytes: u64,
}

/// A golden snapshot could not be made. Nothing of it is left but its instance, which the caller removes.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The VMM refused.
    #[error("the VMM of instance {id} made no snapshot")]
    Api {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: ApiError,
    },
    /// The instance was not launched for it.
    #[error("instance {id} was not launched to be made a snapshot of")]
    NotATemplate {
        /// The instance.
        id: String,
    },
    /// Its VMM could not be ended.
    #[error("instance {id} was made a snapshot of, but did not end")]
    Stop {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: StopError,
    },
    /// It was ended by force: what it had not written to its disk is lost.
    #[error("the VMM of instance {id} did not close its disk in time, so the disk does not fit the memory")]
    Forced {
        /// The instance.
        id: String,
    },
    /// What the VMM left is not what it should have.
    #[error("{} is {what}", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// The file system refused.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// How an instance came to run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Started {
    /// Its guest booted.
    Cold,
    /// Its guest booted although it was to be restored, for this reason.
    ColdInstead(String),
    /// Its guest goes on from a snapshot.
    Restored {
        /// Its memory is read as it is used; else all of it was before it ran.
        on_demand: bool,
    },
}

impl std::fmt::Display for Started {
    /// `cold`, `cold: WHY`, `restored (copy)` or `restored (on-demand)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cold => f.write_str("cold"),
            Self::ColdInstead(why) => write!(f, "cold: {why}"),
            Self::Restored { on_demand: false } => f.write_str("restored (copy)"),
            Self::Restored { on_demand: true } => f.write_str("restored (on-demand)"),
        }
    }
}
