//! One daemon per data directory.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::error::StoreError;
use crate::trusted::{refuse_foreign_file, refuse_untrusted};

const FILE_NAME: &str = "daemon.lock";

/// Holds a data directory for this process until it is dropped or the process
/// ends, however it ends.
///
/// The lock belongs to the open file, not to the process: it is not inherited by
/// programs that the daemon starts, and closing the file elsewhere keeps it.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    file: File,
    directory: File,
}

impl DirectoryLock {
    /// Makes `directory` (0711: others may go through it, not look into it) if it is missing, and takes it.
    pub(crate) fn take(directory: &Path) -> Result<Self, StoreError> {
        // Before anything is made: not in a place of somebody else's.
        refuse_untrusted(directory)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(directory)
            .map_err(|source| StoreError::io(directory, source))?;
        refuse_untrusted(directory)?;
        let path = Self::path(directory);
        refuse_foreign_file(&path, 1)?;
        let at_path = |source| StoreError::io(&path, source);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(at_path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let pid = read_pid(&mut file);
                return Err(StoreError::InUse { path: directory.to_path_buf(), pid });
            }
            Err(TryLockError::Error(source)) => return Err(at_path(source)),
        }
        // The pid only serves the message above: a full disk is no reason to
        // refuse the start here.
        let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
        if let Err(error) = written {
            tracing::warn!(path = %path.display(), %error, "cannot write the pid into the lock file");
        }
        let directory = File::open(directory).map_err(|source| StoreError::io(directory, source))?;
        Ok(Self { file, directory })
    }

    /// The lock file of a directory.
    pub(crate) fn path(directory: &Path) -> PathBuf {
        directory.join(FILE_NAME)
    }

    /// The lock file that is held.
    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// The directory that is held.
    pub(crate) fn directory(&self) -> &File {
        &self.directory
    }
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    let read: io::Result<usize> = file.take(16).read_to_string(&mut text);
    read.ok()?;
    text.trim().parse().ok()
}
