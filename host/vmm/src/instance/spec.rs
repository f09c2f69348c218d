//! What to launch, in terms that have nothing to do with one VMM's API.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::dir::InstanceDir;
use crate::image::{GoldenImage, ImageFormat};
use crate::overlay::OverlayKind;
use crate::snapshot::GoldenSnapshot;

/// Everything that one launch needs.
#[derive(Clone, Debug)]
pub struct LaunchSpec {
    /// Name of the instance, for logs and errors.
    pub id: String,
    /// Where its files go.
    pub dir: InstanceDir,
    /// Who it is, as JSON: written into its directory first, for whoever finds it later ([`InstanceDir::identity`]).
    pub identity: Option<String>,
    /// How its guest comes to run.
    pub start: StartFrom,
    /// Virtual processors, at least 1.
    pub vcpus: u32,
    /// Guest memory in bytes.
    pub memory_bytes: u64,
    /// What the guest starts.
    pub boot: BootSource,
    /// Its own disk, with id `root`; first disk of the guest.
    pub root: Option<RootDisk>,
    /// Disks of its own that start empty; after the root disk, in this order.
    pub data_disks: Vec<DataDisk>,
    /// Disks that it shares with others, read-only.
    pub shared_disks: Vec<SharedDisk>,
    /// What cloud-init finds on a small disk with id `seed`, the last one.
    pub seed: Option<Seed>,
    /// What the guest reads from its SMBIOS tables.
    pub smbios: Option<Smbios>,
    /// How it is reached.
    pub network: NetworkSpec,
    /// Refuses the launch if a measure that contains the VMM cannot be had on this host.
    pub require_isolation: bool,
    /// How long the launch may take from the moment its turn comes until the VM is booted.
    pub boot_timeout: Duration,
    /// Whether the logs of a failed launch are kept for a post-mortem (see [`super::FailedLogs`]).
    pub keep_failed_logs: bool,
}

/// How a guest comes to run.
#[derive(Clone, Debug, Default)]
pub enum StartFrom {
    /// It boots.
    #[default]
    Boot,
    /// It boots although it was to be restored; why is recorded.
    BootInstead(String),
    /// It boots, and a snapshot of it will be made ([`super::VmmHost::snapshot`]).
    BootForSnapshot,
    /// It goes on from a snapshot. A launch that fails at that fails with [`super::LaunchError::Restore`].
    Snapshot(GoldenSnapshot),
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

/// A disk of an instance's own that starts empty: a sparse raw file in its directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DataDisk {
    /// Device id, unique in the VM, not reserved; also its serial number, so at most 20 bytes.
    pub id: String,
    /// Its size in bytes, a multiple of 512.
    pub size_bytes: u64,
}

/// The files of a cloud-init NoCloud seed (a vfat disk with label `CIDATA`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// `meta-data`.
    pub meta_data: String,
    /// `user-data`.
    pub user_data: String,
    /// `network-config`.
    pub network_config: Option<String>,
}

/// What the guest reads from its SMBIOS tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Smbios {
    /// Serial number of the system; cloud-init reads `ds=nocloud;…` from it.
    pub serial: String,
    /// UUID of the system, as in `c0ffee00-0000-4000-8000-000000000001`.
    pub uuid: String,
}

/// How an instance is reached. Its network device has the id `net0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NetworkSpec {
    /// No network device; the VMM is in a network namespace with nothing in it.
    None,
    /// No network device; the VMM shares the host's network. For the simulator, whose guests answer on the host's loopback.
    Host,
    /// A network namespace of its own, with the same guest address as every other.
    Isolated(IsolatedNetwork),
    /// A port of a bridge of the host.
    Bridged(BridgedNetwork),
}

/// A network namespace for one instance: tap inside, veth out, NAT between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IsolatedNetwork {
    /// Where the host reaches the guest; unique on the host.
    pub address: Ipv4Addr,
    /// The guest's own address, the same in every instance.
    pub guest: Ipv4Addr,
    /// Prefix length of the guest's network.
    pub prefix: u8,
    /// The guest's gateway, in that network.
    pub gateway: Ipv4Addr,
    /// The guest's address on the wire, as in `52:54:00:12:34:56`.
    pub mac: String,
    /// Where the guest may open connections, to the host and beyond; none for nowhere.
    pub outbound: Option<Outbound>,
    /// Whether others than the host may open connections to the guest.
    pub published: bool,
}

/// Where a guest may open connections: networks, by first address and prefix length.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Only there, when any is named. One within a special range (cloud metadata and the like) opens it, others leave those closed.
    pub allow: Vec<(Ipv4Addr, u8)>,
    /// Not there, whatever is allowed.
    pub deny: Vec<(Ipv4Addr, u8)>,
}

/// A tap on a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BridgedNetwork {
    /// Name of the bridge.
    pub bridge: String,
    /// Address and prefix length of a bridge that is made when needed and removed with its last port; none uses one that is there.
    pub managed: Option<(Ipv4Addr, u8)>,
    /// The guest's address on the bridge's network; unique on the host.
    pub address: Ipv4Addr,
    /// The guest's address on the wire; it can use no other.
    pub mac: String,
    /// Whether the guest may talk to other guests on the bridge that may.
    pub peers: bool,
}
