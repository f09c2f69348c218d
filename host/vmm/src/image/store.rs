//! The store: one read-only file per digest, a side file with what is known about it, nothing ever half-written.
//!
//! Files are copied in (sharing blocks where the file system can), never hard-linked: a link would let the owner of the
//! original change the golden image under running overlays, and would take the original's write permission away.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use regatta_util::KeyedLocks;

use super::content::{open_source, probe_file};
use super::digest::{Digest, hash_stream};
use super::error::ImageError;
use super::format::ImageFormat;
use super::prune::UnusedFile;
use super::side::{DiskFacts, SideFile, Stamp};
use crate::sys;

pub(super) const TEMP_PREFIX: &str = ".import-";

/// A golden disk image in the store. As long as a clone of it lives, no VMM can lock the file for writing.
#[derive(Clone, Debug)]
pub struct GoldenImage {
    file: StoredFile,
    format: ImageFormat,
    virtual_size_bytes: u64,
}

impl GoldenImage {
    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.file.digest
    }

    /// The stored file; read-only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.file.path
    }

    /// Length of the file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.file.size_bytes
    }

    /// Raw or qcow2.
    #[must_use]
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// Size of the disk that it holds, in bytes.
    #[must_use]
    pub fn virtual_size_bytes(&self) -> u64 {
        self.virtual_size_bytes
    }
}

/// A kernel, initramfs or firmware in the store, or the file of a golden image.
#[derive(Clone, Debug)]
pub struct StoredFile {
    digest: Digest,
    path: PathBuf,
    size_bytes: u64,
    _held: Arc<Held>,
}

impl StoredFile {
    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The stored file; read-only.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Length of the file.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }
}

/// Keeps the shared lock on a stored file.
#[derive(Debug)]
pub(super) struct Held {
    _locked: File,
}

/// Golden images, kernels and firmware under one directory, by digest. Clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) dir: PathBuf,
    /// One open, locked file per digest in use.
    pub(super) held: Mutex<HashMap<Digest, Weak<Held>>>,
    /// The same source is never read by two at once; another one does not wait for it.
    sources: KeyedLocks<PathBuf>,
    /// Files are placed, opened and removed one at a time. Not held while a source is read, which may be slow.
    placing: Mutex<()>,
}

impl ImageStore {
    /// Opens the store in `dir`, making it if need be. Leftovers of an interrupted import are removed, so only one process may use
    /// a store (the daemon's lock on its data directory sees to that). Quick: nothing is hashed.
    ///
    /// # Errors
    /// The directory cannot be made or read.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let write_error = |source| ImageError::Write { path: dir.to_path_buf(), source };
        let dir = std::path::absolute(dir).map_err(write_error)?;
        fs::create_dir_all(&dir).map_err(write_error)?;
        for entry in fs::read_dir(&dir).map_err(write_error)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMP_PREFIX) {
                let _ = fs::remove_file(entry.path());
            }
        }
        let inner =
            Inner { dir, held: Mutex::default(), sources: KeyedLocks::default(), placing: Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a golden disk image into the store: checks that it is one that instances can start from, hashes it, copies it.
    ///
    /// A file that was imported before and has not changed since (device, inode, size, times) is not hashed again.
    ///
    /// # Errors
    /// Every way in which the file can be missing, wrong or unusable, by name; or the store cannot be written. Nothing is left then.
    pub async fn import(&self, path: &Path, expected: Option<Digest>) -> Result<GoldenImage, ImageError> {
        self.import_watched(path, expected, |_| {}).await
    }

    /// [`ImageStore::import`], telling `progress` how many bytes of the file have been read, again and again; it is called on the thread that
    /// reads, and must be quick.
    ///
    /// # Errors
    /// The same.
    pub async fn import_watched(
        &self,
        path: &Path,
        expected: Option<Digest>,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<GoldenImage, ImageError> {
        let (file, disk) = self.import_as(path, expected, true, progress).await?;
        golden(file, disk)
    }

    /// Takes a kernel, initramfs or firmware into the store. Like [`ImageStore::import`], without a look at the contents.
    ///
    /// # Errors
    /// The same.
    pub async fn import_file(&self, path: &Path, expected: Option<Digest>) -> Result<StoredFile, ImageError> {
        self.import_file_watched(path, expected, |_| {}).await
    }

    /// [`ImageStore::import_file`], telling `progress` how far it is as [`ImageStore::import_watched`] does.
    ///
    /// # Errors
    /// The same.
    pub async fn import_file_watched(
        &self,
        path: &Path,
        expected: Option<Digest>,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<StoredFile, ImageError> {
        self.import_as(path, expected, false, progress).await.map(|(file, _)| file)
    }

    /// Digest of a disk image, and size of the disk that it holds in bytes, as [`ImageStore::import`] would find them. Nothing is
    /// written.
    ///
    /// # Errors
    /// Every way in which the file can be missing, wrong or unusable, by name.
    pub async fn look(&self, path: &Path, expected: Option<Digest>) -> Result<(Digest, u64), ImageError> {
        let path = path.to_path_buf();
        let (digest, disk) = self.blocking(move |inner| inner.look(&path, expected, true)).await?;
        Ok((digest, disk.map_or(0, |disk| disk.virtual_size_bytes)))
    }

    /// Digest of a kernel, initramfs or firmware; like [`ImageStore::look`], without a look at the contents.
    ///
    /// # Errors
    /// The same.
    pub async fn look_file(&self, path: &Path, expected: Option<Digest>) -> Result<Digest, ImageError> {
        let path = path.to_path_buf();
        Ok(self.blocking(move |inner| inner.look(&path, expected, false)).await?.0)
    }

    /// Opens a golden image that is in the store. Hashed again only if the file's size, times or inode are not those noted when it was last
    /// hashed.
    ///
    /// # Errors
    /// It is not there, corrupt, locked by a writer, or no disk image.
    pub async fn get(&self, digest: Digest) -> Result<GoldenImage, ImageError> {
        let (file, disk) = self.blocking(move |inner| inner.get(digest)).await?;
        golden(file, disk)
    }

    /// Opens a kernel, initramfs or firmware that is in the store; checked like [`ImageStore::get`].
    ///
    /// # Errors
    /// It is not there, corrupt, or locked by a writer.
    pub async fn get_file(&self, digest: Digest) -> Result<StoredFile, ImageError> {
        self.blocking(move |inner| inner.get(digest)).await.map(|(file, _)| file)
    }

    /// Whether overlays of the kind [`OverlayKind::Copy`](crate::OverlayKind::Copy) share their blocks with the image, when they are in the
    /// same file system as the store.
    ///
    /// # Errors
    /// No file can be made in the store's directory.
    pub async fn reflink(&self) -> io::Result<bool> {
        let dir = self.inner.dir.clone();
        tokio::task::spawn_blocking(move || crate::overlay::reflink(&dir)).await.map_err(io::Error::other)?
    }

    /// Removes everything that is neither in `keep` nor held open, and returns what was removed. With `dry_run`, only says what would be.
    ///
    /// # Errors
    /// The directory cannot be read or a file cannot be removed.
    pub async fn prune(&self, keep: Vec<Digest>, dry_run: bool) -> Result<Vec<UnusedFile>, ImageError> {
        self.blocking(move |inner| inner.prune(&keep, dry_run)).await
    }

    async fn import_as(
        &self,
        path: &Path,
        expected: Option<Digest>,
        disk: bool,
        progress: impl Fn(u64) + Send + 'static,
    ) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
        let path = path.to_path_buf();
        let _one_reader = self.inner.sources.lock(path.clone()).await;
        self.blocking(move |inner| inner.import(&path, expected, disk, &progress)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let inner = Arc::clone(&self.inner);
        match tokio::task::spawn_blocking(move || work(&inner)).await {
            Ok(result) => result,
            Err(error) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The runtime shuts down: there is no one left to answer to.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

fn golden(file: StoredFile, disk: Option<DiskFacts>) -> Result<GoldenImage, ImageError> {
    match disk {
        Some(disk) => {
            Ok(GoldenImage { file, format: disk.format, virtual_size_bytes: disk.virtual_size_bytes })
        }
        None => Err(ImageError::Unusable { path: file.path, why: "it is not a disk image".to_owned() }),
    }
}

impl Inner {
    pub(super) fn path_of(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("sha256-{}", digest.hex()))
    }

    pub(super) fn side_of(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("sha256-{}.json", digest.hex()))
    }

    pub(super) fn placing(&self) -> MutexGuard<'_, ()> {
        self.placing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored file, checked and locked.
    pub(super) fn get(&self, digest: Digest) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
        let _placing = self.placing();
        self.find(digest)
    }

    /// As [`Self::get`], for whoever is placing files.
    pub(super) fn find(&self, digest: Digest) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
        let path = self.path_of(digest);
        let read_error = |source| ImageError::Read { path: path.clone(), source };
        let mut file = match open_source(&path) {
            Err(ImageError::Missing { .. }) => {
                return Err(ImageError::NotStored { digest, store: self.dir.clone() });
            }
            other => other?,
        };
        let stamp = Stamp::of(&file.metadata().map_err(read_error)?);
        let side = match SideFile::load(&self.side_of(digest)) {
            Some(side) if side.digest == digest && side.stored == stamp => side,
            other => {
                let actual = hash_stream(&mut file, |_| Ok(())).map_err(read_error)?;
                if actual != digest {
                    return Err(ImageError::Corrupt { path, expected: digest, actual });
                }
                let disk = probe_file(&file, &path).ok();
                let sources = other.map(|side| side.sources).unwrap_or_default();
                let side = SideFile { digest, stored: stamp, disk, sources };
                side.save(&self.side_of(digest));
                side
            }
        };
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        let keep = match held.get(&digest).and_then(Weak::upgrade) {
            Some(keep) => keep,
            None => {
                match sys::lock_shared(&file) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Err(ImageError::Locked { path });
                    }
                    other => other.map_err(read_error)?,
                }
                let keep = Arc::new(Held { _locked: file });
                held.insert(digest, Arc::downgrade(&keep));
                keep
            }
        };
        Ok((StoredFile { digest, path, size_bytes: stamp.size_bytes(), _held: keep }, side.disk))
    }

    /// The digest of a file that was imported before and has not changed since.
    pub(super) fn known_source(&self, path: &Path, stamp: Stamp) -> Option<Digest> {
        let path = fs::canonicalize(path).ok()?;
        let entries = fs::read_dir(&self.dir).ok()?;
        entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|entry| SideFile::load(&entry.path()))
            .find(|side| side.sources.iter().any(|source| source.path == path && source.stamp == stamp))
            .map(|side| side.digest)
    }

    pub(super) fn note_source(&self, digest: Digest, path: &Path, stamp: Stamp) {
        let Ok(path) = fs::canonicalize(path) else {
            return;
        };
        if let Some(mut side) = SideFile::load(&self.side_of(digest)) {
            side.note_source(path, stamp);
            side.save(&self.side_of(digest));
        }
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
