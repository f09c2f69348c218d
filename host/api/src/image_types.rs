//! What crosses the HTTP API about golden images.

use regatta_core::digest::Digest;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::types::ApiError;

/// A golden image to take into the catalogue. Paths are those of the daemon's
/// host, absolute.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportImageRequest {
    /// A disk, a kernel, or a directory that holds an image.
    pub path: String,
    /// Name; none makes one from that of the file or directory.
    #[serde(default)]
    pub name: Option<String>,
    /// Kernel.
    #[serde(default)]
    pub kernel: Option<String>,
    /// Initial RAM disk of the kernel.
    #[serde(default)]
    pub initramfs: Option<String>,
    /// Firmware.
    #[serde(default)]
    pub firmware: Option<String>,
    /// Command line of the kernel.
    #[serde(default)]
    pub cmdline: Option<String>,
    /// One line about it.
    #[serde(default)]
    pub description: Option<String>,
    /// Takes the place of an image of this name.
    #[serde(default)]
    pub replace: bool,
}

/// One line of the answer to an import. The last one is `done` or `failed`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum ImportEvent {
    /// How far it is.
    Progress {
        /// How far.
        progress: ImportProgress,
    },
    /// It is in the catalogue.
    Done {
        /// The image.
        image: Box<ImageInfo>,
    },
    /// It is not; nothing has changed.
    Failed {
        /// Why.
        error: ApiError,
    },
}

/// How far an import is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImportProgress {
    /// The file that is read: `disk`, `kernel`, `initramfs` or `firmware`; empty
    /// while others are waited for.
    pub file: String,
    /// Bytes that were read, hashed and copied.
    pub done_bytes: u64,
    /// Bytes of all files of the image; 0 while that is not known.
    pub total_bytes: u64,
}

/// A golden image of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageInfo {
    /// Name.
    pub name: String,
    /// One line about it; may be empty.
    pub description: String,
    /// The file or directory that it was imported from.
    pub source: String,
    /// When.
    pub imported_ms: u64,
    /// The golden disk.
    pub disk: Option<ImageDiskInfo>,
    /// Kernel.
    pub kernel: Option<ImageFileInfo>,
    /// Initial RAM disk.
    pub initramfs: Option<ImageFileInfo>,
    /// Command line of the kernel; may be empty.
    pub cmdline: String,
    /// Firmware.
    pub firmware: Option<ImageFileInfo>,
    /// Length of all its files.
    pub size_bytes: u64,
    /// Sets whose manifest has this name; what they run was settled when they
    /// were applied.
    pub used_by: Vec<String>,
}

/// A file of a golden image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageFileInfo {
    /// `sha256:` and 64 hex digits.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Length.
    pub size_bytes: u64,
}

/// The disk of a golden image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageDiskInfo {
    /// `sha256:` and 64 hex digits.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Length of the file.
    pub size_bytes: u64,
    /// `raw` or `qcow2`.
    pub format: String,
    /// Size of the disk that a guest sees.
    pub virtual_size_bytes: u64,
}

/// Removal of what nothing uses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GcRequest {
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a removal of unused files did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcOutcome {
    /// Nothing was removed, whatever `removed` says.
    pub dry_run: bool,
    /// The files, by digest.
    pub removed: Vec<GcFile>,
    /// Disk space of all of them.
    pub freed_bytes: u64,
}

/// A stored file that nothing uses.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct GcFile {
    /// `sha256:` and 64 hex digits.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// What it takes on disk.
    pub disk_bytes: u64,
}
