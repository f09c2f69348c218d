//! What can go wrong with the store.

use std::io;
use std::path::{Path, PathBuf};

use regatta_core::batch::Revision;
use regatta_core::digest::Digest;
use thiserror::Error;

/// Why a call to the store failed. Nothing of a failed commit is stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another daemon holds the data directory.
    #[error(
        "data directory {} is in use by another daemon{}: stop that daemon or choose another directory",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other daemon's process id, if it wrote it down.
        pid: Option<u32>,
    },
    /// Somebody else could change the data directory, or put another one in its place.
    #[error(
        "data directory {} cannot be trusted: {} {why}, or choose another directory (--data)",
        directory.display(),
        path.display()
    )]
    Untrusted {
        /// The data directory.
        directory: PathBuf,
        /// What of it, or above it.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        why: String,
    },
    /// The directory or a file in it cannot be made or written.
    #[error("cannot write {}: check its owner, its permissions and the mount options of its file system", path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged, or not a Regatta store at all.
    #[error(
        "{} is damaged ({what}); VMs are not touched: restore a copy (`regatta restore FILE`), or move it aside, start \
         the daemon and adopt what runs (`regatta recover`)",
        path.display()
    )]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The file was written by a newer Regatta.
    #[error(
        "{} has format {found}, but this version of Regatta supports formats up to {supported}: use the version that wrote it",
        path.display()
    )]
    NewerFormat {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest one that this version reads.
        supported: u32,
    },
    /// No space is left: a full disk, a quota or a file size limit.
    #[error("no space left to write {}: free some space; the next attempt will succeed", path.display())]
    DiskFull {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Reading or writing failed for another reason.
    #[error("cannot read or write {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database engine failed.
    #[error("database error in {}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// A set is not as the caller last saw it.
    #[error(
        "set {set} has changed since it was read (expected revision {}, found {}): reload it and try again",
        expected.0,
        found.0
    )]
    Conflict {
        /// The set.
        set: String,
        /// The revision that the batch expects; 0 for a set that must not exist.
        expected: Revision,
        /// The revision that is stored; 0 when the set is not stored.
        found: Revision,
    },
    /// The batch breaks a rule; all problems at once.
    #[error("invalid batch: {}", list(problems))]
    Rejected {
        /// Everything that is wrong with it.
        problems: Vec<Problem>,
    },
    /// A [`FaultyStore`](crate::FaultyStore) was told to fail here.
    #[error("injected failure of commit {commit}")]
    Injected {
        /// Number of the commit, from 1.
        commit: u64,
    },
    /// The writer thread has stopped.
    #[error("the store writer has stopped")]
    WriterStopped,
    /// The writer thread could not be started.
    #[error("cannot start the store writer thread")]
    WriterStart {
        /// Why.
        #[source]
        source: io::Error,
    },
}

fn list(problems: &[Problem]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")
}

impl StoreError {
    /// Classifies an error of the file system at `path`.
    pub(crate) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Self::NotWritable { path, source }
            }
            _ => Self::Io { path, source },
        }
    }

    /// The same about a file that people know by another name.
    pub(crate) fn about(mut self, known_to_us: &Path, known_to_people: &Path) -> Self {
        match &mut self {
            Self::NotWritable { path, .. }
            | Self::Corrupt { path, .. }
            | Self::NewerFormat { path, .. }
            | Self::DiskFull { path, .. }
            | Self::Io { path, .. }
            | Self::Database { path, .. }
                if path.as_path() == known_to_us =>
            {
                known_to_people.clone_into(path);
            }
            _ => {}
        }
        self
    }

    /// Whether the same call may succeed later, unchanged.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::DiskFull { .. } | Self::Io { .. } | Self::Database { .. } | Self::Injected { .. }
        )
    }
}

/// One rule that a batch breaks.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Problem {
    /// An instance or a record belongs to a set that does not exist.
    #[error("set {set} does not exist, but the batch contains {what} of it")]
    UnknownSet {
        /// The set.
        set: String,
        /// `an instance` or `a record`.
        what: &'static str,
    },
    /// The ticks of a set must rise.
    #[error("set {set}: record of tick {tick} is not newer than tick {newest}")]
    TickNotNewer {
        /// The set.
        set: String,
        /// Its tick.
        tick: u64,
        /// The newest tick that is stored or precedes it in the batch.
        newest: u64,
    },
    /// JSON has no such number, so the record would not come back as it was.
    #[error("set {set}: record of tick {tick}: metric {metric} has a value that is not finite")]
    NotFinite {
        /// The set.
        set: String,
        /// The tick.
        tick: u64,
        /// The metric.
        metric: String,
    },
    /// Only records of the present shape are written.
    #[error(
        "set {set}: record of tick {tick} has version {version}, but only version {supported} can be stored"
    )]
    RecordVersion {
        /// The set.
        set: String,
        /// The tick.
        tick: u64,
        /// Its version.
        version: u32,
        /// The version that is written.
        supported: u32,
    },
    /// A record is too large.
    #[error("set {set}: record of tick {tick} is too large: {bytes} bytes as JSON, maximum {max_bytes}")]
    RecordTooLarge {
        /// The set.
        set: String,
        /// The tick.
        tick: u64,
        /// Its size as JSON.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// A module or manifest is too large.
    #[error("blob {digest} is too large: {bytes} bytes, maximum {max_bytes}")]
    BlobTooLarge {
        /// Its digest.
        digest: Digest,
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The bytes of a blob are not those that its digest names.
    #[error("blob {digest} does not match its digest: its SHA-256 is {actual}")]
    BlobDigest {
        /// The digest given.
        digest: Digest,
        /// The digest of the bytes.
        actual: Digest,
    },
}
