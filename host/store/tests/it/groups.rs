//! Batches that share a transaction, and the thread that brings them together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};

use regatta_core::catalogue::NamedImage;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::{Event, InstanceRecord, SetState};
use regatta_store::{
    Batch, Fault, FaultyStore, MemoryStore, Moment, Options, Problem, QUEUE_DEFAULT, RecordQuery, RedbStore,
    Stats, Store, StoreError, Writer,
};

use crate::make;

fn put(set: &str, tick: u64) -> Batch {
    Batch { sets: vec![make::set(set, tick, "x")], ..Batch::default() }
}

fn homeless(set: &str) -> Batch {
    Batch { instances: vec![(set.to_owned(), make::instance(1, 1))], ..Batch::default() }
}

fn names(store: &dyn Store) -> Vec<String> {
    store.load().unwrap().into_iter().map(|(state, _)| state.set.name).collect()
}

#[test]
fn a_batch_that_breaks_a_rule_takes_no_other_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = RedbStore::open(directory.path(), Options::default()).unwrap();
    let batches =
        [put("a", 1), homeless("nowhere"), put("b", 1), homeless("neither"), homeless("b"), put("c", 1)];
    let results = store.commit_group(&batches);
    let ok: Vec<bool> = results.iter().map(Result::is_ok).collect();
    assert_eq!(ok, [true, false, true, false, true, true]);
    let Err(StoreError::Rejected { problems }) = &results[1] else { panic!("{results:?}") };
    assert_eq!(*problems, [Problem::UnknownSet { set: "nowhere".to_owned(), what: "an instance" }]);
    assert_eq!(names(&store), ["a", "b", "c"]);
}

/// Lets the first commit wait until it is told to go on, and counts the groups.
struct Gate {
    inner: MemoryStore,
    open: Arc<(Mutex<bool>, Condvar)>,
    groups: Arc<Mutex<Vec<usize>>>,
}

impl Store for Gate {
    fn commit(&self, batch: &Batch) -> Result<(), StoreError> {
        self.inner.commit(batch)
    }
    fn commit_group(&self, batches: &[Batch]) -> Vec<Result<(), StoreError>> {
        self.groups.lock().unwrap().push(batches.len());
        let mut open = self.open.0.lock().unwrap();
        while !*open {
            open = self.open.1.wait(open).unwrap();
        }
        drop(open);
        self.inner.commit_group(batches)
    }
    fn load(&self) -> Result<Vec<(SetState, Vec<InstanceRecord>)>, StoreError> {
        self.inner.load()
    }
    fn record(&self, set: &str, tick: u64) -> Result<Option<TickRecord>, StoreError> {
        self.inner.record(set, tick)
    }
    fn records(&self, set: &str, query: &RecordQuery) -> Result<Vec<TickRecord>, StoreError> {
        self.inner.records(set, query)
    }
    fn last_record(&self, set: &str, direction: Option<Direction>) -> Result<Option<TickRecord>, StoreError> {
        self.inner.last_record(set, direction)
    }
    fn events(&self, set: Option<&str>, after: u64, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.inner.events(set, after, limit)
    }
    fn latest_events(&self, set: Option<&str>, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.inner.latest_events(set, limit)
    }
    fn module(&self, digest: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.module(digest)
    }
    fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.inner.images()
    }
    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        self.inner.image(name)
    }
    fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats()
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap()
}

#[test]
fn what_waits_for_the_disk_goes_together_and_answers_one_by_one() {
    let open = Arc::new((Mutex::new(false), Condvar::new()));
    let groups = Arc::new(Mutex::new(Vec::new()));
    let gate = Gate { inner: MemoryStore::default(), open: Arc::clone(&open), groups: Arc::clone(&groups) };
    let store: Arc<dyn Store> = Arc::new(gate);
    let (writer, thread) = Writer::start(Arc::clone(&store), QUEUE_DEFAULT).unwrap();
    runtime().block_on(async {
        let first = tokio::spawn({
            let writer = writer.clone();
            async move { writer.commit(put("first", 1)).await }
        });
        // The writer holds the first; everything after it has to queue.
        while groups.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        let queued = Arc::new(AtomicUsize::new(0));
        let others: Vec<_> = (0..10)
            .map(|index| {
                let (writer, queued) = (writer.clone(), Arc::clone(&queued));
                tokio::spawn(async move {
                    let batch = if index == 4 { homeless("nowhere") } else { put(&format!("s{index}"), 1) };
                    let commit = std::pin::pin!(writer.commit(batch));
                    // The first poll puts it into the queue, which has room.
                    let outcome = polled_once(commit, &queued).await;
                    (index, outcome)
                })
            })
            .collect();
        while queued.load(Ordering::SeqCst) < 10 {
            tokio::task::yield_now().await;
        }
        *open.0.lock().unwrap() = true;
        open.1.notify_all();
        first.await.unwrap().unwrap();
        for other in others {
            let (index, outcome) = other.await.unwrap();
            assert_eq!(outcome.is_ok(), index != 4, "{index}: {outcome:?}");
        }
    });
    assert_eq!(*groups.lock().unwrap(), [1, 10]);
    assert_eq!(names(store.as_ref()).len(), 10);
    drop(writer);
    thread.join().unwrap();
}

/// Polls once, counts that, and then waits for the result.
async fn polled_once<F: Future>(mut future: std::pin::Pin<&mut F>, polled: &AtomicUsize) -> F::Output {
    let mut first = true;
    std::future::poll_fn(move |context| {
        let state = future.as_mut().poll(context);
        if std::mem::take(&mut first) {
            polled.fetch_add(1, Ordering::SeqCst);
        }
        state
    })
    .await
}

#[test]
fn a_full_disk_fails_those_it_hits_and_the_writer_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let disk = RedbStore::open(directory.path(), Options::default()).unwrap();
    let store: Arc<dyn Store> = Arc::new(FaultyStore::full_during(disk, 3..5));
    let (writer, thread) = Writer::start(Arc::clone(&store), 1).unwrap();
    let outcomes: Vec<_> = runtime().block_on(async {
        let mut outcomes = Vec::new();
        for index in 1..=6 {
            outcomes.push(writer.commit(put(&format!("s{index}"), 1)).await);
        }
        outcomes
    });
    for (index, outcome) in outcomes.iter().enumerate() {
        let full = (3..5).contains(&(index + 1));
        assert_eq!(matches!(outcome, Err(StoreError::DiskFull { .. })), full, "{index}: {outcome:?}");
        assert_eq!(outcome.is_ok(), !full);
    }
    assert_eq!(names(store.as_ref()), ["s1", "s2", "s5", "s6"]);
    drop(writer);
    thread.join().unwrap();
}

#[test]
fn what_is_in_the_queue_is_stored_though_nobody_waits() {
    let directory = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = Arc::new(RedbStore::open(directory.path(), Options::default()).unwrap());
    let (writer, thread) = Writer::start(Arc::clone(&store), QUEUE_DEFAULT).unwrap();
    for index in 0..50 {
        let mut commit = std::pin::pin!(writer.commit(put(&format!("s{index}"), 1)));
        // Polled once it is in the queue; then the caller gives up.
        _ = commit.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    }
    drop(writer);
    thread.join().unwrap();
    assert_eq!(names(store.as_ref()).len(), 50);
}

#[test]
fn faults_strike_before_or_after_the_commit() {
    let store = FaultyStore::failing_at(MemoryStore::default(), 2);
    store.commit(&put("a", 1)).unwrap();
    assert!(matches!(store.commit(&put("b", 1)), Err(StoreError::Injected { commit: 2 })));
    store.commit(&put("c", 1)).unwrap();
    assert_eq!(names(&store), ["a", "c"]);

    let lost_answer = FaultyStore::new(MemoryStore::default(), |_, moment| {
        if moment == Moment::After { Fault::Fail } else { Fault::None }
    });
    assert!(lost_answer.commit(&put("a", 1)).is_err());
    assert_eq!(names(lost_answer.inner()), ["a"]);
}
