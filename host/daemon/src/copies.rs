//! Copies of the state that the daemon makes by itself, in `copies/` of its data directory.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_core::copies::{CopyName, is_due, surplus};
use regatta_store::{Contents, CopyOf, RedbStore, StateStore, check_copy};

use regatta_util::chain;

/// Copies that are kept: half a day of them.
const KEPT: usize = 12;

/// A copy on disk.
#[derive(Debug, Clone)]
pub(crate) struct StateCopy {
    pub path: PathBuf,
    pub name: CopyName,
    pub bytes: u64,
}

/// The directory of copies.
#[derive(Debug, Clone)]
pub(crate) struct Copies {
    dir: PathBuf,
}

impl Copies {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Where they are.
    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }

    /// All copies, the newest first. Blocking.
    pub(crate) fn list(&self) -> Vec<StateCopy> {
        let Ok(entries) = fs::read_dir(&self.dir) else { return Vec::new() };
        let copy = |entry: fs::DirEntry| {
            let name = CopyName::parse(entry.file_name().to_str()?)?;
            Some(StateCopy { path: entry.path(), name, bytes: entry.metadata().ok()?.len() })
        };
        let mut copies: Vec<_> = entries.flatten().filter_map(copy).collect();
        copies.sort_unstable_by_key(|copy| std::cmp::Reverse(copy.name));
        copies
    }

    /// The newest copy that can be read, and what it holds. Blocking, for as long as it takes to check it.
    pub(crate) fn newest_good(&self) -> Option<(StateCopy, Contents)> {
        self.list().into_iter().find_map(|copy| match check_copy(&copy.path) {
            Ok(contents) => Some((copy, contents)),
            Err(why) => {
                tracing::warn!(why = chain(&why), "a copy of the state cannot be used");
                None
            }
        })
    }

    /// Makes a copy if the state has changed since the last one, and removes the oldest when `may_go`. Returns whether there
    /// is one of this state now: a state without sets is not worth one. Blocking.
    ///
    /// # Errors
    /// It cannot be made; the others are kept.
    pub(crate) fn make(&self, store: &Arc<RedbStore>, now_ms: u64, may_go: bool) -> Result<bool, String> {
        let before: Vec<CopyName> = self.list().iter().map(|copy| copy.name).collect();
        let commit = store.last_commit().map_err(|why| chain(&why))?;
        let has_sets = !store.load().map_err(|why| chain(&why))?.is_empty();
        if !is_due(&before, commit, has_sets) {
            return Ok(has_sets);
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|why| format!("cannot create {}: {why}", self.dir.display()))?;
        let name = CopyName { at_ms: now_ms, commit };
        let path = self.dir.join(name.file_name());
        store.copy_to(&path, CopyOf::WithoutRecords).map_err(|why| chain(&why))?;
        tracing::debug!(path = %path.display(), "the state was copied");
        let all: Vec<CopyName> = before.into_iter().chain([name]).collect();
        for old in surplus(&all, KEPT).into_iter().filter(|_| may_go) {
            let path = self.dir.join(old.file_name());
            if let Err(why) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %why, "an old copy of the state stays");
            }
        }
        Ok(true)
    }
}
