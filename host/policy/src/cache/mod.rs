//! Compiled modules on disk, so that a daemon that starts again compiles nothing.
//!
//! Machine code from a file runs with all the rights of the daemon. So nothing is used but what this very user wrote:
//! each entry carries a MAC under a secret that lies beside it, readable to its owner alone; what is corrupt, cut off,
//! planted, of another owner or open to others is thrown away and compiled anew. A cache that cannot be used costs
//! time, never more: none of its failures is a failure of a load.

mod entry;
mod files;
mod key;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use self::entry::Secret;
pub(crate) use self::key::Key;

/// No entry is larger than what may be compiled, and some.
const MAX_ENTRY_BYTES: u64 = 1 << 30;
const SUFFIX: &str = ".code";

/// A directory of compiled modules.
pub(crate) struct Cache {
    dir: PathBuf,
    secret: Secret,
    /// Bytes of all entries.
    limit: u64,
    /// Whether it was said that nothing can be written.
    told: AtomicBool,
}

impl Cache {
    /// Opens the cache in `dir`, and makes it where there is none.
    ///
    /// # Errors
    /// When the directory cannot be made, or is not ours alone to write to.
    pub(crate) fn open(dir: &Path, limit: u64) -> io::Result<Self> {
        files::make_dir(dir)?;
        let secret = entry::secret(dir)?;
        Ok(Self { dir: dir.to_owned(), secret, limit, told: AtomicBool::new(false) })
    }

    /// What was stored under `key`. What is there and cannot be trusted is taken away.
    pub(crate) fn get(&self, key: &Key) -> Option<Vec<u8>> {
        let path = self.path(key);
        let opened = files::read_own(&path, MAX_ENTRY_BYTES);
        match opened.and_then(|(file, sealed)| Ok((file, self.secret.open(key, sealed)?))) {
            Ok((file, content)) => {
                // The order in which entries go; where it cannot be kept, another goes first.
                let _ = file.set_modified(SystemTime::now());
                Some(content)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                self.reject(key, &error.to_string());
                None
            }
        }
    }

    /// Takes away an entry that is not what it should be.
    pub(crate) fn reject(&self, key: &Key, why: &str) {
        let path = self.path(key);
        tracing::warn!(path = %path.display(), why, "a compiled policy on disk is not trusted: it is compiled anew");
        // A directory, or a file of somebody else, stays where it is; it is never used.
        let _ = fs::remove_file(&path);
    }

    /// Stores `content`, and takes away what was used least recently when there is too much.
    pub(crate) fn put(&self, key: &Key, content: &[u8]) {
        if let Err(error) = self.write(key, content).and_then(|()| self.prune(key)) {
            // Once: a full disk is told of by others too.
            if !self.told.swap(true, Ordering::Relaxed) {
                let dir = self.dir.display();
                tracing::warn!(%dir, %error, "compiled policies cannot be kept on disk: each start compiles them anew");
            }
        }
    }

    fn write(&self, key: &Key, content: &[u8]) -> io::Result<()> {
        let temporary = files::Temporary::new(&self.dir)?;
        let mut file = temporary.file()?;
        file.write_all(&self.secret.seal(key, content)?)?;
        file.write_all(content)?;
        file.sync_all()?;
        temporary.rename(&self.path(key))
    }

    /// Removes the oldest entries, never the one of `kept`, until all fit.
    fn prune(&self, kept: &Key) -> io::Result<()> {
        let kept = self.path(kept);
        let mut entries = files::entries(&self.dir, SUFFIX)?;
        entries.sort_by_key(|entry| entry.used);
        let mut bytes: u64 = entries.iter().map(|entry| entry.bytes).sum();
        for entry in entries.iter().filter(|entry| entry.path != kept) {
            if bytes <= self.limit {
                break;
            }
            fs::remove_file(&entry.path)?;
            bytes = bytes.saturating_sub(entry.bytes);
        }
        Ok(())
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.dir.join(format!("{key}{SUFFIX}"))
    }
}
