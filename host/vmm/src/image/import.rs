//! Taking a file into the store: checked, hashed and copied in one pass; nothing is left of one that fails.

use std::fs::{File, Permissions};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::PoisonError;

use super::content::{check_whole, open_source, probe_file};
use super::digest::{Digest, hash_stream};
use super::error::ImageError;
use super::side::{DiskFacts, SideFile, Stamp};
use super::store::{Inner, StoredFile, TEMP_PREFIX};

impl Inner {
    pub(super) fn import(
        &self,
        path: &Path,
        expected: Option<Digest>,
        disk: bool,
        progress: &dyn Fn(u64),
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
            wanted(hash_stream(&mut source, counted(progress)).map_err(read_error)?)?;
            let _placing = self.placing();
            self.note_source(expected, path, stamp);
            return Ok(found);
        }

        if disk {
            check_whole(&source, path)?;
        }
        let (temp, digest) = self.copy_in(&mut source, path, progress)?;
        if Stamp::of(&source.metadata().map_err(read_error)?) != stamp {
            return Err(ImageError::Changed { path: path.to_path_buf() });
        }
        wanted(digest)?;
        let _placing = self.placing();
        // An intact copy may be there already; replacing it would only cost running overlays their page cache.
        if self.find(digest).is_err() {
            self.put(temp, digest)?;
        }
        self.note_source(digest, path, stamp);
        self.find(digest)
    }

    /// What importing a file would find. Nothing is written.
    pub(super) fn look(
        &self,
        path: &Path,
        expected: Option<Digest>,
        disk: bool,
    ) -> Result<(Digest, Option<DiskFacts>), ImageError> {
        let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
        let mut source = open_source(path)?;
        let stamp = Stamp::of(&source.metadata().map_err(read_error)?);
        let facts = if disk { Some(probe_file(&source, path)?) } else { None };
        let actual = match self.known_source(path, stamp) {
            Some(known) => known,
            None => {
                if disk {
                    check_whole(&source, path)?;
                }
                let digest = hash_stream(&mut source, |_| Ok(())).map_err(read_error)?;
                if Stamp::of(&source.metadata().map_err(read_error)?) != stamp {
                    return Err(ImageError::Changed { path: path.to_path_buf() });
                }
                digest
            }
        };
        match expected {
            Some(expected) if expected != actual => {
                Err(ImageError::WrongDigest { path: path.to_path_buf(), expected, actual })
            }
            _ => Ok((actual, facts)),
        }
    }

    /// Copies the source to a temporary file in the store and hashes what was copied.
    fn copy_in(
        &self,
        source: &mut File,
        path: &Path,
        progress: &dyn Fn(u64),
    ) -> Result<(tempfile::NamedTempFile, Digest), ImageError> {
        let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
        let write_error = |source| ImageError::Write { path: self.dir.clone(), source };
        let mut temp =
            tempfile::Builder::new().prefix(TEMP_PREFIX).tempfile_in(&self.dir).map_err(write_error)?;
        let digest = if rustix::fs::ioctl_ficlone(temp.as_file(), &*source).is_ok() {
            temp.as_file_mut().seek(SeekFrom::Start(0)).map_err(write_error)?;
            hash_stream(temp.as_file_mut(), counted(progress)).map_err(write_error)?
        } else {
            self.check_room(source, path)?;
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
                progress(at);
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

    /// Fails when the copy would fill the file system, before it does: others live there too.
    fn check_room(&self, source: &File, path: &Path) -> Result<(), ImageError> {
        let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
        let metadata = source.metadata().map_err(read_error)?;
        // Holes stay holes in the copy.
        let needed_bytes = metadata.size().min(metadata.blocks() * 512);
        let store = rustix::fs::statvfs(&self.dir)
            .map_err(|errno| ImageError::Write { path: self.dir.clone(), source: errno.into() })?;
        let free_bytes = store.f_bavail.saturating_mul(store.f_frsize);
        if needed_bytes > free_bytes {
            let (path, store) = (path.to_path_buf(), self.dir.clone());
            return Err(ImageError::NoRoom { path, store, needed_bytes, free_bytes });
        }
        Ok(())
    }
}

/// Adds up the pieces for `progress`.
fn counted(progress: &dyn Fn(u64)) -> impl FnMut(&[u8]) -> io::Result<()> + '_ {
    let mut read = 0;
    move |piece| {
        read += piece.len() as u64;
        progress(read);
        Ok(())
    }
}
