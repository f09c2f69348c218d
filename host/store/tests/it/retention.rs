//! History has an end: by age, by size and by count.

use regatta_core::record::{Direction, TickRecord};
use regatta_store::{Batch, Options, Order, RecordQuery, RedbStore, Retention, Store, sha256_hex};

use crate::make;
use crate::realistic::{Generator, Shape};

const KEEP_ALL: Retention =
    Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: u64::MAX, events_max: 1_000 };

/// Segments are 32 KiB, and one more than the limit may stand.
const SLACK_BYTES: u64 = 32 << 10;

fn put(record: TickRecord) -> Batch {
    let observation = &record.observation;
    Batch {
        sets: vec![make::set(&observation.set, observation.tick, "x")],
        records: vec![record],
        ..Batch::default()
    }
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
    store.commit(&Batch { sets: vec![make::set("web", 1, "x")], records, ..Batch::default() }).unwrap();
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
        let events = vec![make::event("gone", &number.to_string())];
        store.commit(&Batch { events, ..Batch::default() }).unwrap();
    }
    drop(store);
    let store = open();
    store.commit(&Batch { events: vec![make::event("gone", "51")], ..Batch::default() }).unwrap();
    let events = store.events(None, 0, 100).unwrap();
    assert_eq!(events.iter().map(|(seq, _)| *seq).collect::<Vec<_>>(), (32..=51).collect::<Vec<_>>());
    assert!(events.iter().all(|(seq, event)| event.text == seq.to_string()));
}

#[test]
fn a_module_stays_while_a_set_or_a_record_uses_it() {
    let directory = tempfile::tempdir().unwrap();
    let retention = Retention { records_max_bytes_per_set: 20_000, ..KEEP_ALL };
    let store = RedbStore::open(directory.path(), Options { retention, ..Options::default() }).unwrap();
    let module = |index: u8| (sha256_hex(&[index; 50]), vec![index; 50]);
    let [old, new, later] = [module(1), module(2), module(3)];
    let kept = || [&old, &new, &later].map(|(digest, _)| store.module(digest).unwrap().is_some());

    // Stored ahead of its use, as a swap does.
    store.commit(&Batch { modules: vec![old.clone()], ..Batch::default() }).unwrap();
    store.commit(&Batch { sets: vec![make::set("web", 0, &old.0)], ..Batch::default() }).unwrap();
    store.commit(&Batch { modules: vec![new.clone(), later.clone()], ..Batch::default() }).unwrap();
    assert_eq!(kept(), [true, true, true]);

    let mut generator = Generator::new("web", 3, Shape::default());
    let mut tick = |digest: &str, set: &str| {
        let mut record = generator.next_record();
        record.runs[0].digest = digest.to_owned();
        let sets = vec![make::set("web", record.observation.tick, set)];
        store.commit(&Batch { sets, records: vec![record], ..Batch::default() }).unwrap();
    };
    tick(&old.0, &old.0);
    tick(&new.0, &new.0);
    assert_eq!(kept(), [true, true, true], "a record still needs the old one");
    for _ in 0..100 {
        tick(&later.0, &later.0);
    }
    assert_eq!(kept(), [false, false, true], "no set and no kept record uses the first two");
    store.commit(&Batch { removed_sets: vec!["web".to_owned()], ..Batch::default() }).unwrap();
    assert_eq!(kept(), [false, false, false]);
    assert_eq!(store.stats().unwrap().sets, []);
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
    let batch = Batch { removed_sets: vec!["web".to_owned()], ..put(again.next_record()) };
    store.commit(&batch).unwrap();
    assert_eq!(ticks(&store, "web"), [1]);
    assert_eq!(store.record("web", 1).unwrap().as_ref(), batch.records.first());
    assert_eq!(store.last_record("web", Some(Direction::ScaleOut)).unwrap(), None);
}
