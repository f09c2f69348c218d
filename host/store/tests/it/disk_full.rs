//! No room left: a clear error, what was stored stays, and it goes on by itself
//! when there is room again.

use std::path::Path;

use regatta_core::record::TickRecord;
use regatta_store::{Batch, Options, Order, RecordQuery, RedbStore, Store, StoreError};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::realistic::{Generator, Shape};
use crate::{child, make};

/// Commits until the disk is full, lets `make_room` happen, and commits again.
fn fill_and_go_on(directory: &Path, make_room: impl FnOnce()) {
    let store = RedbStore::open(directory, Options::default()).unwrap();
    let mut generator = Generator::new("web", 5, Shape { instances: 400, ..Shape::default() });
    let mut records = Vec::new();
    let batch = |record: TickRecord| {
        let tick = record.observation.tick;
        Batch {
            sets: vec![make::set("web", tick, "x")],
            instances: vec![("web".to_owned(), make::instance(1, tick))],
            records: vec![record],
            ..Batch::default()
        }
    };
    let mut refused = loop {
        let record = generator.next_record();
        match store.commit(&batch(record.clone())) {
            Ok(()) => records.push(record),
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                assert!(error.to_string().contains("no room left"), "{error}");
                break record;
            }
        }
        assert!(records.len() < 100_000, "the disk never gets full");
    };
    println!("full after {} records", records.len());
    assert!(records.len() > 10);

    let intact = |records: &[TickRecord]| {
        let newest = store.records("web", &RecordQuery::newest(20)).unwrap();
        assert!(newest.iter().eq(records.iter().rev().take(20)));
        let stats = store.stats().unwrap();
        assert_eq!(stats.sets[0].records, records.len() as u64);
        let (state, instances) = store.load().unwrap().remove(0);
        assert_eq!(state.last_tick, records.len() as u64);
        assert_eq!(instances, [make::instance(1, records.len() as u64)]);
    };
    intact(&records);
    // Still full: the next ones say the same, or find a page that was free.
    for _ in 0..5 {
        match store.commit(&batch(refused.clone())) {
            Ok(()) => {
                records.push(refused);
                refused = generator.next_record();
            }
            Err(StoreError::DiskFull { .. }) => {}
            Err(error) => panic!("{error:?}"),
        }
        intact(&records);
    }

    make_room();
    for _ in 0..20 {
        store.commit(&batch(refused.clone())).unwrap();
        records.push(refused);
        refused = generator.next_record();
    }
    intact(&records);
    drop(store);
    let store = RedbStore::open(directory, Options::default()).unwrap();
    let query = RecordQuery { ticks: 0..=u64::MAX, limit: 10_000, order: Order::OldestFirst };
    assert!(store.records("web", &query).unwrap() == records);
}

#[test]
#[ignore = "the other half of a_full_file_system, which runs it"]
fn on_a_full_file_system() {
    let Some(directory) = child::directory() else { return };
    let filler = directory.join("filler");
    std::fs::write(&filler, vec![1; 3 << 19]).unwrap();
    fill_and_go_on(&directory.join("data"), || std::fs::remove_file(&filler).unwrap());
}

#[test]
fn a_full_file_system() {
    let directory = tempfile::tempdir().unwrap();
    let allowed = std::process::Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "-o", "size=4m", "regatta-test"])
        .arg(directory.path())
        .output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs can be mounted in a namespace of its own here: {allowed:?}");
        return;
    }
    let script = r#"
        mount -t tmpfs -o size=4m regatta-test "$REGATTA_STORE_TEST_DIRECTORY" && exec "$@"
    "#;
    // The mount lives in the child's namespace and ends with it.
    let script = format!("exec unshare --mount sh -c '{script}' sh \"$@\"");
    let status =
        child::shell(&script, "disk_full::on_a_full_file_system", directory.path()).status().unwrap();
    assert!(status.success(), "{status}");
}

#[test]
#[ignore = "the other half of a_limit_of_the_file_size, which runs it"]
fn under_a_limit_of_the_file_size() {
    let Some(directory) = child::directory() else { return };
    let maximum = getrlimit(Resource::Fsize).maximum;
    let limit = |current| setrlimit(Resource::Fsize, Rlimit { current, maximum }).unwrap();
    limit(Some(2 << 20));
    fill_and_go_on(&directory.join("data"), || limit(maximum));
}

#[test]
fn a_limit_of_the_file_size() {
    let directory = tempfile::tempdir().unwrap();
    // The signal would end the process; ignored, the write fails instead.
    let script = r#"trap "" XFSZ; exec "$@""#;
    let test = "disk_full::under_a_limit_of_the_file_size";
    let status = child::shell(script, test, directory.path()).status().unwrap();
    assert!(status.success(), "{status}");
}
