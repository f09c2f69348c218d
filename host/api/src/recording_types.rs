//! What crosses the HTTP API about imported recordings.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Largest file of a recording that is imported. A client holds one in memory.
pub const RECORDING_BYTES_MAX: u64 = 256 << 20;

/// A recording to import, which `regatta record export` wrote.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImportRecordingRequest {
    /// The file on the daemon's host, an absolute path.
    pub path: String,
    /// Name; none takes that of the recorded set.
    #[serde(default)]
    pub name: Option<String>,
}

/// An imported recording: ticks of a set that ran on this host or another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingInfo {
    /// Name.
    pub name: String,
    /// Name of the recorded set.
    pub set: String,
    /// Number of ticks.
    pub ticks: u64,
    /// The first tick.
    pub first_tick: u64,
    /// The last tick.
    pub last_tick: u64,
    /// Wall clock of the last tick.
    pub recorded_ms: u64,
    /// When it was imported.
    pub imported_ms: u64,
    /// Size of its file.
    pub size_bytes: u64,
}

/// Which part of a recording's file.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ContentQuery {
    /// Bytes to skip.
    #[serde(default)]
    pub offset: u64,
}

/// Part of a recording's file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RecordingContent {
    /// The next bytes, base64; empty at the end of the file.
    pub base64: String,
}
