//! What the daemon writes down about an instance, for itself and for later daemons: small files in `ctl/`, which only it can use. The
//! VMM's user may write in the directory around it.

use std::io;
use std::path::PathBuf;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dir::{DirError, InstanceDir};
use crate::guarded::GuardedDir;

/// The directory of the notes.
const CTL: &str = "ctl";
/// Who the instance is.
const IDENTITY: &str = "instance.json";
/// Since when, and why, it is an orphan.
const ORPHAN: &str = "orphan.json";
/// How its VMM is contained: there from before the VMM runs.
pub(crate) const CONTAINMENT: &str = "containment.json";
/// Which process its VMM is.
pub(crate) const PROCESS: &str = "vmm.json";
/// How its guest came to run.
pub(crate) const STARTED: &str = "started.json";
/// What was made of its network.
pub(crate) const NETWORK: &str = "network.json";
/// Which files of the image store it stands on.
pub(crate) const IMAGES: &str = "images";

/// No note comes near it.
const BYTES_MAX: u64 = 64 << 10;

impl InstanceDir {
    /// Who the instance is (see [`crate::LaunchSpec::identity`]); none when nobody wrote that down. Blocking.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is longer than an identity can be.
    pub fn identity(&self) -> Result<Option<String>, DirError> {
        self.text(IDENTITY)
    }

    /// Writes down who the instance is, in the place of what was written before. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_identity(&self, identity: &str) -> Result<(), DirError> {
        self.write_note(IDENTITY, identity.as_bytes())
    }

    /// What [`Self::note_orphan`] wrote. Blocking.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub fn orphan(&self) -> Result<Option<String>, DirError> {
        self.text(ORPHAN)
    }

    /// Notes that no stored set knows the instance. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_orphan(&self, note: &str) -> Result<(), DirError> {
        self.write_note(ORPHAN, note.as_bytes())
    }

    /// Takes the note of [`Self::note_orphan`] away. Blocking.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn forget_orphan(&self) -> Result<(), DirError> {
        let remove = || {
            let dir = GuardedDir::open(self.path())?;
            if let Some(ctl) = unless_missing(dir.own_dir(CTL))? {
                ctl.remove(ORPHAN)?;
            }
            dir.remove(ORPHAN)
        };
        match remove() {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DirError::Io { what: "remove", path: self.note_path(ORPHAN), source })
            }
            _ => Ok(()),
        }
    }

    /// When the directory was last changed, Unix milliseconds; 0 when that cannot be told.
    #[must_use]
    pub fn changed_ms(&self) -> u64 {
        let changed_s = rustix::fs::lstat(self.path()).map_or(0, |found| found.st_mtime);
        u64::try_from(changed_s).unwrap_or(0).saturating_mul(1_000)
    }

    /// Makes the directory of the notes, in a directory that nobody else can use yet.
    pub(super) fn make_ctl(&self) -> io::Result<()> {
        GuardedDir::open(self.path())?.make_dir(CTL)
    }

    /// A note; none when nobody wrote it. Blocking.
    pub(crate) fn note(&self, name: &str) -> Result<Option<Vec<u8>>, DirError> {
        let read = || -> io::Result<Option<Vec<u8>>> {
            let Some(dir) = unless_missing(GuardedDir::open(self.path()))? else { return Ok(None) };
            let ctl = unless_missing(dir.own_dir(CTL))?;
            let read = |name| ctl.as_ref().map_or(Ok(None), |ctl| ctl.read_own(name, BYTES_MAX));
            match read(name)? {
                None if name != CONTAINMENT && read(CONTAINMENT)?.is_some() => Ok(None),
                // Earlier versions had no such directory, and their VMMs run on.
                None => dir.read_own(name, BYTES_MAX),
                found => Ok(found),
            }
        };
        read().map_err(|source| DirError::Io { what: "read", path: self.note_path(name), source })
    }

    /// Writes a note: whole, in the place of what was written before, or not at all. Blocking.
    pub(crate) fn write_note(&self, name: &str, bytes: &[u8]) -> Result<(), DirError> {
        let write = || {
            let dir = GuardedDir::open(self.path())?;
            dir.make_dir(CTL)?;
            dir.own_dir(CTL)?.write(name, bytes)
        };
        write().map_err(|source| DirError::Io { what: "write", path: self.note_path(name), source })
    }

    /// A note of ours as JSON.
    pub(crate) fn note_as<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, DirError> {
        let parse = |bytes: Vec<u8>| serde_json::from_slice(&bytes);
        self.note(name)?.map(parse).transpose().map_err(|error| DirError::Io {
            what: "understand",
            path: self.note_path(name),
            source: error.into(),
        })
    }

    /// Writes a note as JSON.
    pub(crate) fn write_note_as(&self, name: &str, what: &impl Serialize) -> Result<(), DirError> {
        let text = serde_json::to_vec(what).map_err(|error| DirError::Io {
            what: "write",
            path: self.note_path(name),
            source: error.into(),
        })?;
        self.write_note(name, &text)
    }

    /// Where a note is, for messages.
    pub(crate) fn note_path(&self, name: &str) -> PathBuf {
        self.path().join(CTL).join(name)
    }

    fn text(&self, name: &str) -> Result<Option<String>, DirError> {
        let text = |bytes| {
            let text =
                String::from_utf8(bytes).map_err(|why| io::Error::new(io::ErrorKind::InvalidData, why));
            text.map_err(|source| DirError::Io { what: "read", path: self.note_path(name), source })
        };
        self.note(name)?.map(text).transpose()
    }
}

fn unless_missing<T>(found: io::Result<T>) -> io::Result<Option<T>> {
    match found {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn made() -> (tempfile::TempDir, InstanceDir) {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("fresh");
        (data, dir)
    }

    #[test]
    fn notes_are_read_back_replaced_and_bounded() {
        let (_data, dir) = made();
        assert_eq!((dir.identity().expect("none"), dir.orphan().expect("none")), (None, None));
        dir.note_identity("one").expect("written");
        dir.note_identity("two").expect("replaced");
        dir.note_orphan("lost").expect("written");
        assert_eq!(dir.identity().expect("read").as_deref(), Some("two"));
        assert_eq!(dir.orphan().expect("read").as_deref(), Some("lost"));
        assert_eq!(fs::read_to_string(dir.path().join("ctl/instance.json")).expect("in its place"), "two");
        dir.forget_orphan().expect("removed");
        dir.forget_orphan().expect("nothing to remove");
        assert_eq!(dir.orphan().expect("none"), None);
        dir.note_identity(&"x".repeat(65 << 10)).expect("written");
        assert!(dir.identity().is_err(), "longer than an identity can be");
        assert!(dir.changed_ms() > 0);
    }

    #[test]
    fn notes_of_an_earlier_version_count_where_there_are_no_others() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (data, dir) = made();
        let old = |name: &str| dir.path().join(name);
        fs::write(old(IDENTITY), "old").expect("written");
        fs::remove_dir(old(CTL)).expect("the earlier version had none");
        assert_eq!(dir.identity().expect("read").as_deref(), Some("old"));
        dir.note_orphan("lost").expect("written");
        assert_eq!(dir.identity().expect("read").as_deref(), Some("old"), "also beside one of today");

        fs::set_permissions(old(IDENTITY), fs::Permissions::from_mode(0o660)).expect("mode");
        dir.identity().expect_err("its VMM could have written it");
        fs::remove_file(old(IDENTITY)).expect("removed");
        let elsewhere = data.path().join("elsewhere");
        fs::write(&elsewhere, "secret").expect("written");
        symlink(&elsewhere, old(IDENTITY)).expect("link");
        dir.identity().expect_err("a link");

        fs::remove_file(old(IDENTITY)).expect("removed");
        fs::write(old(IDENTITY), "old").expect("written");
        dir.write_note(CONTAINMENT, b"{}").expect("written");
        assert_eq!(dir.identity().expect("read"), None, "this version launched it, and wrote nothing there");
    }

    #[test]
    fn a_directory_of_somebody_else_is_not_taken_for_that_of_the_notes() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let (data, dir) = made();
        let ctl = dir.path().join(CTL);
        fs::set_permissions(&ctl, fs::Permissions::from_mode(0o777)).expect("mode");
        dir.note_orphan("lost").expect_err("anyone may write there");
        dir.orphan().expect_err("anyone may write there");
        fs::remove_dir(&ctl).expect("removed");
        let elsewhere = data.path().join("elsewhere");
        fs::create_dir(&elsewhere).expect("dir");
        symlink(&elsewhere, &ctl).expect("link");
        dir.note_orphan("lost").expect_err("a link");
        assert_eq!(fs::read_dir(&elsewhere).expect("dir").count(), 0, "nothing is written through a link");
    }
}
