//! Batches that share a transaction, and the thread that brings them together.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Waker};

use regatta_core::batch::{Batch, Revision, StateChange};
use regatta_core::catalogue::NamedImage;
use regatta_store::{
    Fault, FaultyStore, MemoryStore, Moment, Options, Problem, QUEUE_DEFAULT, RedbStore, StateStore,
    StoreError, StoredSet, Writer,
};

use crate::make;

fn put(set: &str, tick: u64) -> Batch {
    make::batch(vec![make::set(set, tick, "x")], Vec::new())
}

fn homeless(set: &str) -> Batch {
    let instances = vec![(set.to_owned(), make::instance(1, 1))];
    Batch { state: StateChange { instances, ..StateChange::default() }, ..Batch::default() }
}

/// `batch`, if these sets still have these revisions.
fn expecting(expect: &[(&str, u64)], batch: Batch) -> Batch {
    let expect = expect.iter().map(|&(set, revision)| (set.to_owned(), Revision(revision))).collect();
    Batch { expect, ..batch }
}

fn names(store: &dyn StateStore) -> Vec<String> {
    store.load().unwrap().into_iter().map(|set| set.state.set.name).collect()
}

fn revisions(store: &dyn StateStore) -> Vec<u64> {
    store.load().unwrap().into_iter().map(|set| set.revision.0).collect()
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

impl StateStore for Gate {
    fn commit(&self, batch: &Batch) -> Result<Revision, StoreError> {
        self.inner.commit(batch)
    }
    fn commit_group(&self, batches: &[Batch]) -> Vec<Result<Revision, StoreError>> {
        self.groups.lock().unwrap().push(batches.len());
        let mut open = self.open.0.lock().unwrap();
        while !*open {
            open = self.open.1.wait(open).unwrap();
        }
        drop(open);
        self.inner.commit_group(batches)
    }
    fn load(&self) -> Result<Vec<StoredSet>, StoreError> {
        self.inner.load()
    }
    fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.inner.images()
    }
    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        self.inner.image(name)
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
    let store: Arc<dyn StateStore> = Arc::new(gate);
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
    let store: Arc<dyn StateStore> = Arc::new(FaultyStore::full_during(disk, 3..5));
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
    let store: Arc<dyn StateStore> = Arc::new(RedbStore::open(directory.path(), Options::default()).unwrap());
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

#[test]
fn a_set_has_the_revision_of_the_last_batch_that_changed_it() {
    let directory = tempfile::tempdir().unwrap();
    for store in stores(directory.path()) {
        let commit = |batch: Batch| store.commit(&batch).unwrap().0;
        assert_eq!(commit(expecting(&[("a", 0)], put("a", 1))), 1);
        assert_eq!(commit(put("b", 1)), 2);
        assert_eq!(revisions(store.as_ref()), [1, 2]);
        // What happens to a set does not change what is decided about it.
        assert_eq!(commit(make::event_batch(vec![make::event("a", "x")])), 3);
        assert_eq!(commit(expecting(&[("a", 1), ("b", 2)], homeless("a"))), 4);
        assert_eq!(revisions(store.as_ref()), [4, 2]);
        let forget = |id| {
            let removed_instances = vec![("a".to_owned(), id)];
            Batch { state: StateChange { removed_instances, ..StateChange::default() }, ..Batch::default() }
        };
        assert_eq!((commit(forget(9)), commit(forget(1))), (5, 6));
        assert_eq!(revisions(store.as_ref()), [6, 2], "instance 9 was not there");
        commit(make::removal("a"));
        assert_eq!(commit(expecting(&[("a", 0)], put("a", 1))), 8);
        assert_eq!(revisions(store.as_ref()), [8, 2]);
    }
}

#[test]
fn a_conflict_stores_nothing_and_takes_no_other_with_it() {
    let directory = tempfile::tempdir().unwrap();
    for store in stores(directory.path()) {
        let batches = [
            expecting(&[("a", 0)], put("a", 1)),
            expecting(&[("a", 0)], put("a", 2)),
            expecting(&[("a", 1)], put("a", 3)),
            expecting(&[("a", 2), ("b", 9)], put("a", 4)),
            put("c", 1),
        ];
        let results = store.commit_group(&batches);
        let numbers: Vec<Option<u64>> = results.iter().map(|it| it.as_ref().ok().map(|it| it.0)).collect();
        assert_eq!(numbers, [Some(1), None, Some(2), None, Some(3)]);
        let conflicts: Vec<_> = results.into_iter().filter_map(Result::err).collect();
        let [
            StoreError::Conflict { set: first, expected: Revision(0), found: Revision(1) },
            StoreError::Conflict { set: second, expected: Revision(9), found: Revision(0) },
        ] = conflicts.as_slice()
        else {
            panic!("{conflicts:?}")
        };
        assert_eq!((first.as_str(), second.as_str()), ("a", "b"));
        let said = conflicts[0].to_string();
        assert!(
            said.starts_with("set a has changed since it was read (expected revision 0, found 1)"),
            "{said}"
        );
        assert_eq!(store.load().unwrap()[0].state.last_tick, 3);
        assert_eq!(revisions(store.as_ref()), [2, 3]);
        // Nor does a conflict use up a number.
        assert_eq!(store.commit(&put("a", 5)).unwrap(), Revision(4));
    }
}

/// Whoever got no answer cannot tell whether the batch is stored; the next commit tells.
#[test]
fn a_lost_answer_is_found_out_at_the_next_commit() {
    let lost_answer = FaultyStore::new(MemoryStore::default(), |number, moment| {
        if (number, moment) == (2, Moment::After) { Fault::Fail } else { Fault::None }
    });
    let first = lost_answer.commit(&put("a", 1)).unwrap();
    assert!(matches!(
        lost_answer.commit(&expecting(&[("a", first.0)], put("a", 2))),
        Err(StoreError::Injected { commit: 2 })
    ));
    let error = lost_answer.commit(&expecting(&[("a", first.0)], put("a", 2))).unwrap_err();
    assert!(matches!(error, StoreError::Conflict { expected, .. } if expected == first), "{error:?}");
    let stored = lost_answer.load().unwrap().remove(0);
    assert_eq!(stored.state.last_tick, 2);
    lost_answer.commit(&expecting(&[("a", stored.revision.0)], put("a", 3))).unwrap();
}

/// One in memory and one on disk, to be asked the same.
fn stores(directory: &std::path::Path) -> [Box<dyn StateStore>; 2] {
    let disk = RedbStore::open(directory, Options::default()).unwrap();
    [Box::new(MemoryStore::default()), Box::new(disk)]
}
