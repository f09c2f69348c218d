//! What crosses the HTTP API about upgrades of a set's instances.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The upgrade of a set that is under way, or its last one, and the instances that are outdated now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeInfo {
    /// The set.
    pub set: String,
    /// Generation of the manifest in force.
    pub generation: u64,
    /// `upgrade.mode` of the manifest: `manual`, `rolling` or `all-at-once`.
    pub mode: String,
    /// The upgrade; none when the set never had one.
    pub upgrade: Option<UpgradeRun>,
    /// What it waits for, if it does.
    pub waits_for: Option<String>,
    /// Instances that differ from the manifest in force and may be replaced, in the order in which they would be.
    pub outdated: Vec<OutdatedInstance>,
}

/// One upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradeRun {
    /// `rolling`, `paused`, `rollback-due`, `rolling-back`, `completed`, `rolled-back`, `canceled` or `failed`.
    pub status: String,
    /// Why, when that is not the usual course.
    pub why: Option<String>,
    /// Generation that a rollback goes back to.
    pub from: u64,
    /// Generation that instances are brought to.
    pub to: u64,
    /// When it began, Unix milliseconds.
    pub started_ms: u64,
    /// When it ended, Unix milliseconds.
    pub ended_ms: Option<u64>,
    /// Instances that there were to replace.
    pub total: u32,
    /// How many of them are replaced.
    pub replaced: u32,
    /// How many of them are replaced when the present batch is complete.
    pub batch_end: u32,
    /// New instances that failed.
    pub failed: Vec<u32>,
}

impl UpgradeRun {
    /// Whether it is over.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended_ms.is_some()
    }

    /// How far it is, in one line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}, {} of {} instances replaced", self.status, self.replaced, self.total)
    }
}

/// An instance that differs from the manifest in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct OutdatedInstance {
    /// `<set>-<id>`.
    pub name: String,
    /// Ordinal within the set.
    pub id: u32,
    /// Fields of the manifest in which it differs.
    pub differs_in: Vec<String>,
}

/// What shall become of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeVerb {
    /// Replace outdated instances, whatever `upgrade.mode` says.
    Start,
    /// Replace nothing until it is resumed.
    Pause,
    /// Go on.
    Resume,
    /// End it; instances stay as they are.
    Cancel,
    /// Go back to what instances were made of before.
    Rollback,
}

/// What shall become of an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// What.
    pub action: UpgradeVerb,
}

/// What an apply does, or would do, to instances that run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UpgradePreview {
    /// `upgrade.mode` of the manifest: `manual` leaves them as they are.
    pub mode: String,
    /// Outdated instances, in the order in which they are replaced.
    pub outdated: Vec<OutdatedInstance>,
    /// Instances of a batch.
    pub batch: u32,
    /// Instances that there are beyond the capacity meanwhile.
    pub surge: u32,
    /// Instances that may be missing from service meanwhile.
    pub unavailable: u32,
}
