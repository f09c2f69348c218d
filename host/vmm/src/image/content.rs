//! What a file holds, and whether instances could start from it.

use std::fs::{File, FileType};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::clusters::{self, WalkError};
use super::error::ImageError;
use super::format::{ImageFormat, PROBE_BYTES, probe};
use super::kernel::{KernelKind, KernelLook, look};
use super::side::DiskFacts;

/// What a file holds that instances can start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileContent {
    /// A kernel.
    Kernel(KernelKind),
    /// A disk.
    Disk {
        /// Raw or qcow2.
        format: ImageFormat,
        /// Size of the disk that it holds, in bytes.
        virtual_size_bytes: u64,
    },
}

/// Looks at a file's length and contents, as far as that is quick. Blocking.
///
/// # Errors
/// Every way in which it can be missing, unreadable, or nothing that instances could start from.
pub fn look_at(path: &Path) -> Result<(FileContent, u64), ImageError> {
    let (file, len) = open_with_len(path)?;
    let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
    match look(len, |buffer, at| file.read_exact_at(buffer, at)).map_err(read_error)? {
        KernelLook::Kernel(kind) => Ok((FileContent::Kernel(kind), len)),
        KernelLook::Broken(why) => {
            Err(ImageError::NoKernel { path: path.to_path_buf(), why: why.to_owned() })
        }
        KernelLook::NoKernel => {
            let DiskFacts { format, virtual_size_bytes } = probe_file(&file, path)?;
            Ok((FileContent::Disk { format, virtual_size_bytes }, len))
        }
    }
}

/// Looks at a file that shall be a kernel. Blocking.
///
/// # Errors
/// It is missing, unreadable, or nothing that a VMM could start.
pub fn look_at_kernel(path: &Path) -> Result<(KernelKind, u64), ImageError> {
    let (file, len) = open_with_len(path)?;
    let no_kernel = |why: &str| ImageError::NoKernel { path: path.to_path_buf(), why: why.to_owned() };
    let read = |buffer: &mut [u8], at| file.read_exact_at(buffer, at);
    match look(len, read).map_err(|source| ImageError::Read { path: path.to_path_buf(), source })? {
        KernelLook::Kernel(kind) => Ok((kind, len)),
        KernelLook::Broken(why) => Err(no_kernel(why)),
        KernelLook::NoKernel => Err(no_kernel("it is neither an ELF file nor a bzImage")),
    }
}

/// Length of a file that can be read and is not empty, whatever it holds. Blocking.
///
/// # Errors
/// It is missing, unreadable, not a regular file, or empty.
pub fn look_at_any(path: &Path) -> Result<u64, ImageError> {
    match open_with_len(path)?.1 {
        0 => Err(ImageError::Unusable { path: path.to_path_buf(), why: "it is empty".to_owned() }),
        len => Ok(len),
    }
}

fn open_with_len(path: &Path) -> Result<(File, u64), ImageError> {
    let file = open_source(path)?;
    let metadata = file.metadata();
    let len = metadata.map_err(|source| ImageError::Read { path: path.to_path_buf(), source })?.len();
    Ok((file, len))
}

/// A file that is not regular, in words.
fn kind_of(file_type: FileType) -> &'static str {
    match file_type {
        t if t.is_dir() => "a directory",
        t if t.is_fifo() => "a FIFO",
        t if t.is_block_device() => "a block device",
        t if t.is_char_device() => "a character device",
        t if t.is_socket() => "a socket",
        _ => "something else",
    }
}

/// Opens a regular file for reading.
pub(super) fn open_source(path: &Path) -> Result<File, ImageError> {
    // Without blocking: a FIFO must fail the type check below, not hang.
    let file = match File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(ImageError::Missing { path: path.to_path_buf() });
        }
        // A socket cannot even be opened.
        Err(source) => {
            return Err(match std::fs::metadata(path) {
                Ok(metadata) if metadata.file_type().is_socket() => {
                    ImageError::NotAFile { path: path.to_path_buf(), what: "a socket" }
                }
                _ => ImageError::Read { path: path.to_path_buf(), source },
            });
        }
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(metadata) => {
            Err(ImageError::NotAFile { path: path.to_path_buf(), what: kind_of(metadata.file_type()) })
        }
        Err(source) => Err(ImageError::Read { path: path.to_path_buf(), source }),
    }
}

pub(super) fn probe_file(file: &File, path: &Path) -> Result<DiskFacts, ImageError> {
    let (head, len) = read_head(file, path)?;
    let (format, virtual_size_bytes) = probe(&head, len)
        .map_err(|why| ImageError::Unusable { path: path.to_path_buf(), why: why.to_string() })?;
    Ok(DiskFacts { format, virtual_size_bytes })
}

/// Whether all of a disk image is there, as far as it tells. Reads the tables of a qcow2 image.
pub(super) fn check_whole(file: &File, path: &Path) -> Result<(), ImageError> {
    let (head, len) = read_head(file, path)?;
    if !head.starts_with(&super::QCOW2_MAGIC) {
        return Ok(());
    }
    clusters::check(&head, len, |buffer, at| file.read_exact_at(buffer, at)).map_err(|error| match error {
        WalkError::Read(source) => ImageError::Read { path: path.to_path_buf(), source },
        WalkError::Format(why) => ImageError::Unusable { path: path.to_path_buf(), why: why.to_string() },
    })
}

fn read_head(file: &File, path: &Path) -> Result<(Vec<u8>, u64), ImageError> {
    let read_error = |source| ImageError::Read { path: path.to_path_buf(), source };
    let len = file.metadata().map_err(read_error)?.len();
    let mut head = vec![0; PROBE_BYTES.min(usize::try_from(len).unwrap_or(PROBE_BYTES))];
    file.read_exact_at(&mut head, 0).map_err(read_error)?;
    Ok((head, len))
}
