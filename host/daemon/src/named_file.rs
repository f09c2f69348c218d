//! Files that others name: in policy directories, in manifests, in images. A name may lead to a pipe, a device, or a file without
//! end; nothing of that is waited for or read.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

/// Opens a plain file, and nothing else. Blocking.
///
/// # Errors
/// It is not there, or is not a plain file.
#[expect(clippy::disallowed_methods, reason = "the one door")]
pub(crate) fn open(path: &Path) -> io::Result<File> {
    let flags = i32::try_from((OFlags::NONBLOCK | OFlags::NOCTTY).bits()).map_err(io::Error::other)?;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a plain file")) }
}

/// Reads a plain file of at most `limit_bytes`. Blocking.
///
/// # Errors
/// It is not there, is not a plain file, or is larger, whatever its length was when it was opened.
pub(crate) fn read(path: &Path, limit_bytes: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open(path)?.take(limit_bytes.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(io::Error::other(format!("it is larger than {limit_bytes} bytes")));
    }
    Ok(bytes)
}

/// Where a path below `dir` leads, without the links on the way. A link may lead to another file below `dir`, not out of it. Blocking.
///
/// # Errors
/// It is not there, or leads out of the directory.
pub(crate) fn beneath(dir: &Path, path: &Path) -> io::Result<PathBuf> {
    let root =
        rustix::fs::openat(CWD, dir, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let found = rustix::fs::openat2(&root, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), resolve);
    let found = found.map_err(|errno| match errno {
        rustix::io::Errno::XDEV => io::Error::other("it leads out of the directory"),
        errno => errno.into(),
    })?;
    std::fs::read_link(format!("/proc/self/fd/{}", found.as_raw_fd()))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_no_plain_file_or_too_large_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("module"), b"12345").unwrap();
        symlink("module", path("link")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        rustix::fs::mknodat(CWD, path("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert_eq!(read(&path("link"), 5).unwrap(), b"12345");
        let refused = |name: &str, limit_bytes| read(&path(name), limit_bytes).unwrap_err().to_string();
        assert_eq!(refused("module", 4), "it is larger than 4 bytes");
        for name in ["zero", "pipe", "."] {
            assert_eq!(refused(name, 5), "it is not a plain file", "{name}");
        }
    }

    #[test]
    fn links_do_not_lead_out_of_a_directory() {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path().canonicalize().unwrap().join("image");
        fs::create_dir_all(dir.join("sub")).unwrap();
        fs::write(home.path().join("secret"), "root's").unwrap();
        fs::write(dir.join("kernel"), "k").unwrap();
        symlink("../kernel", dir.join("sub/kernel")).unwrap();
        symlink("../secret", dir.join("out")).unwrap();
        symlink("/etc/shadow", dir.join("absolute")).unwrap();
        assert_eq!(beneath(&dir, Path::new("sub/kernel")).unwrap(), dir.join("kernel"));
        for name in ["out", "absolute", "../secret"] {
            assert_eq!(
                beneath(&dir, Path::new(name)).unwrap_err().to_string(),
                "it leads out of the directory"
            );
        }
    }
}
