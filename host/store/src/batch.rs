//! The rules that a batch must keep, and how much of what it adds is kept.

use std::collections::{BTreeMap, BTreeSet};

use regatta_core::batch::{Batch, Revision};
use regatta_core::digest::Digest;
use regatta_core::metric::MetricValue;
use regatta_core::record::{RECORD_VERSION, TickRecord};
use regatta_core::state::SetState;

use crate::codec::{Plain, plain};
use crate::error::{Problem, StoreError};

/// Maximum size of a blob; policy modules are the large ones.
pub const BLOB_BYTES_MAX: usize = 32 << 20;

/// Maximum size of one record as JSON; that of 10,000 instances has about 2 MB.
pub const RECORD_JSON_BYTES_MAX: usize = 16 << 20;

/// How much history is kept. The excess is removed by the same transactions that
/// add to it, oldest first, a bounded amount at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Records older than this, counted back from the newest of their set, are
    /// removed. They are removed in groups, so some stay a little longer.
    pub records_max_age_ms: u64,
    /// Stored bytes of the records of one set. Exceeded by at most one group.
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
    type Error: From<StoreError>;
    /// None when the set is not stored.
    fn revision(&self, set: &str) -> Result<Option<Revision>, Self::Error>;
    fn newest_tick(&self, set: &str) -> Result<Option<u64>, Self::Error>;
}

/// Refuses a batch that expects something else than what is stored, or that breaks a rule. Otherwise its records, ready to be
/// stored. Nothing of a batch is stored before this has passed.
pub(crate) fn check<S: Stored>(batch: &Batch, stored: &S) -> Result<Vec<Plain>, S::Error> {
    for (set, expected) in &batch.expect {
        let found = stored.revision(set)?.unwrap_or_default();
        if found != *expected {
            return Err(StoreError::Conflict { set: set.clone(), expected: *expected, found }.into());
        }
    }
    let mut problems = problems_of(batch, stored)?;
    let mut records = Vec::with_capacity(batch.history.records.len());
    for record in &batch.history.records {
        let plain = plain(record);
        if plain.json_bytes() > RECORD_JSON_BYTES_MAX {
            problems.push(Problem::RecordTooLarge {
                set: record.observation.set.clone(),
                tick: record.observation.tick,
                bytes: plain.json_bytes(),
                max_bytes: RECORD_JSON_BYTES_MAX,
            });
        }
        records.push(plain);
    }
    if problems.is_empty() { Ok(records) } else { Err(StoreError::Rejected { problems }.into()) }
}

/// Everything that is wrong with `batch`.
fn problems_of<S: Stored>(batch: &Batch, stored: &S) -> Result<Vec<Problem>, S::Error> {
    let mut problems = Vec::new();
    let removed: BTreeSet<&str> = batch.state.removed_sets.iter().map(String::as_str).collect();
    let put: BTreeSet<&str> = batch.state.sets.iter().map(|state| state.set.name.as_str()).collect();
    let known = |set: &str| {
        Ok::<_, S::Error>(put.contains(set) || (!removed.contains(set) && stored.revision(set)?.is_some()))
    };

    for (set, _) in &batch.state.instances {
        if !known(set)? {
            problems.push(Problem::UnknownSet { set: set.clone(), what: "an instance" });
        }
    }
    let mut newest: BTreeMap<&str, Option<u64>> = BTreeMap::new();
    for record in &batch.history.records {
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
    for (digest, bytes) in &batch.blobs {
        if bytes.len() > BLOB_BYTES_MAX {
            problems.push(Problem::BlobTooLarge {
                digest: digest.clone(),
                bytes: bytes.len(),
                max_bytes: BLOB_BYTES_MAX,
            });
            continue;
        }
        let actual = Digest::of(bytes);
        if actual != *digest {
            problems.push(Problem::BlobDigest { digest: digest.clone(), actual });
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

/// Blobs that a set refers to.
pub(crate) fn blobs_of_set(state: &SetState) -> impl Iterator<Item = &Digest> {
    let modules = state.activations_kept().map(|policy| &policy.digest);
    modules.chain(state.manifests.values())
}

/// Blobs that a record refers to. Version 1 names no manifest.
pub(crate) fn blobs_of_record(record: &TickRecord) -> impl Iterator<Item = &Digest> {
    let modules = record.every_run().map(|run| &run.digest);
    modules.chain(Some(&record.manifest).filter(|digest| !digest.is_empty()))
}
