//! Bodies of the calls other than `vm.create`. Source: `vmm/src/api/mod.rs` of v53.0.

use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;

use serde::Deserialize;

/// Sizes are bytes; absent fields leave things as they are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct ResizeData {
    pub(crate) desired_vcpus: Option<u32>,
    pub(crate) desired_ram: Option<u64>,
    pub(crate) desired_balloon: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ResizeDiskData {
    pub(crate) id: String,
    pub(crate) desired_size: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ResizeZoneData {
    pub(crate) id: String,
    pub(crate) desired_ram: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RemoveDeviceData {
    pub(crate) id: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SnapshotConfig {
    pub(crate) destination_url: String,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum MemoryRestoreMode {
    #[default]
    Copy,
    OnDemand,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RestoredNetConfig {
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) num_fds: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct RestoreConfig {
    pub(crate) source_url: PathBuf,
    #[serde(default)]
    pub(crate) prefault: bool,
    #[serde(default)]
    pub(crate) memory_restore_mode: MemoryRestoreMode,
    #[serde(default)]
    pub(crate) net_fds: Option<Vec<RestoredNetConfig>>,
    #[serde(default)]
    pub(crate) resume: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum MigrationMode {
    #[default]
    Precopy,
    Postcopy,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub(crate) enum TimeoutStrategy {
    #[default]
    Cancel,
    Ignore,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct ReceiveMigrationData {
    pub(crate) receiver_url: String,
    #[serde(default)]
    pub(crate) tls_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) memory_mode: MigrationMode,
}

fn downtime_ms() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(299)
}

fn timeout_s() -> NonZeroU64 {
    NonZeroU64::MIN.saturating_add(3599)
}

fn connections() -> NonZeroU32 {
    NonZeroU32::MIN
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct SendMigrationData {
    pub(crate) destination_url: String,
    #[serde(default)]
    pub(crate) local: bool,
    #[serde(default = "downtime_ms")]
    pub(crate) downtime_ms: NonZeroU64,
    #[serde(default = "timeout_s")]
    pub(crate) timeout_s: NonZeroU64,
    #[serde(default)]
    pub(crate) timeout_strategy: TimeoutStrategy,
    #[serde(default = "connections")]
    pub(crate) connections: NonZeroU32,
    #[serde(default)]
    pub(crate) tls_dir: Option<PathBuf>,
    #[serde(default)]
    pub(crate) memory_mode: MigrationMode,
}
