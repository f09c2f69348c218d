//! The store: one read-only file per digest, a side file with what is known about it, nothing ever half-written.
//!
//! Files are copied in (sharing blocks where the file system can), never hard-linked: a link would let the owner of the
//! original change the golden image under running overlays, and would take the original's write permission away.

use std::collections::HashMap;
use std::fs::{self, File, Permissions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::digest::{Digest, hash_stream};
use super::error::ImageError;
use super::format::{ImageFormat, PROBE_BYTES, probe};
use super::side::{DiskFacts, SideFile, Stamp};
use crate::sys;

const TEMP_PREFIX: &str = ".import-";

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
}

/// Keeps the shared lock on a stored file.
#[derive(Debug)]
struct Held {
    _locked: File,
}

/// Golden images, kernels and firmware under one directory, by digest. Clones share it.
#[derive(Clone, Debug)]
pub struct ImageStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: PathBuf,
    /// One open, locked file per digest in use.
    held: Mutex<HashMap<Digest, Weak<Held>>>,
    /// Imports and checks take turns: the same file is never hashed by two at once.
    turn: tokio::sync::Mutex<()>,
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
        let inner = Inner { dir, held: Mutex::default(), turn: tokio::sync::Mutex::default() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// Takes a golden disk image into the store: checks that it is one that instances can start from, hashes it, copies it.
    ///
    /// A file that was imported before and has not changed since (device, inode, size, times) is not hashed again.
    ///
    /// # Errors
    /// Every way in which the file can be missing, wrong or unusable, by name; or the store cannot be written. Nothing is left then.
    pub async fn import(&self, path: &Path, expected: Option<Digest>) -> Result<GoldenImage, ImageError> {
        let (file, disk) = self.import_as(path, expected, true).await?;
        golden(file, disk)
    }

    /// Takes a kernel, initramfs or firmware into the store. Like [`ImageStore::import`], without a look at the contents.
    ///
    /// # Errors
    /// The same.
    pub async fn import_file(&self, path: &Path, expected: Option<Digest>) -> Result<StoredFile, ImageError> {
        self.import_as(path, expected, false).await.map(|(file, _)| file)
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

    /// Removes everything that is neither in `keep` nor open, and returns what was removed.
    ///
    /// # Errors
    /// The directory cannot be read or a file cannot be removed.
    pub async fn prune(&self, keep: Vec<Digest>) -> Result<Vec<Digest>, ImageError> {
        self.blocking(move |inner| inner.prune(&keep)).await
    }

    async fn import_as(
        &self,
        path: &Path,
        expected: Option<Digest>,
        disk: bool,
    ) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
        let path = path.to_path_buf();
        self.blocking(move |inner| inner.import(&path, expected, disk)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> Result<T, ImageError> + Send + 'static,
    ) -> Result<T, ImageError> {
        let _turn = self.inner.turn.lock().await;
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
    fn path_of(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("sha256-{}", digest.hex()))
    }

    fn side_of(&self, digest: Digest) -> PathBuf {
        self.dir.join(format!("sha256-{}.json", digest.hex()))
    }

    fn import(
        &self,
        path: &Path,
        expected: Option<Digest>,
        disk: bool,
    ) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
        let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
        let mut source = open_source(path)?;
        let stamp = Stamp::of(&source.metadata().map_err(read_error)?);
        if disk {
            probe_file(&source, path)?;
        }
        let wanted = |actual: Digest| match expected {
            Some(expected) if expected != actual => {
                Err(ImageError::WrongDigest { path: path.to_path_buf(), expected, actual })
            }
            _ => Ok(()),
        };

        if let Some(known) = self.known_source(path, stamp) {
            wanted(known)?;
            if let Ok(found) = self.get(known) {
                return Ok(found);
            }
        } else if let Some(expected) = expected
            && let Ok(found) = self.get(expected)
        {
            // It is stored already; what is left to find out is whether this file is the one that was meant.
            wanted(hash_stream(&mut source, |_| Ok(())).map_err(read_error)?)?;
            self.note_source(expected, path, stamp);
            return Ok(found);
        }

        let (temp, digest) = self.copy_in(&mut source, path)?;
        if Stamp::of(&source.metadata().map_err(read_error)?) != stamp {
            return Err(ImageError::Changed { path: path.to_path_buf() });
        }
        wanted(digest)?;
        // An intact copy may be there already; replacing it would only cost running overlays their page cache.
        if self.get(digest).is_err() {
            self.put(temp, digest)?;
        }
        self.note_source(digest, path, stamp);
        self.get(digest)
    }

    /// Copies the source to a temporary file in the store and hashes what was copied.
    fn copy_in(
        &self,
        source: &mut File,
        path: &Path,
    ) -> Result<(tempfile::NamedTempFile, Digest), ImageError> {
        let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
        let write_error = |source| ImageError::Write { path: self.dir.clone(), source };
        let mut temp =
            tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.dir).map_err(write_error)?;
        let digest = if rustix::fs::ioctl_ficlone(temp.as_file(), &*source).is_ok() {
            temp.as_file_mut().seek(SeekFrom::Start(0)).map_err(write_error)?;
            hash_stream(temp.as_file_mut(), |_| Ok(())).map_err(write_error)?
        } else {
            let mut at = 0u64;
            let mut failed = None;
            let target = temp.as_file();
            let hashed = hash_stream(source, |piece| {
                for block in piece.chunks(64 * 1024) {
                    // Zeros become holes: golden images are mostly empty.
                    if block.iter().any(|byte| *byte != 0)
                        && let Err(error) = target.write_all_at(block, at)
                    {
                        failed = Some(error);
                        return Err(io::Error::other("stopped"));
                    }
                    at += block.len() as u64;
                }
                Ok(())
            });
            if let Some(error) = failed {
                return Err(write_error(error));
            }
            let digest = hashed.map_err(read_error)?;
            target.set_len(at).map_err(write_error)?;
            digest
        };
        Ok((temp, digest))
    }

    /// Gives the temporary file its final name, mode and permanence, and notes what it is.
    fn put(&self, temp: tempfile::NamedTempFile, digest: Digest) -> Result<(), ImageError> {
        let path = self.path_of(digest);
        let write_error = |source| ImageError::Write { path: path.clone(), source };
        temp.as_file().set_permissions(Permissions::from_mode(0o444)).map_err(write_error)?;
        temp.as_file().sync_all().map_err(write_error)?;
        let file = temp.persist(&path).map_err(|error| write_error(error.error))?;
        File::open(&self.dir).and_then(|dir| dir.sync_all()).map_err(write_error)?;
        // A replaced (corrupt) file was another one: whoever still holds it keeps it, the next to ask gets this one.
        self.held.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let stored = Stamp::of(&file.metadata().map_err(write_error)?);
        let disk = probe_file(&file, &path).ok();
        SideFile { digest, stored, disk, sources: Vec::new() }.save(&self.side_of(digest));
        Ok(())
    }

    /// The stored file, checked and locked.
    fn get(&self, digest: Digest) -> Result<(StoredFile, Option<DiskFacts>), ImageError> {
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
        Ok((StoredFile { digest, path, _held: keep }, side.disk))
    }

    /// The digest of a file that was imported before and has not changed since.
    fn known_source(&self, path: &Path, stamp: Stamp) -> Option<Digest> {
        let path = fs::canonicalize(path).ok()?;
        let entries = fs::read_dir(&self.dir).ok()?;
        entries
            .flatten()
            .filter(|entry| entry.path().extension().is_some_and(|extension| extension == "json"))
            .filter_map(|entry| SideFile::load(&entry.path()))
            .find(|side| side.sources.iter().any(|source| source.path == path && source.stamp == stamp))
            .map(|side| side.digest)
    }

    fn note_source(&self, digest: Digest, path: &Path, stamp: Stamp) {
        let Ok(path) = fs::canonicalize(path) else {
            return;
        };
        if let Some(mut side) = SideFile::load(&self.side_of(digest)) {
            side.note_source(path, stamp);
            side.save(&self.side_of(digest));
        }
    }

    fn prune(&self, keep: &[Digest]) -> Result<Vec<Digest>, ImageError> {
        let write_error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::Write { path, source }
        };
        let mut removed = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(write_error(&self.dir))?.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.strip_prefix("sha256-")?.parse::<Digest>().ok());
            let Some(digest) = digest.filter(|digest| !keep.contains(digest)) else {
                continue;
            };
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.get(&digest).is_some_and(|held| held.strong_count() > 0) {
                continue;
            }
            fs::remove_file(entry.path()).map_err(write_error(&entry.path()))?;
            let _ = fs::remove_file(self.side_of(digest));
            removed.push(digest);
        }
        Ok(removed)
    }
}

/// Opens a regular file for reading.
fn open_source(path: &Path) -> Result<File, ImageError> {
    // Without blocking: a FIFO must fail the type check below, not hang.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::Missing { path: path.to_path_buf() });
        }
        Err(source) => {
            return Err(ImageError::Read { path: path.to_path_buf(), source });
        }
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(ImageError::NotAFile { path: path.to_path_buf() }),
        Err(source) => Err(ImageError::Read { path: path.to_path_buf(), source }),
    }
}

fn probe_file(file: &File, path: &Path) -> Result<DiskFacts, ImageError> {
    let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
    let len = file.metadata().map_err(read_error)?.len();
    let mut head = vec![0; PROBE_BYTES.min(usize::try_from(len).unwrap_or(PROBE_BYTES))];
    file.read_exact_at(&mut head, 0).map_err(read_error)?;
    let (format, virtual_size_bytes) = probe(&head, len)
        .map_err(|why| ImageError::Unusable { path: path.to_path_buf(), why: why.to_string() })?;
    Ok(DiskFacts { format, virtual_size_bytes })
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
