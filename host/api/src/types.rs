//! What crosses the HTTP API, as JSON. Times are Unix milliseconds.
//!
//! Requests refuse unknown fields: a daemon that ignored, say, a `dry_run` that it
//! does not know would do what the user did not ask for. Answers may grow.

use std::collections::BTreeMap;

use regatta_core::digest::Digest;
use regatta_core::protection::Protection;
use regatta_core::set_process::SetProcess;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::recovery_types::{CopyInfo, DaemonCondition};
use crate::size_types::SizeInfo;
use crate::upgrade_types::{UpgradePreview, UpgradeRun};

/// An error as clients see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApiError {
    /// Stable, for programs.
    pub code: ErrorCode,
    /// What happened, for people, the whole chain in one line.
    pub message: String,
    /// Every problem at once, when the input had some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
}

/// What kind of error. The HTTP status is a function of it, except for
/// [`ErrorCode::BadRequest`], whose status names the fault of the request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// No such set, instance, tick, policy or image (404).
    NotFound,
    /// The input has problems; nothing was done (422).
    Invalid,
    /// The request itself is not understood: no such route, wrong method,
    /// malformed or too large body, bad query (400, 404, 405, 413, 415).
    BadRequest,
    /// The caller's role does not suffice (403).
    Forbidden,
    /// It cannot be done in the present state (409).
    Conflict,
    /// The daemon cannot do it now, for example on a full disk (503).
    Unavailable,
    /// A fault of the daemon (500).
    Internal,
}

/// One problem of an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Where in the document, for example `capacity.min`.
    pub path: String,
    /// Line, from 1; 0 when it has no place.
    pub line: u32,
    /// Column, from 1; 0 when it has no place.
    pub column: u32,
    /// What is wrong.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// As a person reads it: place, source line, caret, hint.
    pub rendered: String,
}

/// A manifest to apply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// Name of the source as the user knows it, for messages.
    pub source: String,
    /// Absolute directory that relative paths start from.
    pub base_dir: String,
    /// The YAML text.
    pub text: String,
    /// Only say what would change.
    #[serde(default)]
    pub dry_run: bool,
    /// Take policies that fail their rehearsal on recorded ticks.
    #[serde(default)]
    pub force: bool,
}

/// What an apply did or would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ApplyOutcome {
    /// Name of the set.
    pub set: String,
    /// What happened to it.
    pub result: ApplyResult,
    /// Generation in force (or that would be).
    pub generation: u64,
    /// Field by field; empty for a new set.
    pub changes: Vec<FieldChange>,
    /// What it does to instances that run; none when they are up to date.
    #[serde(default)]
    pub upgrade: Option<UpgradePreview>,
    /// What may keep the set from working as it should: metrics that it does not have, what this host lacks, canaries
    /// that ended.
    pub warnings: Vec<String>,
}

/// What happened to a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ApplyResult {
    /// It is new.
    Created,
    /// It was changed.
    Updated,
    /// It is as it was.
    Unchanged,
}

/// One changed field of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FieldChange {
    /// Where in the manifest.
    pub path: String,
    /// Before, as JSON; none when it is new.
    pub before: Option<String>,
    /// After, as JSON; none when it is gone.
    pub after: Option<String>,
    /// Instances that run keep what they have; only new ones get the change.
    pub new_instances_only: bool,
}

/// What runs here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DaemonStatus {
    /// Version of the daemon.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// Since when.
    pub started_ms: u64,
    /// Its data directory.
    pub data_dir: String,
    /// The VMM binary.
    pub vmm: VmmInfo,
    /// Number of sets.
    pub sets: u32,
    /// What an operator should know of it.
    #[serde(default)]
    pub conditions: Vec<DaemonCondition>,
    /// The newest copy of the state that it has made by itself.
    #[serde(default)]
    pub newest_copy: Option<CopyInfo>,
}

/// The VMM binary in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct VmmInfo {
    /// Its path.
    pub path: String,
    /// Its version.
    pub version: String,
    /// Why this one.
    pub chosen_because: String,
}

/// A set in one line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SetSummary {
    /// Name.
    pub name: String,
    /// Generation of its manifest.
    pub generation: u64,
    /// Least capacity.
    pub min: u32,
    /// Greatest capacity.
    pub max: u32,
    /// Capacity in force.
    pub desired: u32,
    /// Instances by state; states without an instance are left out.
    pub instances: BTreeMap<String, u32>,
    /// How its loop hangs, and in what; none if it does not. Its VMs keep running.
    #[serde(default)]
    pub stuck: Option<String>,
    /// The active policies, in the order of the manifest.
    pub policies: Vec<PolicyInfo>,
    /// Length of a tick.
    pub tick_ms: u64,
    /// Number of the last tick.
    pub last_tick: u64,
    /// Address of its load balancer.
    pub load_balancer: Option<String>,
    /// Being deleted.
    pub deleting: bool,
    /// The upgrade of its instances that is under way, or the last one.
    #[serde(default)]
    pub upgrade: Option<UpgradeRun>,
    /// Instances that differ from the manifest in force.
    #[serde(default)]
    pub outdated: u32,
    /// What keeps it from being as wanted, for example failed launches; empty when all is well.
    pub problems: Vec<String>,
    /// How long its instances must stay healthy after a change until its probes would have found a fault.
    #[serde(default)]
    pub steady_ms: u64,
    /// What operators say about its size.
    #[serde(default)]
    pub size: SizeInfo,
}

/// A policy that is or was active.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyInfo {
    /// Its place among the policies of the set.
    pub slot: String,
    /// Counts the activations of the set.
    pub activation: u64,
    /// Name.
    pub name: String,
    /// Version.
    pub version: String,
    /// SHA-256 of the module.
    #[schema(value_type = String)]
    pub digest: Digest,
    /// Where it came from.
    pub source: String,
    /// Its parameters.
    #[schema(value_type = Object)]
    pub params: serde_json::Value,
    /// Since when.
    pub since_ms: u64,
}

/// A set with everything that is known of it now.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SetDetail {
    /// In one line.
    pub summary: SetSummary,
    /// The manifest in force, with defaults filled in; may be applied as it stands.
    #[schema(value_type = Object)]
    pub manifest: serde_json::Value,
    /// Its policies: active, previous, canary, shadows.
    pub policies: Vec<PolicyEntry>,
    /// The metrics of the last tick.
    pub metrics: Vec<MetricNow>,
    /// Its load balancer.
    pub traffic: Option<TrafficInfo>,
    /// Notes of the last plan.
    pub notes: Vec<String>,
}

/// A metric over the instances in service, at the last tick.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct MetricNow {
    /// Name.
    pub name: String,
    /// Mean of the fresh values; none when there is none.
    pub mean: Option<f64>,
    /// Least.
    pub min: Option<f64>,
    /// Greatest.
    pub max: Option<f64>,
    /// Instances with a fresh value.
    pub fresh: u32,
    /// Instances with a stale value.
    pub stale: u32,
    /// Instances without a value.
    pub missing: u32,
}

/// Counters of a load balancer since it was started.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TrafficInfo {
    /// Address of the listener.
    pub listen: String,
    /// Endpoints that receive new connections.
    pub endpoints: u32,
    /// Connections accepted.
    pub accepted: u64,
    /// Connections open now.
    pub open: u64,
    /// Connections that found no endpoint.
    pub unserved: u64,
    /// Connects to an endpoint that failed and were tried on another.
    pub retries: u64,
}

/// An instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct InstanceInfo {
    /// `<set>-<id>`.
    pub name: String,
    /// Ordinal within the set.
    pub id: u32,
    /// State, for example `in-service`.
    pub state: String,
    /// When it entered that state.
    pub state_since_ms: u64,
    /// When it was first wanted.
    pub created_ms: u64,
    /// Generation of the manifest that it was made from.
    pub generation: u64,
    /// Address and port of its service.
    pub address: String,
    /// Process id of its VMM.
    pub pid: Option<u32>,
    /// Protected from scale-in, or from more.
    pub protected: bool,
    /// What it is protected from.
    #[serde(default)]
    pub protection: ProtectionLevel,
    /// What is asked for it and not done yet: `replace`, `restart` or `delete`.
    #[serde(default)]
    pub requested: Option<String>,
    /// Open connections through the load balancer.
    pub connections: u64,
    /// Its metrics at the last tick; only fresh ones.
    pub metrics: BTreeMap<String, f64>,
    /// In which ways its VMM is not contained, because the host does not allow
    /// them: `own-user`, `cgroup`, … With ` (requested)` at the end: the VMM was asked, and nobody
    /// can see whether it complied.
    #[serde(default)]
    pub not_contained: Vec<String>,
    /// What there is to say about its state.
    pub detail: Option<String>,
    /// How it came to run: `cold`, `restored (copy)`, `restored (on-demand)`, or `cold: ` and why it was not restored.
    #[serde(default)]
    pub start: Option<String>,
}

/// A new capacity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// Within the set's min and max.
    pub capacity: u32,
}

/// Protection of an instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProtectRequest {
    /// What it is protected from.
    pub protection: ProtectionLevel,
}

/// What shall become of an instance. It is stored, and carried out by the next ticks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "kebab-case", deny_unknown_fields)]
pub enum InstanceActionRequest {
    /// It drains and goes; another takes its place.
    Replace,
    /// It drains, and its guest is restarted.
    Restart,
    /// It drains and goes.
    Delete {
        /// Lower the desired capacity by one as well; else another takes its place.
        #[serde(default)]
        shrink: bool,
    },
}

/// What a set shall not do by itself, or do again.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ProcessesRequest {
    /// To suspend.
    #[serde(default)]
    pub suspend: Vec<ProcessName>,
    /// To resume.
    #[serde(default)]
    pub resume: Vec<ProcessName>,
}

/// What a set does not do by itself now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ProcessesInfo {
    /// Suspended by an operator.
    pub suspended: Vec<ProcessName>,
}

/// Something that a set does by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProcessName {
    /// Creating instances, replacements included.
    Launch,
    /// Draining and removing instances, whatever the reason.
    Terminate,
    /// Taking instances for unhealthy, or for too slow to boot.
    Health,
    /// Repairing unhealthy instances.
    Repair,
    /// Asking the policies.
    Policy,
}

impl From<SetProcess> for ProcessName {
    fn from(process: SetProcess) -> Self {
        match process {
            SetProcess::Launch => Self::Launch,
            SetProcess::Terminate => Self::Terminate,
            SetProcess::Health => Self::Health,
            SetProcess::Repair => Self::Repair,
            SetProcess::Policy => Self::Policy,
        }
    }
}

impl From<ProcessName> for SetProcess {
    fn from(name: ProcessName) -> Self {
        match name {
            ProcessName::Launch => Self::Launch,
            ProcessName::Terminate => Self::Terminate,
            ProcessName::Health => Self::Health,
            ProcessName::Repair => Self::Repair,
            ProcessName::Policy => Self::Policy,
        }
    }
}

/// What an instance is protected from. An operator can remove it all the same.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ProtectionLevel {
    /// Nothing.
    #[default]
    None,
    /// From scale-in.
    ScaleIn,
    /// From all actions of the set: scale-in, repair, upgrades.
    All,
}

impl From<Protection> for ProtectionLevel {
    fn from(protection: Protection) -> Self {
        match protection {
            Protection::None => Self::None,
            Protection::ScaleIn => Self::ScaleIn,
            Protection::All => Self::All,
        }
    }
}

impl From<ProtectionLevel> for Protection {
    fn from(level: ProtectionLevel) -> Self {
        match level {
            ProtectionLevel::None => Self::None,
            ProtectionLevel::ScaleIn => Self::ScaleIn,
            ProtectionLevel::All => Self::All,
        }
    }
}

/// Another policy.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SwapRequest {
    /// Name of the source as the user knows it: a file, or the name of a module
    /// in the daemon's policy directories.
    pub source: String,
    /// The module itself, base64; none to look `source` up by name.
    #[serde(default)]
    pub module: Option<String>,
    /// New parameters; none keeps those in force.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub params: Option<serde_json::Value>,
    /// The place among the policies of the set; none when it has only one.
    #[serde(default)]
    pub slot: Option<String>,
    /// Take it even when it fails in the rehearsal on recorded ticks, or returns no decision for any of them.
    #[serde(default)]
    pub force: bool,
}

/// Another policy, on trial.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CanaryRequest {
    /// The policy.
    pub policy: SwapRequest,
    /// How many instances it may be away from the active one.
    pub within: u32,
}

/// What to roll back to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RollbackQuery {
    /// Slot of the policy; none when the set has only one.
    #[serde(default)]
    pub slot: Option<String>,
    /// Number of the activation, as the history shows it; none for the previous one.
    #[serde(default)]
    pub to: Option<u64>,
}

/// Which shadow or canary takes over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PromoteRequest {
    /// Number of its activation; none for the only one.
    #[serde(default)]
    pub number: Option<u64>,
}

/// A policy that now stands beside the active one, or no longer does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PlacedOutcome {
    /// The policy.
    pub policy: PolicyInfo,
    /// The last tick before.
    pub after_tick: u64,
    /// Recorded ticks on which it was tried first.
    pub rehearsed_ticks: u32,
    /// Those of them for which it returned a decision.
    pub decided_ticks: u32,
    /// What may keep it from working as it should: metrics that the set does not have, a rehearsal that went badly.
    pub warnings: Vec<String>,
    /// What its state began with.
    pub state: String,
    /// Time to compile or look up, check and rehearse, off the loop.
    pub prepare_ms: u64,
}

/// What a policy is in its set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum PolicyRole {
    /// In charge.
    Active,
    /// In charge before.
    Previous,
    /// It acts, within bounds.
    Canary,
    /// It is judged, and never applied.
    Shadow,
}

/// A policy and what it is in its set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyEntry {
    /// What it is.
    pub role: PolicyRole,
    /// The policy.
    pub policy: PolicyInfo,
    /// How far a canary may be away from the active one.
    pub within: Option<u32>,
    /// Why it returned no decision when it was last asked, if so.
    pub failure: Option<String>,
}

/// A module that can be named.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct AvailablePolicy {
    /// The name to use.
    pub name: String,
    /// Its file.
    pub path: String,
    /// Its version, once it has been looked at.
    pub version: Option<String>,
    /// SHA-256 of the file, once it has been looked at.
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// Why it cannot be used, if so.
    pub problem: Option<String>,
}

/// One line of the history of a set's policies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PolicyHistoryEntry {
    /// When.
    pub at_ms: u64,
    /// Who.
    pub actor: String,
    /// What: `policy-swapped`, `policy-refused`, `policy-demoted`, …
    pub kind: String,
    /// Its place among the policies of the set.
    pub slot: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// Version.
    pub version: Option<String>,
    /// SHA-256 of the module.
    #[schema(value_type = Option<String>)]
    pub digest: Option<Digest>,
    /// Number of its activation, if it had one.
    pub activation: Option<u64>,
    /// Its parameters, if they are known.
    #[schema(value_type = Option<Object>)]
    pub params: Option<serde_json::Value>,
    /// What came of it.
    pub outcome: String,
}

/// What to compare.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct CompareQuery {
    /// Over this many of the newest ticks; default 1,000, at most 10,000.
    #[serde(default)]
    pub ticks: Option<u32>,
    /// The metric that tells the load; default: the one that the parameter `metric` of the policy names.
    #[serde(default)]
    pub metric: Option<String>,
    /// What one instance carries of it; default: the parameter `target` of the policy.
    #[serde(default)]
    pub target: Option<f64>,
}

/// What a swap or a rollback did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SwapOutcome {
    /// Its place among the policies of the set.
    pub slot: String,
    /// The policy before.
    pub from: PolicyInfo,
    /// The active policy.
    pub to: PolicyInfo,
    /// The last tick that the old one decided; the next one is the new one's.
    pub after_tick: u64,
    /// Recorded ticks on which it was tried first.
    pub rehearsed_ticks: u32,
    /// Those of them for which it returned a decision.
    pub decided_ticks: u32,
    /// What may keep it from working as it should: metrics that the set does not have, a rehearsal that went badly.
    pub warnings: Vec<String>,
    /// What the state began with: `carried over`, or why it is empty or rebuilt.
    pub state: String,
    /// Time to compile or look up, check and rehearse, off the loop.
    pub prepare_ms: u64,
    /// Time that the set's loop was held for the switch itself.
    pub switch_us: u64,
}

/// The policies of a set, and the modules that can be named.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct PolicyList {
    /// Its own: active, previous, canary, shadows.
    pub policies: Vec<PolicyEntry>,
    /// How several of them become one decision.
    pub combine: String,
    /// Modules in the daemon's policy directories, by name.
    pub available: Vec<AvailablePolicy>,
    /// Why files are refused that its policies follow.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// Which tick to explain.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct WhyQuery {
    /// This tick.
    #[serde(default)]
    pub tick: Option<u64>,
    /// The last one that did this.
    #[serde(default)]
    pub last: Option<WhyLast>,
}

/// Which kind of tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum WhyLast {
    /// Scaled out.
    ScaleOut,
    /// Scaled in.
    ScaleIn,
    /// Changed the capacity, either way.
    Change,
}

/// A range of records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct RecordsQuery {
    /// Only ticks after this one.
    #[serde(default)]
    pub after: u64,
    /// At most this many; default 100, at most 1,000.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// A manifest or a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobContent {
    /// SHA-256, lower-case hex.
    #[schema(value_type = String)]
    pub sha256: Digest,
    /// Its bytes, base64.
    pub base64: String,
}

/// Which events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    /// Of this set only.
    #[serde(default)]
    pub set: Option<String>,
    /// Only those after this sequence number; none gives the newest ones.
    #[serde(default)]
    pub after: Option<u64>,
    /// The newest ones before this sequence number; not together with `after`.
    #[serde(default)]
    pub before: Option<u64>,
    /// At most this many; default 100, at most 1,000.
    #[serde(default)]
    pub limit: Option<u32>,
    /// Wait this long for an event when there is none; at most 30 s.
    #[serde(default)]
    pub wait_ms: u64,
}

/// An event with its place in the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EventEntry {
    /// Place in the log, ever increasing.
    pub seq: u64,
    /// When.
    pub at_ms: u64,
    /// Which set.
    pub set: String,
    /// Stable kind, for example `policy-swapped`.
    pub kind: String,
    /// Which instance, if one.
    pub instance: Option<u32>,
    /// One line for people.
    pub text: String,
    /// Who caused it.
    pub actor: String,
}
