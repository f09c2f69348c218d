//! Device configurations. Upstream flattens four fields that all PCI devices share into each of them; the macro below
//! writes them out, because the order of fields is part of the echo.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::machine::yes;

/// What all PCI device configurations have.
pub(crate) trait PciDevice {
    /// The device's id; unset until a VM is made of the configuration.
    fn id(&self) -> Option<&str>;
    /// Where the id is kept.
    fn id_mut(&mut self) -> &mut Option<String>;
    /// PCI segment number.
    fn segment(&self) -> u16;
    /// The slot asked for, if any.
    fn slot(&self) -> Option<u8>;
    /// Whether the device sits behind the virtual IOMMU.
    fn iommu(&self) -> bool;
}

fn no(flag: &bool) -> bool {
    !flag
}

macro_rules! pci_device {
    (
        $(#[$meta:meta])* $name:ident {
            $( @before { $( $(#[$before_meta:meta])* $before:ident : $before_type:ty ),* $(,)? } )?
            $( $(#[$field_meta:meta])* $field:ident : $type:ty ),* $(,)?
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        pub(crate) struct $name {
            $( $( $(#[$before_meta])* pub(crate) $before: $before_type, )* )?
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub(crate) id: Option<String>,
            #[serde(default, skip_serializing_if = "no")]
            pub(crate) iommu: bool,
            #[serde(default)]
            pub(crate) pci_segment: u16,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub(crate) pci_device_id: Option<u8>,
            $( $(#[$field_meta])* pub(crate) $field: $type, )*
        }

        impl PciDevice for $name {
            fn id(&self) -> Option<&str> {
                self.id.as_deref()
            }
            fn id_mut(&mut self) -> &mut Option<String> {
                &mut self.id
            }
            fn segment(&self) -> u16 {
                self.pci_segment
            }
            fn slot(&self) -> Option<u8> {
                self.pci_device_id
            }
            fn iommu(&self) -> bool {
                self.iommu
            }
        }
    };
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TokenBucketConfig {
    pub(crate) size: u64,
    pub(crate) one_time_burst: Option<u64>,
    /// Milliseconds.
    pub(crate) refill_time: u64,
}

/// The one structure that refuses unknown fields, and that echoes absent ones as `null`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimiterConfig {
    pub(crate) bandwidth: Option<TokenBucketConfig>,
    pub(crate) ops: Option<TokenBucketConfig>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RateLimiterGroupConfig {
    #[serde(default)]
    pub(crate) id: String,
    #[serde(default)]
    pub(crate) rate_limiter_config: RateLimiterConfig,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VirtQueueAffinity {
    pub(crate) queue_index: u16,
    pub(crate) host_cpus: Vec<usize>,
}

/// Format of a disk image, as specified or as found in its header.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ImageType {
    FixedVhd,
    Qcow2,
    Raw,
    Vhdx,
    #[default]
    Unknown,
}

impl fmt::Display for ImageType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::FixedVhd => "vhd",
            Self::Qcow2 => "qcow2",
            Self::Raw => "raw",
            Self::Vhdx => "vhdx",
            Self::Unknown => "unknown",
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum LockGranularity {
    #[default]
    ByteRange,
    Full,
}

fn disk_queues() -> usize {
    1
}

fn disk_queue_size() -> u16 {
    128
}

pci_device! {
    DiskConfig {
        #[serde(skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        #[serde(default)]
        readonly: bool,
        #[serde(default)]
        direct: bool,
        #[serde(default = "disk_queues")]
        num_queues: usize,
        #[serde(default = "disk_queue_size")]
        queue_size: u16,
        #[serde(default)]
        vhost_user: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        vhost_socket: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limit_group: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limiter_config: Option<RateLimiterConfig>,
        #[serde(default)]
        disable_io_uring: bool,
        #[serde(default)]
        disable_aio: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        serial: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        queue_affinity: Option<Vec<VirtQueueAffinity>>,
        #[serde(default)]
        backing_files: bool,
        #[serde(default = "yes")]
        sparse: bool,
        #[serde(default)]
        image_type: ImageType,
        #[serde(default)]
        lock_granularity: LockGranularity,
    }
}

/// A MAC address; six pairs of hexadecimal digits in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MacAddr(pub(crate) [u8; 6]);

impl MacAddr {
    /// A random address; the first byte is upstream's for "locally administered".
    pub(crate) fn local_random() -> Self {
        let mut bytes = crate::random::bytes::<6>();
        bytes[0] = 0x2e;
        Self(bytes)
    }

    /// Parses `aa:bb:cc:dd:ee:ff`; the error is upstream's text.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let error = || format!("parsing of {text} into a MAC address failed");
        let parts: Vec<&str> = text.split(':').collect();
        let mut bytes = [0; 6];
        if parts.len() != bytes.len() {
            return Err(error());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            if part.len() != 2 || !part.bytes().all(|digit| digit.is_ascii_hexdigit()) {
                return Err(error());
            }
            *byte = u8::from_str_radix(part, 16).map_err(|_| error())?;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Serialize for MacAddr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for MacAddr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| {
            serde::de::Error::custom(format!("The provided MAC address is invalid: {error}"))
        })
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VhostMode {
    #[default]
    Client,
    Server,
}

/// Descriptors never come through JSON; upstream reads them and makes each -1.
fn invalid_fds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<i32>>, D::Error> {
    let fds: Option<Vec<i32>> = Option::deserialize(deserializer)?;
    Ok(fds.map(|fds| vec![-1; fds.len()]))
}

/// See [`invalid_fds`].
pub(super) fn invalid_fd<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i32>, D::Error> {
    let fd: Option<i32> = Option::deserialize(deserializer)?;
    Ok(fd.map(|_| -1))
}

fn net_queues() -> usize {
    2
}

fn net_queue_size() -> u16 {
    256
}

pci_device! {
    NetConfig {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        tap: Option<String>,
        #[serde(skip_serializing_if = "Option::is_none")]
        ip: Option<IpAddr>,
        #[serde(skip_serializing_if = "Option::is_none")]
        mask: Option<IpAddr>,
        #[serde(default = "MacAddr::local_random")]
        mac: MacAddr,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host_mac: Option<MacAddr>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        mtu: Option<u16>,
        #[serde(default = "net_queues")]
        num_queues: usize,
        #[serde(default = "net_queue_size")]
        queue_size: u16,
        #[serde(default)]
        vhost_user: bool,
        #[serde(skip_serializing_if = "Option::is_none")]
        vhost_socket: Option<String>,
        #[serde(default)]
        vhost_mode: VhostMode,
        #[serde(default, deserialize_with = "invalid_fds", skip_serializing_if = "Option::is_none")]
        fds: Option<Vec<i32>>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rate_limiter_config: Option<RateLimiterConfig>,
        #[serde(default = "yes")]
        offload_tso: bool,
        #[serde(default = "yes")]
        offload_ufo: bool,
        #[serde(default = "yes")]
        offload_csum: bool,
    }
}

pci_device! { RngConfig { src: PathBuf } }

impl Default for RngConfig {
    fn default() -> Self {
        Self {
            id: None,
            iommu: false,
            pci_segment: 0,
            pci_device_id: None,
            src: PathBuf::from("/dev/urandom"),
        }
    }
}

pci_device! { RtcConfig {} }

pci_device! {
    BalloonConfig {
        size: u64,
        #[serde(default)]
        deflate_on_oom: bool,
        #[serde(default)]
        free_page_reporting: bool,
    }
}

fn fs_queues() -> usize {
    1
}

fn fs_queue_size() -> u16 {
    1024
}

pci_device! {
    FsConfig {
        tag: String,
        socket: PathBuf,
        #[serde(default = "fs_queues")]
        num_queues: usize,
        #[serde(default = "fs_queue_size")]
        queue_size: u16,
    }
}

pci_device! { GenericVhostUserConfig { socket: PathBuf, queue_sizes: Vec<u16>, device_type: u32 } }

pci_device! {
    PmemConfig {
        file: PathBuf,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        size: Option<u64>,
        #[serde(default)]
        discard_writes: bool,
    }
}

/// Where a console's output goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ConsoleMode {
    Off,
    Pty,
    Tty,
    File,
    Socket,
    Null,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SerialConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    pub(crate) mode: ConsoleMode,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) socket: Option<PathBuf>,
}

impl Default for SerialConfig {
    fn default() -> Self {
        Self { file: None, mode: ConsoleMode::Null, socket: None }
    }
}

pci_device! {
    ConsoleConfig {
        @before {
            #[serde(default, skip_serializing_if = "Option::is_none")]
            file: Option<PathBuf>,
            mode: ConsoleMode,
            #[serde(default, skip_serializing_if = "Option::is_none")]
            socket: Option<PathBuf>,
        }
    }
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self {
            file: None,
            mode: ConsoleMode::Tty,
            socket: None,
            id: None,
            iommu: false,
            pci_segment: 0,
            pci_device_id: None,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DebugConsoleConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    pub(crate) mode: ConsoleMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) iobase: Option<u16>,
}

impl Default for DebugConsoleConfig {
    fn default() -> Self {
        Self { file: None, mode: ConsoleMode::Off, iobase: Some(0xe9) }
    }
}

pci_device! {
    DeviceConfig {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        path: Option<PathBuf>,
        #[serde(default, deserialize_with = "invalid_fd", skip_serializing_if = "Option::is_none")]
        fd: Option<i32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        x_nv_gpudirect_clique: Option<u8>,
        #[serde(default)]
        x_exclude_mmap_bars: Vec<u64>,
    }
}

pci_device! { UserDeviceConfig { socket: PathBuf } }

fn vdpa_queues() -> usize {
    1
}

pci_device! {
    VdpaConfig {
        path: PathBuf,
        #[serde(default = "vdpa_queues")]
        num_queues: usize,
    }
}

pci_device! { VsockConfig { cid: u32, socket: PathBuf } }
