//! Imported recordings in the data directory: what `regatta record export` wrote, and what is known of it.
//!
//! `NAME.rec` is the file as it was exported. `NAME.json` is written after it and removed before it: a recording is there
//! when that is.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use regatta_policy_tools::{Contents, RecordingError, check_recording};
use tempfile::NamedTempFile;

use crate::api::recording_types::{RECORDING_BYTES_MAX, RecordingInfo};
use crate::named_file;

/// Bytes of a file that one call returns.
const CHUNK_BYTES: u64 = 4 << 20;
/// Largest `NAME.json`.
const INFO_BYTES_MAX: u64 = 64 << 10;

const FILE: &str = "rec";
const INFO: &str = "json";

/// The directory of imported recordings. All calls block.
pub(crate) struct Recordings {
    dir: PathBuf,
}

/// A recording that was checked, in a file of ours without a name yet.
pub(crate) struct Checked {
    file: NamedTempFile,
    size_bytes: u64,
    pub(crate) contents: Contents,
}

/// Why a file is not imported.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImportError {
    /// It cannot be read.
    #[error("{} cannot be read", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// It is not a sound recording.
    #[error("{}", path.display())]
    Unsound {
        path: PathBuf,
        #[source]
        source: RecordingError,
    },
    /// It cannot be copied into the data directory.
    #[error("{} cannot be written", dir.display())]
    Unwritable {
        dir: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl Recordings {
    /// Opens the directory and removes what a crash left half-done.
    pub(crate) fn open(dir: &Path) -> io::Result<Self> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let extension = path.extension().and_then(|it| it.to_str());
            let whole = match extension {
                Some(INFO) => true,
                Some(FILE) => path.with_extension(INFO).exists(),
                _ => false,
            };
            if !whole {
                fs::remove_file(&path)?;
            }
        }
        Ok(Self { dir: dir.to_owned() })
    }

    /// All recordings, by name.
    pub(crate) fn list(&self) -> io::Result<Vec<RecordingInfo>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let path = entry?.path();
            if path.extension().is_some_and(|it| it == INFO) {
                found.push(read_info(&path)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Copies a file and checks the copy from its first line to its last.
    pub(crate) fn check(&self, path: &Path) -> Result<Checked, ImportError> {
        let unreadable = |source| ImportError::Unreadable { path: path.to_owned(), source };
        let unwritable = |source| ImportError::Unwritable { dir: self.dir.clone(), source };
        let source = open_file(path).map_err(unreadable)?;
        let mut file = NamedTempFile::new_in(&self.dir).map_err(unwritable)?;
        // A file that grows meanwhile is cut off, and then unsound.
        let size_bytes = io::copy(&mut source.take(RECORDING_BYTES_MAX), &mut file).map_err(unwritable)?;
        file.as_file().sync_all().and_then(|()| file.rewind()).map_err(unwritable)?;
        let unsound = |source| ImportError::Unsound { path: path.to_owned(), source };
        let contents = check_recording(file.as_file()).map_err(unsound)?;
        Ok(Checked { file, size_bytes, contents })
    }

    /// Keeps a recording under a name that no other has.
    pub(crate) fn keep(&self, checked: Checked, name: &str, now_ms: u64) -> io::Result<RecordingInfo> {
        let Checked { file, size_bytes, contents: Contents { set, ticks, span, last_ms } } = checked;
        let info = RecordingInfo {
            name: name.to_owned(),
            set,
            ticks,
            first_tick: span.0,
            last_tick: span.1,
            recorded_ms: last_ms,
            imported_ms: now_ms,
            size_bytes,
        };
        let mut written = NamedTempFile::new_in(&self.dir)?;
        written.write_all(&serde_json::to_vec(&info)?)?;
        written.as_file().sync_all()?;
        let path = self.path(name, INFO);
        if path.exists() {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("{} exists", path.display())));
        }
        file.persist(self.path(name, FILE))?;
        written.persist(path)?;
        self.sync()?;
        Ok(info)
    }

    /// Deletes a recording.
    pub(crate) fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(name, INFO))?;
        self.sync()?;
        fs::remove_file(self.path(name, FILE))
    }

    /// The next bytes of a recording's file.
    pub(crate) fn read(&self, name: &str, offset: u64) -> io::Result<Vec<u8>> {
        let mut file = named_file::open(&self.path(name, FILE))?;
        file.seek(SeekFrom::Start(offset))?;
        let mut bytes = Vec::new();
        file.take(CHUNK_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn path(&self, name: &str, extension: &str) -> PathBuf {
        self.dir.join(name).with_extension(extension)
    }

    #[expect(clippy::disallowed_methods, reason = "the data directory is the daemon's alone")]
    fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

/// Opens a regular file that is not too large; anything else might never end, or never begin.
fn open_file(path: &Path) -> io::Result<File> {
    let file = named_file::open(path)?;
    match file.metadata()?.len() {
        0..=RECORDING_BYTES_MAX => Ok(file),
        _ => Err(io::Error::other(format!("it is larger than {} MiB", RECORDING_BYTES_MAX >> 20))),
    }
}

fn read_info(path: &Path) -> io::Result<RecordingInfo> {
    let json = named_file::read(path, INFO_BYTES_MAX)?;
    serde_json::from_slice(&json)
        .map_err(|why| io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(recordings: &Recordings, bytes: &[u8]) -> Checked {
        let mut file = NamedTempFile::new_in(&recordings.dir).unwrap();
        file.write_all(bytes).unwrap();
        let contents = Contents { set: "web".into(), ticks: 2, span: (7, 8), last_ms: 9 };
        Checked { file, size_bytes: bytes.len() as u64, contents }
    }

    fn files(dir: &Path) -> Vec<String> {
        let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<_> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_recording_is_kept_listed_read_in_parts_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::open(dir.path()).unwrap();
        let bytes: Vec<u8> = (0..CHUNK_BYTES + 5).map(|byte| (byte % 251) as u8).collect();
        let info = recordings.keep(checked(&recordings, &bytes), "incident", 10).unwrap();
        assert_eq!((info.first_tick, info.last_tick, info.imported_ms), (7, 8, 10));
        recordings.keep(checked(&recordings, b"x"), "before", 10).unwrap();
        let again = Recordings::open(dir.path()).unwrap();
        let names: Vec<String> = again.list().unwrap().into_iter().map(|it| it.name).collect();
        assert_eq!(names, ["before", "incident"]);
        let mut read = again.read("incident", 0).unwrap();
        read.extend(again.read("incident", CHUNK_BYTES).unwrap());
        assert_eq!(read, bytes);
        assert_eq!(again.read("incident", bytes.len() as u64).unwrap(), b"");
        again.remove("incident").unwrap();
        assert_eq!(files(dir.path()), ["before.json", "before.rec"]);
    }

    #[test]
    fn a_name_is_given_once() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::open(dir.path()).unwrap();
        let first = recordings.keep(checked(&recordings, b"first"), "incident", 10).unwrap();
        recordings.keep(checked(&recordings, b"second"), "incident", 20).unwrap_err();
        assert_eq!(recordings.list().unwrap(), [first]);
        assert_eq!(recordings.read("incident", 0).unwrap(), b"first");
    }

    #[test]
    fn what_a_crash_left_half_done_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let recordings = Recordings::open(dir.path()).unwrap();
        recordings.keep(checked(&recordings, b"x"), "whole", 10).unwrap();
        for left in ["half.rec", ".tmp123"] {
            fs::write(dir.path().join(left), "x").unwrap();
        }
        assert_eq!(Recordings::open(dir.path()).unwrap().list().unwrap().len(), 1);
        assert_eq!(files(dir.path()), ["whole.json", "whole.rec"]);
    }

    #[test]
    fn what_is_refused_leaves_nothing() {
        let (dir, sources) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let recordings = Recordings::open(dir.path()).unwrap();
        let (text, pipe) = (sources.path().join("text"), sources.path().join("pipe"));
        let large = sources.path().join("large");
        fs::write(&text, "no recording").unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        File::create(&large).unwrap().set_len(RECORDING_BYTES_MAX + 1).unwrap();
        let refused = |path: &Path| regatta_util::chain(&recordings.check(path).err().unwrap());
        assert!(refused(&text).ends_with("not a Regatta recording"));
        assert!(refused(&pipe).ends_with("it is not a plain file"));
        assert!(refused(&large).ends_with("it is larger than 256 MiB"));
        assert!(refused(&sources.path().join("absent")).contains("cannot be read"));
        assert_eq!(files(dir.path()), Vec::<String>::new());
    }
}
