//! What is refused at the start, and how it is said.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;

use redb::{Database, TableDefinition};
use regatta_core::batch::{Batch, StateChange};
use regatta_core::digest::Digest;
use regatta_store::{Blobs, History, Options, RecordQuery, RedbStore, StateStore, Store, StoreError};

use crate::realistic::{Generator, Rng, Shape};
use crate::{child, make};

fn open(directory: &Path) -> Result<RedbStore, StoreError> {
    RedbStore::open(directory, Options::default())
}

fn fill(directory: &Path, ticks: usize) {
    let store = open(directory).unwrap();
    let mut generator = Generator::new("web", 9, Shape::default());
    for _ in 0..ticks {
        let record = generator.next_record();
        let sets = vec![make::set("web", record.observation.tick, "x")];
        store.commit(&make::batch(sets, vec![record])).unwrap();
    }
}

#[test]
fn a_second_daemon_is_refused_with_the_pid_of_the_first() {
    let directory = tempfile::tempdir().unwrap();
    let first = open(directory.path()).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(
        matches!(&error, StoreError::InUse { path, pid: Some(pid) }
            if path == directory.path() && *pid == std::process::id()),
        "{error:?}"
    );
    assert!(error.to_string().contains("in use by another daemon (pid "), "{error}");
    drop(first);
    open(directory.path()).unwrap();
}

#[test]
fn directory_and_files_are_private() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("deep/data");
    let _store = open(&data).unwrap();
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o711);
    assert_eq!(mode(&data.join("state.redb")), 0o600);
    assert_eq!(mode(&data.join("daemon.lock")), 0o600);
}

#[test]
#[ignore = "the other half of an_unwritable_directory_is_named, which runs it"]
fn in_an_unwritable_directory() {
    let Some(directory) = child::directory() else { return };
    for path in [directory.clone(), directory.join("new")] {
        let error = open(&path).unwrap_err();
        assert!(matches!(error, StoreError::NotWritable { .. }), "{error:?}");
        assert!(error.to_string().contains(directory.to_str().unwrap()), "{error}");
    }
}

#[test]
fn an_unwritable_directory_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o555)).unwrap();
    let mut command = child::command("opening::in_an_unwritable_directory", &data);
    if rustix::process::geteuid().is_root() {
        // Root may write anywhere; nobody may not.
        std::os::unix::fs::chown(&data, Some(65_534), Some(65_534)).unwrap();
        command.uid(65_534).gid(65_534).current_dir("/");
    }
    match command.status() {
        Ok(status) => assert!(status.success(), "{status}"),
        Err(error) => println!("skipped: another user cannot run this binary here: {error}"),
    }
}

#[test]
fn a_path_through_a_file_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("file"), "").unwrap();
    let error = open(&directory.path().join("file/data")).unwrap_err();
    assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
}

#[test]
fn a_foreign_file_is_refused_and_left_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.redb");
    let text = "not a database ".repeat(10_000);
    std::fs::write(&file, &text).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { path, .. } if *path == file), "{error:?}");
    assert!(error.to_string().contains("move it aside"), "{error}");
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
}

#[test]
fn another_programs_database_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let other: TableDefinition<'_, u64, u64> = TableDefinition::new("other");
    let database = Database::create(directory.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(other).unwrap().insert(1, 1).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(directory.path()).unwrap_err();
    assert!(
        matches!(&error, StoreError::Corrupt { what, .. } if what.contains("not a Regatta store")),
        "{error:?}"
    );
}

#[test]
fn a_newer_format_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    let meta: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
    let database = Database::open(directory.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(meta).unwrap().insert("format", 4).unwrap();
    transaction.commit().unwrap();
    drop(database);
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::NewerFormat { found: 4, supported: 3, .. }), "{error:?}");
    assert!(error.to_string().contains("use the version that wrote it"), "{error}");
}

#[test]
fn a_file_cut_short_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 30);
    let path = directory.path().join("state.redb");
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let error = open(directory.path()).unwrap_err();
    assert!(matches!(error, StoreError::Corrupt { .. }), "{error:?}");
}

/// A damaged byte is found, or it does no harm: it lies in a page that is not
/// used. Never a panic, never other content.
#[test]
fn a_damaged_byte_is_found_or_harmless() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 30);
    let path = directory.path().join("state.redb");
    let good = std::fs::read(&path).unwrap();
    let content = |store: &RedbStore| {
        Ok::<_, StoreError>((store.load()?, store.records("web", &RecordQuery::newest(100))?))
    };
    let intact = content(&open(directory.path()).unwrap()).unwrap();
    let mut rng = Rng(4_711);
    let mut found = 0;
    for _ in 0..60 {
        let mut bad = good.clone();
        let at = rng.below(bad.len() as u64) as usize;
        bad[at] ^= 1 << rng.below(8);
        std::fs::write(&path, &bad).unwrap();
        match open(directory.path()).and_then(|store| content(&store)) {
            Ok(read) => assert_eq!(read, intact, "byte {at}"),
            Err(StoreError::Corrupt { .. } | StoreError::NewerFormat { .. }) => found += 1,
            Err(error) => panic!("byte {at}: {error:?}"),
        }
    }
    println!("{found} of 60 damaged bytes were found");
    assert!(found > 5);
}

#[test]
fn a_file_with_much_free_space_gets_smaller() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    let noise: Vec<u8> =
        std::iter::successors(Some(Digest::of(b"0")), |last| Some(Digest::of(last.as_bytes())))
            .take(200_000)
            .flat_map(|digest| digest.as_bytes().to_vec())
            .collect();
    let digest = Digest::of(&noise);
    store
        .commit(&Batch {
            blobs: vec![(digest.clone(), noise.clone())],
            ..make::batch(vec![make::set("web", 1, &digest)], Vec::new())
        })
        .unwrap();
    assert_eq!(store.blob(&digest).unwrap().unwrap(), noise);
    store.commit(&make::removal("web")).unwrap();
    assert_eq!(store.blob(&digest).unwrap(), None);
    store.commit(&make::batch(vec![make::set("kept", 1, "x")], Vec::new())).unwrap();
    let before = store.stats().unwrap().file_bytes;
    drop(store);
    let store = open(directory.path()).unwrap();
    let after = store.stats().unwrap().file_bytes;
    println!("{before} bytes, then {after}");
    assert!(after < 2 << 20, "{before} bytes, then {after}");
    assert_eq!(store.load().unwrap()[0].state.set.name, "kept");
}

#[test]
fn a_store_from_before_there_were_images_gets_its_table() {
    let directory = tempfile::tempdir().unwrap();
    fill(directory.path(), 2);
    let file = Database::open(directory.path().join("state.redb")).unwrap();
    let transaction = file.begin_write().unwrap();
    transaction.delete_table(TableDefinition::<&str, &[u8]>::new("images")).unwrap();
    transaction.commit().unwrap();
    drop(file);
    let store = open(directory.path()).unwrap();
    assert_eq!(store.images().unwrap(), []);
    assert_eq!(store.load().unwrap().len(), 1, "what was there is still there");
    let image = make::image("web", 2);
    let images = vec![image.clone()];
    let state = StateChange { images, ..StateChange::default() };
    store.commit(&Batch { state, ..Batch::default() }).unwrap();
    drop(store);
    assert_eq!(open(directory.path()).unwrap().image("web").unwrap(), Some(image));
}

#[test]
fn names_that_no_manifest_could_have_are_refused() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(directory.path()).unwrap();
    store.commit(&make::batch(vec![make::set("../../x", 1, "x")], Vec::new())).unwrap();
    let error = store.load().unwrap_err();
    assert!(matches!(&error, StoreError::Corrupt { .. }), "{error:?}");
    assert!(error.to_string().contains("the stored name \"../../x\""), "{error}");
}
