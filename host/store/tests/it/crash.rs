//! A process that commits is killed at random moments; what it was told is
//! stored is there, and no commit is there by half.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use regatta_core::batch::{Batch, Revision};
use regatta_core::record::TickRecord;
use regatta_core::state::SetState;
use regatta_store::{History, Options, Order, RecordQuery, RedbStore, Retention, StateStore, Store};

use crate::realistic::{Generator, Rng, Shape};
use crate::{child, make};

const ROUNDS: u32 = 30;
const SETS: [&str; 2] = ["left", "right"];
const INSTANCES: u32 = 10;

/// Small, so that the kills hit commits that prune, too.
fn options() -> Options {
    let retention =
        Retention { records_max_age_ms: u64::MAX, records_max_bytes_per_set: 60_000, events_max: 50 };
    Options { retention, ..Options::default() }
}

/// Which set an instance belongs to after batch `number`: each batch moves one.
fn home(id: u32, number: u64) -> usize {
    let moves = (number + u64::from(INSTANCES - id)) / u64::from(INSTANCES);
    (moves % 2) as usize
}

fn state(set: usize, number: u64) -> SetState {
    let mut state = make::set(SETS[set], number, "x");
    // The two sum to the same after every batch.
    let share = (number * 37 % 1_000) as u32;
    state.desired = if set == 0 { share } else { 1_000 - share };
    state
}

fn record(set: usize, number: u64) -> TickRecord {
    let shape = Shape { instances: 12, window: 10, ..Shape::default() };
    let mut record = Generator::new(SETS[set], number, shape).next_record();
    record.observation.tick = number;
    record.observation.now_ms = number * 1_000;
    record
}

fn batch(number: u64) -> Batch {
    let mut batch = make::event_batch(vec![make::event("left", &number.to_string())]);
    batch.expect = SETS.iter().map(|set| ((*set).to_owned(), Revision(number - 1))).collect();
    for (index, set) in SETS.iter().enumerate() {
        batch.state.sets.push(state(index, number));
        batch.history.records.push(Arc::new(record(index, number)));
        for id in 1..=INSTANCES {
            if home(id, number) == index {
                if number == 1 || home(id, number - 1) != index {
                    batch.state.instances.push(((*set).to_owned(), make::instance(id, number)));
                }
            } else {
                batch.state.removed_instances.push(((*set).to_owned(), id));
            }
        }
    }
    batch
}

/// The number of the last batch that is stored, after everything was checked
/// against what that batch must have left.
fn check(store: &RedbStore) -> u64 {
    let sets = store.load().unwrap();
    let Some(first) = sets.first() else { return 0 };
    let number = first.state.last_tick;
    assert_eq!(sets.len(), 2, "after batch {number}");
    for (index, stored) in sets.iter().enumerate() {
        assert_eq!(stored.state, state(index, number), "after batch {number}");
        assert_eq!(stored.revision, Revision(number));
        let ids: Vec<u32> = stored.instances.iter().map(|instance| instance.id).collect();
        let wanted: Vec<u32> = (1..=INSTANCES).filter(|&id| home(id, number) == index).collect();
        assert_eq!(ids, wanted, "instances of {} after batch {number}", SETS[index]);

        let query = RecordQuery { ticks: 0..=u64::MAX, limit: 10_000, order: Order::NewestFirst };
        let records = store.records(SETS[index], &query).unwrap();
        for (back, found) in records.iter().enumerate() {
            assert_eq!(*found, record(index, number - back as u64), "{back} before batch {number}");
        }
        assert!(!records.is_empty());
        let stats = &store.stats().unwrap().sets[index];
        assert_eq!((stats.records, stats.newest_tick), (records.len() as u64, number));
    }
    assert_eq!(sets[0].state.desired + sets[1].state.desired, 1_000);
    assert_eq!(sets[0].instances.len() + sets[1].instances.len(), INSTANCES as usize);
    let events = store.events(None, 0, 1_000).unwrap();
    assert_eq!(events.last().unwrap().0, number);
    assert!(events.iter().all(|(seq, event)| event.text == seq.to_string()));
    number
}

#[test]
#[ignore = "the other half of killed_at_random_moments, which runs it"]
fn committing_child() {
    let Some(directory) = child::directory() else { return };
    let store = RedbStore::open(&directory, options()).unwrap();
    let mut number = store.load().unwrap().first().map_or(0, |set| set.state.last_tick);
    let mut out = std::io::stdout();
    loop {
        number += 1;
        store.commit(&batch(number)).unwrap();
        writeln!(out, "stored {number}").unwrap();
        out.flush().unwrap();
    }
}

/// Lets the child commit for a random time; the last number that it reported.
fn round(directory: &Path, rng: &mut Rng) -> u64 {
    let mut process = child::command("crash::committing_child", directory)
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let out = BufReader::new(process.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let numbers = out
            .lines()
            .map_while(Result::ok)
            .filter_map(|line| line.strip_prefix("stored ").map(|number| number.parse::<u64>().unwrap()));
        numbers.last().unwrap_or(0)
    });
    // Not a wait for anything: the moment itself is what is tried out. The
    // shortest ones hit the opening of the file.
    std::thread::sleep(Duration::from_micros(rng.below(300_000)));
    let ended = process.try_wait().unwrap();
    assert_eq!(ended, None, "the child ended on its own");
    process.kill().unwrap();
    process.wait().unwrap();
    reader.join().unwrap()
}

#[test]
fn killed_at_random_moments() {
    let seed = std::env::var("REGATTA_TEST_SEED").ok().map_or_else(
        || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64,
        |seed| seed.parse().unwrap(),
    );
    println!("REGATTA_TEST_SEED={seed} repeats the delays of this run");
    let mut rng = Rng(seed);
    let directory = tempfile::tempdir().unwrap();
    let mut stored = 0;
    for number in 1..=ROUNDS {
        let reported = round(directory.path(), &mut rng).max(stored);
        let store = RedbStore::open(directory.path(), options()).unwrap();
        stored = check(&store);
        println!("round {number}: reported {reported}, stored {stored}");
        // One commit may have been done without its report.
        assert!(stored == reported || stored == reported + 1, "round {number}: {stored} for {reported}");
    }
    assert!(stored > 0, "no commit in {ROUNDS} rounds: nothing was tried");
}
