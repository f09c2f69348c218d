//! Stores of earlier versions: what they held is there, in the shape of today.

use std::path::Path;

use redb::{Database, ReadableDatabase, TableDefinition};
use regatta_core::batch::{Batch, Revision};
use regatta_core::digest::Digest;
use regatta_core::explain::explain;
use regatta_core::record::Direction;
use regatta_store::{Blobs, History, Options, RecordQuery, RedbStore, StateStore};
use serde_json::{Value, json};

use crate::make;
use crate::realistic::{Generator, Shape};

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sets");
const INSTANCES: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("instances");

/// See `tests/data/README.md`.
const FORMAT_2: &[u8] = include_bytes!("../data/format_2.redb.zst");
const FORMAT_2_CONTENT: &[u8] = include_bytes!("../data/format_2.json.zst");

fn open(directory: &Path) -> RedbStore {
    RedbStore::open(directory, Options::default()).unwrap()
}

/// All that `old` says, `new` says too; it may say more. What may differ on purpose is in `changed`.
fn says(old: &Value, new: &Value, changed: &[&str], at: &str) {
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, value) in old.iter().filter(|(key, _)| !changed.contains(&key.as_str())) {
                let at = format!("{at}.{key}");
                says(value, new.get(key).unwrap_or_else(|| panic!("{at} is lost")), changed, &at);
            }
        }
        (Value::Array(old), Value::Array(new)) => {
            assert_eq!(old.len(), new.len(), "{at}");
            for (index, (old, new)) in old.iter().zip(new).enumerate() {
                says(old, new, changed, &format!("{at}[{index}]"));
            }
        }
        _ => assert_eq!(old, new, "{at}"),
    }
}

#[test]
fn everything_in_a_store_of_format_2_is_still_there() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("state.redb");
    std::fs::write(&file, zstd::decode_all(FORMAT_2).unwrap()).unwrap();
    let content: Value = serde_json::from_slice(&zstd::decode_all(FORMAT_2_CONTENT).unwrap()).unwrap();

    let store = open(directory.path());
    let sets = store.load().unwrap();
    let mut phases = std::collections::BTreeSet::new();
    for (stored, old) in sets.iter().zip(content["sets"].as_array().unwrap()) {
        let state = &stored.state;
        let name = state.set.name.as_str();
        says(&old[0], &json!(state), &["launches_resume_ms"], name);
        says(&old[1], &json!(stored.instances), &[], name);
        assert_eq!(state.launches_resume_ms, 0, "was on another clock");
        assert_ne!(state.incarnation, 0);
        for instance in &stored.instances {
            assert_eq!(instance.uid, format!("{:016x}-{}", state.incarnation, instance.id));
            phases.insert(instance.phase);
        }
        let manifest = serde_json::to_vec(&state.set).unwrap();
        assert_eq!(state.manifests, [(state.generation, Digest::of(&manifest))].into());
        assert_eq!(store.blob(&Digest::of(&manifest)).unwrap().as_ref(), Some(&manifest));
        for policy in state.activations_kept() {
            assert!(store.blob(&policy.digest).unwrap().is_some(), "module of activation {}", policy.number);
        }

        let old_records = content["records"][name].as_array().unwrap();
        let records = store.records(name, &RecordQuery::newest(10_000)).unwrap();
        assert_eq!(records.len(), old_records.len());
        for (record, old) in records.iter().zip(old_records) {
            let tick = record.observation.tick;
            assert_eq!((record.v, record.facts.lived_ms, record.manifest.as_str()), (1, 0, ""));
            says(old, &json!(record), &["room"], &format!("{name} tick {tick}"));
            assert!(explain(record, "then").starts_with(&format!("{name} tick {tick} at then: ")));
            assert_eq!(store.record(name, tick).unwrap().as_ref(), Some(record));
        }
        let last = records.first().unwrap();
        assert_eq!(state.clock.steady_ms, last.observation.now_ms);
        assert_eq!(state.clock.lived_ms, 0);
        assert_eq!(store.last_record(name, None).unwrap().as_ref(), Some(last));
        let out = records.iter().find(|record| record.direction() == Direction::ScaleOut);
        assert!(out.is_some());
        assert_eq!(store.last_record(name, Some(Direction::ScaleOut)).unwrap().as_ref(), out);
    }
    assert_eq!(sets.len(), 2);
    assert!(phases.len() >= 4, "{phases:?}");
    assert_ne!(sets[0].state.incarnation, sets[1].state.incarnation);
    says(&content["events"], &json!(store.events(None, 0, 10_000).unwrap()), &[], "events");
    says(&content["images"], &json!(store.images().unwrap()), &[], "images");

    // It continues from there: today's records follow the old ones, also after a restart.
    let web = sets.iter().find(|stored| stored.state.set.name == "web").unwrap();
    let (last_tick, revision) = (web.state.last_tick, web.revision);
    assert!(revision > Revision(0));
    let mut generator = Generator::new("web", 3, Shape { instances: 5, ..Shape::default() });
    let mut next = |tick| {
        let mut record = generator.next_record();
        record.observation.tick = tick;
        record
    };
    let put = |expected, record| Batch {
        expect: vec![("web".to_owned(), expected)],
        ..make::batch(vec![web.state.clone()], vec![record])
    };
    let first = next(last_tick + 1);
    assert!(store.commit(&put(Revision(0), first.clone())).is_err());
    let revision_now = store.commit(&put(revision, first.clone())).unwrap();
    drop(store);
    let store = open(directory.path());
    let second = next(last_tick + 2);
    store.commit(&put(revision_now, second.clone())).unwrap();
    let newest = store.records("web", &RecordQuery::newest(3)).unwrap();
    assert_eq!(newest[..2], [second, first]);
    assert_eq!((newest[2].v, newest[2].observation.tick), (1, last_tick));
    assert_eq!(
        store.load().unwrap().iter().find(|it| it.state.set.name != "web"),
        sets.iter().find(|it| it.state.set.name != "web")
    );
}

/// Format 1 had one policy per set, whatever else: through both upgrades.
#[test]
fn a_set_of_format_1_is_upgraded_twice() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()));
    let database = Database::open(directory.path().join("state.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction.open_table(META).unwrap().insert("format", 1).unwrap();
    let set = include_bytes!("../../src/disk/format_1_set.json");
    transaction.open_table(SETS).unwrap().insert("web", set.as_slice()).unwrap();
    let instance = br#"{"id":3,"state":"in-service","state_since_ms":1780000009000,"created_ms":1780000000000,"generation":1,
        "address":"127.10.0.3","protected":false,"served":true,"vmm":null,"detail":null}"#;
    transaction.open_table(INSTANCES).unwrap().insert(("web", 3), instance.as_slice()).unwrap();
    transaction.commit().unwrap();
    drop(database);

    let store = open(directory.path());
    let stored = store.load().unwrap().remove(0);
    assert_eq!(stored.state.policies[0].name, "target-tracking");
    // No record: the newest time that anything has is the best there is.
    assert_eq!(stored.state.clock.steady_ms, 1_780_000_009_000);
    assert_eq!(stored.instances[0].uid, format!("{:016x}-3", stored.state.incarnation));
    assert_eq!(stored.instances[0].address, Some([127, 10, 0, 3].into()));
    drop(store);
    let database = Database::open(directory.path().join("state.redb")).unwrap();
    let format =
        database.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(format, 3);
    drop(database);
    let kept = Database::open(directory.path().join("state.redb.format-1")).unwrap();
    let before = kept.begin_read().unwrap().open_table(META).unwrap().get("format").unwrap().unwrap().value();
    assert_eq!(before, 1, "the file of the earlier version is kept");
    drop(kept);
    assert_eq!(open(directory.path()).load().unwrap(), [stored], "the second opening changes nothing");
}
