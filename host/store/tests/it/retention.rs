//! History has an end: by age, by size and by count.

use regatta_core::batch::Batch;
use regatta_core::digest::Digest;
use regatta_core::record::{Direction, TickRecord};
use regatta_store::{Blobs, History, Options, Order, RecordQuery, RedbStore, Retention, StateStore, Store};

use crate::make;
use crate::realistic::{Generator, Shape};

const KEEP_ALL: Retention =
    Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: u64::MAX, events_max: 1_000 };

/// Segments are 32 KiB, and one more than the limit may stand.
const SLACK_BYTES: u64 = 32 << 10;

fn put(record: TickRecord) -> Batch {
    let observation = &record.observation;
    make::batch(vec![make::set(&observation.set, observation.tick, "x")], vec![record])
}

fn ticks(store: &dyn Store, set: &str) -> Vec<u64> {
    let query = RecordQuery { ticks: 0..=u64::MAX, limit: 10_000, order: Order::OldestFirst };
    store.records(set, &query).unwrap().iter().map(|record| record.observation.tick).collect()
}

#[test]
fn by_size_and_the_indexes_follow() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { records_max_bytes_per_set: 100_000, ..KEEP_ALL };
    let store = RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let mut generator = Generator::new("web", 3, Shape::default());
    let mut disk_bytes = Vec::new();
    for tick in 1..=600 {
        store.commit(&put(generator.next_record())).unwrap();
        if tick % 200 == 0 {
            disk_bytes.push(store.stats().unwrap().disk_bytes);
        }
    }
    let stats = &store.stats().unwrap().sets[0];
    assert!(stats.record_bytes <= 100_000 + SLACK_BYTES, "{stats:?}");
    assert!(stats.record_bytes > 100_000 - SLACK_BYTES, "{stats:?}");
    let kept = ticks(&store, "web");
    assert_eq!(kept, (stats.oldest_tick..=600).collect::<Vec<_>>());
    assert_eq!(kept.len() as u64, stats.records);
    assert_eq!(store.record("web", stats.oldest_tick - 1).unwrap(), None);
    // Every 25th tick scales out.
    let out = store.last_record("web", Some(Direction::ScaleOut)).unwrap().unwrap();
    assert_eq!(out.observation.tick, 600);
    // The file is a ring too.
    assert!(disk_bytes[2] <= disk_bytes[0] * 2, "{disk_bytes:?}");
}

#[test]
fn by_age() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { records_max_age_ms: 500_000, ..KEEP_ALL };
    let store = RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let mut generator = Generator::new("web", 3, Shape::default());
    for _ in 0..400 {
        store.commit(&put(generator.next_record())).unwrap();
    }
    // A tick is about 5 s: 100 stay, and those that share a segment with them.
    let kept = ticks(&store, "web");
    assert!((100..=140).contains(&kept.len()), "{kept:?}");
    assert_eq!(kept.last(), Some(&400));
}

#[test]
fn a_lowered_limit_is_reached_step_by_step() {
    let directory = tempfile::tempdir().unwrap();
    let open =
        |retention| RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let store = open(KEEP_ALL);
    let mut generator = Generator::new("web", 3, Shape::default());
    let records = (0..600).map(|_| generator.next_record()).collect();
    store.commit(&make::batch(vec![make::set("web", 1, "x")], records)).unwrap();
    let full = store.stats().unwrap().sets[0].clone();
    drop(store);
    let store = open(Retention { records_max_bytes_per_set: 40_000, ..KEEP_ALL });
    store.commit(&put(generator.next_record())).unwrap();
    let after_one = store.stats().unwrap().sets[0].clone();
    assert!(after_one.record_bytes < full.record_bytes && after_one.record_bytes > 100_000, "{after_one:?}");
    for _ in 0..5 {
        store.commit(&put(generator.next_record())).unwrap();
    }
    let done = store.stats().unwrap().sets[0].clone();
    assert!(done.record_bytes <= 40_000 + SLACK_BYTES, "{done:?}");
}

#[test]
fn events_keep_their_numbers() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { events_max: 20, ..KEEP_ALL };
    let open = || RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let store = open();
    for number in 1..=50 {
        store.commit(&make::event_batch(vec![make::event("gone", &number.to_string())])).unwrap();
    }
    drop(store);
    let store = open();
    store.commit(&make::event_batch(vec![make::event("gone", "51")])).unwrap();
    let events = store.events(None, 0, 100).unwrap();
    assert_eq!(events.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (32..=51).collect::<Vec<_>>());
    assert!(events.iter().all(|(seq, event)| event.text == seq.to_string()));
}

#[test]
fn a_module_stays_while_a_set_or_a_record_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { records_max_bytes_per_set: 20_000, ..KEEP_ALL };
    let store = RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let module = |index: u8| (Digest::of(&[index; 50]), vec![index; 50]);
    let [old, new, later] = [module(1), module(2), module(3)];
    let kept = || [&old, &new, &later].map(|(digest, _)| store.blob(digest).unwrap().is_some());

    // Stored ahead of its use, as a swap does.
    store.commit(&make::blob_batch(vec![old.clone()])).unwrap();
    store.commit(&make::batch(vec![make::set("web", 0, &old.0)], Vec::new())).unwrap();
    store.commit(&make::blob_batch(vec![new.clone(), later.clone()])).unwrap();
    assert_eq!(kept(), [true, true, true]);

    let mut generator = Generator::new("web", 3, Shape::default());
    let mut tick = |digest: &str, set: &str| {
        let mut record = generator.next_record();
        record.runs[0].digest = digest.into();
        let sets = vec![make::set("web", record.observation.tick, set)];
        store.commit(&make::batch(sets, vec![record])).unwrap();
    };
    tick(&old.0, &old.0);
    tick(&new.0, &new.0);
    assert_eq!(kept(), [true, true, true], "a record still needs the old one");
    for _ in 0..100 {
        tick(&later.0, &later.0);
    }
    assert_eq!(kept(), [false, false, true], "no set and no kept record uses the first two");
    store.commit(&make::removal("web")).unwrap();
    assert_eq!(kept(), [false, false, false]);
    assert_eq!(store.stats().unwrap().sets, []);
}

#[test]
fn a_manifest_stays_while_an_instance_or_a_record_refers_to_it() {
    let retention = Retention { records_max_bytes_per_set: 20_000, ..KEEP_ALL };
    let directory = tempfile::tempdir().unwrap();
    let options = Options { retention, ..Options::default() };
    let manifest = |generation: u8| (Digest::of(&[generation; 50]), vec![generation; 50]);
    let commit = |store: &dyn Store, tick: u64, generations: &[u8], record: Option<TickRecord>, blobs| {
        let mut state = make::set("web", tick, "x");
        state.manifests = generations.iter().map(|&it| (u64::from(it), manifest(it).0)).collect();
        let records = record.into_iter().collect();
        store.commit(&Batch { blobs, ..make::batch(vec![state], records) }).unwrap();
    };
    let mut generator = Generator::new("web", 3, Shape::default());
    let mut record = |generation: u8| {
        let mut record = generator.next_record();
        record.manifest = manifest(generation).0;
        Some(record)
    };
    let store = RedbStore::open(directory.path(), options).unwrap();
    let kept = |store: &dyn Store| [1, 2].map(|it| store.blob(&manifest(it).0).unwrap().is_some());

    // Applied: the first, then the second while instances of the first still run.
    commit(&store, 1, &[1], None, vec![manifest(1)]);
    commit(&store, 2, &[1], record(1), Vec::new());
    commit(&store, 3, &[1, 2], record(2), vec![manifest(2)]);
    assert_eq!(kept(&store), [true, true]);
    for tick in 4..104 {
        commit(&store, tick, &[1, 2], record(2), Vec::new());
    }
    assert_eq!(kept(&store), [true, true], "no record refers to the first, an instance does");
    commit(&store, 104, &[2], record(1), Vec::new());
    assert_eq!(kept(&store), [true, true], "no instance refers to the first, a record does");
    drop(store);
    let store = RedbStore::open(directory.path(), options).unwrap();
    assert_eq!(kept(&store), [true, true], "after a restart");
    for tick in 105..205 {
        commit(&store, tick, &[2], record(2), Vec::new());
    }
    assert_eq!(kept(&store), [false, true]);
    store.commit(&make::removal("web")).unwrap();
    assert_eq!(kept(&store), [false, false]);
}

#[test]
fn a_set_that_is_removed_and_made_again_starts_anew() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path(), Options::default()).unwrap();
    let mut generator = Generator::new("web", 3, Shape::default());
    for _ in 0..40 {
        store.commit(&put(generator.next_record())).unwrap();
    }
    let mut again = Generator::new("web", 4, Shape::default());
    let mut batch = put(again.next_record());
    batch.state.removed_sets = vec!["web".to_owned()];
    store.commit(&batch).unwrap();
    assert_eq!(ticks(&store, "web"), [1]);
    assert_eq!(store.record("web", 1).unwrap().as_ref(), batch.history.records.first().map(AsRef::as_ref));
    assert_eq!(store.last_record("web", Some(Direction::ScaleOut)).unwrap(), None);
}
