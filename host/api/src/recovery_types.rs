//! What crosses the HTTP API about orphans, recovery and backups.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A VM, or the directory of one, that no stored set knows. It is kept until somebody says what shall become of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OrphanInfo {
    /// `SET/ID`, as in the data directory.
    pub name: String,
    /// Unique id of the instance, when its directory says so.
    pub uid: Option<String>,
    /// Generation of the manifest that it was made from, likewise.
    pub generation: Option<u64>,
    /// When it was found first.
    pub since_ms: u64,
    /// Where the host reaches its guest, when its directory says so.
    pub address: Option<String>,
    /// Its VMM's process id; none when nothing runs.
    pub pid: Option<i32>,
    /// Why it is an orphan.
    pub why: String,
}

/// Which orphans to stop and remove.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeleteOrphansRequest {
    /// `SET/ID` for one, `SET` for all of that set's name.
    pub names: Vec<String>,
}

/// What became of orphans that were to be removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeleteOrphansOutcome {
    /// Those of which nothing is left.
    pub removed: Vec<RemovedOrphan>,
    /// Those that stay.
    pub failed: Vec<FailedOrphan>,
}

/// An orphan that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RemovedOrphan {
    /// `SET/ID`.
    pub name: String,
    /// How it ended.
    pub how: String,
}

/// An orphan that could not be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedOrphan {
    /// `SET/ID`.
    pub name: String,
    /// Why.
    pub why: String,
}

/// Something about the daemon that an operator should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonCondition {
    /// What, for programs.
    pub kind: ConditionKind,
    /// What, and what to do, for people.
    pub message: String,
}

/// What an operator should know of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionKind {
    /// There are VMs or instance directories that no stored set knows.
    Orphans,
    /// The state file lost its name while the daemon has it open.
    StateFile,
    /// The data directory or its lock was removed or replaced under the daemon.
    DataDirectory,
    /// The host lacks a program that the networks of a set need.
    Network,
    /// The host could not probe instances; they count as neither healthy nor unhealthy.
    NotProbed,
    /// Load balancers hold as many connections as the daemon has descriptors for.
    Connections,
    /// VMMs run as root, or are not launched because they would.
    RootVmms,
}

impl ConditionKind {
    /// All kinds.
    pub const ALL: &[Self] = &[
        Self::Orphans,
        Self::StateFile,
        Self::DataDirectory,
        Self::Network,
        Self::NotProbed,
        Self::Connections,
        Self::RootVmms,
    ];

    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Orphans => "orphans",
            Self::StateFile => "state-file",
            Self::DataDirectory => "data-directory",
            Self::Network => "network",
            Self::NotProbed => "not-probed",
            Self::Connections => "connections",
            Self::RootVmms => "root-vmms",
        }
    }
}

/// Which sets to recover.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RecoverRequest {
    /// Names of sets; all that have orphans when none is named.
    #[serde(default)]
    pub sets: Vec<String>,
    /// Only say what would be recovered.
    #[serde(default)]
    pub dry_run: bool,
}

/// What became of a recovery.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoverOutcome {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Sets that are manage their instances again.
    pub recovered: Vec<RecoveredSet>,
    /// Sets that could not be recovered.
    pub failed: Vec<FailedRecovery>,
}

/// A set that was recovered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecoveredSet {
    /// Its name.
    pub set: String,
    /// Generation of its manifest.
    pub generation: u64,
    /// Its capacity.
    pub capacity: u32,
    /// Instances that were adopted.
    pub adopted: Vec<u32>,
    /// Orphans of its name that stay, and what else there is to know.
    pub notes: Vec<String>,
}

/// A set that could not be recovered; its VMs are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FailedRecovery {
    /// Its name.
    pub set: String,
    /// Why, and what to do.
    pub why: String,
}

/// Where to write a backup of the state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct BackupRequest {
    /// Absolute path on the daemon's host, of a file that does not exist.
    pub path: String,
}

/// A backup that was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BackupOutcome {
    /// Its file.
    pub path: String,
    /// Its size.
    pub bytes: u64,
}

/// A copy of the state that the daemon made by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CopyInfo {
    /// Its file.
    pub path: String,
    /// When it was made.
    pub at_ms: u64,
    /// Its size.
    pub bytes: u64,
}
