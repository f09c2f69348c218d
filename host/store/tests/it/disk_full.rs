//! No room left: a clear error, what was stored stays, and it goes on by itself
//! when there is room again.

use std::path::Path;

use regatta_core::record::TickRecord;
use regatta_store::{History, Options, Order, RecordQuery, RedbStore, StateStore, Store, StoreError};
use rustix::fs::{FallocateFlags, fallocate, statvfs};
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
        let mut batch = make::batch(vec![make::set("web", tick, "x")], vec![record]);
        batch.state.instances.push(("web".to_owned(), make::instance(1, tick)));
        batch
    };
    let mut refused = loop {
        let record = generator.next_record();
        match store.commit(&batch(record.clone())) {
            Ok(_) => records.push(record),
            Err(error) => {
                assert!(matches!(error, StoreError::DiskFull { .. }), "{error:?}");
                assert!(error.to_string().contains("no space left"), "{error}");
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
        let stored = store.load().unwrap().remove(0);
        assert_eq!(stored.state.last_tick, records.len() as u64);
        assert_eq!(stored.instances, [make::instance(1, records.len() as u64)]);
    };
    intact(&records);
    // Still full: the next ones say the same, or find a page that was free.
    for _ in 0..5 {
        match store.commit(&batch(refused.clone())) {
            Ok(_) => {
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
    on_a_small_file_system("disk_full::on_a_full_file_system", "4m");
}

/// Runs `test` in a directory that is a file system of so many bytes.
fn on_a_small_file_system(test: &str, size: &str) {
    let directory = tempfile::tempdir().unwrap();
    let allowed = std::process::Command::new("unshare")
        .args(["--mount", "mount", "-t", "tmpfs", "regatta-test"])
        .arg(directory.path())
        .output();
    if !allowed.as_ref().is_ok_and(|output| output.status.success()) {
        println!("skipped: no tmpfs can be mounted in a namespace of its own here: {allowed:?}");
        return;
    }
    // The mount lives in the child's namespace and ends with it.
    let mount = format!(r#"mount -t tmpfs -o size={size} regatta-test "$REGATTA_STORE_TEST_DIRECTORY""#);
    let script = format!("exec unshare --mount sh -c '{mount} && exec \"$@\"' sh \"$@\"");
    let status = child::shell(&script, test, directory.path()).status().unwrap();
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

/// The room ends at one page after the other, so at every write of a commit, also
/// at those that follow once it is stored: what a commit says is what is stored.
#[test]
#[ignore = "the other half of whatever_write_finds_no_room, which runs it"]
fn with_room_for_so_many_pages() {
    let Some(directory) = child::directory() else { return };
    let store = RedbStore::open(&directory.join("data"), Options::default()).unwrap();
    let filler = std::fs::File::create(directory.join("filler")).unwrap();
    let (mut stored, mut refused) = (0, 0);
    for round in 0..200 {
        let free = statvfs(&directory).unwrap();
        let keep = round % 25;
        if let Some(fill) = free.f_bavail.checked_sub(keep).filter(|&fill| fill > 0) {
            fallocate(&filler, FallocateFlags::empty(), 0, fill * free.f_frsize).unwrap();
        }
        let text =
            regatta_core::digest::Digest::of(&round.to_le_bytes()).repeat(100 + (round % 7 * 40) as usize);
        let mut batch = make::batch(vec![make::set("web", stored + 1, "x")], Vec::new());
        batch.history.events.push(make::event("web", &text));
        let outcome = store.commit(&batch);
        match &outcome {
            Ok(_) => stored += 1,
            Err(StoreError::DiskFull { .. }) => refused += 1,
            Err(error) => panic!("room for {keep} pages: {error:?}"),
        }
        filler.set_len(0).unwrap();
        let found = store.load().unwrap().first().map_or(0, |set| set.state.last_tick);
        assert_eq!(found, stored, "room for {keep} pages: {outcome:?}");
        let events = store.events(None, 0, 1_000).unwrap();
        assert_eq!(events.len() as u64, stored, "room for {keep} pages: {outcome:?}");
        if statvfs(&directory).unwrap().f_bavail < 256 {
            break;
        }
    }
    println!("{stored} commits stored, {refused} refused");
    assert!(stored > 20 && refused > 20);
}

#[test]
fn whatever_write_finds_no_room() {
    on_a_small_file_system("disk_full::with_room_for_so_many_pages", "24m");
}
