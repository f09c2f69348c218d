//! What a plan tells others to do.

use serde::{Deserialize, Serialize};

use crate::node::Placement;

/// One thing to do. All are idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// Create an instance.
    Create {
        /// Its id.
        id: u32,
        /// Why.
        #[serde(default)]
        cause: CreateCause,
        /// Generation of the manifest that it is created from; 0 in records of version 1.
        #[serde(default)]
        generation: u64,
        /// Where.
        #[serde(flatten)]
        placement: Placement,
    },
    /// Take it out of traffic.
    Drain {
        /// Its id.
        id: u32,
        /// Why.
        cause: RemovalCause,
    },
    /// Restart its guest. Told anew each tick until that is done.
    Restart {
        /// Its id.
        id: u32,
    },
    /// Stop and remove it.
    Terminate {
        /// Its id.
        id: u32,
        /// Why.
        cause: RemovalCause,
    },
}

impl Action {
    /// The instance that it is about.
    #[must_use]
    pub fn id(&self) -> u32 {
        let (Self::Create { id, .. }
        | Self::Drain { id, .. }
        | Self::Restart { id }
        | Self::Terminate { id, .. }) = self;
        *id
    }
}

/// Why an instance is created.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreateCause {
    /// There are fewer than wanted. A launch that failed and is tried again stays what it was: a scale-out.
    #[default]
    ScaleOut,
    /// It replaces one that the same plan removes because it failed, is unhealthy, or shall go.
    Replacement,
    /// It takes the place of an outdated one.
    Upgrade,
}

impl CreateCause {
    /// The cause as users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleOut => "scale-out",
            Self::Replacement => "replacement",
            Self::Upgrade => "upgrade",
        }
    }
}

/// Why an instance is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalCause {
    /// There are more than wanted.
    ScaleIn,
    /// An operator asked for it.
    Requested,
    /// It was unhealthy for longer than the grace period.
    Unhealthy,
    /// Its launch failed or its VMM exited.
    Failed,
    /// Its node refused to run it.
    Refused,
    /// It is outdated, and the set is upgraded.
    Upgrade,
    /// It has finished its connections.
    Drained,
    /// It had its time to finish them.
    DrainTimeout,
}

impl RemovalCause {
    /// The cause as users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleIn => "scale-in",
            Self::Requested => "requested",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::Upgrade => "upgrade",
            Self::Drained => "drained",
            Self::DrainTimeout => "drain timeout",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_create_of_version_1_is_read() {
        let action: Action = serde_json::from_str(r#"{"do":"create","id":7}"#).expect("reads");
        let placement = Placement::default();
        assert_eq!(action, Action::Create { id: 7, cause: CreateCause::ScaleOut, generation: 0, placement });
    }

    #[test]
    fn an_action_reads_back_as_it_was_written() {
        let placement = Placement {
            node: crate::node::NodeId("n1".into()),
            domain: crate::node::FaultDomain("r1".into()),
        };
        let action = Action::Create { id: 7, cause: CreateCause::Replacement, generation: 3, placement };
        let json = serde_json::to_string(&action).expect("writes");
        assert_eq!(
            json,
            r#"{"do":"create","id":7,"cause":"replacement","generation":3,"node":"n1","domain":"r1"}"#
        );
        assert_eq!(serde_json::from_str::<Action>(&json).expect("reads"), action);
    }
}
