//! The event log: what operators want to know afterwards.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use regatta_util::Said;

/// Something that operators want to know afterwards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Which set.
    pub set: String,
    /// What kind of event.
    pub kind: EventKind,
    /// Which instance, if one.
    pub instance: Option<u32>,
    /// One line for people.
    pub text: Said,
    /// Who caused it.
    pub actor: Actor,
    /// The policy that it is about, if one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyRef>,
}

/// Which policy an event is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRef {
    /// Its slot in the set.
    pub slot: String,
    /// Name, as the module describes itself.
    pub name: Said,
    /// Version, likewise.
    pub version: Said,
    /// SHA-256 of the module; empty when it was refused before it was known.
    pub digest: Digest,
    /// Where it came from.
    pub source: Said,
    /// Number of its activation; 0 when it has none.
    #[serde(default)]
    pub activation: u64,
    /// Its parameters, as JSON text; empty when they are not known.
    #[serde(default)]
    pub params: String,
}

macro_rules! event_kinds {
    ($($(#[doc = $doc:literal])* $kind:ident = $name:literal,)*) => {
        /// What kind of event; users filter by the name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum EventKind {
            $($(#[doc = $doc])* #[serde(rename = $name)] $kind,)*
        }

        impl EventKind {
            /// All kinds.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// The name that users read and filter by.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

event_kinds! {
    /// A set was created.
    SetCreated = "set-created",
    /// A set is being deleted.
    SetDeleting = "set-deleting",
    /// A set and everything of it was removed.
    SetDeleted = "set-deleted",
    /// Another manifest is in force.
    ManifestApplied = "manifest-applied",
    /// The capacity was set by an operator.
    ScaledByHand = "scaled-by-hand",
    /// An operator holds the size.
    SizeHeld = "size-held",
    /// Policies decide the size again.
    SizeResumed = "size-resumed",
    /// An operator put other limits in the place of the manifest's.
    LimitsOverridden = "limits-overridden",
    /// The limits of the manifest count again.
    LimitsRestored = "limits-restored",
    /// An entry of the schedules begins.
    ScheduleBegan = "schedule-began",
    /// An entry of the schedules ends.
    ScheduleEnded = "schedule-ended",
    /// Nothing that serves is removed.
    Frozen = "frozen",
    /// What serves may be removed again.
    Thawed = "thawed",
    /// An instance was protected, or no longer is.
    Protection = "protection",
    /// The capacity went up.
    ScaleOut = "scale-out",
    /// The capacity went down.
    ScaleIn = "scale-in",
    /// The hosts have no capacity for all instances that are wanted.
    HostFull = "host-full",
    /// The hosts have capacity again.
    HostHasRoom = "host-has-room",
    /// A node refused to run an instance.
    InstanceRefused = "instance-refused",
    /// An instance could not be launched.
    LaunchFailed = "launch-failed",
    /// Launches of a set back off: they fail, or new instances die soon after them.
    LaunchesBackOff = "launches-back-off",
    /// Launches of a set no longer back off.
    LaunchesResumed = "launches-resumed",
    /// An instance was not healthy within its boot time-out.
    BootTimedOut = "boot-timed-out",
    /// An instance came into service.
    InService = "in-service",
    /// An instance became unhealthy.
    Unhealthy = "unhealthy",
    /// An unhealthy instance is replaced.
    Repair = "repair",
    /// Repair waits: too large a share of a set is unhealthy, or it does not help.
    RepairHeld = "repair-held",
    /// Repair no longer waits.
    RepairResumed = "repair-resumed",
    /// An upgrade of a set's instances was started by an operator.
    UpgradeStarted = "upgrade-started",
    /// A batch of an upgrade is complete.
    UpgradeBatch = "upgrade-batch",
    /// An upgrade replaces nothing for now.
    UpgradePaused = "upgrade-paused",
    /// An upgrade that was paused goes on.
    UpgradeResumed = "upgrade-resumed",
    /// An upgrade goes back to what instances were made of before.
    UpgradeRollback = "upgrade-rollback",
    /// All instances of a set are up to date, or as they were before.
    UpgradeCompleted = "upgrade-completed",
    /// An upgrade ended before all instances were up to date.
    UpgradeCanceled = "upgrade-canceled",
    /// An upgrade went neither forth nor back.
    UpgradeFailed = "upgrade-failed",
    /// A VMM exited unexpectedly.
    InstanceDied = "instance-died",
    /// A guest's kernel panicked.
    GuestPanicked = "guest-panicked",
    /// A guest rebooted itself.
    GuestRebooted = "guest-rebooted",
    /// An operator asked for the replacement, the restart or the removal of an instance.
    InstanceRequested = "instance-requested",
    /// An operator suspended or resumed what a set does by itself.
    ProcessesChanged = "processes-changed",
    /// A guest was restarted, as it should be.
    Restarted = "restarted",
    /// Connections were still open when the drain time-out was over.
    DrainTimeout = "drain-timeout",
    /// An instance and everything of it was removed.
    InstanceGone = "instance-gone",
    /// The load balancer has as many connections as it may have, and refuses more.
    BalancerFull = "load-balancer-full",
    /// The load balancer accepts all connections again.
    BalancerHasRoom = "load-balancer-has-room",
    /// Instances in service have no fresh value of a metric.
    MetricGap = "metric-gap",
    /// All of them have a fresh value of the metric again.
    MetricBack = "metric-back",
    /// A policy returned no decision.
    PolicyFailed = "policy-failed",
    /// The policy of a slot returns decisions again.
    PolicyRecovered = "policy-recovered",
    /// A canary failed and was removed.
    PolicyDemoted = "policy-demoted",
    /// A manifest gave a slot its policy.
    PolicyApplied = "policy-applied",
    /// Another policy took over a slot.
    PolicySwapped = "policy-swapped",
    /// The previous policy took over again.
    PolicyRolledBack = "policy-rolled-back",
    /// A shadow or canary took over.
    PolicyPromoted = "policy-promoted",
    /// A shadow was added.
    PolicyShadowed = "policy-shadowed",
    /// A canary was added.
    PolicyCanary = "policy-canary",
    /// A shadow or canary was removed.
    PolicyDropped = "policy-dropped",
    /// A policy was refused before it could take over.
    PolicyRefused = "policy-refused",
    /// A golden snapshot is ready.
    SnapshotReady = "snapshot-ready",
    /// No golden snapshot could be made.
    SnapshotFailed = "snapshot-failed",
    /// A VM or an instance directory was found that no stored set knows.
    OrphanFound = "orphan-found",
    /// A set was recovered from the directories of its instances.
    SetRecovered = "set-recovered",
    /// An orphan became an instance of its set again.
    InstanceAdopted = "instance-adopted",
    /// An orphan was removed by an operator.
    OrphanRemoved = "orphan-removed",
}

impl EventKind {
    /// Whether an operator should look.
    #[must_use]
    pub fn is_trouble(self) -> bool {
        matches!(
            self,
            Self::HostFull
                | Self::InstanceRefused
                | Self::LaunchFailed
                | Self::LaunchesBackOff
                | Self::BootTimedOut
                | Self::Unhealthy
                | Self::Repair
                | Self::RepairHeld
                | Self::InstanceDied
                | Self::GuestPanicked
                | Self::GuestRebooted
                | Self::DrainTimeout
                | Self::BalancerFull
                | Self::MetricGap
                | Self::PolicyFailed
                | Self::PolicyDemoted
                | Self::PolicyRefused
                | Self::SnapshotFailed
                | Self::OrphanFound
        )
    }
}

impl fmt::Display for EventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Who caused something.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Actor {
    /// The daemon itself.
    Daemon,
    /// A policy directory whose file changed.
    PolicyDir,
    /// A user, by login name.
    User(String),
}

impl Actor {
    /// The name that users read.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Daemon => "daemon",
            Self::PolicyDir => "policy-dir",
            Self::User(name) => name,
        }
    }
}

impl From<&str> for Actor {
    fn from(name: &str) -> Self {
        match name {
            "daemon" => Self::Daemon,
            "policy-dir" => Self::PolicyDir,
            name => Self::User(name.to_owned()),
        }
    }
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Actor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Actor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(String::deserialize(deserializer)?.as_str().into())
    }
}
