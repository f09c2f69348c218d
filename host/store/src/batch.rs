//! What one transaction changes, and the rules that it must keep.

use std::collections::{BTreeMap, BTreeSet};

use regatta_core::catalogue::NamedImage;
use regatta_core::metric::MetricValue;
use regatta_core::record::{RECORD_VERSION, TickRecord};
use regatta_core::state::{Event, InstanceRecord, SetState};
use sha2::{Digest, Sha256};

use crate::error::Problem;

/// Greatest size of a policy module.
pub const MODULE_BYTES_MAX: usize = 32 << 20;

/// Greatest size of one record as JSON; that of 10,000 instances has about 2 MB.
pub const RECORD_JSON_BYTES_MAX: usize = 16 << 20;

/// Everything that one transaction changes. All of it is stored, or nothing.
///
/// Applied in the order of the fields, so a set that is removed and put in one
/// batch starts anew.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// Names of sets to forget, with their instances and records; their events
    /// stay. A set that is not stored is no error.
    pub removed_sets: Vec<String>,
    /// Sets to insert or replace, by name.
    pub sets: Vec<SetState>,
    /// Instances to forget, as set and id. One that is not stored is no error.
    pub removed_instances: Vec<(String, u32)>,
    /// Instances to insert or replace, each with the name of its set.
    pub instances: Vec<(String, InstanceRecord)>,
    /// Records to append; the ticks of a set must rise.
    pub records: Vec<TickRecord>,
    /// Events to append, oldest first.
    pub events: Vec<Event>,
    /// Modules to keep, as SHA-256 in lower-case hex and bytes. Kept until the
    /// last set or record that used them is gone.
    pub modules: Vec<(String, Vec<u8>)>,
    /// Names of golden images to forget. One that is not stored is no error.
    pub removed_images: Vec<String>,
    /// Golden images to insert or replace, by name.
    pub images: Vec<NamedImage>,
}

impl Batch {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed_sets.is_empty()
            && self.sets.is_empty()
            && self.removed_instances.is_empty()
            && self.instances.is_empty()
            && self.records.is_empty()
            && self.events.is_empty()
            && self.modules.is_empty()
            && self.removed_images.is_empty()
            && self.images.is_empty()
    }
}

/// How much history is kept. What exceeds it goes in the same transactions that
/// add to it, oldest first, a bounded amount each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this, counted back from the newest of their set, may
    /// go. They go in groups, so some stay a little longer.
    pub records_max_age_ms: u64,
    /// Stored bytes of the records of one set. Exceeded by one group at most.
    pub records_max_bytes_per_set: u64,
    /// Events over all sets.
    pub events_max: u64,
}

impl Default for Retention {
    /// Seven days, 64 MiB per set (a tick of 5 s with 100 instances: three days), 10,000 events.
    fn default() -> Self {
        Self {
            records_max_age_ms: 7 * 24 * 3_600_000,
            records_max_bytes_per_set: 64 << 20,
            events_max: 10_000,
        }
    }
}

/// What the rules need to know of the stored state.
pub(crate) trait Stored {
    type Error;
    fn has_set(&self, set: &str) -> Result<bool, Self::Error>;
    fn newest_tick(&self, set: &str) -> Result<Option<u64>, Self::Error>;
}

/// Everything that is wrong with `batch`.
pub(crate) fn problems_of<S: Stored>(batch: &Batch, stored: &S) -> Result<Vec<Problem>, S::Error> {
    let mut problems = Vec::new();
    let removed: BTreeSet<&str> = batch.removed_sets.iter().map(String::as_str).collect();
    let put: BTreeSet<&str> = batch.sets.iter().map(|state| state.set.name.as_str()).collect();
    let known = |set: &str| Ok(put.contains(set) || (!removed.contains(set) && stored.has_set(set)?));

    for (set, _) in &batch.instances {
        if !known(set)? {
            problems.push(Problem::UnknownSet { set: set.clone(), what: "an instance" });
        }
    }
    let mut newest: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for record in &batch.records {
        let observation = &record.observation;
        let (set, tick) = (observation.set.as_str(), observation.tick);
        if !known(set)? {
            problems.push(Problem::UnknownSet { set: set.to_owned(), what: "a record" });
        }
        if !newest.contains_key(set) {
            let stored = if removed.contains(set) { None } else { stored.newest_tick(set)? };
            newest.insert(set, stored);
        }
        match newest.get(set).copied().flatten() {
            Some(newest) if newest >= tick => {
                problems.push(Problem::TickNotNewer { set: set.to_owned(), tick, newest });
            }
            _ => {
                newest.insert(set, Some(tick));
            }
        }
        problems.extend(record_problems(record));
    }
    for (digest, bytes) in &batch.modules {
        if bytes.len() > MODULE_BYTES_MAX {
            problems.push(Problem::ModuleTooLarge {
                digest: digest.clone(),
                bytes: bytes.len(),
                max_bytes: MODULE_BYTES_MAX,
            });
            continue;
        }
        let actual = sha256_hex(bytes);
        if actual != *digest {
            problems.push(Problem::ModuleDigest { digest: digest.clone(), actual });
        }
    }
    Ok(problems)
}

fn record_problems(record: &TickRecord) -> Vec<Problem> {
    let observation = &record.observation;
    let (set, tick) = (&observation.set, observation.tick);
    let mut problems = Vec::new();
    if record.v != RECORD_VERSION {
        problems.push(Problem::RecordVersion {
            set: set.clone(),
            tick,
            version: record.v,
            supported: RECORD_VERSION,
        });
    }
    for metric in &observation.metrics {
        let finite = |value: &MetricValue| match value {
            MetricValue::Fresh(value) | MetricValue::Stale { value, .. } => value.is_finite(),
            MetricValue::Missing => true,
        };
        if !metric.values.iter().all(finite) || !metric.window.iter().all(|sample| sample.value.is_finite()) {
            problems.push(Problem::NotFinite { set: set.clone(), tick, metric: metric.name.clone() });
        }
    }
    problems
}

/// SHA-256 of `bytes` in lower-case hex, as modules are named.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}
