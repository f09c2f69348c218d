//! Whether a directory is safe from everybody else: what the daemon keeps in it decides what root does.

use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::error::StoreError;

/// Links that are followed, as the kernel does.
const LINKS_MAX: usize = 40;
const ROOT: u32 = 0;
const GROUP_MAY_WRITE: u32 = 0o020;
const OTHERS_MAY_WRITE: u32 = 0o002;
const STICKY: u32 = 0o1000;

/// Refuses a directory unless it belongs to this process's user, nobody else may write in it, and nobody but root and this user
/// can put another one in the place of it or of a directory above it. What is not there yet is not looked at.
///
/// # Errors
/// [`StoreError::Untrusted`] names the directory and what to do; else what the file system said.
pub fn refuse_untrusted(directory: &Path) -> Result<(), StoreError> {
    let at = |source| StoreError::io(directory, source);
    let absolute = std::path::absolute(directory).map_err(at)?;
    let us = rustix::process::geteuid().as_raw();
    let untrusted = |path: &Path, why: String| StoreError::Untrusted {
        directory: directory.to_owned(),
        path: path.to_owned(),
        why,
    };
    let mut reached = PathBuf::from("/");
    let mut ahead = names_of(&absolute);
    let mut links = 0;
    while let Some(name) = ahead.pop() {
        if name == Path::new("..") {
            reached.pop();
            continue;
        }
        let next = reached.join(name);
        let found = match next.symlink_metadata() {
            Ok(found) => found,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(at(error)),
        };
        if found.is_symlink() {
            links += 1;
            if links > LINKS_MAX {
                return Err(at(io::Error::other("too many symbolic links")));
            }
            if let Some(why) = foreign(&found, us) {
                return Err(untrusted(&next, why));
            }
            let target = next.read_link().map_err(at)?;
            if target.is_absolute() {
                reached = PathBuf::from("/");
            }
            ahead.extend(names_of(&target));
            continue;
        }
        let why = if ahead.is_empty() { not_ours_alone(&found, us) } else { swappable(&found, us) };
        if let Some(why) = why {
            return Err(untrusted(&next, why));
        }
        reached = next;
    }
    Ok(())
}

/// Last name first.
fn names_of(path: &Path) -> Vec<PathBuf> {
    let names = path.components().filter(|it| matches!(it, Component::Normal(_) | Component::ParentDir));
    names.rev().map(|it| PathBuf::from(it.as_os_str())).collect()
}

fn foreign(found: &Metadata, us: u32) -> Option<String> {
    let owner = found.uid();
    (owner != ROOT && owner != us)
        .then(|| format!("belongs to user {owner}: have it belong to root or to user {us} (`chown`)"))
}

/// Why somebody else could put another entry in the place of one of this directory.
fn swappable(found: &Metadata, us: u32) -> Option<String> {
    foreign(found, us).or_else(|| others_write(found).filter(|_| found.mode() & STICKY == 0))
}

fn not_ours_alone(found: &Metadata, us: u32) -> Option<String> {
    let owner = found.uid();
    if owner != us {
        return Some(format!("belongs to user {owner}, but this is user {us}: `chown` it"));
    }
    others_write(found)
}

fn others_write(found: &Metadata) -> Option<String> {
    let mode = found.mode();
    // A user's own group has the user's number.
    let of_owner = found.gid() == found.uid() || found.gid() == ROOT;
    let writable = mode & OTHERS_MAY_WRITE != 0 || mode & GROUP_MAY_WRITE != 0 && !of_owner;
    writable.then(|| format!("may be written by others (mode {:o}): `chmod go-w` it", mode & 0o7777))
}

/// Refuses what is not a plain file of this process's user, with at most `links_max` names. The directory must be trusted.
pub(crate) fn refuse_foreign_file(path: &Path, links_max: u64) -> Result<(), StoreError> {
    let found = match path.symlink_metadata() {
        Ok(found) => found,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(StoreError::io(path, error)),
    };
    if found.is_file() && found.nlink() <= links_max && found.uid() == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    Err(StoreError::Untrusted {
        directory: path.parent().unwrap_or(path).to_owned(),
        path: path.to_owned(),
        why: "is not a plain file of the daemon's user: move it away".to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, create_dir, set_permissions};
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;

    fn dir(path: &Path, mode: u32) -> PathBuf {
        create_dir(path).unwrap();
        set_permissions(path, Permissions::from_mode(mode)).unwrap();
        path.to_owned()
    }

    fn refused(path: &Path) -> String {
        refuse_untrusted(path).unwrap_err().to_string()
    }

    #[test]
    fn what_others_may_write_or_swap_is_refused() {
        let home = tempfile::tempdir().unwrap();
        let ours = dir(&home.path().join("ours"), 0o711);
        refuse_untrusted(&ours).unwrap();
        refuse_untrusted(&ours.join("not/there/yet")).unwrap();
        let open = dir(&home.path().join("open"), 0o777);
        assert!(refused(&open).contains("may be written by others (mode 777)"));
        let within = dir(&open.join("d"), 0o700);
        assert!(refused(&within).contains(&format!("{} may be written", open.display())));
        set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
        refuse_untrusted(&within).unwrap();
        assert!(refused(&open).contains("mode 1777"), "the directory itself is nobody's but ours");
        // However one gets there.
        set_permissions(&open, Permissions::from_mode(0o777)).unwrap();
        symlink(&within, ours.join("link")).unwrap();
        assert!(refused(&ours.join("link")).contains("may be written by others"));
        symlink("../open/../ours", ours.join("round")).unwrap();
        assert!(refused(&ours.join("round")).contains("may be written by others"), "through `open`");
        symlink("loop", ours.join("loop")).unwrap();
        assert!(refuse_untrusted(&ours.join("loop")).is_err());
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let home = tempfile::tempdir().unwrap();
        let theirs = dir(&home.path().join("theirs"), 0o755);
        let below = dir(&theirs.join("below"), 0o700);
        chown(&theirs, Some(65_534), None).unwrap();
        assert!(refused(&theirs).contains("belongs to user 65534"));
        assert!(refused(&below).contains("theirs belongs to user 65534"));
    }

    #[test]
    fn only_plain_files_of_ours_are_taken() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("file");
        refuse_foreign_file(&file, 1).unwrap();
        std::fs::write(&file, "ours").unwrap();
        refuse_foreign_file(&file, 1).unwrap();
        symlink(&file, home.path().join("link")).unwrap();
        refuse_foreign_file(&home.path().join("link"), 1).unwrap_err();
        std::fs::hard_link(&file, home.path().join("second")).unwrap();
        refuse_foreign_file(&file, 1).unwrap_err();
        refuse_foreign_file(&file, 2).unwrap();
    }
}
