//! Who owns what in an instance's directory.

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags};

use crate::guarded::{Access, GuardedDir};
use crate::instance::{InstanceDir, LOGS};

/// The directory: the VMM may make files, but not touch those of others.
const SHARED_DIR: u32 = 0o1770;
const SHARED_FILE: u32 = 0o660;
const READ_ONLY_FILE: u32 = 0o440;

/// Lets the VMM with user and group id `gid` use the files in its directory. They stay ours. Blocking; may be repeated.
///
/// # Errors
/// The file system refused, or something that is not a plain file of ours has the name of one.
pub(crate) fn hand_over(dir: &InstanceDir, gid: u32) -> io::Result<()> {
    let opened = GuardedDir::open(dir.path())?;
    for entry in dir.path().read_dir()? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        if let Some(mode) = shared_dir_mode(&name) {
            give_dir(&dir.path().join(&*name), gid, mode)?;
        }
        // The log is written through a descriptor that the VMM gets; the notes are none of its business.
        if let Some(mode) = shared_mode(&name) {
            let file = opened.file(&name, Access::Read)?;
            rustix::fs::fchown(&file, None, Some(Gid::from_raw(gid)))?;
            file.set_permissions(Permissions::from_mode(mode))?;
        }
    }
    give_dir(dir.path(), gid, SHARED_DIR)
}

fn give_dir(path: &Path, gid: u32, mode: u32) -> io::Result<()> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::open(path, flags, Mode::empty())?;
    rustix::fs::fchown(&opened, None, Some(Gid::from_raw(gid)))?;
    File::from(opened).set_permissions(Permissions::from_mode(mode))
}

/// The mode of a directory in the directory: one that the VMM writes a snapshot into, one that it reads one from.
fn shared_dir_mode(name: &str) -> Option<u32> {
    match name {
        "snapshot" => Some(0o770),
        "restore" => Some(0o750),
        _ => None,
    }
}

/// The mode of a file that the VMM opens itself, by its name in the directory (see [`InstanceDir`]).
fn shared_mode(name: &str) -> Option<u32> {
    match name {
        "seed.img" => Some(READ_ONLY_FILE),
        "serial.log" | "events.json" => Some(SHARED_FILE),
        _ if name.starts_with("root.") || name.starts_with("data-") => Some(SHARED_FILE),
        _ => None,
    }
}

/// Makes the files that a VMM writes, empty, before it runs: so it cannot put anything else in their place, and Landlock rules for them
/// can be made.
///
/// # Errors
/// The file system refused.
pub(crate) fn make_logs(dir: &InstanceDir) -> io::Result<()> {
    let opened = GuardedDir::open(dir.path())?;
    for log in LOGS {
        match opened.create(log) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;
    use crate::instance::{CONTAINMENT, NETWORK};

    #[test]
    fn the_vmm_can_use_its_files_and_put_nothing_in_their_place() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: only root can give files to another group");
            return;
        }
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("dir");
        std::fs::write(dir.path().join("root.raw"), "disk").expect("write");
        std::fs::write(dir.seed(), "seed").expect("write");
        std::os::unix::fs::symlink("/etc/hostname", dir.path().join("link")).expect("link");
        let untouched = std::fs::metadata("/etc/hostname").map(|found| (found.mode(), found.gid())).ok();
        super::super::Containment::none("test").save(&dir).expect("saved");
        dir.write_note(NETWORK, b"{}").expect("write");
        std::fs::write(dir.data_disk("db"), "disk").expect("write");
        make_logs(&dir).expect("made");
        hand_over(&dir, 500_123).expect("handed over");
        hand_over(&dir, 500_123).expect("again");

        let seen = |path: &Path| {
            let found = path.symlink_metadata().expect("stat");
            (found.mode() & 0o7777, found.uid(), found.gid())
        };
        assert_eq!(seen(dir.path()), (0o1770, 0, 500_123));
        for shared in [dir.path().join("root.raw"), dir.data_disk("db"), dir.serial_log(), dir.events()] {
            assert_eq!(seen(&shared), (0o660, 0, 500_123), "{}", shared.display());
        }
        assert_eq!(seen(&dir.seed()), (0o440, 0, 500_123));
        let ctl = dir.path().join("ctl");
        assert_eq!(seen(&ctl), (0o700, 0, 0));
        for ours in [dir.vmm_log(), dir.note_path(CONTAINMENT), dir.note_path(NETWORK)] {
            let (mode, uid, gid) = seen(&ours);
            assert_eq!((mode & 0o022, uid, gid), (0, 0, 0), "{}", ours.display());
        }
        assert_eq!(
            std::fs::metadata("/etc/hostname").map(|found| (found.mode(), found.gid())).ok(),
            untouched
        );
    }
}
