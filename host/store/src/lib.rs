//! Crash-safe state and tick records.
//!
//! * [`StateStore`] (what is decided), [`History`] (what happened), [`Blobs`] (modules and manifests); a [`Store`] is all three.
//!   One [`Batch`](regatta_core::batch::Batch) is one transaction, durable when `commit` returns; reads never wait for it.
//!   [`RedbStore`] is the one on disk, [`MemoryStore`] the one for tests and simulations, [`FaultyStore`] makes any of them fail.
//! * [`Writer`]: commits from async code; many sets share one wait for the disk.
//!
//! ## The data directory
//! `daemon.lock` (locked while a daemon runs, holds its pid) and `state.redb`
//! (everything, including policy modules). The tables are described in
//! `disk/tables.rs`, the packing of records in `segment.rs`. Values are JSON.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they look at"))]

mod batch;
mod codec;
#[allow(
    clippy::disallowed_methods,
    reason = "the data directory is the daemon's alone: `trusted` refuses any other before anything in it is opened"
)]
mod disk;
mod edits;
mod error;
mod faulty;
#[allow(
    clippy::disallowed_methods,
    reason = "the data directory is the daemon's alone: `trusted` refuses any other before anything in it is opened"
)]
mod lock;
mod memory;
mod segment;
mod store;
mod trusted;
mod writer;

pub use batch::{BLOB_BYTES_MAX, RECORD_JSON_BYTES_MAX, Retention};
pub use disk::{Contents, CopyOf, Named, Options, RedbStore, Restored, check_copy, restore};
pub use error::{Problem, StoreError};
pub use faulty::{Fault, FaultPlan, FaultyStore, Moment};
pub use memory::MemoryStore;
pub use store::{
    Blobs, History, Order, RECORDS_PER_READ_MAX, RecordQuery, SetStats, StateStore, Stats, Store, StoredSet,
};
pub use trusted::refuse_untrusted;
pub use writer::{QUEUE_DEFAULT, Writer};
