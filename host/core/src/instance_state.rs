//! What policies see of the life of an instance. The host itself knows more: [`crate::phase::Phase`].

use serde::{Deserialize, Serialize};

/// Where an instance is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum InstanceState {
    /// Wanted, and written down; nothing exists yet.
    Pending,
    /// Directory, overlay and VMM process are being made.
    Creating,
    /// The VMM runs the guest; no probe has answered yet.
    Booting,
    /// A probe has answered, not yet often enough to be trusted.
    Initializing,
    /// Healthy and receiving traffic.
    InService,
    /// Healthy but taken out of traffic on purpose.
    Standby,
    /// Was in service; its probes fail.
    Unhealthy,
    /// Receives no new connections; finishes those it has.
    Draining,
    /// Is being stopped and removed.
    Terminating,
    /// Launch failed or the VMM ended unasked; kept until it is removed.
    Failed,
    /// Nothing of it is left.
    Gone,
}

/// All states, in the order of their declaration.
pub const INSTANCE_STATES: [InstanceState; 11] = [
    InstanceState::Pending,
    InstanceState::Creating,
    InstanceState::Booting,
    InstanceState::Initializing,
    InstanceState::InService,
    InstanceState::Standby,
    InstanceState::Unhealthy,
    InstanceState::Draining,
    InstanceState::Terminating,
    InstanceState::Failed,
    InstanceState::Gone,
];

impl InstanceState {
    /// The name that users read and write, for example `in-service`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Creating => "creating",
            Self::Booting => "booting",
            Self::Initializing => "initializing",
            Self::InService => "in-service",
            Self::Standby => "standby",
            Self::Unhealthy => "unhealthy",
            Self::Draining => "draining",
            Self::Terminating => "terminating",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

impl std::fmt::Display for InstanceState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}
