//! Why an image or file cannot be used.

use std::io;
use std::path::PathBuf;

use super::digest::Digest;

/// An image or file cannot be used. Nothing was left in the store.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is a directory, a device or the like.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// What was named.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It is no disk image that instances could start from.
    #[error("{} cannot be a golden image: {why}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// Why, in words.
        why: String,
    },
    /// It is not the file that was meant.
    #[error("{} has digest {actual}, but {expected} is wanted", path.display())]
    WrongDigest {
        /// The file.
        path: PathBuf,
        /// The digest that was asked for.
        expected: Digest,
        /// The digest it has.
        actual: Digest,
    },
    /// It was written to while it was read.
    #[error("{} changed while it was imported", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No such file is in the store.
    #[error("no image {digest} is in the store {}", store.display())]
    NotStored {
        /// What was asked for.
        digest: Digest,
        /// The directory of the store.
        store: PathBuf,
    },
    /// The stored file is no longer what was stored.
    #[error("{} is corrupt: it has digest {actual}, but was stored as {expected}", path.display())]
    Corrupt {
        /// The stored file.
        path: PathBuf,
        /// The digest under which it was stored.
        expected: Digest,
        /// The digest it has now.
        actual: Digest,
    },
    /// Another process has the stored file open for writing.
    #[error("{} is locked by another process that may write to it", path.display())]
    Locked {
        /// The stored file.
        path: PathBuf,
    },
    /// The store cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}
