//! The manifest of a scale set: its types, and the reader that turns YAML into
//! them with every problem reported at once.
//!
//! The way of a manifest: text → located tree (`node`) → fields by the table
//! in `fields`, read by `section` → [`ScaleSet`] with the rules between fields
//! in `decode`. Problems are collected in `report` on the way.

mod decode;
mod diff;
mod export;
mod fields;
mod formats;
mod hints;
mod json_schema;
mod network;
mod node;
mod outbound;
mod problem;
mod rate_limit;
mod read;
mod report;
mod schema;
mod section;
mod source;
#[cfg(test)]
mod tests;
mod types;
mod value_range;

pub use self::decode::default_policy_name;
pub use diff::{Change, affects_new_instances_only, diff};
pub use export::{to_manifest_json, to_manifest_yaml};
pub(crate) use fields::MAX_CAPACITY;
pub use formats::{BUILT_IN_METRICS, cmdline_problem, name_problem};
pub use hints::nearest;
pub use json_schema::manifest_schema;
pub use network::{GuestAddress, LINK_ADDRESS, Network, isolated_gateway};
pub use outbound::{Ipv4Net, Outbound};
pub use problem::{MAX_PROBLEMS, Problem, Problems};
pub use rate_limit::RateLimit;
pub use read::{MAX_MANIFEST_BYTES, Manifest, ManifestSource, read_limits, read_manifest};
pub use regatta_util::units;
pub use types::{
    Capacity, Checkpoint, CloudInit, DataDisk, DrainMode, DrainPolicy, FileRef, FlapRule, Guards,
    GuestMetric, Health, Image, ImageDisk, InstanceTemplate, LoadBalancer, MaxCost, MissingData, OnFailure,
    Overlay, PolicyLimits, PolicySpec, Probe, Repair, RepairAction, ScaleIn, ScaleSet, SeedKind, SharedDisk,
    StartMode, UpgradeMode, UpgradePolicy,
};
pub use value_range::ValueRange;
