//! Whether an unprivileged user could use a file: told from modes and owners before the VMM fails on it with a bare "permission denied".

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{Containment, Measure};

/// What is to be done with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Use {
    Read,
    Run,
    /// Going through a directory.
    Enter,
}

impl Use {
    fn bits(self) -> u32 {
        match self {
            Self::Read => 0o4,
            Self::Run => 0o5,
            Self::Enter => 0o1,
        }
    }
}

/// Whether a user with only the group `uid` could use `path`, as far as it exists.
///
/// # Errors
/// In words, which part is in the way and what to do.
pub(crate) fn check(path: &Path, uid: u32, wanted: Use) -> Result<(), String> {
    // What is not there is someone else's error to report; its existing parents still matter.
    let mut existing = path;
    let real = loop {
        match existing.canonicalize() {
            Ok(real) => break real,
            Err(_) => match existing.parent() {
                Some(parent) => existing = parent,
                None => return Ok(()),
            },
        }
    };
    let wanted = if existing == path { wanted } else { Use::Enter };
    let ancestors: Vec<&Path> = real.ancestors().skip(1).collect();
    for dir in ancestors.into_iter().rev() {
        part(dir, uid, Use::Enter)?;
    }
    part(&real, uid, wanted)
}

fn part(path: &Path, uid: u32, wanted: Use) -> Result<(), String> {
    let metadata =
        path.metadata().map_err(|error| format!("{} cannot be looked at: {error}", path.display()))?;
    if allows(&metadata, uid, wanted.bits()) {
        return Ok(());
    }
    let path = path.display();
    Err(match wanted {
        Use::Enter => format!("{path} cannot be entered by other users: chmod o+x {path}"),
        Use::Read => format!("{path} cannot be read by other users: chmod o+r {path}"),
        Use::Run => format!("{path} cannot be run by other users: chmod o+rx {path}"),
    })
}

fn allows(metadata: &Metadata, uid: u32, bits: u32) -> bool {
    let shift = match (metadata.uid() == uid, metadata.gid() == uid) {
        (true, _) => 6,
        (false, true) => 3,
        (false, false) => 0,
    };
    metadata.mode() >> shift & bits == bits
}

/// How an unprivileged user can use a device file for reading and writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// Everyone may, or there is no such device.
    Open,
    /// Members of this group may.
    Group(u32),
}

/// Whether and how an unprivileged user could use the device `path`.
///
/// # Errors
/// In words, why not.
pub(crate) fn device(path: &Path) -> Result<Door, String> {
    match path.metadata() {
        Ok(metadata) => door(path, metadata.mode(), metadata.gid()),
        Err(_) => Ok(Door::Open),
    }
}

fn door(path: &Path, mode: u32, gid: u32) -> Result<Door, String> {
    let path = path.display();
    match (mode & 0o006 == 0o006, mode & 0o060 == 0o060, gid) {
        (true, _, _) => Ok(Door::Open),
        // Everything that the group root may write would be open to the VMM.
        (false, true, 1..) => Ok(Door::Group(gid)),
        (false, true, 0) | (false, false, _) => {
            Err(format!("{path} (mode {:03o}, group {gid}) can be used by root only", mode & 0o777))
        }
    }
}

/// Whether a VMM that is contained like this may fault in its guest's memory from a file.
pub(crate) fn userfaultfd(containment: &Containment) -> bool {
    let everybody = std::fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd")
        .is_ok_and(|number| number.trim() == "1");
    let path = Path::new("/dev/userfaultfd");
    let root = rustix::process::geteuid().is_root();
    everybody
        || match containment.uid {
            Some(_) => path.exists() && device(path) == Ok(Door::Open),
            // Its owner may open the device without any privilege; the system call takes one.
            None => root && (path.exists() || !containment.has(Measure::NoPrivileges)),
        }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_part_that_is_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("temp dir");
        let inner = dir.path().join("inner");
        fs::create_dir(&inner).expect("dir");
        let file = inner.join("kernel");
        fs::write(&file, "x").expect("write");
        let mode = |path: &Path, mode| fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
        let nobody = 4_000_000_000;
        mode(dir.path(), 0o711);
        mode(&inner, 0o711);
        mode(&file, 0o444);
        check(&file, nobody, Use::Read).expect("readable");
        check(&inner.join("not/yet/there"), nobody, Use::Read).expect("its parents can be entered");
        assert!(check(&file, nobody, Use::Run).expect_err("not executable").contains("chmod o+rx"));
        mode(&file, 0o440);
        let why = check(&file, nobody, Use::Read).expect_err("not readable");
        assert!(why.contains(&format!("chmod o+r {}", file.display())), "{why}");
        mode(dir.path(), 0o700);
        let why = check(&file, nobody, Use::Read).expect_err("the first obstacle counts");
        assert!(why.ends_with(&format!("chmod o+x {}", dir.path().display())), "{why}");
    }

    #[test]
    fn devices_are_open_to_all_to_a_group_or_to_root_only() {
        let kvm = Path::new("/dev/kvm");
        assert_eq!(door(kvm, 0o666, 0), Ok(Door::Open));
        assert_eq!(door(kvm, 0o660, 104), Ok(Door::Group(104)));
        for (mode, gid) in [(0o600, 104), (0o660, 0), (0o640, 104)] {
            let why = door(kvm, mode, gid).expect_err("root only");
            assert!(why.contains("/dev/kvm") && why.contains("root only"), "{why}");
        }
        assert_eq!(device(Path::new("/dev/none")), Ok(Door::Open));
    }
}
