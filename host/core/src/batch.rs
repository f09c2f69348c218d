//! What one transaction of the store changes.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalogue::NamedImage;
use crate::digest::Digest;
use crate::event::Event;
use crate::record::TickRecord;
use crate::state::{InstanceRecord, SetState};

/// Counts the commits of a store. A set's revision is that of the last commit that changed it; 0 is a set that is not stored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Revision(pub u64);

/// Everything that one transaction changes: all of it is stored, or nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Sets that must be as they were when they were read, with that revision; otherwise the batch is refused as a conflict.
    pub expect: Vec<(String, Revision)>,
    /// What is decided.
    pub state: StateChange,
    /// What happened.
    pub history: History,
    /// Modules and manifests to keep, as SHA-256 in lower-case hex and bytes. Kept until the last set or record that refers
    /// to them is gone.
    pub blobs: Vec<(Digest, Vec<u8>)>,
}

/// What is decided. Applied in the order of the fields, so a set that is removed and put in one batch starts anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct StateChange {
    /// Names of sets to forget, with their instances and records; their events stay. A set that is not stored is not an error.
    pub removed_sets: Vec<String>,
    /// Sets to insert or replace, by name.
    pub sets: Vec<SetState>,
    /// Instances to forget, as set and id. One that is not stored is not an error.
    pub removed_instances: Vec<(String, u32)>,
    /// Instances to insert or replace, each with the name of its set.
    pub instances: Vec<(String, InstanceRecord)>,
    /// Names of golden images to forget. One that is not stored is not an error.
    pub removed_images: Vec<String>,
    /// Golden images to insert or replace, by name.
    pub images: Vec<NamedImage>,
}

/// What happened.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct History {
    /// Records to append; the ticks of a set must rise.
    pub records: Vec<Arc<TickRecord>>,
    /// Events to append, oldest first.
    pub events: Vec<Event>,
}
