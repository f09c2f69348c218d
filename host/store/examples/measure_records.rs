//! What the records of a set take on disk. Prints JSON.
//!
//! `cargo run -p regatta-store --example measure_records [ticks [shape]]`

#[path = "../tests/it/make.rs"]
mod make;
#[path = "../tests/it/realistic.rs"]
mod realistic;

use std::error::Error;
use std::time::Instant;

use realistic::{Generator, Shape};
use regatta_store::{History as _, Options, RecordQuery, RedbStore, Retention, StateStore as _, Store as _};

fn main() -> Result<(), Box<dyn Error>> {
    let ticks: u64 = std::env::args().nth(1).map_or(Ok(3_000), |ticks| ticks.parse())?;
    let shapes = [
        ("100 instances", Shape::default()),
        ("100 instances, quantized windows", Shape { quantized_window: true, ..Shape::default() }),
        ("100 instances, windows of 1000", Shape { window: 1_000, ..Shape::default() }),
        (
            "100 instances, quantized windows of 1000",
            Shape { window: 1_000, quantized_window: true, ..Shape::default() },
        ),
        (
            "100 instances, all 200 bytes of state new each tick",
            Shape { state_bytes_changing: 1_000, ..Shape::default() },
        ),
        ("10 instances", Shape { instances: 10, ..Shape::default() }),
        ("1000 instances", Shape { instances: 1_000, ..Shape::default() }),
    ];
    let mut results = Vec::new();
    let wanted = std::env::args().nth(2).unwrap_or_default();
    for (name, shape) in shapes.into_iter().filter(|(name, _)| name.contains(&wanted)) {
        results.push(measure(name, shape, ticks)?);
    }
    println!("{}", serde_json::to_string_pretty(&results)?);
    Ok(())
}

fn measure(name: &str, shape: Shape, ticks: u64) -> Result<serde_json::Value, Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let retention =
        Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: u64::MAX, events_max: 10_000 };
    let store = RedbStore::open(directory.path(), Options { retention, ..Options::default() })?;
    store.commit(&make::batch(vec![make::set("web", 0, "x")], Vec::new()))?;
    let before = store.stats()?;

    let mut generator = Generator::new("web", 7, shape);
    generator.warm_up(shape.window * 5);
    let (mut json_bytes, mut commit_us) = (0, Vec::new());
    for tick in 1..=ticks {
        let record = generator.next_record();
        json_bytes += serde_json::to_vec(&record)?.len() as u64;
        let batch = make::batch(vec![make::set("web", tick, "x")], vec![record]);
        let start = Instant::now();
        store.commit(&batch)?;
        commit_us.push(start.elapsed().as_micros() as u64);
    }
    let full = store.stats()?;
    let start = Instant::now();
    let read = store.records("web", &RecordQuery::newest(100))?.len();
    let read_100_us = start.elapsed().as_micros() as u64;
    assert_eq!(read, 100.min(ticks as usize));

    drop(store);
    let start = Instant::now();
    // The ring is now full: from here on each commit removes what it adds.
    let ring = Retention { records_max_bytes_per_set: full.sets[0].record_bytes, ..retention };
    let store = RedbStore::open(directory.path(), Options { retention: ring, ..Options::default() })?;
    let open_ms = start.elapsed().as_millis() as u64;
    for tick in 1..=ticks {
        let batch = make::batch(vec![make::set("web", ticks + tick, "x")], vec![generator.next_record()]);
        store.commit(&batch)?;
    }
    let pruned = store.stats()?;
    drop(store);
    let store = RedbStore::open(directory.path(), Options { retention: ring, ..Options::default() })?;
    let reopened = store.stats()?;

    commit_us.sort_unstable();
    let per_record = |bytes: u64, records: u64| bytes.saturating_sub(before.disk_bytes) / records.max(1);
    Ok(serde_json::json!({
        "shape": name,
        "ticks": ticks,
        "json_bytes_per_record": json_bytes / ticks,
        "packed_bytes_per_record": full.sets[0].bytes_per_record(),
        "disk_bytes_per_record": per_record(full.disk_bytes, full.sets[0].records),
        "file_bytes_per_record": per_record(full.file_bytes, full.sets[0].records),
        "ring_disk_bytes_per_record": per_record(pruned.disk_bytes, pruned.sets[0].records),
        "reopened_disk_bytes_per_record": per_record(reopened.disk_bytes, reopened.sets[0].records),
        "commit_us": {"median": commit_us[commit_us.len() / 2], "p99": commit_us[commit_us.len() * 99 / 100]},
        "read_newest_100_us": read_100_us,
        "open_ms": open_ms,
    }))
}
