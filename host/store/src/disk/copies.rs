//! Copies of the store: made while it is in use, checked, and put in the place of the file. And whether the file that is open
//! is still the one that has its name.

use std::fs::{self, File, Metadata};
use std::io::ErrorKind;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use redb::{Key, ReadTransaction, TableDefinition, TableError, Value, WriteTransaction};

use super::tables::{
    BLOBS, EVENTS, FORMAT, Fail, IMAGES, INSTANCES, LOGS, META, META_FORMAT, MOVES, REVISIONS, SEGMENTS, SETS,
};
use super::{FILE_NAME, Opening, Options, RedbStore, open_database, prepare, read};
use crate::error::StoreError;
use crate::lock::DirectoryLock;

/// How much of the store a copy holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CopyOf {
    /// All of it.
    Everything,
    /// All but the records of ticks, which are most of its size and which no set needs to go on.
    WithoutRecords,
}

/// What a copy was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contents {
    /// Names of its sets.
    pub sets: Vec<String>,
    /// Instances of all sets.
    pub instances: usize,
}

/// A store that took the place of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// What it holds.
    pub contents: Contents,
    /// Where the file that was there before is kept.
    pub replaced: Option<PathBuf>,
}

/// Whether the open file is the one that the next daemon will find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    /// It is.
    AsOpened,
    /// The data directory was moved, removed or replaced.
    DirectoryLost,
    /// The lock file was removed or replaced: another daemon could start here.
    LockLost,
    /// The file was removed, or moved away.
    FileLost,
    /// Another file has its name.
    FileReplaced,
}

impl RedbStore {
    /// Writes a copy to `to`, which must not exist: all of one committed state, or no file. Commits do not wait for it.
    /// Returns its size in bytes.
    ///
    /// # Errors
    /// There is a file of that name, it cannot be written, or the store cannot be read.
    pub fn copy_to(&self, to: &Path, what: CopyOf) -> Result<u64, StoreError> {
        if to.exists() {
            return Err(StoreError::io(to, std::io::Error::from(ErrorKind::AlreadyExists)));
        }
        let unfinished = beside(to, "new");
        remove_if_there(&unfinished)?;
        let copied = self.write_copy(&unfinished, what).and_then(|()| put(&unfinished, to));
        if copied.is_err() {
            // It is of no use, and its name may be wanted again.
            _ = fs::remove_file(&unfinished);
        }
        copied?;
        Ok(fs::metadata(to).map_err(|source| StoreError::io(to, source))?.len())
    }

    fn write_copy(&self, to: &Path, what: CopyOf) -> Result<(), StoreError> {
        // A failure of the copy is none of the store: it is read outside of what would open that again.
        let from = self.with_database(|database| Ok(redb::ReadableDatabase::begin_read(database)?))?;
        let copy = open_database(to, &self.options, Opening::New)?;
        let write = || {
            let transaction = copy.begin_write()?;
            copy_tables(&from, &transaction, what)?;
            Ok::<_, Fail>(transaction.commit()?)
        };
        write().map_err(|fail| fail.at(to))?;
        copy.close().map_err(|error| Fail::from(error).at(to))
    }

    /// Number of the last commit.
    ///
    /// # Errors
    /// As every read.
    pub fn last_commit(&self) -> Result<u64, StoreError> {
        self.read(read::last_commit)
    }

    /// Looks whether the open file is still the one of its name. Blocking, and quick.
    #[must_use]
    pub fn named(&self) -> Named {
        let is = |path: &Path, opened: &File| match (path.metadata(), opened.metadata()) {
            (Ok(named), Ok(opened)) => Some(same(&named, &opened)),
            _ => None,
        };
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        // A data directory may be named through a link.
        let found = directory.metadata().ok().zip(self.lock.directory().metadata().ok());
        if !found.is_some_and(|(named, opened)| same(&named, &opened)) {
            return Named::DirectoryLost;
        }
        match is(&self.path, &self.opened) {
            None => Named::FileLost,
            Some(false) => Named::FileReplaced,
            Some(true) if is(&DirectoryLock::path(directory), self.lock.file()) == Some(true) => {
                Named::AsOpened
            }
            Some(true) => Named::LockLost,
        }
    }

    /// Puts the store back to where the next daemon looks for it, if it is not there. A file that took its name is kept
    /// beside it. Returns what was done, for people; call it when nothing commits any more.
    ///
    /// # Errors
    /// It cannot be written. What is open is all that there is then.
    pub fn save_back(&self, now_ms: u64) -> Result<Option<String>, StoreError> {
        let path = self.path.display();
        match self.named() {
            Named::AsOpened | Named::LockLost => Ok(None),
            Named::DirectoryLost => Ok(Some(format!(
                "the data directory of {path} is not the one that this daemon works in: the state stays in that one"
            ))),
            Named::FileLost => {
                self.copy_to(&self.path, CopyOf::Everything)?;
                Ok(Some(format!("{path} was gone: the state was written there again")))
            }
            Named::FileReplaced => {
                let kept = beside(&self.path, &format!("replaced-{now_ms}"));
                fs::rename(&self.path, &kept).map_err(|source| StoreError::io(&kept, source))?;
                self.copy_to(&self.path, CopyOf::Everything)?;
                Ok(Some(format!(
                    "another file had the name {path}: it is kept as {}, and the state was written there again",
                    kept.display()
                )))
            }
        }
    }
}

/// Checks a copy and says what it holds. The file must not be in use.
///
/// # Errors
/// What is wrong with it.
pub fn check_copy(file: &Path) -> Result<Contents, StoreError> {
    let options = Options::default();
    // An empty file would become a new store.
    refuse_empty(file)?;
    let mut database = open_database(file, &options, Opening::First)?;
    prepare(&mut database, file)?;
    contents(&database, file)
}

/// Puts a copy of `file` in the place of the store in `directory`. Everything is checked first; the file that was there is
/// kept beside it.
///
/// # Errors
/// [`StoreError::InUse`] while a daemon runs on the directory; whatever is wrong with the file; nothing has changed then.
pub fn restore(directory: &Path, file: &Path, now_ms: u64) -> Result<Restored, StoreError> {
    let _lock = DirectoryLock::take(directory)?;
    let path = directory.join(FILE_NAME);
    let unfinished = beside(&path, "restore");
    remove_if_there(&unfinished)?;
    let checked = copy_file(file, &unfinished).and_then(|()| {
        // Its name is what people know; what is checked is what will be used.
        check_copy(&unfinished).map_err(|error| error.about(&unfinished, file))
    });
    let contents = match checked {
        Ok(contents) => contents,
        Err(error) => {
            _ = fs::remove_file(&unfinished);
            return Err(error);
        }
    };
    let kept = beside(&path, &format!("replaced-{now_ms}"));
    // A second name for the old file: at no moment is there none.
    let replaced = match fs::hard_link(&path, &kept) {
        Ok(()) => Some(kept),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(source) => return Err(StoreError::io(kept, source)),
    };
    put(&unfinished, &path)?;
    Ok(Restored { contents, replaced })
}

/// The format of a store that an earlier version wrote.
pub(super) fn older_format(database: &redb::Database, path: &Path) -> Result<Option<u64>, StoreError> {
    let transaction =
        redb::ReadableDatabase::begin_read(database).map_err(|error| Fail::from(error).at(path))?;
    let found = match transaction.open_table(META) {
        Ok(meta) => meta.get(META_FORMAT).map_err(|error| Fail::from(error).at(path))?,
        Err(TableError::TableDoesNotExist(_)) => None,
        Err(error) => return Err(Fail::from(error).at(path)),
    };
    Ok(found.map(|format| format.value()).filter(|format| (1..u64::from(FORMAT)).contains(format)))
}

/// Keeps a closed file as an earlier version left it, beside it, before the first write of an upgrade.
pub(super) fn keep_before_upgrade(path: &Path, format: u64) -> Result<(), StoreError> {
    let kept = beside(path, &format!("format-{format}"));
    let unfinished = beside(&kept, "new");
    remove_if_there(&unfinished)?;
    copy_file(path, &unfinished)?;
    put(&unfinished, &kept)?;
    tracing::info!(kept = %kept.display(), "the state of an earlier version is kept, in case you go back to it");
    Ok(())
}

/// A file of no length is what is left of a store, never one.
pub(super) fn refuse_empty(path: &Path) -> Result<(), StoreError> {
    match fs::metadata(path) {
        Ok(found) if found.len() == 0 => {
            Err(StoreError::Corrupt { path: path.to_path_buf(), what: "it is empty".to_owned() })
        }
        Ok(_) => Ok(()),
        Err(source) => Err(StoreError::io(path, source)),
    }
}

fn contents(database: &redb::Database, path: &Path) -> Result<Contents, StoreError> {
    let at = |fail: Fail| fail.at(path);
    let transaction = redb::ReadableDatabase::begin_read(database).map_err(|error| at(error.into()))?;
    let sets = read::load(&transaction).map_err(at)?;
    read::images(&transaction).map_err(at)?;
    Ok(Contents {
        instances: sets.iter().map(|stored| stored.instances.len()).sum(),
        sets: sets.into_iter().map(|stored| stored.state.set.name).collect(),
    })
}

fn copy_tables(from: &ReadTransaction, to: &WriteTransaction, what: CopyOf) -> Result<(), Fail> {
    copy_table(from, to, META)?;
    copy_table(from, to, SETS)?;
    copy_table(from, to, REVISIONS)?;
    copy_table(from, to, INSTANCES)?;
    copy_table(from, to, EVENTS)?;
    copy_table(from, to, BLOBS)?;
    copy_table(from, to, IMAGES)?;
    if what == CopyOf::Everything {
        copy_table(from, to, LOGS)?;
        copy_table(from, to, SEGMENTS)?;
        copy_table(from, to, MOVES)?;
    }
    Ok(())
}

fn copy_table<K: Key + 'static, V: Value + 'static>(
    from: &ReadTransaction,
    to: &WriteTransaction,
    table: TableDefinition<'_, K, V>,
) -> Result<(), Fail> {
    use redb::ReadableTable;
    let source = from.open_table(table)?;
    let mut target = to.open_table(table)?;
    for row in source.iter()? {
        let (key, value) = row?;
        target.insert(key.value(), value.value())?;
    }
    Ok(())
}

fn same(a: &Metadata, b: &Metadata) -> bool {
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

/// `state.redb` and `new` make `state.redb.new`.
fn beside(path: &Path, more: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".");
    name.push(more);
    name.into()
}

fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != ErrorKind::NotFound => Err(StoreError::io(path, source)),
        _ => Ok(()),
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<(), StoreError> {
    let copied = fs::copy(from, to);
    copied.map_err(|source| StoreError::io(from, source))?;
    let closed = fs::set_permissions(to, fs::Permissions::from_mode(0o600));
    closed.and_then(|()| File::open(to)?.sync_all()).map_err(|source| StoreError::io(to, source))
}

/// Gives a finished file its name, for good.
fn put(unfinished: &Path, path: &Path) -> Result<(), StoreError> {
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::rename(unfinished, path)
        .and_then(|()| File::open(directory)?.sync_all())
        .map_err(|source| StoreError::io(path, source))
}
