//! Why an image or file cannot be used.

use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;

/// An image or file cannot be used. Nothing was left in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("{} does not exist", one_line(path))]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a device or the like.
    #[error("{} is {what}, not a regular file", one_line(path))]
    NotAFile {
        /// What was named.
        path: PathBuf,
        /// What it is, for example `a directory`.
        what: &'static str,
    },
    /// It cannot be read.
    #[error("cannot read {}", one_line(path))]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is not a disk image that instances could start from.
    #[error("{} cannot be a golden image: {why}", one_line(path))]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// It is nothing that a VMM could start.
    #[error("{} cannot be a kernel: {why}", one_line(path))]
    NoKernel {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// It is not the file that was meant.
    #[error("{} has digest {actual}, but {expected} is wanted", one_line(path))]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// It was written to while it was read.
    #[error("{} changed while it was imported", one_line(path))]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No such file is in the store.
    #[error("no image {digest} is in the store {}", one_line(store))]
    NotStored {
        /// What was asked for.
        digest: Digest,
        /// The directory of the store.
        store: PathBuf,
    },
    /// The stored file is no longer what was stored.
    #[error("{} is corrupt: it has digest {actual}, but was stored as {expected}", one_line(path))]
    Corrupt {
        /// The stored file.
        path: PathBuf,
        /// The digest under which it was stored.
        expected: Digest,
        /// The digest it has now.
        actual: Digest,
    },
    /// Another process has the stored file open for writing.
    #[error("{} is locked by another process that may write to it", one_line(path))]
    Locked {
        /// The stored file.
        path: PathBuf,
    },
    /// The store's file system has no room for it.
    #[error(
        "no room for {} in {}: it needs {needed_bytes} bytes, {free_bytes} are free; `regatta image gc` removes images that nothing uses",
        one_line(path),
        one_line(store)
    )]
    NoRoom {
        /// The file to be stored.
        path: PathBuf,
        /// The directory of the store.
        store: PathBuf,
        /// What storing it takes.
        needed_bytes: u64,
        /// What is free for us.
        free_bytes: u64,
    },
    /// The store cannot be written.
    #[error("cannot write {}", one_line(path))]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A path as text in one line: a control character, which could break lines or steer a terminal, is spelled out (`\n`).
#[must_use]
pub fn one_line(path: &Path) -> String {
    let text = path.to_string_lossy();
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_path_breaks_a_message_in_two() {
        let path = PathBuf::from("/a\nb\u{1b}[2J/größe.raw");
        let text = ImageError::Missing { path }.to_string();
        assert_eq!(text, r"/a\nb\u{1b}[2J/größe.raw does not exist");
    }
}
