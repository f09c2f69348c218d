//! A store that fails on demand.

use std::io;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use regatta_core::batch::{Batch, Revision};
use regatta_core::catalogue::NamedImage;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};

use crate::error::StoreError;
use crate::store::{Blobs, History, RecordQuery, StateStore, Stats, Store, StoredSet};

/// Where in a commit a [`FaultyStore`] asks what shall happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Nothing is stored yet.
    Before,
    /// Everything is stored; the caller does not know yet.
    After,
}

/// What shall happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing special.
    None,
    /// [`StoreError::Injected`]. After the commit, the batch is stored anyway, as when
    /// an answer is lost: a next commit that expects the old revision is a conflict.
    Fail,
    /// [`StoreError::DiskFull`], likewise.
    DiskFull,
}

/// Decides about each commit, by its number (from 1) and the moment. It may also
/// do what it likes, for example end the process.
pub type FaultPlan = Box<dyn FnMut(u64, Moment) -> Fault + Send>;

/// A store whose commits fail on demand. Reads pass.
pub struct FaultyStore<S> {
    inner: S,
    plan: Mutex<(u64, FaultPlan)>,
}

impl<S> FaultyStore<S> {
    /// Puts `plan` before and after each commit of `inner`.
    pub fn new(inner: S, plan: impl FnMut(u64, Moment) -> Fault + Send + 'static) -> Self {
        Self { inner, plan: Mutex::new((0, Box::new(plan))) }
    }

    /// Fails one commit, before anything of it is stored.
    pub fn failing_at(inner: S, commit: u64) -> Self {
        Self::new(
            inner,
            move |number, moment| {
                if number == commit && moment == Moment::Before { Fault::Fail } else { Fault::None }
            },
        )
    }

    /// The disk is full for these commits.
    pub fn full_during(inner: S, commits: std::ops::Range<u64>) -> Self {
        Self::new(inner, move |number, moment| {
            if commits.contains(&number) && moment == Moment::Before { Fault::DiskFull } else { Fault::None }
        })
    }

    /// The store inside.
    pub fn inner(&self) -> &S {
        &self.inner
    }
}

impl<S> std::fmt::Debug for FaultyStore<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FaultyStore").finish_non_exhaustive()
    }
}

fn check(fault: Fault, commit: u64) -> Result<(), StoreError> {
    match fault {
        Fault::None => Ok(()),
        Fault::Fail => Err(StoreError::Injected { commit }),
        Fault::DiskFull => Err(StoreError::DiskFull {
            path: PathBuf::from("injected"),
            source: io::Error::from(io::ErrorKind::StorageFull),
        }),
    }
}

impl<S: StateStore> StateStore for FaultyStore<S> {
    fn commit(&self, batch: &Batch) -> Result<Revision, StoreError> {
        let mut plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner);
        let (count, plan) = &mut *plan;
        *count += 1;
        check(plan(*count, Moment::Before), *count)?;
        let revision = self.inner.commit(batch)?;
        check(plan(*count, Moment::After), *count)?;
        Ok(revision)
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

impl<S: History> History for FaultyStore<S> {
    fn record(&self, set: &str, tick: u64) -> Result<Option<TickRecord>, StoreError> {
        self.inner.record(set, tick)
    }

    fn records(&self, set: &str, query: &RecordQuery) -> Result<Vec<TickRecord>, StoreError> {
        self.inner.records(set, query)
    }

    fn last_record(&self, set: &str, direction: Option<Direction>) -> Result<Option<TickRecord>, StoreError> {
        self.inner.last_record(set, direction)
    }

    fn events(
        &self,
        set: Option<&str>,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        self.inner.events(set, after_seq, limit)
    }

    fn events_before(
        &self,
        set: Option<&str>,
        before_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        self.inner.events_before(set, before_seq, limit)
    }
}

impl<S: Blobs> Blobs for FaultyStore<S> {
    fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.inner.blob(digest)
    }
}

impl<S: Store> Store for FaultyStore<S> {
    fn stats(&self) -> Result<Stats, StoreError> {
        self.inner.stats()
    }
}
