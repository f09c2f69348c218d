//! Full copies of a golden image: shared blocks where the file system can, else only the parts that hold data.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::SeekFrom;

const CHUNK_BYTES: usize = 8 << 20;

/// Copies `from` to the new file `to`, holes staying holes, and extends it to `grow_to` bytes.
///
/// # Errors
/// `to` exists, reading or writing fails, or `cancelled` was set (`Interrupted`). The file may be left then.
pub(crate) fn copy(from: &Path, to: &Path, grow_to: Option<u64>, cancelled: &AtomicBool) -> io::Result<()> {
    let source = File::open(from)?;
    let target = File::options().write(true).create_new(true).open(to)?;
    clone_or_copy(&source, &target, cancelled)?;
    if let Some(size) = grow_to
        && size > target.metadata()?.len()
    {
        target.set_len(size)?;
    }
    Ok(())
}

/// Whether files in `dir` can share blocks, so that a copy of a golden image costs neither time nor space. Tried on two nameless files,
/// which vanish with the answer. Blocking.
///
/// # Errors
/// No file can be made there.
pub fn reflink(dir: &Path) -> io::Result<bool> {
    use std::io::Write;
    let mut source = tempfile::tempfile_in(dir)?;
    // A block of data: there is nothing to share in an empty file, and some file systems then say yes to anything.
    source.write_all(&[1; 4096])?;
    let target = tempfile::tempfile_in(dir)?;
    Ok(rustix::fs::ioctl_ficlone(&target, &source).is_ok())
}

/// Makes `target` (empty) the same as `source`, sharing its blocks where possible.
pub(crate) fn clone_or_copy(source: &File, target: &File, cancelled: &AtomicBool) -> io::Result<()> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(()),
        Err(_) => sparse_copy(source, target, cancelled),
    }
}

fn sparse_copy(source: &File, target: &File, cancelled: &AtomicBool) -> io::Result<()> {
    let len = source.metadata()?.len();
    target.set_len(len)?;
    let mut at = 0;
    while at < len {
        let start = match rustix::fs::seek(source, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(rustix::io::Errno::NXIO) => break, // only a hole is left
            Err(rustix::io::Errno::INVAL) => at,   // the file system knows no holes
            Err(error) => return Err(error.into()),
        };
        let end = rustix::fs::seek(source, SeekFrom::Hole(start)).unwrap_or(len).min(len);
        copy_range(source, target, start, end, cancelled)?;
        at = end;
    }
    Ok(())
}

fn copy_range(source: &File, target: &File, start: u64, end: u64, cancelled: &AtomicBool) -> io::Result<()> {
    use std::os::unix::fs::FileExt;

    let mut by_kernel = true;
    let mut buffer = Vec::new();
    let mut at = start;
    while at < end {
        if cancelled.load(Ordering::Relaxed) {
            return Err(io::Error::new(io::ErrorKind::Interrupted, "cancelled"));
        }
        let want = usize::try_from(end - at).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        if by_kernel {
            let (mut read_at, mut write_at) = (at, at);
            match rustix::fs::copy_file_range(source, Some(&mut read_at), target, Some(&mut write_at), want) {
                Ok(0) => by_kernel = false,
                Ok(copied) => at += copied as u64,
                Err(rustix::io::Errno::INTR) => {}
                // Across file systems, or not supported by this one.
                Err(
                    rustix::io::Errno::XDEV
                    | rustix::io::Errno::OPNOTSUPP
                    | rustix::io::Errno::NOSYS
                    | rustix::io::Errno::INVAL,
                ) => {
                    by_kernel = false;
                }
                Err(error) => return Err(error.into()),
            }
        } else {
            buffer.resize(CHUNK_BYTES.min(1 << 20), 0);
            let want = want.min(buffer.len());
            let read = source.read_at(&mut buffer[..want], at)?;
            if read == 0 {
                return Err(io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "the image became shorter while it was copied",
                ));
            }
            target.write_all_at(&buffer[..read], at)?;
            at += read as u64;
        }
    }
    Ok(())
}
