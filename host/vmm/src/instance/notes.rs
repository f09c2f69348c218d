//! Small files in an instance's directory that tell a later daemon about it. Its VMM may make files there too: only those of our
//! own user count, and nothing is written through a link.

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};

use super::dir::{DirError, InstanceDir};

/// Who the instance is.
const IDENTITY: &str = "instance.json";
/// Since when, and why, it is an orphan.
const ORPHAN: &str = "orphan.json";
const BYTES_MAX: u64 = 16 << 10;

impl InstanceDir {
    /// Who the instance is (see [`crate::LaunchSpec::identity`]); none when nobody wrote that down. Blocking.
    ///
    /// # Errors
    /// The file is there and cannot be read, or is longer than an identity can be.
    pub fn identity(&self) -> Result<Option<String>, DirError> {
        self.note(IDENTITY)
    }

    /// Writes down who the instance is, in the place of what was written before. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_identity(&self, identity: &str) -> Result<(), DirError> {
        self.write_note(IDENTITY, identity)
    }

    /// What [`Self::note_orphan`] wrote. Blocking.
    ///
    /// # Errors
    /// As [`Self::identity`].
    pub fn orphan(&self) -> Result<Option<String>, DirError> {
        self.note(ORPHAN)
    }

    /// Notes that no stored set knows the instance. Blocking.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn note_orphan(&self, note: &str) -> Result<(), DirError> {
        self.write_note(ORPHAN, note)
    }

    /// Takes the note of [`Self::note_orphan`] away. Blocking.
    ///
    /// # Errors
    /// The file is there and cannot be removed.
    pub fn forget_orphan(&self) -> Result<(), DirError> {
        let path = self.path().join(ORPHAN);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(DirError::Io { what: "remove", path, source })
            }
            _ => Ok(()),
        }
    }

    /// When the directory was last changed, Unix milliseconds; 0 when that cannot be told.
    #[must_use]
    pub fn changed_ms(&self) -> u64 {
        let changed_s = fs::metadata(self.path()).map_or(0, |found| found.mtime());
        u64::try_from(changed_s).unwrap_or(0).saturating_mul(1_000)
    }

    fn note(&self, name: &str) -> Result<Option<String>, DirError> {
        let path = self.path().join(name);
        let failed = |source| DirError::Io { what: "read", path: path.clone(), source };
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = match fs::OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(source) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed(source)),
        };
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() || found.uid() != rustix::process::geteuid().as_raw() {
            return Ok(None);
        }
        let mut text = String::new();
        let read = file.take(BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
        if read as u64 > BYTES_MAX {
            return Err(failed(io::Error::from(io::ErrorKind::FileTooLarge)));
        }
        Ok(Some(text))
    }

    /// A note is there whole, or as it was before.
    fn write_note(&self, name: &str, text: &str) -> Result<(), DirError> {
        let path = self.path().join(name);
        let unfinished = self.path().join(format!("{name}.new"));
        let write = || {
            match fs::remove_file(&unfinished) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            let mut file = fs::File::options().write(true).create_new(true).mode(0o600).open(&unfinished)?;
            file.write_all(text.as_bytes())?;
            fs::rename(&unfinished, &path)
        };
        write().map_err(|source| DirError::Io { what: "write", path, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_read_back_replaced_and_bounded() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("fresh");
        assert_eq!((dir.identity().expect("none"), dir.orphan().expect("none")), (None, None));
        dir.note_identity("one").expect("written");
        dir.note_identity("two").expect("replaced");
        dir.note_orphan("lost").expect("written");
        assert_eq!(dir.identity().expect("read").as_deref(), Some("two"));
        assert_eq!(dir.orphan().expect("read").as_deref(), Some("lost"));
        dir.forget_orphan().expect("removed");
        dir.forget_orphan().expect("nothing to remove");
        assert_eq!(dir.orphan().expect("none"), None);
        let elsewhere = data.path().join("elsewhere");
        std::os::unix::fs::symlink(&elsewhere, dir.path().join("orphan.json.new")).expect("link");
        dir.note_orphan("lost").expect("written");
        assert!(!elsewhere.exists(), "nothing is written through a link");
        dir.note_identity(&"x".repeat(17 << 10)).expect("written");
        assert!(dir.identity().is_err(), "longer than an identity can be");
        assert!(dir.changed_ms() > 0);
    }
}
