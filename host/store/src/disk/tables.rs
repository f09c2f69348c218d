//! The tables of the file, and errors of the engine on their way out.

use std::path::Path;

use redb::TableDefinition;
use regatta_core::digest::Digest;
use serde::{Deserialize, Serialize};

use crate::error::StoreError;

/// Version of the tables below.
pub(crate) const FORMAT: u32 = 3;

/// `format` → [`FORMAT`], `last-event-seq` and `last-commit` → number. Commits are counted by batch.
pub(crate) const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
/// Set → `SetState` as JSON.
pub(crate) const SETS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("sets");
/// Set → number of the last batch that changed its state or instances.
pub(crate) const REVISIONS: TableDefinition<'_, &str, u64> = TableDefinition::new("revisions");
/// Set and instance id → `InstanceRecord` as JSON.
pub(crate) const INSTANCES: TableDefinition<'_, (&str, u32), &[u8]> = TableDefinition::new("instances");
/// Set → [`SetLog`] as JSON: what its segments hold together.
pub(crate) const LOGS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("logs");
/// Set and first tick → segment.
pub(crate) const SEGMENTS: TableDefinition<'_, (&str, u64), &[u8]> = TableDefinition::new("segments");
/// Set, direction and tick, for each kept record that moved the capacity.
pub(crate) const MOVES: TableDefinition<'_, (&str, u8, u64), ()> = TableDefinition::new("moves");
/// Number → `Event` as JSON.
pub(crate) const EVENTS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("events");
/// SHA-256 → module or manifest, packed.
pub(crate) const BLOBS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("blobs");
/// Name → `NamedImage` as JSON.
pub(crate) const IMAGES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("images");

pub(crate) const META_FORMAT: &str = "format";
pub(crate) const META_LAST_COMMIT: &str = "last-commit";
pub(crate) const META_LAST_EVENT_SEQ: &str = "last-event-seq";

pub(crate) const MOVE_OUT: u8 = 1;
pub(crate) const MOVE_IN: u8 = 2;

/// What the segments of a set hold together. Exists while there are records.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetLog {
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) oldest_tick: u64,
    pub(crate) newest_tick: u64,
    /// Blobs that the records refer to, each with the last tick that does. Format 2 knew modules alone.
    #[serde(alias = "modules")]
    pub(crate) blobs: Vec<(Digest, u64)>,
}

/// An error inside a transaction, before it is known at which path.
#[derive(Debug)]
pub(crate) enum Fail {
    Engine(redb::Error),
    /// A stored value cannot be read.
    Value(String),
    Store(StoreError),
}

impl From<StoreError> for Fail {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

macro_rules! fail_from {
    ($($error:ty),*) => {$(
        impl From<$error> for Fail {
            fn from(error: $error) -> Self {
                Self::Engine(error.into())
            }
        }
    )*};
}
fail_from!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::DatabaseError,
    redb::CompactionError
);

impl From<String> for Fail {
    fn from(what: String) -> Self {
        Self::Value(what)
    }
}

impl Fail {
    /// The engine refuses all further work until the file is opened again.
    pub(crate) fn needs_reopen(&self) -> bool {
        use redb::Error as E;
        matches!(
            self,
            Self::Engine(E::Io(_) | E::PreviousIo | E::DatabaseClosed | E::LockPoisoned(_) | E::Backend(_))
        )
    }

    /// An earlier call broke the engine; this one was not even tried.
    pub(crate) fn is_aftermath(&self) -> bool {
        use redb::Error as E;
        matches!(self, Self::Engine(E::PreviousIo | E::DatabaseClosed | E::LockPoisoned(_)))
    }

    pub(crate) fn at(self, path: &Path) -> StoreError {
        let path_buf = || path.to_path_buf();
        let error = match self {
            Self::Store(error) => return error,
            Self::Value(what) => return StoreError::Corrupt { path: path_buf(), what },
            Self::Engine(error) => error,
        };
        match error {
            redb::Error::Io(source) => match source.kind() {
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof => {
                    StoreError::Corrupt { path: path_buf(), what: source.to_string() }
                }
                _ => StoreError::io(path, source),
            },
            redb::Error::Corrupted(what) => StoreError::Corrupt { path: path_buf(), what },
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path_buf(), pid: None },
            error @ (redb::Error::TableTypeMismatch { .. }
            | redb::Error::TableIsMultimap(_)
            | redb::Error::TypeDefinitionChanged { .. }
            | redb::Error::TableDoesNotExist(_)) => {
                StoreError::Corrupt { path: path_buf(), what: error.to_string() }
            }
            other => StoreError::Database { path: path_buf(), source: Box::new(other) },
        }
    }
}
