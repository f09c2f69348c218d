//! The store on disk: one redb file.

mod copies;
#[cfg(test)]
mod power_failure;
mod read;
mod tables;
mod upgrade;
mod write;

use std::cell::RefCell;
use std::fs::{File, OpenOptions};
use std::io::ErrorKind;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, RwLock};

use redb::backends::FileBackend;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable};
use regatta_core::batch::{Batch, Revision};
use regatta_core::catalogue::NamedImage;
use regatta_core::digest::Digest;
use regatta_core::event::Event;
use regatta_core::record::{Direction, TickRecord};

use crate::batch::Retention;
use crate::error::StoreError;
use crate::lock::DirectoryLock;
use crate::store::{Blobs, History, RecordQuery, StateStore, Stats, Store, StoredSet};
use crate::trusted::refuse_foreign_file;
pub use copies::{Contents, CopyOf, Named, Restored, check_copy, restore};
use tables::{FORMAT, Fail, META, META_FORMAT};
use write::{Tails, apply};

const FILE_NAME: &str = "state.redb";
const FILE_NAME_UNFINISHED: &str = "state.redb.new";

/// At open, a file with this much free space, and more than half of it free, is
/// made smaller.
const COMPACT_FREE_BYTES_MIN: u64 = 8 << 20;

/// Settings of a [`RedbStore`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// How much history is kept.
    pub retention: Retention,
    /// Memory for pages of the file; default 16 MiB.
    pub cache_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { retention: Retention::default(), cache_bytes: 16 << 20 }
    }
}

/// The store on disk: `state.redb` in the data directory.
///
/// A commit is one transaction of the engine, on disk before it returns: a crash
/// or a power failure at any moment leaves the state of some commit, never a mix.
/// After a failure of the disk (full, pulled out) the engine refuses all work
/// until its file is opened again; the next call does that. Only while that too
/// fails it is open whether the batch that met the failure is stored.
#[derive(Debug)]
pub struct RedbStore {
    path: PathBuf,
    options: Options,
    slot: RwLock<Slot>,
    tails: Mutex<Tails>,
    /// The file itself, whatever has its name by now.
    opened: File,
    /// The last commit was refused by the disk.
    failing: AtomicBool,
    // Last, so that the directory is free only when the file is closed.
    lock: DirectoryLock,
}

/// The open database.
#[derive(Debug)]
struct Slot {
    /// None after a failure, until it could be opened again.
    database: Option<Database>,
    /// How often it was opened.
    opened: u64,
}

impl RedbStore {
    /// Opens the store in `directory`, or makes both (0711, the file 0600). The
    /// whole file is checked; after a crash it is repaired first.
    ///
    /// # Errors
    /// [`StoreError::InUse`], [`StoreError::NotWritable`], [`StoreError::Corrupt`],
    /// [`StoreError::NewerFormat`], [`StoreError::DiskFull`], or what the disk said.
    pub fn open(directory: &Path, options: Options) -> Result<Self, StoreError> {
        let lock = DirectoryLock::take(directory)?;
        let path = directory.join(FILE_NAME);
        // `restore` gives the file before a second name.
        refuse_foreign_file(&path, 2)?;
        if !path.exists() {
            create(directory, &path, &options)?;
        }
        copies::refuse_empty(&path)?;
        let mut database = open_database(&path, &options, Opening::First)?;
        if let Some(format) = copies::older_format(&database, &path)? {
            database.close().map_err(|error| Fail::from(error).at(&path))?;
            copies::keep_before_upgrade(&path, format)?;
            database = open_database(&path, &options, Opening::First)?;
        }
        let opened = File::open(&path).map_err(|source| StoreError::io(&path, source))?;
        prepare(&mut database, &path)?;
        Ok(Self {
            path,
            options,
            slot: RwLock::new(Slot { database: Some(database), opened: 1 }),
            tails: Mutex::default(),
            opened,
            failing: AtomicBool::new(false),
            lock,
        })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `work` on the open database. One that a failure of the disk has
    /// broken is closed, and opened again by the next call.
    fn with_database<T>(&self, work: impl Fn(&Database) -> Result<T, Fail>) -> Result<T, StoreError> {
        // Found broken, opened again, and then it works or it does not.
        for _ in 0..3 {
            let (opened, outcome) = {
                let slot = self.slot.read().unwrap_or_else(PoisonError::into_inner);
                (slot.opened, slot.database.as_ref().map(&work))
            };
            match outcome {
                None => self.open_again()?,
                Some(Ok(done)) => return Ok(done),
                Some(Err(fail)) if !fail.needs_reopen() => return Err(fail.at(&self.path)),
                Some(Err(fail)) => {
                    self.close(opened);
                    if !fail.is_aftermath() {
                        return Err(fail.at(&self.path));
                    }
                }
            }
        }
        let source = std::io::Error::other("the database breaks again each time it is opened");
        Err(StoreError::Io { path: self.path.clone(), source })
    }

    /// Closes the database unless someone else opened it again meanwhile.
    fn close(&self, opened: u64) {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.opened == opened {
            slot.database = None;
        }
    }

    fn open_again(&self) -> Result<(), StoreError> {
        let mut slot = self.slot.write().unwrap_or_else(PoisonError::into_inner);
        if slot.database.is_none() {
            // Never by its name: another file may have that by now, or none.
            let file = PathBuf::from(format!("/proc/self/fd/{}", self.opened.as_raw_fd()));
            let database = open_database(&file, &self.options, Opening::Again);
            slot.database = Some(database.map_err(|error| error.about(&file, &self.path))?);
            slot.opened += 1;
            tracing::debug!(path = %self.path.display(), "the store is open again after a failure of the disk");
        }
        Ok(())
    }

    fn read<T>(&self, work: impl Fn(&ReadTransaction) -> Result<T, Fail>) -> Result<T, StoreError> {
        self.with_database(|database| work(&database.begin_read()?))
    }

    /// One transaction for `batches`. A batch that is a conflict or breaks a rule changes nothing of it.
    fn commit_together(&self, batches: &[Batch]) -> Result<Vec<Result<Revision, StoreError>>, StoreError> {
        let outcome = self.try_commit_together(batches);
        // Every tick of every set tries again: what matters is when it begins and ends.
        let failed_before = self.failing.swap(outcome.is_err(), Ordering::Relaxed);
        match &outcome {
            Err(error) if !failed_before => {
                tracing::error!(path = %self.path.display(), %error, "the store cannot be written");
            }
            Ok(_) if failed_before => {
                tracing::info!(path = %self.path.display(), "the store can be written again");
            }
            _ => {}
        }
        outcome
    }

    fn try_commit_together(
        &self,
        batches: &[Batch],
    ) -> Result<Vec<Result<Revision, StoreError>>, StoreError> {
        let results = RefCell::new(Vec::new());
        let mut tails = self.tails.lock().unwrap_or_else(PoisonError::into_inner);
        let tails = RefCell::new(&mut *tails);
        let outcome = self.with_database(|database| {
            let mut results = results.borrow_mut();
            results.clear();
            // What is remembered of a commit that failed, or panicked, is not to be trusted.
            let mut working = std::mem::take(&mut **tails.borrow_mut());
            let transaction = database.begin_write()?;
            for batch in batches {
                results.push(match apply(&transaction, batch, &self.options.retention, &mut working) {
                    Err(Fail::Store(error)) => Err(error),
                    applied => Ok(applied?),
                });
            }
            if results.iter().any(Result::is_ok) {
                transaction.commit()?;
            }
            **tails.borrow_mut() = working;
            Ok(())
        });
        let results = results.into_inner();
        let Err(error) = outcome else { return Ok(results) };
        // The engine tidies up after a commit, and reports it as failed when the
        // disk fails then. What the file says is what counts.
        if results.len() == batches.len()
            && let Some(number) = results.iter().flatten().max()
            && self.read(read::last_commit).is_ok_and(|last| last >= number.0)
        {
            tracing::warn!(path = %self.path.display(), %error, "the disk failed after a commit that is stored");
            return Ok(results);
        }
        Err(error)
    }
}

impl StateStore for RedbStore {
    fn commit(&self, batch: &Batch) -> Result<Revision, StoreError> {
        self.commit_together(std::slice::from_ref(batch))?.remove(0)
    }

    fn commit_group(&self, batches: &[Batch]) -> Vec<Result<Revision, StoreError>> {
        match self.commit_together(batches) {
            Ok(results) => results,
            // The disk: a smaller batch may still find room.
            Err(_) if batches.len() > 1 => batches.iter().map(|batch| self.commit(batch)).collect(),
            Err(error) => vec![Err(error)],
        }
    }

    fn load(&self) -> Result<Vec<StoredSet>, StoreError> {
        self.read(read::load)
    }

    fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.read(read::images)
    }

    fn image(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        self.read(|transaction| read::image(transaction, name))
    }
}

impl History for RedbStore {
    fn record(&self, set: &str, tick: u64) -> Result<Option<TickRecord>, StoreError> {
        self.read(|transaction| read::record(transaction, set, tick))
    }

    fn records(&self, set: &str, query: &RecordQuery) -> Result<Vec<TickRecord>, StoreError> {
        self.read(|transaction| read::records(transaction, set, query))
    }

    fn last_record(&self, set: &str, direction: Option<Direction>) -> Result<Option<TickRecord>, StoreError> {
        self.read(|transaction| read::last_record(transaction, set, direction))
    }

    fn events(
        &self,
        set: Option<&str>,
        after_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        self.read(|transaction| read::events(transaction, set, after_seq, limit))
    }

    fn events_before(
        &self,
        set: Option<&str>,
        before_seq: u64,
        limit: usize,
    ) -> Result<Vec<(u64, Event)>, StoreError> {
        self.read(|transaction| read::events_before(transaction, set, before_seq, limit))
    }
}

impl Blobs for RedbStore {
    fn blob(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|transaction| read::blob(transaction, digest))
    }
}

impl Store for RedbStore {
    fn stats(&self) -> Result<Stats, StoreError> {
        let file = std::fs::metadata(&self.path).map_err(|source| StoreError::io(&self.path, source))?;
        let stats = self.read(read::stats)?;
        Ok(Stats { file_bytes: file.len(), disk_bytes: file.blocks() * 512, ..stats })
    }
}

/// Makes an empty store under another name first: a power failure in the middle
/// leaves no file that reads as a damaged one.
fn create(directory: &Path, path: &Path, options: &Options) -> Result<(), StoreError> {
    let unfinished = directory.join(FILE_NAME_UNFINISHED);
    match std::fs::remove_file(&unfinished) {
        Err(source) if source.kind() != ErrorKind::NotFound => {
            return Err(StoreError::io(&unfinished, source));
        }
        _ => {}
    }
    let database = open_database(&unfinished, options, Opening::New)?;
    prepare_tables(&database, &unfinished).map_err(|fail| fail.at(&unfinished))?;
    database.close().map_err(|error| Fail::from(error).at(&unfinished))?;
    std::fs::rename(&unfinished, path)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|source| StoreError::io(directory, source))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Opening {
    /// The file is made.
    New,
    /// The daemon starts: what is there may be anything.
    First,
    /// After a failure: this very file was open a moment ago.
    Again,
}

fn open_database(path: &Path, options: &Options, opening: Opening) -> Result<Database, StoreError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(opening == Opening::New)
        .mode(0o600)
        .open(path)
        .map_err(|source| StoreError::io(path, source))?;
    let open = || -> Result<Database, redb::DatabaseError> {
        redb::Builder::new()
            .set_cache_size(options.cache_bytes)
            // A plain open trusts a file that was closed properly, and may panic
            // on one that was damaged since.
            .set_check_integrity_on_open(opening == Opening::First)
            .create_with_backend(FileBackend::new(file)?)
    };
    open().map_err(|error| Fail::from(error).at(path))
}

/// Checks the format, and tidies up what is cheapest to tidy up now.
fn prepare(database: &mut Database, path: &Path) -> Result<(), StoreError> {
    let free_bytes = prepare_tables(database, path).map_err(|fail| fail.at(path))?;
    let file_bytes = path.metadata().map_err(|source| StoreError::io(path, source))?.len();
    if free_bytes >= COMPACT_FREE_BYTES_MIN && free_bytes > file_bytes / 2 {
        tracing::info!(path = %path.display(), file_bytes, free_bytes, "compacting the store");
        database.compact().map_err(|error| Fail::from(error).at(path))?;
    }
    Ok(())
}

/// The free bytes inside the file.
fn prepare_tables(database: &Database, path: &Path) -> Result<u64, Fail> {
    let transaction = database.begin_write()?;
    let is_new = transaction.list_tables()?.next().is_none();
    let found = {
        let mut meta = transaction.open_table(META)?;
        if is_new {
            meta.insert(META_FORMAT, u64::from(FORMAT))?;
        }
        meta.get(META_FORMAT)?.map(|format| format.value())
    };
    match found.map(u32::try_from) {
        Some(Ok(FORMAT)) => {}
        Some(Ok(found @ 1..FORMAT)) => {
            if found == 1 {
                upgrade::to_2(&transaction)?;
            }
            upgrade::to_3(&transaction)?;
            transaction.open_table(META)?.insert(META_FORMAT, u64::from(FORMAT))?;
            tracing::info!(path = %path.display(), found, to = FORMAT, "upgraded the store of an earlier version");
        }
        Some(Ok(found)) if found > FORMAT => {
            return Err(Fail::Store(StoreError::NewerFormat {
                path: path.to_path_buf(),
                found,
                supported: FORMAT,
            }));
        }
        _ => return Err(Fail::Value("it is not a Regatta store".to_owned())),
    }
    write::create_tables(&transaction)?;
    write::remove_unused_blobs(&transaction)?;
    let stats = transaction.stats()?;
    let used_bytes = stats.allocated_pages() * stats.page_size() as u64;
    transaction.commit()?;
    let file_bytes = path.metadata().map_or(0, |file| file.len());
    Ok(file_bytes.saturating_sub(used_bytes))
}
