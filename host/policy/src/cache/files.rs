//! Files that are ours alone.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::OFlags;

const PREFIX: &str = ".writing-";
/// What was not finished in that time never will be.
const ABANDONED: Duration = Duration::from_secs(3_600);

static NEXT: AtomicU64 = AtomicU64::new(0);

/// An entry as the directory shows it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
    pub(super) used: SystemTime,
}

/// Makes a private directory, or looks at the one that is there.
///
/// # Errors
/// When it is not a directory, belongs to another user, or others may write to it.
pub(super) fn make_dir(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let found = fs::symlink_metadata(dir)?;
    if !found.is_dir() {
        return Err(foreign("it is not a directory"));
    }
    owned(&found, 0o022)
}

/// Opens and reads a file that is ours alone, at most `most` bytes.
///
/// # Errors
/// When it is not there, is not a file, or is larger.
#[expect(clippy::disallowed_methods, reason = "the door itself: what it opened is looked at")]
pub(super) fn read_own(path: &Path, most: u64) -> io::Result<(File, Vec<u8>)> {
    let flags = i32::try_from((OFlags::NOFOLLOW | OFlags::NONBLOCK).bits()).map_err(io::Error::other)?;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    // Of what was opened, not of what the name stands for a moment later.
    let found = file.metadata()?;
    if !found.is_file() {
        return Err(foreign("it is not a file"));
    }
    owned(&found, 0o077)?;
    if found.len() > most {
        return Err(foreign("it is too large"));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(found.len()).unwrap_or_default());
    file.by_ref().take(most).read_to_end(&mut bytes)?;
    Ok((file, bytes))
}

fn owned(found: &fs::Metadata, closed: u32) -> io::Result<()> {
    let us = rustix::process::geteuid().as_raw();
    if found.uid() != us {
        return Err(foreign(&format!("it belongs to user {}, not to {us}", found.uid())));
    }
    if found.mode() & closed != 0 {
        return Err(foreign(&format!("its mode {:o} lets others at it", found.mode() & 0o7777)));
    }
    Ok(())
}

fn foreign(why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, why)
}

/// The entries in `dir`; files that nobody finished are removed on the way.
pub(super) fn entries(dir: &Path, suffix: &str) -> io::Result<Vec<Found>> {
    let now = SystemTime::now();
    let mut entries = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        // Another process may have removed it just now.
        let Ok(found) = entry.metadata() else { continue };
        let Ok(used) = found.modified() else { continue };
        if name.starts_with(PREFIX) && now.duration_since(used).is_ok_and(|age| age > ABANDONED) {
            let _ = fs::remove_file(entry.path());
        }
        if name.ends_with(suffix) && found.is_file() {
            entries.push(Found { path: entry.path(), bytes: found.len(), used });
        }
    }
    Ok(entries)
}

/// A file under a name of its own until it is complete; dropped before, it is gone.
pub(super) struct Temporary(PathBuf);

impl Temporary {
    /// A name in `dir` that no other writer uses.
    pub(super) fn new(dir: &Path) -> io::Result<Self> {
        let (process, number) = (std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = dir.join(format!("{PREFIX}{process}-{number}"));
        // Left by an earlier process of that number.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(Self(path)),
        }
    }

    /// Makes it, for its owner only.
    #[expect(clippy::disallowed_methods, reason = "only a file that was not there before")]
    pub(super) fn file(&self) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.0)
    }

    /// Puts it in place of what is there.
    pub(super) fn rename(self, to: &Path) -> io::Result<()> {
        fs::rename(&self.0, to)
    }

    /// Puts it where nothing is yet.
    pub(super) fn link(&self, to: &Path) -> io::Result<()> {
        fs::hard_link(&self.0, to)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}
