//! Why a launch failed.

use std::time::Duration;

use super::dir::DirError;
use super::disks::DiskError;
use crate::api::ApiError;
use crate::net::NetworkError;
use crate::overlay::OverlayError;
use crate::process::{SpawnError, VmmExit};
use regatta_util::Said;

/// A launch failed. Whatever it had made is gone again, but for kept logs.
#[derive(Debug, thiserror::Error)]
pub enum LaunchError {
    /// The specification makes no VM.
    #[error("instance {id} cannot be launched: {why}")]
    Spec {
        /// The instance.
        id: String,
        /// Why not.
        why: &'static str,
    },
    /// Its directory cannot be used.
    #[error("instance {id} has no directory")]
    Dir {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: DirError,
    },
    /// Its root disk could not be made.
    #[error("instance {id} has no root disk")]
    Overlay {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: OverlayError,
    },
    /// Its network could not be made.
    #[error("instance {id} has no network")]
    Network {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: NetworkError,
    },
    /// Another of its disks could not be made.
    #[error("instance {id} lacks a disk")]
    Disk {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: DiskError,
    },
    /// It must be contained completely, and this host does not allow that.
    #[error("instance {id} requires isolation, which cannot be had completely: {missing}")]
    Isolation {
        /// The instance.
        id: String,
        /// Each measure that is missing, with the reason and what to do.
        missing: String,
    },
    /// It would run as root, which was not allowed.
    #[error(
        "instance {id}: its VMM would run as root: {why}; or start the daemon with --allow-root-vmms: a guest that takes over its \
         VMM then owns this host"
    )]
    Root {
        /// The instance.
        id: String,
        /// Why it cannot have a user of its own, and what to do.
        why: String,
    },
    /// The VMM could not be started.
    #[error("instance {id} has no VMM process")]
    Spawn {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: SpawnError,
    },
    /// The VMM ended before the VM was booted.
    #[error("the VMM of instance {id} ended early ({exit}){}", log_note(log_tail))]
    Exited {
        /// The instance.
        id: String,
        /// How it ended.
        exit: VmmExit,
        /// Its last words, at most 2 KiB.
        log_tail: Said,
    },
    /// Another process answers on the VMM's socket.
    #[error("process {found} answers on the socket of instance {id}, not the VMM started as {expected}")]
    Stranger {
        /// The instance.
        id: String,
        /// The process that was started.
        expected: i32,
        /// The process that answered.
        found: i64,
    },
    /// It took too long.
    #[error("instance {id} was not booted within {} ms ({reached}){}", after.as_millis(), log_note(log_tail))]
    Timeout {
        /// The instance.
        id: String,
        /// The limit.
        after: Duration,
        /// How far it came.
        reached: &'static str,
        /// The VMM's last words, at most 2 KiB.
        log_tail: Said,
    },
    /// A call to the VMM failed.
    #[error("the VM of instance {id} was not booted")]
    Api {
        /// The instance.
        id: String,
        /// The call's error.
        #[source]
        source: ApiError,
    },
    /// The snapshot that it was to be restored from does not fit, or is not all there.
    #[error("instance {id} cannot be restored: {why}")]
    Snapshot {
        /// The instance.
        id: String,
        /// Why not.
        why: String,
    },
    /// It was to be restored from a snapshot, and that failed; it may boot all the same.
    #[error("restore failed")]
    Restore {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: Box<LaunchError>,
    },
    /// The VMM ignored part of what was sent: another version than we know.
    #[error("the VMM of instance {id} did not keep these settings: {}", fields.join(", "))]
    NotKept {
        /// The instance.
        id: String,
        /// Paths of the settings.
        fields: Vec<String>,
    },
}

impl LaunchError {
    /// Whether an instance that fails in this way when it is restored might boot.
    pub(crate) fn is_of_restore(&self) -> bool {
        match self {
            Self::Spec { .. }
            | Self::Dir { .. }
            | Self::Network { .. }
            | Self::Isolation { .. }
            | Self::Root { .. }
            | Self::Spawn { .. }
            | Self::Restore { .. } => false,
            Self::Overlay { .. }
            | Self::Disk { .. }
            | Self::Exited { .. }
            | Self::Stranger { .. }
            | Self::Timeout { .. }
            | Self::Api { .. }
            | Self::Snapshot { .. }
            | Self::NotKept { .. } => true,
        }
    }
}

/// What is left of a dead instance cannot be removed; call again.
#[derive(Debug, thiserror::Error)]
pub enum DiscardError {
    /// Its directory cannot be removed.
    #[error("the directory of instance {id} stays")]
    Dir {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: DirError,
    },
    /// Its network cannot be removed. Its directory stays too, which tells what there is to remove.
    #[error("the network of instance {id} stays")]
    Network {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: NetworkError,
    },
}

fn log_note(tail: &str) -> String {
    let tail = tail.trim();
    if tail.is_empty() { String::new() } else { format!("; its log ends: {tail}") }
}
