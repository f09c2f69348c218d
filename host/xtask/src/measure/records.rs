//! What the record of a tick takes on disk, and that the store stays within its bounds.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use regatta_core::batch::{Batch, History, StateChange};
use regatta_store::{Options, RedbStore, Retention, StateStore, Stats, Store};
use serde_json::json;

use crate::effort::Effort;
use crate::figure::{Figure, Promise, rounded};

// The same made-up measurements as the tests of the store: every value new each tick.
#[path = "../../../store/tests/it/make.rs"]
mod make;
#[path = "../../../store/tests/it/realistic.rs"]
mod realistic;

use realistic::{Generator, Shape};

const PROMISE: Promise = Promise {
    name: "records",
    target: "a tick with 100 instances: ≤ 2 KiB on disk on average; the store bounded by size",
    unit: "bytes",
    at_most: 2048.0,
    method: "3,000 records of 100 instances with three noisy metrics each, one transaction per tick; growth of the \
             space that the database file takes on disk, per record; then 3,000 more into a full ring",
};

const SET: &str = "web";
const TICKS: u64 = 3_000;
const QUICK_TICKS: u64 = 50;

/// The file may take this much more than the records in it are allowed to: free pages, other tables.
const SLACK: f64 = 2.0;

/// The figure.
pub(crate) fn measure(effort: Effort) -> Result<Figure> {
    let ticks = effort.choose(TICKS, QUICK_TICKS);
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let mut generator = Generator::new(SET, 7, Shape::default());
    let endless =
        Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: u64::MAX, events_max: 10_000 };

    let (before, full, json_bytes) = fill(directory.path(), endless, &mut generator, ticks)?;
    let stored = of_set(&full)?;
    let per_record = grown(&before, &full) / stored.records as f64;

    // From here on each commit removes what it adds.
    let limit = stored.record_bytes;
    let ring = Retention { records_max_bytes_per_set: limit, ..endless };
    let (_, pruned, _) = fill(directory.path(), ring, &mut generator, ticks)?;
    let kept = of_set(&pruned)?;
    let bounded = kept.record_bytes <= limit && grown(&before, &pruned) <= SLACK * limit as f64;

    let detail = json!({
        "json_bytes": json_bytes / ticks,
        "packed_bytes": stored.bytes_per_record(),
        "file_bytes": (full.file_bytes - before.file_bytes) / stored.records,
        "ring": {
            "limit_bytes": limit,
            "record_bytes": kept.record_bytes,
            "disk_bytes": pruned.disk_bytes,
            "ticks_written": 2 * ticks,
            "ticks_kept": kept.records,
            "bounded": bounded,
        },
    });
    Ok(PROMISE.measured(rounded(per_record), bounded, detail))
}

/// Stores so many more records; returns what was there before, what is there now, and the bytes of the new
/// ones as JSON.
fn fill(
    directory: &Path,
    retention: Retention,
    generator: &mut Generator,
    ticks: u64,
) -> Result<(Stats, Stats, u64)> {
    let store = RedbStore::open(directory, Options { retention, ..Options::default() })?;
    let put = |tick| StateChange { sets: vec![make::set(SET, tick, "x")], ..StateChange::default() };
    store.commit(&Batch { state: put(0), ..Batch::default() })?;
    let before = store.stats()?;
    let mut json_bytes = 0;
    for _ in 0..ticks {
        let record = generator.next_record();
        json_bytes += serde_json::to_vec(&record)?.len() as u64;
        let state = put(record.observation.tick);
        let history = History { records: vec![Arc::new(record)], ..History::default() };
        store.commit(&Batch { state, history, ..Batch::default() })?;
    }
    Ok((before, store.stats()?, json_bytes))
}

fn of_set(stats: &Stats) -> Result<&regatta_store::SetStats> {
    let of_set = stats.sets.first().context("no record is stored")?;
    ensure!(of_set.records > 0, "no record is stored");
    Ok(of_set)
}

/// Bytes on disk.
fn grown(before: &Stats, after: &Stats) -> f64 {
    after.disk_bytes.saturating_sub(before.disk_bytes) as f64
}
