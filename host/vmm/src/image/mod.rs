//! Golden images (and kernels, initramfs, firmware), kept read-only by digest.

mod digest;
mod error;
mod format;
mod side;
mod store;

pub use digest::{Digest, DigestError};
pub use error::ImageError;
pub use format::ImageFormat;
pub(crate) use format::QCOW2_MAGIC;
pub use store::{GoldenImage, ImageStore, StoredFile};
