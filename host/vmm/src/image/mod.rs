//! Golden images (and kernels, initramfs, firmware), kept read-only by digest.

mod clusters;
mod content;
mod digest;
mod error;
mod format;
mod import;
mod kernel;
mod prune;
mod side;
mod store;

pub use content::{FileContent, look_at, look_at_any, look_at_kernel};
pub use digest::{Digest, DigestError};
pub use error::{ImageError, one_line};
pub use format::ImageFormat;
pub(crate) use format::{PROBE_BYTES, QCOW2_MAGIC, backing_name};
pub use kernel::KernelKind;
pub use prune::UnusedFile;
pub use store::{GoldenImage, ImageStore, StoredFile};
