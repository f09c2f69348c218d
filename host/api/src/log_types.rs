//! What crosses the HTTP API about the logs of instances.

use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Longest part of a log that one call returns.
pub const LOG_BYTES_MAX: u64 = 1 << 20;

/// Kept logs of an instance that failed or was replaced.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct KeptLogInfo {
    /// The instance.
    pub id: u32,
    /// When its logs were kept.
    pub at_ms: u64,
    /// Why.
    pub reason: String,
}

/// Which log of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LogKind {
    /// What the guest writes to its serial console.
    #[default]
    Console,
    /// What the VMM says.
    Vmm,
}

/// Which part of which log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct LogQuery {
    /// Which log; default the console.
    #[serde(default)]
    pub log: LogKind,
    /// At most this many bytes from its end; default and maximum 1 MiB.
    #[serde(default)]
    pub bytes: Option<u64>,
}

/// The end of a log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogContent {
    /// Why the instance failed or was replaced, when this is what was kept of it.
    pub kept_because: Option<String>,
    /// The text; what is not UTF-8 is replaced.
    pub text: String,
}
