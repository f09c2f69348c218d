//! What to launch, in terms that have nothing to do with one VMM's API.

use std::path::PathBuf;
use std::time::Duration;

use super::dir::InstanceDir;
use crate::image::{GoldenImage, ImageFormat};
use crate::overlay::OverlayKind;

/// Everything that one launch needs.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Name of the instance, for logs and errors.
    pub id: String,
    /// Where its files go.
    pub dir: InstanceDir,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What the guest starts.
    pub boot: BootSource,
    /// Its own disk, with id `root`; first disk of the guest.
    pub root: Option<RootDisk>,
    /// Disks that it shares with others, read-only.
    pub shared_disks: Vec<SharedDisk>,
    /// Network devices; ids `net0`, `net1`, …
    pub taps: Vec<TapSpec>,
    /// How long the launch may take from the moment its turn comes until the VM is booted.
    pub boot_timeout: Duration,
    /// Whether the logs of a failed launch are kept for a post-mortem (see [`super::FailedLogs`]).
    pub keep_failed_logs: bool,
}

/// What the guest starts.
#[derive(Clone, Debug)]
pub enum BootSource {
    /// A Linux kernel (PVH ELF or bzImage), started directly.
    Kernel {
        /// The kernel.
        kernel: PathBuf,
        /// Its initramfs.
        initramfs: Option<PathBuf>,
        /// Its command line; carries the guest's address (`ip=…`).
        cmdline: String,
    },
    /// Firmware that finds a boot loader on the root disk.
    Firmware {
        /// The firmware.
        firmware: PathBuf,
    },
}

/// An instance's own root disk.
#[derive(Clone, Debug)]
pub struct RootDisk {
    /// What it starts from. Held as long as the [`super::Vmm`] lives.
    pub image: GoldenImage,
    /// How it is made.
    pub overlay: OverlayKind,
    /// Its size in bytes if it is to be larger than the image.
    pub size_bytes: Option<u64>,
}

/// A disk that several VMs read.
#[derive(Clone, Debug)]
pub struct SharedDisk {
    /// Device id, unique in the VM, not `root`, not starting with `__`.
    pub id: String,
    /// The file.
    pub path: PathBuf,
    /// Its layout.
    pub format: ImageFormat,
}

/// A network device on an existing tap interface.
#[derive(Clone, Debug)]
pub struct TapSpec {
    /// Name of the interface, at most 15 bytes.
    pub name: String,
    /// The guest's address on it, as in `52:54:00:12:34:56`.
    pub mac: String,
}
