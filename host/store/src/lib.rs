//! Crash-safe state and tick records.
//!
//! * [`Store`]: one [`Batch`] is one transaction, durable when `commit` returns;
//!   reads never wait for it. [`RedbStore`] is the one on disk, [`MemoryStore`]
//!   the one for tests and simulations, [`FaultyStore`] makes any of them fail.
//! * [`Writer`]: commits from async code, many sets sharing one wait for the disk.
//!
//! ## The data directory
//! `daemon.lock` (locked while a daemon runs, holds its pid) and `state.redb`
//! (everything, also the policy modules). The tables are described in
//! `disk/tables.rs`, the packing of records in `segment.rs`. Values are JSON.

mod batch;
mod codec;
mod disk;
mod error;
mod faulty;
mod lock;
mod memory;
mod segment;
mod store;
mod writer;

pub use batch::{Batch, MODULE_BYTES_MAX, RECORD_JSON_BYTES_MAX, Retention, sha256_hex};
pub use disk::{Options, RedbStore};
pub use error::{Problem, StoreError};
pub use faulty::{Fault, FaultPlan, FaultyStore, Moment};
pub use memory::MemoryStore;
pub use store::{Order, RECORDS_PER_READ_MAX, RecordQuery, SetStats, Stats, Store};
pub use writer::{QUEUE_DEFAULT, Writer};
