//! The one way to files in a directory that somebody else may write in: a VMM's own user can make symbolic links, pipes, devices' names
//! and files of any length there. Nothing found is followed, waited for, or believed before it was looked at when it was open.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{AtFlags, Mode, OFlags, ResolveFlags};

/// The name of a file that is not whole yet ends so.
const UNFINISHED: &str = ".new";

/// A pipe without a reader, or a file under a lease, is not waited for.
const AT_ONCE: OFlags = OFlags::NONBLOCK.union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// A directory that is held open. Names are those of its own entries.
#[derive(Debug)]
pub(crate) struct GuardedDir(OwnedFd);

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Append,
}

impl GuardedDir {
    /// Opens a directory. Those above it must be ours alone; it must be no link itself.
    ///
    /// # Errors
    /// It is not there, is no directory, or is a link.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(Self(rustix::fs::open(path, flags, Mode::empty())?))
    }

    /// Opens a directory in it that nobody but us may write in.
    ///
    /// # Errors
    /// It is not there, or somebody else owns it or may write in it.
    pub(crate) fn own_dir(&self, name: &str) -> io::Result<Self> {
        let found = Self(self.enter(name, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?);
        let stat = rustix::fs::fstat(&found.0)?;
        if stat.st_uid != us() || stat.st_mode & 0o022 != 0 {
            return Err(refused(name, "is a directory that others may write in"));
        }
        Ok(found)
    }

    /// Makes a directory that only we can use, unless something of this name is there.
    ///
    /// # Errors
    /// The file system refused.
    pub(crate) fn make_dir(&self, name: &str) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.0, name, Mode::RWXU) {
            Err(error) if error != rustix::io::Errno::EXIST => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Opens a plain file of ours.
    ///
    /// # Errors
    /// It is not there, or is anything else.
    pub(crate) fn file(&self, name: &str, access: Access) -> io::Result<File> {
        let file = self.any_file(name, access)?;
        if file.metadata()?.uid() != us() {
            return Err(refused(name, "belongs to another user"));
        }
        Ok(file)
    }

    /// Opens a plain file, whoever owns it.
    ///
    /// # Errors
    /// It is not there, or is anything else.
    pub(crate) fn any_file(&self, name: &str, access: Access) -> io::Result<File> {
        let flags = match access {
            Access::Read => OFlags::RDONLY,
            Access::Write => OFlags::WRONLY,
            Access::Append => OFlags::WRONLY | OFlags::APPEND,
        };
        let file = File::from(self.enter(name, flags | AT_ONCE, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(refused(name, "is not a plain file"));
        }
        Ok(file)
    }

    /// Makes a file that is not there yet, readable only by us.
    ///
    /// # Errors
    /// Something of this name is there, or the file system refused.
    pub(crate) fn create(&self, name: &str) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        Ok(File::from(self.enter(name, flags | AT_ONCE, Mode::RUSR | Mode::WUSR)?))
    }

    /// A plain file of ours that nobody else may write to and that has no other name; none when there is none of this name.
    ///
    /// # Errors
    /// It is anything else, longer than `limit_bytes`, or cannot be read.
    pub(crate) fn read_own(&self, name: &str, limit_bytes: u64) -> io::Result<Option<Vec<u8>>> {
        let file = match self.file(name, Access::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let found = file.metadata()?;
        if found.mode() & 0o022 != 0 || found.nlink() != 1 {
            return Err(refused(name, "could have been written by others"));
        }
        read_all(file, limit_bytes).map(Some)
    }

    /// Writes a file of ours: whole, in the place of what was there, or not at all.
    ///
    /// # Errors
    /// The file system refused.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let unfinished = format!("{name}{UNFINISHED}");
        self.remove(&unfinished)?;
        self.create(&unfinished)?.write_all(bytes)?;
        Ok(rustix::fs::renameat(&self.0, unfinished.as_str(), &self.0, name)?)
    }

    /// Removes a file, or a link as such. Nothing happens when it is not there.
    ///
    /// # Errors
    /// The file system refused.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Err(error) if error != rustix::io::Errno::NOENT => Err(error.into()),
            _ => Ok(()),
        }
    }

    /// Names the socket itself, for a look at it and a connection to it; no link to another.
    ///
    /// # Errors
    /// It is not there, or is anything else.
    pub(crate) fn socket(&self, name: &str) -> io::Result<OwnedFd> {
        let found = self.enter(name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let kind = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode);
        if kind != rustix::fs::FileType::Socket {
            return Err(refused(name, "is not a socket"));
        }
        Ok(found)
    }

    fn enter(&self, name: &str, flags: OFlags, mode: Mode) -> io::Result<OwnedFd> {
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
        match rustix::fs::openat2(&self.0, name, flags, mode, resolve) {
            Err(rustix::io::Errno::LOOP) => Err(refused(name, "is a symbolic link")),
            other => Ok(other?),
        }
    }
}

/// Reads a file to its end, which must come within `limit_bytes`.
///
/// # Errors
/// It is longer, or cannot be read.
pub(crate) fn read_all(file: File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::from(io::ErrorKind::FileTooLarge));
    }
    Ok(bytes)
}

/// The last `limit_bytes` of a file.
///
/// # Errors
/// It cannot be read.
pub(crate) fn read_tail(mut file: File, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(limit_bytes)))?;
    let mut tail = Vec::new();
    file.take(limit_bytes).read_to_end(&mut tail)?;
    Ok(tail)
}

fn us() -> u32 {
    rustix::process::geteuid().as_raw()
}

fn refused(name: &str, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} {why}: refused"))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn nothing_but_plain_files_of_ours_is_read() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (inner, outside) = (temp.path().join("d"), temp.path().join("secret"));
        fs::create_dir(&inner).expect("dir");
        fs::write(&outside, "secret").expect("written");
        let dir = GuardedDir::open(&inner).expect("open");
        assert_eq!(dir.read_own("none", 10).expect("nothing there"), None);
        dir.write("note", b"ours").expect("written");
        assert_eq!(dir.read_own("note", 10).expect("read").as_deref(), Some(&b"ours"[..]));
        assert_eq!(dir.read_own("note", 3).expect_err("longer").kind(), io::ErrorKind::FileTooLarge);

        symlink(&outside, inner.join("link")).expect("link");
        symlink("note", inner.join("near")).expect("link");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            inner.join("pipe"),
            rustix::fs::FileType::Fifo,
            Mode::RUSR | Mode::WUSR,
            0,
        )
        .expect("pipe");
        fs::create_dir(inner.join("sub")).expect("dir");
        fs::hard_link(&outside, inner.join("twice")).expect("link");
        for name in ["link", "near", "pipe", "sub", "twice", "../secret"] {
            dir.read_own(name, 10).expect_err(name);
        }
        for access in [Access::Read, Access::Write, Access::Append] {
            for name in ["link", "near", "pipe", "../secret"] {
                dir.any_file(name, access).expect_err(name);
            }
        }
        fs::set_permissions(inner.join("note"), Permissions::from_mode(0o620)).expect("mode");
        dir.read_own("note", 10).expect_err("its group could have written it");
        assert!(GuardedDir::open(&inner.join("link")).is_err() && dir.socket("link").is_err());
    }

    #[test]
    fn nothing_is_written_through_a_link_or_into_a_file_that_is_there() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (inner, outside) = (temp.path().join("d"), temp.path().join("victim"));
        fs::create_dir(&inner).expect("dir");
        fs::write(&outside, "untouched").expect("written");
        for name in ["note", "note.new"] {
            symlink(&outside, inner.join(name)).expect("link");
        }
        let dir = GuardedDir::open(&inner).expect("open");
        dir.create("note").expect_err("something is there");
        dir.write("note", b"ours").expect("the links are replaced");
        assert_eq!(fs::read_to_string(&outside).expect("read"), "untouched");
        assert_eq!(fs::read_to_string(inner.join("note")).expect("read"), "ours");
        dir.remove("note").and_then(|()| dir.remove("note")).expect("removed, and not there");
    }

    #[test]
    fn a_directory_that_others_may_write_in_is_not_ours() {
        let temp = tempfile::tempdir().expect("temp dir");
        let dir = GuardedDir::open(temp.path()).expect("open");
        dir.make_dir("ctl").and_then(|()| dir.make_dir("ctl")).expect("made, and there");
        dir.own_dir("ctl").expect("ours");
        fs::set_permissions(temp.path().join("ctl"), Permissions::from_mode(0o770)).expect("mode");
        dir.own_dir("ctl").expect_err("its group may write in it");
        symlink("ctl", temp.path().join("link")).expect("link");
        dir.own_dir("link").expect_err("a link");
    }
}
