//! What a set does by itself, and an operator can suspend.

use serde::{Deserialize, Serialize};

/// Something that a set does by itself, as in AWS' suspendable processes. Suspended, it does not happen; what operators ask for single
/// instances, and the deletion of the set, happen all the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetProcess {
    /// Creating instances, replacements included.
    Launch,
    /// Draining and removing instances, whatever the reason.
    Terminate,
    /// Taking instances for unhealthy because of their probes, or for failed because they took too long to boot.
    Health,
    /// Repairing unhealthy instances.
    Repair,
    /// Asking the policies; the capacity stays as it is, within the set's limits.
    Policy,
}

impl SetProcess {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Launch, Self::Terminate, Self::Health, Self::Repair, Self::Policy];

    /// The name that users read and write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Launch => "launch",
            Self::Terminate => "terminate",
            Self::Health => "health",
            Self::Repair => "repair",
            Self::Policy => "policy",
        }
    }
}
