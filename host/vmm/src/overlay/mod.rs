//! An instance's own root disk: a qcow2 overlay over the golden image, or a full copy of it.

mod copy;
pub(crate) mod qcow2;

pub use copy::reflink;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

use serde::{Deserialize, Serialize};

use crate::image::ImageFormat;

/// How an instance gets its own root disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OverlayKind {
    /// A qcow2 file that holds only what the instance changed. Made in microseconds; cannot be resized while the VM runs.
    #[default]
    Qcow2,
    /// A copy of the golden image: shared blocks where the file system can (XFS, btrfs), a sparse copy elsewhere.
    Copy,
}

/// An instance's root disk could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// Reading the golden image or writing the disk failed.
    #[error("cannot make root disk {} from {}", path.display(), backing.display())]
    Io {
        /// The disk.
        path: PathBuf,
        /// The golden image.
        backing: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The golden image's path does not fit into a qcow2 header.
    #[error("the path of the golden image has {len} bytes; a qcow2 overlay can name at most {limit}")]
    BackingPathTooLong {
        /// Bytes in the path.
        len: usize,
        /// The limit of the format.
        limit: usize,
    },
    /// The wanted size cannot be had.
    #[error("a root disk of {wanted_bytes} bytes is not possible: {why}")]
    Size {
        /// What was asked for.
        wanted_bytes: u64,
        /// Why not.
        why: &'static str,
    },
}

/// A root disk, ready for a VM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PreparedDisk {
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
    pub(crate) has_backing_file: bool,
}

/// What a root disk is made from.
#[derive(Clone, Debug)]
pub(crate) struct Backing {
    pub(crate) path: PathBuf,
    pub(crate) format: ImageFormat,
    pub(crate) virtual_size_bytes: u64,
}

/// Makes the disk in directory `dir`, named `root.qcow2` or `root.raw`. Blocking; a copy stops soon after `cancelled` is set.
pub(crate) fn prepare(
    dir: &Path,
    kind: OverlayKind,
    backing: &Backing,
    size_bytes: Option<u64>,
    cancelled: &AtomicBool,
) -> Result<PreparedDisk, OverlayError> {
    let size_bytes = disk_size(backing, size_bytes)?;
    let disk = planned(dir, kind, backing);
    let path = disk.path.clone();
    let result = match kind {
        OverlayKind::Qcow2 => {
            let plan = qcow2::plan(&backing.path, backing.format, size_bytes)?;
            qcow2::write(&path, &plan)
        }
        OverlayKind::Copy => {
            if backing.format == ImageFormat::Qcow2 && size_bytes != backing.virtual_size_bytes {
                return Err(OverlayError::Size {
                    wanted_bytes: size_bytes,
                    why: "a copy of a qcow2 image keeps its size; use a qcow2 overlay or a raw image",
                });
            }
            let grow_to = (backing.format == ImageFormat::Raw).then_some(size_bytes);
            copy::copy(&backing.path, &path, grow_to, cancelled)
        }
    };
    result.map_err(|source| {
        let _ = std::fs::remove_file(&path);
        OverlayError::Io { path: path.clone(), backing: backing.path.clone(), source }
    })?;
    Ok(disk)
}

/// What [`prepare`] would make. Pure.
pub(crate) fn planned(dir: &Path, kind: OverlayKind, backing: &Backing) -> PreparedDisk {
    let (format, has_backing_file) = match kind {
        OverlayKind::Qcow2 => (ImageFormat::Qcow2, true),
        OverlayKind::Copy => (backing.format, false),
    };
    PreparedDisk { path: dir.join(format!("root.{format}")), format, has_backing_file }
}

fn disk_size(backing: &Backing, wanted: Option<u64>) -> Result<u64, OverlayError> {
    let size = wanted.unwrap_or(backing.virtual_size_bytes);
    let refuse = |why| Err(OverlayError::Size { wanted_bytes: size, why });
    match size {
        _ if size < backing.virtual_size_bytes => refuse("the golden image is larger"),
        _ if !size.is_multiple_of(512) => refuse("not a multiple of 512"),
        _ if size > qcow2::MAX_SIZE_BYTES => refuse("more than 64 TiB"),
        _ => Ok(size),
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
