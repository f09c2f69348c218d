//! Copies, restoring them, and a file that loses its name.

use std::fs;
use std::path::Path;

use regatta_core::batch::Batch;
use regatta_store::{
    CopyOf, History, Named, Options, RecordQuery, RedbStore, StateStore, StoreError, check_copy, restore,
};

use crate::make;
use crate::realistic::{Generator, Shape};

fn open(directory: &Path) -> RedbStore {
    RedbStore::open(directory, Options::default()).unwrap()
}

/// A store with a set and records of some ticks.
fn filled(directory: &Path) -> RedbStore {
    let store = open(directory);
    let mut generator = Generator::new("web", 9, Shape::default());
    for _ in 0..5 {
        let record = generator.next_record();
        let sets = vec![make::set("web", record.observation.tick, "x")];
        store.commit(&make::batch(sets, vec![record])).unwrap();
    }
    store
}

fn rename(store: &RedbStore, name: &str) {
    store.commit(&make::batch(vec![make::set(name, 9, "x")], Vec::new())).unwrap();
}

fn names(store: &RedbStore) -> Vec<String> {
    store.load().unwrap().into_iter().map(|stored| stored.state.set.name).collect()
}

#[test]
fn a_copy_is_one_committed_state_and_restores_to_it() {
    let data = tempfile::tempdir().unwrap();
    let (directory, copy) = (data.path().join("d"), data.path().join("copy.redb"));
    let store = filled(&directory);
    let (sets, records) = (store.load().unwrap(), store.records("web", &RecordQuery::newest(9)).unwrap());
    assert!(store.copy_to(&copy, CopyOf::Everything).unwrap() > 0);
    let error = store.copy_to(&copy, CopyOf::Everything).unwrap_err();
    assert!(error.to_string().contains("copy.redb"), "never over a file: {error}");
    rename(&store, "later");

    let error = restore(&directory, &copy, 7).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error:?}");
    drop(store);
    let restored = restore(&directory, &copy, 7).unwrap();
    assert_eq!(restored.contents.sets, ["web"]);
    let store = open(&directory);
    assert_eq!(
        (store.load().unwrap(), store.records("web", &RecordQuery::newest(9)).unwrap()),
        (sets, records)
    );
    drop(store);
    let replaced = restored.replaced.expect("the file before is kept");
    assert_eq!(check_copy(&replaced).unwrap().sets, ["later", "web"]);
}

#[test]
fn a_copy_without_records_is_enough_to_go_on() {
    let data = tempfile::tempdir().unwrap();
    let (directory, copy) = (data.path().join("d"), data.path().join("copy.redb"));
    let store = filled(&directory);
    store.copy_to(&copy, CopyOf::WithoutRecords).unwrap();
    let last = store.records("web", &RecordQuery::newest(1)).unwrap().remove(0);
    drop(store);
    restore(&directory, &copy, 7).unwrap();
    let store = open(&directory);
    assert_eq!(names(&store), ["web"]);
    assert_eq!(store.records("web", &RecordQuery::newest(9)).unwrap(), []);
    store.commit(&make::batch(Vec::new(), vec![last])).expect("the next tick can be stored");
}

#[test]
fn what_is_damaged_replaces_nothing() {
    let data = tempfile::tempdir().unwrap();
    let (directory, copy) = (data.path().join("d"), data.path().join("copy.redb"));
    let store = filled(&directory);
    store.copy_to(&copy, CopyOf::Everything).unwrap();
    drop(store);
    let before = fs::read(directory.join("state.redb")).unwrap();
    let good = fs::read(&copy).unwrap();
    for bad in [&b""[..], b"garbage", &good[..good.len() / 2]] {
        fs::write(&copy, bad).unwrap();
        let error = restore(&directory, &copy, 7).unwrap_err();
        assert!(error.to_string().contains("copy.redb"), "{error}");
        assert_eq!(fs::read(directory.join("state.redb")).unwrap(), before);
    }
    let missing = restore(&directory, &data.path().join("none"), 7).unwrap_err();
    assert!(matches!(missing, StoreError::Io { .. }), "{missing:?}");
    let left: Vec<_> = fs::read_dir(&directory).unwrap().flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left.len(), 2, "the store and its lock: {left:?}");
}

#[test]
fn an_empty_file_is_a_damaged_store_and_not_a_new_one() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("state.redb"), "").unwrap();
    let error = RedbStore::open(directory.path(), Options::default()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { what, .. } if what == "it is empty"), "{error:?}");
    assert!(error.to_string().contains("regatta recover"), "{error}");
}

#[test]
fn a_file_that_was_removed_is_noticed_used_on_and_written_back() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.redb");
    let store = filled(directory.path());
    assert_eq!(store.named(), Named::AsOpened);
    assert_eq!(store.save_back(7).unwrap(), None);
    fs::remove_file(&file).unwrap();
    assert_eq!(store.named(), Named::FileLost);
    rename(&store, "later");
    let told = store.save_back(7).unwrap().expect("something was done");
    assert!(told.contains("written there again"), "{told}");
    drop(store);
    assert_eq!(names(&open(directory.path())), ["later", "web"]);
}

#[test]
fn another_file_of_its_name_is_kept_and_not_believed() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.redb");
    let store = filled(directory.path());
    fs::remove_file(&file).unwrap();
    fs::write(&file, "another truth").unwrap();
    assert_eq!(store.named(), Named::FileReplaced);
    store.save_back(7).unwrap().expect("something was done");
    let kept = directory.path().join("state.redb.replaced-7");
    assert_eq!(fs::read_to_string(kept).unwrap(), "another truth");
    drop(store);
    assert_eq!(names(&open(directory.path())), ["web"]);
}

#[test]
fn a_directory_or_lock_that_is_lost_is_noticed() {
    let data = tempfile::tempdir().unwrap();
    let directory = data.path().join("d");
    let store = filled(&directory);
    fs::remove_file(directory.join("daemon.lock")).unwrap();
    assert_eq!(store.named(), Named::LockLost);
    fs::rename(&directory, data.path().join("moved")).unwrap();
    assert_eq!(store.named(), Named::DirectoryLost);
    fs::create_dir(&directory).unwrap();
    assert_eq!(store.named(), Named::DirectoryLost);
    assert!(store.save_back(7).unwrap().is_some_and(|told| told.contains("stays in that one")));
    assert!(!directory.join("state.redb").exists(), "no second truth");
    store.commit(&Batch::default()).expect("it is used on");
}
