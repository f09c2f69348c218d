//! Open-file-description locks, the kind that upstream takes on its API socket and its disk images: they belong to the
//! open file, so another process (or the daemon, with `F_OFD_GETLK`) sees them, and closing the file releases them.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use thiserror::Error;

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

/// Takes a lock without waiting. It lasts until `file` is closed.
#[expect(unsafe_code, reason = "rustix has no open-file-description locks")]
pub(crate) fn lock(file: &File, kind: LockKind, range: Range) -> Result<(), LockError> {
    let l_type = match kind {
        LockKind::Read => libc::F_RDLCK,
        LockKind::Write => libc::F_WRLCK,
    };
    let l_len = match range {
        Range::WholeFile => 0,
        Range::First(bytes) => i64::try_from(bytes).unwrap_or(0),
    };
    let request = libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the kernel only reads `request`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::EACCES) => Err(LockError::AlreadyLocked),
        _ => Err(LockError::Io(error)),
    }
}

/// Takes over a descriptor that was inherited and is named on the command line (`fd=<n>`).
#[expect(unsafe_code, reason = "a number on the command line is all there is of an inherited descriptor")]
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number names an open descriptor.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else in this process knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
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
