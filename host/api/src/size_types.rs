//! Who decides the size of a set, as it crosses the API.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A hold of the size.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldRequest {
    /// Another capacity first, within the set's min and max; none keeps the present one.
    #[serde(default)]
    pub capacity: Option<u32>,
    /// For how long the daemon must run until it ends; none until it is resumed.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// Other limits for a while, in the place of the manifest's. Replaces those that were put there before.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct LimitsRequest {
    /// Least capacity; none takes the manifest's.
    #[serde(default)]
    pub min: Option<u32>,
    /// Greatest capacity; none takes the manifest's.
    #[serde(default)]
    pub max: Option<u32>,
    /// For how long the daemon must run until it ends; none until it is cleared.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// A freeze: nothing that serves is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FreezeRequest {
    /// For how long the daemon must run until it ends; none until it is ended.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
}

/// What operators say about the size of a set now.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct SizeInfo {
    /// Policies do not change the size.
    pub hold: Option<TermInfo>,
    /// Where the least capacity comes from: `manifest`, `schedule NAME`, `override`.
    pub min_from: String,
    /// Where the greatest capacity comes from: `manifest`, `schedule NAME`, `override`, or `freeze` when it would be less than there is.
    pub max_from: String,
    /// The override of the limits.
    pub limits: Option<TermInfo>,
    /// Nothing that serves is removed.
    pub freeze: Option<TermInfo>,
    /// The schedule entry by which nothing that serves is removed.
    pub frozen_by: Option<String>,
    /// Names of the schedule entries in force.
    pub schedules: Vec<String>,
}

/// For how long an operator's word counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TermInfo {
    /// Since when.
    pub since_ms: u64,
    /// When it ends if the daemon runs until then; none until an operator ends it.
    pub until_ms: Option<u64>,
    /// Who said so.
    pub actor: String,
    /// Why; may be empty.
    pub reason: String,
}
