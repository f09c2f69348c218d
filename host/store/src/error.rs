//! What can go wrong with the store.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why a call to the store failed. Nothing of a failed commit is stored.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another daemon holds the data directory.
    #[error(
        "the data directory {} is in use by another daemon{}: stop it, or choose another directory",
        path.display(),
        pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
    )]
    InUse {
        /// The data directory.
        path: PathBuf,
        /// The other daemon's process id, if it wrote it down.
        pid: Option<u32>,
    },
    /// The directory or a file in it cannot be made or written.
    #[error("cannot write {}: check its owner, its permissions and how its file system is mounted", path.display())]
    NotWritable {
        /// What could not be written.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is damaged, or not a Regatta store at all.
    #[error(
        "{} is damaged ({what}): restore it from a backup, or move it away to start without the stored sets",
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
        "{} has format {found}, this version of Regatta reads up to {supported}: use the newer version",
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
    /// No room is left: a full disk, a quota or a limit of the file size.
    #[error("no room left to write {}: free some space, then the next try succeeds", path.display())]
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
    #[error("the database {} failed", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: Box<redb::Error>,
    },
    /// The batch breaks a rule; all problems at once.
    #[error("the batch is refused: {}", list(problems))]
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
    /// The writer thread is gone.
    #[error("the store's writer has stopped")]
    WriterStopped,
    /// The writer thread could not be started.
    #[error("cannot start the store's writer")]
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

    /// Whether the same call may succeed later without anyone changing it.
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
    /// An instance or a record belongs to a set that is not stored.
    #[error("set {set} is not stored, but the batch holds {what} of it")]
    UnknownSet {
        /// The set.
        set: String,
        /// `an instance` or `a record`.
        what: &'static str,
    },
    /// The ticks of a set must rise.
    #[error("set {set}: the record of tick {tick} comes after tick {newest}")]
    TickNotNewer {
        /// The set.
        set: String,
        /// Its tick.
        tick: u64,
        /// The newest tick that is stored or comes before it in the batch.
        newest: u64,
    },
    /// JSON has no such number, so the record would not come back as it was.
    #[error("set {set}: the record of tick {tick} has a value of metric {metric} that is not finite")]
    NotFinite {
        /// The set.
        set: String,
        /// The tick.
        tick: u64,
        /// The metric.
        metric: String,
    },
    /// Only records of the present shape are written.
    #[error("set {set}: the record of tick {tick} has version {version}, this store writes {supported}")]
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
    #[error("set {set}: the record of tick {tick} has {bytes} bytes as JSON, at most {max_bytes} are stored")]
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
    /// A module is too large.
    #[error("module {digest} has {bytes} bytes, at most {max_bytes} are stored")]
    ModuleTooLarge {
        /// Its digest.
        digest: String,
        /// Its size.
        bytes: usize,
        /// The limit.
        max_bytes: usize,
    },
    /// The bytes of a module are not those that its digest names.
    #[error("module {digest} has the SHA-256 {actual}")]
    ModuleDigest {
        /// The digest given.
        digest: String,
        /// The digest of the bytes.
        actual: String,
    },
}
