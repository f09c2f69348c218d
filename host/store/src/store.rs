//! The traits that every store implements.
//!
//! Reads see one committed state and never wait for a commit. All calls block on
//! the disk: from async code, use a [`Writer`](crate::Writer) for commits and a
//! blocking task for reads.

use std::ops::RangeInclusive;

use regatta_core::batch::{Batch, Revision};
use regatta_core::catalogue::NamedImage;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};
use regatta_core::state::{InstanceRecord, SetState};

use crate::error::StoreError;

/// Most records that one read returns, whatever its limit says.
pub const RECORDS_PER_READ_MAX: usize = 10_000;

/// What is decided: sets, their instances, named images.
pub trait StateStore: Send + Sync {
    /// Stores a batch: all of it, or nothing. It survives a crash and a power
    /// failure from the moment this returns. The answer is its number, which is
    /// now the revision of every set whose state or instances it changed.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] when a set is not as the batch expects it,
    /// [`StoreError::Rejected`] when the batch breaks a rule; otherwise what the
    /// disk said. After an error the next commit starts from the last good state.
    fn commit(&self, batch: &Batch) -> Result<Revision, StoreError>;

    /// Stores several batches in order, with one wait for the disk where it can.
    /// One result each: a batch that fails takes no other with it.
    fn commit_group(&self, batches: &[Batch]) -> Vec<Result<Revision, StoreError>> {
        batches.iter().map(|batch| self.commit(batch)).collect()
    }

    /// All sets by name.
    ///
    /// # Errors
    /// What the disk said, or [`StoreError::Corrupt`].
    fn load(&self) -> Result<Vec<StoredSet>, StoreError>;

    /// All named golden images, by name.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn images(&self) -> Result<Vec<NamedImage>, StoreError>;

    /// The golden image of one name.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError>;
}

/// What happened: tick records and events.
pub trait History: Send + Sync {
    /// The record of one tick.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn record(&self, set: &str, tick: u64) -> Result<Option<TickRecord>, StoreError>;

    /// Records of a set, as far as they are still kept.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn records(&self, set: &str, query: &RecordQuery) -> Result<Vec<TickRecord>, StoreError>;

    /// The newest record of a set, or the newest that moved the capacity that way.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn last_record(&self, set: &str, direction: Option<Direction>) -> Result<Option<TickRecord>, StoreError>;

    /// Events after number `after_seq`, oldest first, each with its number (from
    /// 1, never reused). Of one set, or of all.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn events(
        &self,
        set: Option<&str>,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError>;

    /// The newest events before number `before_seq`, oldest of them first, each with its number.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn events_before(
        &self,
        set: Option<&str>,
        before_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError>;

    /// The newest events, oldest of them first, each with its number.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn latest_events(&self, set: Option<&str>, limit: usize) -> Result<Vec<(u64, Event)>, StoreError> {
        self.events_before(set, u64::MAX, limit)
    }
}

/// Modules and manifests by SHA-256, in lower-case hex.
pub trait Blobs: Send + Sync {
    /// The bytes of a blob.
    ///
    /// # Errors
    /// As [`StateStore::load`]; [`StoreError::Corrupt`] when they no longer match `digest`.
    fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;
}

/// Everything that the daemon remembers.
pub trait Store: StateStore + History + Blobs {
    /// How much is stored.
    ///
    /// # Errors
    /// As [`StateStore::load`].
    fn stats(&self) -> Result<Stats, StoreError>;
}

/// A set as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredSet {
    /// The set.
    pub state: SetState,
    /// Its instances, by id.
    pub instances: Vec<InstanceRecord>,
    /// Number of the last batch that changed either.
    pub revision: Revision,
}

/// Which records of a set to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordQuery {
    /// First and last tick.
    pub ticks: RangeInclusive<u64>,
    /// Maximum number of records, never more than [`RECORDS_PER_READ_MAX`].
    pub limit: usize,
    /// From which end to read.
    pub order: Order,
}

impl RecordQuery {
    /// The newest `limit` records, newest first.
    #[must_use]
    pub fn newest(limit: usize) -> Self {
        Self { ticks: 0..=u64::MAX, limit, order: Order::NewestFirst }
    }
}

/// From which end records are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Rising ticks.
    OldestFirst,
    /// Falling ticks.
    NewestFirst,
}

/// How much is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// Length of the file; 0 in memory.
    pub file_bytes: u64,
    /// What the file takes on disk, less than its length where it has holes.
    pub disk_bytes: u64,
    /// Sets with records, by name.
    pub sets: Vec<SetStats>,
    /// Events.
    pub events: u64,
    /// Modules and manifests.
    pub blobs: u64,
    /// Named golden images.
    pub images: u64,
}

/// How much is stored of one set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetStats {
    /// Its name.
    pub set: String,
    /// Records.
    pub records: u64,
    /// What they take, compressed, without the overhead of the file.
    pub record_bytes: u64,
    /// Oldest tick.
    pub oldest_tick: u64,
    /// Newest tick.
    pub newest_tick: u64,
}

impl SetStats {
    /// Mean stored size of a record.
    #[must_use]
    pub fn bytes_per_record(&self) -> u64 {
        self.record_bytes / self.records.max(1)
    }
}
