//! Random batches: the store on disk answers as the one in memory does, whose
//! code has nothing in common with it but the rules; also after it was reopened.

use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::strategy::Union;
use regatta_core::batch::{Batch, Revision};
use regatta_core::combine::Combined;
use regatta_core::decision::{Decision, FailureKind, LogLevel, LogLine, PolicyFailure, PolicyRun, Reason};
use regatta_core::digest::Digest;
use regatta_core::guard::{GuardMemory, GuardName, GuardStep, GuardTrail};
use regatta_core::instance_state::INSTANCE_STATES;
use regatta_core::metric::MetricValue;
use regatta_core::node::Placement;
use regatta_core::observation::{
    InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation, WindowSample,
};
use regatta_core::phase::{INSTANCE_EVENTS, PHASES};
use regatta_core::plan::{Action, CreateCause, Plan, RemovalCause};
use regatta_core::record::{Direction, InstanceChange, PlanFacts, RECORD_VERSION, TickRecord};
use regatta_store::{
    History, MemoryStore, Options, Order, RecordQuery, RedbStore, Retention, StateStore, Store, StoreError,
};

use crate::make;

const SETS: [&str; 3] = ["a", "ab", "web"];

/// Nothing is pruned: when it is, the two differ on purpose.
const KEEP_ALL: Retention =
    Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: u64::MAX, events_max: 10_000 };

fn module(index: u8) -> (Digest, Vec<u8>) {
    let bytes = vec![index; 100 + usize::from(index)];
    (Digest::of(&bytes), bytes)
}

fn finite() -> impl Strategy<Value = f64> {
    any::<f64>().prop_filter("finite", |value| value.is_finite())
}

fn value() -> impl Strategy<Value = MetricValue> {
    prop_oneof![
        5 => finite().prop_map(MetricValue::Fresh),
        1 => Just(MetricValue::Fresh(-0.0)),
        1 => (finite(), any::<u64>()).prop_map(|(value, age_ms)| MetricValue::Stale { value, age_ms }),
        1 => Just(MetricValue::Missing),
    ]
}

fn reason() -> impl Strategy<Value = Reason> {
    ("[a-z-]{1,8}", any::<String>(), vec((any::<String>(), any::<String>()), 0..3)).prop_map(
        |(code, text, evidence)| Reason {
            code: code.into(),
            text: text.into(),
            evidence: evidence.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        },
    )
}

fn run() -> impl Strategy<Value = PolicyRun> {
    let decision = (
        any::<u32>(),
        any::<Option<u32>>(),
        vec(any::<u32>(), 0..3),
        any::<Option<u64>>(),
        vec(reason(), 0..3),
    )
        .prop_map(|(capacity, standby, victims, wake_after_ms, reasons)| {
            Ok(Decision { capacity, standby, victims, wake_after_ms, reasons })
        });
    let failure = any::<String>()
        .prop_map(|message| Err(PolicyFailure { kind: FailureKind::Deadline, message: message.into() }));
    (prop_oneof![decision, failure], any::<(u64, u64)>(), 0u8..4, any::<String>()).prop_map(
        |(result, (fuel, duration_us), digest, message)| PolicyRun {
            slot: String::new(),
            name: "p".into(),
            version: "1.0.0".into(),
            digest: module(digest).0,
            params: "{}".to_owned(),
            state_in: "AAAA".to_owned(),
            result,
            fuel,
            duration_us,
            log: vec![LogLine { level: LogLevel::Warn, message: message.into() }],
        },
    )
}

/// Anything, or one that shares samples with its like.
fn window() -> impl Strategy<Value = Vec<(u64, f64)>> {
    let alike = (0..20u64, 0..20usize, 0..20usize).prop_map(|(odd, from, count)| {
        let all = (from as u64..(from + count) as u64).filter(|at| *at != odd);
        all.map(|at| (at * 5_000, at as f64 / 3.0)).collect()
    });
    prop_oneof![vec((any::<u64>(), finite()), 0..4), alike]
}

/// A record of any content; set and tick are filled in later.
fn record() -> impl Strategy<Value = TickRecord> {
    let row = (any::<u32>(), 0..INSTANCE_STATES.len(), any::<(u64, u64, u64, bool)>());
    let metric = (vec(value(), 0..6), window(), any::<String>());
    let observed = (vec(row, 0..6), vec(metric, 0..3), any::<(u32, u32)>());
    let change = (0..INSTANCE_EVENTS.len(), 0..PHASES.len(), any::<Option<String>>());
    (observed, vec(run(), 0..3), vec(change, 0..3), vec(reason(), 0..2), vec(any::<String>(), 0..2)).prop_map(
        |((rows, metrics, (desired, granted)), runs, changes, reasons, operator)| {
            let mut instances = InstanceTable::default();
            for (id, state, (state_since_ms, created_ms, generation, protected)) in rows {
                let state = INSTANCE_STATES[state];
                instances.push(InstanceRow { id, state, state_since_ms, created_ms, generation, protected });
            }
            let metrics = metrics.into_iter().map(|(values, window, name)| MetricObservation {
                name,
                scope: MetricScope::Instance,
                values,
                window: window.into_iter().map(|(at_ms, value)| WindowSample { at_ms, value }).collect(),
            });
            TickRecord {
                canaries: Vec::new(),
                shadows: Vec::new(),
                v: RECORD_VERSION,
                wall_ms: u64::from(desired),
                manifest: module((granted % 4) as u8).0,
                wanted_metrics: operator.clone(),
                observation: Observation {
                    set: String::new(),
                    tick: 0,
                    now_ms: 0,
                    generation: 1,
                    min: 0,
                    max: 9,
                    desired: desired % 3,
                    instances,
                    metrics: metrics.collect(),
                    last: None,
                    schedule: Vec::new(),
                },
                changes: changes
                    .into_iter()
                    .map(|(event, state, detail)| InstanceChange {
                        id: 1,
                        at_ms: 2,
                        event: INSTANCE_EVENTS[event],
                        from: PHASES[state],
                        to: PHASES[0],
                        detail: detail.map(Into::into),
                    })
                    .collect(),
                facts: PlanFacts {
                    drained: vec![granted],
                    next_id: desired,
                    launches_resume_ms: u64::from(granted) << 31,
                    deleting: granted % 2 == 0,
                    ..PlanFacts::default()
                },
                runs,
                combined: Combined {
                    decided_by_digest: None,
                    votes: Vec::new(),
                    capacity: Some(1),
                    standby: None,
                    victims: vec![],
                    wake_after_ms: None,
                    reasons: reasons.clone(),
                    decided_by: None,
                },
                guards: GuardTrail {
                    steps: reasons
                        .into_iter()
                        .map(|reason| GuardStep { guard: GuardName::Limits, before: None, after: 1, reason })
                        .collect(),
                    granted: granted % 3,
                    limits: Vec::new(),
                    memory: GuardMemory::default(),
                },
                plan: Plan {
                    actions: vec![
                        Action::Create {
                            id: 1,
                            cause: CreateCause::Replacement,
                            generation: 3,
                            placement: Placement::default(),
                        },
                        Action::Drain { id: 2, cause: RemovalCause::ScaleIn },
                    ],
                    notes: Vec::new(),
                    short: None,
                    upgrade: None,
                    repair_memory: Default::default(),
                },
                operator: operator.into_iter().map(Into::into).collect(),
            }
        },
    )
}

fn set_name() -> impl Strategy<Value = String> {
    (0..SETS.len()).prop_map(|index| SETS[index].to_owned())
}

/// One change of a batch.
#[derive(Debug, Clone)]
enum Change {
    RemoveSet(String),
    PutSet {
        set: String,
        policy: u8,
        previous: Option<u8>,
        manifest: Option<u8>,
    },
    /// What the set was read with, or 0.
    Expect(String, bool),
    RemoveInstance(String, u32),
    PutInstance(String, u32, u64),
    /// The tick is so much above the last one; 0 is refused.
    Record(String, u64, Box<TickRecord>),
    Event(String, String),
    Module(u8),
    RemoveImage(String),
    PutImage(String, u8),
}

fn change() -> impl Strategy<Value = Change> {
    Union::new_weighted(vec![
        (1, set_name().prop_map(Change::RemoveSet).boxed()),
        (
            6,
            (set_name(), 0u8..4, proptest::option::of(0u8..4), proptest::option::of(0u8..4))
                .prop_map(|(set, policy, previous, manifest)| Change::PutSet {
                    set,
                    policy,
                    previous,
                    manifest,
                })
                .boxed(),
        ),
        (2, (set_name(), 0u32..5).prop_map(|(set, id)| Change::RemoveInstance(set, id)).boxed()),
        (
            4,
            (set_name(), 0u32..5, any::<u64>())
                .prop_map(|(set, id, ms)| Change::PutInstance(set, id, ms))
                .boxed(),
        ),
        (
            8,
            (set_name(), prop_oneof![1 => Just(0u64), 30 => 1..4u64], record())
                .prop_map(|(set, step, record)| Change::Record(set, step, Box::new(record)))
                .boxed(),
        ),
        (2, (set_name(), any::<String>()).prop_map(|(set, text)| Change::Event(set, text)).boxed()),
        (2, (0u8..4).prop_map(Change::Module).boxed()),
        (
            2,
            (set_name(), prop::bool::weighted(0.9))
                .prop_map(|(set, right)| Change::Expect(set, right))
                .boxed(),
        ),
        (1, set_name().prop_map(Change::RemoveImage).boxed()),
        (2, (set_name(), any::<u8>()).prop_map(|(name, seed)| Change::PutImage(name, seed)).boxed()),
    ])
}

/// Turns changes into a batch, with ticks that go on from those of `store`.
fn batch(changes: Vec<Change>, store: &dyn Store) -> Batch {
    let mut batch = Batch::default();
    let mut ticks = std::collections::BTreeMap::new();
    for change in changes {
        match change {
            Change::Expect(set, right) => {
                let read = store.load().unwrap().into_iter().find(|stored| stored.state.set.name == set);
                let revision = read.filter(|_| right).map_or(Revision(0), |stored| stored.revision);
                batch.expect.push((set, revision));
            }
            Change::RemoveSet(set) => batch.state.removed_sets.push(set),
            Change::PutSet { set, policy, previous, manifest } => {
                let mut state = make::set(&set, 7, &module(policy).0);
                state.policies[0].previous = previous.map(|index| make::activation(&module(index).0));
                state.manifests = manifest.iter().map(|&index| (1, module(index).0)).collect();
                batch.state.sets.push(state);
            }
            Change::RemoveInstance(set, id) => batch.state.removed_instances.push((set, id)),
            Change::PutInstance(set, id, ms) => batch.state.instances.push((set, make::instance(id, ms))),
            Change::Record(set, step, mut record) => {
                let tick = ticks.entry(set.clone()).or_insert_with(|| {
                    store.last_record(&set, None).unwrap().map_or(0, |record| record.observation.tick)
                });
                *tick += step;
                record.observation.set = set;
                record.observation.tick = *tick;
                record.observation.now_ms = *tick * 1_000;
                batch.history.records.push(Arc::from(record));
            }
            Change::Event(set, text) => batch.history.events.push(make::event(&set, &text)),
            Change::Module(index) => batch.blobs.push(module(index)),
            Change::RemoveImage(name) => batch.state.removed_images.push(name),
            Change::PutImage(name, seed) => batch.state.images.push(make::image(&name, seed)),
        }
    }
    batch
}

fn same_reads(disk: &dyn Store, memory: &dyn Store) -> Result<(), TestCaseError> {
    prop_assert_eq!(disk.load().unwrap(), memory.load().unwrap());
    prop_assert_eq!(disk.images().unwrap(), memory.images().unwrap());
    for set in SETS {
        prop_assert_eq!(disk.image(set).unwrap(), memory.image(set).unwrap());
        for (ticks, limit) in [(0..=u64::MAX, 1_000), (0..=u64::MAX, 3), (2..=5, 1_000), (3..=9, 2)] {
            for order in [Order::OldestFirst, Order::NewestFirst] {
                let query = RecordQuery { ticks: ticks.clone(), limit, order };
                let (on_disk, in_memory) =
                    (disk.records(set, &query).unwrap(), memory.records(set, &query).unwrap());
                prop_assert_eq!(json(&on_disk), json(&in_memory), "{:?}", query);
            }
        }
        for direction in [None, Some(Direction::ScaleOut), Some(Direction::ScaleIn), Some(Direction::None)] {
            let (on_disk, in_memory) =
                (disk.last_record(set, direction).unwrap(), memory.last_record(set, direction).unwrap());
            prop_assert_eq!(json(&on_disk), json(&in_memory), "{:?}", direction);
        }
        for tick in 0..6 {
            prop_assert_eq!(disk.record(set, tick).unwrap(), memory.record(set, tick).unwrap());
        }
        prop_assert_eq!(disk.events(Some(set), 2, 3).unwrap(), memory.events(Some(set), 2, 3).unwrap());
        prop_assert_eq!(
            disk.latest_events(Some(set), 2).unwrap(),
            memory.latest_events(Some(set), 2).unwrap()
        );
    }
    prop_assert_eq!(disk.events(None, 0, 1_000).unwrap(), memory.events(None, 0, 1_000).unwrap());
    prop_assert_eq!(disk.latest_events(None, 3).unwrap(), memory.latest_events(None, 3).unwrap());
    let all = disk.events(None, 0, usize::MAX).unwrap();
    for before in [1, 2, 5] {
        let page = disk.events_before(None, before, 2).unwrap();
        prop_assert_eq!(&page, &memory.events_before(None, before, 2).unwrap());
        let earlier: Vec<_> = all.iter().filter(|(seq, _)| *seq < before).cloned().collect();
        prop_assert_eq!(page.as_slice(), &earlier[earlier.len().saturating_sub(2)..]);
    }
    let (on_disk, in_memory) = (disk.stats().unwrap(), memory.stats().unwrap());
    let counts = |stats: &regatta_store::Stats| {
        let sets = stats.sets.iter().map(|s| (s.set.clone(), s.records, s.oldest_tick, s.newest_tick));
        (stats.events, stats.images, sets.collect::<Vec<_>>())
    };
    prop_assert_eq!(counts(&on_disk), counts(&in_memory));
    Ok(())
}

/// Equality of floats cannot tell -0.0 from 0.0; their digits can.
fn json<T: serde::Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap()
}

fn same_blobs(disk: &dyn Store, memory: &dyn Store) -> Result<(), TestCaseError> {
    for index in 0..4 {
        let digest = module(index).0;
        prop_assert_eq!(disk.blob(&digest).unwrap(), memory.blob(&digest).unwrap(), "blob {}", index);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn disk_and_memory_answer_alike(batches in vec(vec(change(), 1..8), 1..10)) {
        let directory = tempfile::tempdir().unwrap();
        let options = Options { retention: KEEP_ALL, ..Options::default() };
        let disk = RedbStore::open(directory.path(), options).unwrap();
        let memory = MemoryStore::new(KEEP_ALL);
        for changes in batches {
            let batch = batch(changes, &memory);
            let outcome = match (disk.commit(&batch), memory.commit(&batch)) {
                (Ok(on_disk), Ok(in_memory)) => {
                    prop_assert_eq!(on_disk, in_memory);
                    true
                }
                (
                    Err(StoreError::Conflict { set, expected, found }),
                    Err(StoreError::Conflict { set: set_too, expected: expected_too, found: found_too }),
                ) => {
                    prop_assert_eq!((set, expected, found), (set_too, expected_too, found_too));
                    false
                }
                (
                    Err(StoreError::Rejected { problems: on_disk }),
                    Err(StoreError::Rejected { problems: in_memory }),
                ) => {
                    prop_assert_eq!(on_disk, in_memory);
                    false
                }
                other => return Err(TestCaseError::fail(format!("{other:?}"))),
            };
            same_reads(&disk, &memory).map_err(|error| TestCaseError::fail(format!("stored: {outcome}: {error}")))?;
            same_blobs(&disk, &memory)?;
        }
        drop(disk);
        let disk = RedbStore::open(directory.path(), options).unwrap();
        same_reads(&disk, &memory)?;
    }

    #[test]
    fn a_record_comes_back_as_it_was(records in vec(record(), 1..20)) {
        let directory = tempfile::tempdir().unwrap();
        let disk = RedbStore::open(directory.path(), Options { retention: KEEP_ALL, ..Options::default() }).unwrap();
        let mut batch = make::batch(vec![make::set("web", 1, "x")], Vec::new());
        for (tick, mut record) in records.into_iter().enumerate() {
            record.observation.set = "web".to_owned();
            record.observation.tick = tick as u64 + 1;
            batch.history.records.push(Arc::new(record));
        }
        disk.commit(&batch).unwrap();
        let query = RecordQuery { ticks: 0..=u64::MAX, limit: 100, order: Order::OldestFirst };
        let back = disk.records("web", &query).unwrap();
        let put: Vec<TickRecord> = batch.history.records.iter().map(|record| TickRecord::clone(record)).collect();
        prop_assert_eq!(json(&back), json(&put));
        prop_assert_eq!(back, put);
    }
}

#[test]
fn a_value_that_is_not_finite_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RedbStore::open(directory.path(), Options::default()).unwrap();
    let mut generator = crate::realistic::Generator::new("web", 1, crate::realistic::Shape::default());
    let mut first = generator.next_record();
    first.observation.metrics[0].values[3] = MetricValue::Fresh(f64::NAN);
    let mut second = generator.next_record();
    second.observation.metrics[1].window[0].value = f64::INFINITY;
    let batch = make::batch(Vec::new(), vec![first, second]);
    let error = disk.commit(&batch).unwrap_err().to_string();
    for part in ["set web does not exist", "tick 1: metric cpu", "metric guest_latency_ms"] {
        assert!(error.contains(part), "{part} is missing from: {error}");
    }
    assert_eq!(disk.stats().unwrap().sets, []);
}
