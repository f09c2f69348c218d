//! Why a configuration is not a VM, in upstream's words. Source: `enum ValidationError` in `vmm/src/config.rs` of v53.0.

use std::path::PathBuf;

use thiserror::Error;

pub(super) const MAX_CPUS: u32 = 8192;
pub(super) const MAX_PCI_SEGMENTS: u16 = 96;
pub(super) const MAX_ADDRESS_WIDTH_BITS: u8 = 64;
pub(super) const MAX_DISK_SERIAL_BYTES: usize = 20;
pub(super) const MIN_DISK_QUEUE_SIZE: u16 = 2;
pub(super) const MIN_MTU: u16 = 1280;
pub(super) const PCI_SLOTS: u8 = 32;

/// A configuration that no VM can be made of.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum ValidationError {
    #[error("Payload configuration is not bootable")]
    Payload(#[source] PayloadError),
    #[error("Path missing when using file console mode")]
    ConsoleFileMissing,
    #[error("Max CPUs ({0}) lower than boot CPUs ({1})")]
    CpusMaxLowerThanBoot(u32, u32),
    #[error("Too many CPUs: specified {0} but {MAX_CPUS} is the limit")]
    TooManyCpus(u32),
    #[error("Disk path and vhost socket both provided")]
    DiskSocketAndPath,
    #[error("Using vhost-user requires using shared memory or huge pages")]
    VhostUserRequiresSharedMemory,
    #[error("No socket provided when using vhost-user")]
    VhostUserMissingSocket,
    #[error("Rate limiting is not supported with vhost-user")]
    VhostUserRateLimiter,
    #[error("Invalid rate-limiter group")]
    RateLimiterGroup,
    #[error("Number of queues ({0}) to virtio_net should be higher than 2")]
    NetQueuesTooFew(usize),
    #[error("Number of queues ({0}) to virtio_net does not match the number of FDs ({1})")]
    NetQueueFdMismatch(usize, usize),
    #[error("Reserved fd number (<= 2): {0}")]
    NetReservedFd(i32),
    #[error("Queue count ({0}) must not exceed boot vCPUs ({1})")]
    TooManyQueues(usize, u32),
    #[error("Queue size must be a power of 2 no greater than 32768: {0}")]
    QueueSize(u16),
    #[error("Block queue size must be greater than {MIN_DISK_QUEUE_SIZE}: {0}")]
    DiskQueueSizeTooSmall(u16),
    #[error("Device does not support being placed behind IOMMU")]
    IommuNotSupported,
    #[error("Block device serial length ({0}) exceeds maximum allowed length ({1})")]
    DiskSerialTooLong(usize, usize),
    #[error("Provided MTU {0} is lower than 1280 (expected by VIRTIO specification)")]
    Mtu(u16),
    #[error("\"offload_tso\" and \"offload_ufo\" depend on \"offload_csum\"")]
    OffloadNeedsChecksum,
    #[error("Mask provided without an IP")]
    MaskWithoutIp,
    #[error("IP provided without a mask")]
    IpWithoutMask,
    #[error("Number of PCI segments ({0}) not in range of 1 to {MAX_PCI_SEGMENTS}")]
    NumPciSegments(u16),
    #[error("IOMMU address width in bits ({0}) should be less than or equal to {MAX_ADDRESS_WIDTH_BITS}")]
    IommuAddressWidth(u8),
    #[error("Platform `iommufd_fd=<fd>` requires `iommufd=on`")]
    IommufdFdRequiresIommufd,
    #[error("Invalid PCI segment id: {0}")]
    PciSegment(u16),
    #[error("Invalid PCI segment aperture weight: {0}")]
    PciSegmentWeight(u32),
    #[error("Device is on an IOMMU PCI segment ({0}) but not placed behind IOMMU")]
    OnIommuSegment(u16),
    #[error("Given PCI device ID ({0}) is out of the supported range of 0..{PCI_SLOTS}")]
    PciDeviceId(u8),
    #[error("Given PCI device ID ({0}) is reserved")]
    ReservedPciDeviceId(u8),
    #[error("No part of the CPU topology can be zero")]
    TopologyZeroPart,
    #[error("CPU topology supports at most 2 threads per core")]
    TopologyThreadsPerCore,
    #[error("Product of CPU topology parts does not match maximum vCPU")]
    TopologyCount,
    #[error("Huge page size specified but huge pages not enabled")]
    HugePageSizeWithoutHugePages,
    #[error("Huge page size is not power of 2: {0}")]
    HugePageSize(u64),
    #[error("Invalid to set both 'mergeable' and 'shared' for memory")]
    SharedMemoryMergeable,
    #[error("Using user devices requires using shared memory or huge pages")]
    UserDevicesRequireSharedMemory,
    #[error("{0} is a special VSOCK CID")]
    VsockSpecialCid(u32),
    #[error("Balloon size ({0}) greater than RAM ({1})")]
    BalloonLargerThanRam(u64, u64),
    #[error("Duplicated device path: {0}")]
    DuplicateDevicePath(String),
    #[error("VFIO device config must specify `path=` or `fd=`")]
    VfioNeitherPathNorFd,
    #[error("VFIO device config must specify at most one of `path=` or `fd=`")]
    VfioBothPathAndFd,
    #[error("Invalid NUMA configuration: {0}")]
    Numa(&'static str),
    #[error("Memory zone: {0} belongs to multiple NUMA nodes: {1} and {2}")]
    MemoryZoneReused(String, u32, u32),
    #[error("PCI segment: {0} belongs to multiple NUMA nodes {1} and {2}")]
    PciSegmentReused(u16, u32, u32),
    #[error("Default PCI segment assigned to non-zero NUMA node {0}")]
    DefaultPciSegmentNode(u32),
    #[error("Identifier {0} is not unique")]
    IdentifierNotUnique(String),
    #[error("Identifier {0} is not invalid")]
    InvalidIdentifier(String),
    #[error("Path {0:?} provided in landlock-rules does not exist")]
    LandlockPath(PathBuf),
    #[error("Invalid landlock access: {0}")]
    LandlockAccess(String),
    #[error("'prefault' cannot be combined with 'memory_restore_mode=ondemand'")]
    PrefaultWithOnDemand,
    #[error("Net id {0} is associated with FDs and is required")]
    RestoreMissingNetId(String),
}

/// A payload that cannot be booted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum PayloadError {
    #[error("No bootitem provided: neither firmware nor kernel")]
    MissingBootitem,
    #[error("Specifying a kernel is not supported when a firmware is provided")]
    FirmwarePlusOther,
}
