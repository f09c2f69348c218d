//! What operators, and repair, ask for one instance.

use serde::{Deserialize, Serialize};

use crate::phase::Phase;

/// What shall become of one instance; stored with it until it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Requested {
    /// It goes, and another takes its place.
    Replace,
    /// It goes.
    Delete,
    /// Its guest is restarted, once it has no connections.
    Restart,
    /// Its node was told to restart its guest.
    Restarting,
}

impl Requested {
    /// What users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Delete => "delete",
            Self::Restart | Self::Restarting => "restart",
        }
    }

    /// Whether the instance stays.
    #[must_use]
    pub fn is_restart(self) -> bool {
        matches!(self, Self::Restart | Self::Restarting)
    }
}

/// Whether an instance drains only to be restarted: it still counts as capacity.
#[must_use]
pub fn returns(phase: Phase, requested: Option<Requested>) -> bool {
    phase == Phase::Draining && requested.is_some_and(Requested::is_restart)
}
