//! Removing a directory in which somebody else could make what they like: nests deeper than this process has descriptors or stack for, and
//! links to elsewhere.

use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;

/// Removes a directory and all in it. No link is followed, and however deep it is, two directories are open at a time: what lies within an
/// inner directory is moved up before that goes. Nothing happens when it is not there. Blocking.
///
/// # Errors
/// The file system refused; some of it may be gone then.
pub(super) fn remove_tree(path: &Path) -> io::Result<()> {
    let top = match open(CWD, path.as_os_str()) {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let mut moved = 0_u64;
    loop {
        let inner = directories(&top)?;
        if inner.is_empty() {
            break;
        }
        for name in inner {
            let dir = open(&top, OsStr::from_bytes(name.as_bytes()))?;
            for below in directories(&dir)? {
                move_up(&dir, &below, &top, &mut moved)?;
            }
            rustix::fs::unlinkat(&top, name.as_c_str(), AtFlags::REMOVEDIR)?;
        }
    }
    Ok(rustix::fs::rmdir(path)?)
}

fn open(at: impl AsFd, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(at, name, flags, Mode::empty())
}

/// Removes everything in a directory that is not a directory itself; the names of those that are.
fn directories(dir: &OwnedFd) -> io::Result<Vec<CString>> {
    let mut directories = Vec::new();
    let mut others = Vec::new();
    for entry in Dir::read_from(dir)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let kind = match entry.file_type() {
            FileType::Unknown => {
                let found = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
                FileType::from_raw_mode(found.st_mode)
            }
            known => known,
        };
        if kind == FileType::Directory { &mut directories } else { &mut others }.push(name.to_owned());
    }
    for name in others {
        match rustix::fs::unlinkat(dir, name.as_c_str(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(directories)
}

/// Gives a directory a name in `top` that nothing there has.
fn move_up(from: &OwnedFd, name: &CString, top: &OwnedFd, moved: &mut u64) -> io::Result<()> {
    loop {
        *moved += 1;
        let new = format!(".nest-{moved}");
        match rustix::fs::renameat_with(from, name.as_c_str(), top, new.as_str(), RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            other => return Ok(other?),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A nest in `dir`, made as nobody could by its path.
    fn nest(dir: &Path, depth: u32) {
        let mut at = open(CWD, dir.as_os_str()).expect("open");
        for _ in 0..depth {
            rustix::fs::mkdirat(&at, "d", Mode::RWXU).expect("a directory");
            at = open(&at, OsStr::new("d")).expect("open");
            rustix::fs::symlinkat("/etc/hostname", &at, "link").expect("a link");
        }
    }

    #[test]
    fn nests_of_any_depth_go_and_what_links_lead_to_stays() {
        let temp = tempfile::tempdir().expect("temp dir");
        let (dir, precious) = (temp.path().join("d"), temp.path().join("precious"));
        fs::create_dir(&precious).and_then(|()| fs::write(precious.join("kept"), "kept")).expect("made");
        remove_tree(&dir).expect("it is not there");
        for _ in 0..2 {
            fs::create_dir(&dir).expect("dir");
            // Deeper than a path can name; end to end, deeper than a daemon has descriptors for.
            nest(&dir, 3_000);
            fs::create_dir_all(dir.join("a/b/c")).expect("dirs");
            fs::create_dir(dir.join(".nest-1")).expect("dir");
            symlink(&precious, dir.join("a/b/link")).expect("link");
            symlink(&precious, dir.join("link")).expect("link");
            fs::write(dir.join("a/file"), "x").expect("written");
            remove_tree(&dir).expect("removed");
            assert!(!dir.exists());
        }
        assert_eq!(fs::read_to_string(precious.join("kept")).expect("read"), "kept");
        symlink(&precious, &dir).expect("link");
        remove_tree(&dir).expect_err("a link is not a directory");
        assert!(precious.join("kept").exists());
    }
}
