//! What is known about a stored file, kept beside it so that nothing is hashed twice. Losing it costs a re-hash, nothing else.

use std::fs::Metadata;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::digest::Digest;
use super::format::ImageFormat;

const SOURCES_KEPT: usize = 16;

/// What tells one state of a file from another without reading it. The change time cannot be set back by a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stamp {
    dev: u64,
    ino: u64,
    size_bytes: u64,
    mtime_ns: i128,
    ctime_ns: i128,
}

impl Stamp {
    pub(crate) fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    pub(crate) fn of(metadata: &Metadata) -> Self {
        let ns = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            dev: metadata.dev(),
            ino: metadata.ino(),
            size_bytes: metadata.size(),
            mtime_ns: ns(metadata.mtime(), metadata.mtime_nsec()),
            ctime_ns: ns(metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DiskFacts {
    pub(crate) format: ImageFormat,
    pub(crate) virtual_size_bytes: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Source {
    pub(crate) path: PathBuf,
    pub(crate) stamp: Stamp,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SideFile {
    pub(crate) digest: Digest,
    /// The stored file when it was last hashed.
    pub(crate) stored: Stamp,
    /// Set if it is a usable disk image.
    pub(crate) disk: Option<DiskFacts>,
    /// Where it was imported from, newest last, at most 16.
    pub(crate) sources: Vec<Source>,
}

impl SideFile {
    /// `None` if it is missing or unreadable, which both mean "hash again".
    pub(crate) fn load(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }

    pub(crate) fn note_source(&mut self, path: PathBuf, stamp: Stamp) {
        self.sources.retain(|source| source.path != path);
        self.sources.push(Source { path, stamp });
        let surplus = self.sources.len().saturating_sub(SOURCES_KEPT);
        self.sources.drain(..surplus);
    }

    /// Best effort: without it the next open hashes again.
    pub(crate) fn save(&self, path: &Path) {
        let write = || -> std::io::Result<()> {
            let dir = path.parent().unwrap_or(Path::new("."));
            let mut temp = tempfile::Builder::new().prefix(".import-").tempfile_in(dir)?;
            serde_json::to_writer(&mut temp, self)?;
            temp.flush()?;
            temp.persist(path).map_err(|error| error.error)?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::warn!(path = %path.display(), %error, "cannot note what is known about an image; it will be hashed again");
        }
    }
}
