//! Open-file-description locks, the kind that upstream takes on its API socket and its disk images: they belong to the
//! open file, so another process (or the daemon, with `F_OFD_GETLK`) sees them, and closing the file releases them.

use std::fs::File;
use std::io;

use thiserror::Error;

use super::sys;

/// Shared or exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LockKind {
    Read,
    Write,
}

/// What part of the file is locked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Range {
    WholeFile,
    /// From the start; bytes.
    First(u64),
}

/// No lock was taken.
#[derive(Debug, Error)]
pub(crate) enum LockError {
    #[error("The file is already locked")]
    AlreadyLocked,
    #[error("The lock state could not be checked or set")]
    Io(#[source] io::Error),
}

/// Takes a lock without waiting. It lasts until `file` is closed, in every process that has it open.
pub(crate) fn lock(file: &File, kind: LockKind, range: Range) -> Result<(), LockError> {
    let length = match range {
        Range::WholeFile => 0,
        Range::First(bytes) => i64::try_from(bytes).unwrap_or(0),
    };
    sys::set_lock(file, kind == LockKind::Write, length).map_err(|error| match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => LockError::AlreadyLocked,
        _ => LockError::Io(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_and_writers_exclude() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        std::fs::write(&path, [0; 4096]).unwrap();
        let open = || File::options().read(true).write(true).open(&path).unwrap();
        let (a, b, c) = (open(), open(), open());
        lock(&a, LockKind::Read, Range::First(4096)).unwrap();
        lock(&b, LockKind::Read, Range::First(4096)).unwrap();
        assert!(matches!(lock(&c, LockKind::Write, Range::First(4096)), Err(LockError::AlreadyLocked)));
        drop((a, b));
        lock(&c, LockKind::Write, Range::WholeFile).unwrap();
    }
}
