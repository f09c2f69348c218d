//! A scale set as the host understands it: checked, with defaults filled in and
//! paths made absolute.

use serde::{Deserialize, Serialize};

pub use super::fields::{
    Guards, GuestMetric, Health, LoadBalancer, PolicyLimits, Repair, ScaleIn, UpgradePolicy,
};
use super::network::Network;
use crate::combine::CombineRule;
use crate::sizing::ScheduleEntry;

/// A named group of identical instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScaleSet {
    /// Lower-case letters, digits and `-`, at most 32 bytes, starts with a letter.
    pub name: String,
    /// Length of a tick, 20 ms to 1 h; default 5 s.
    pub tick_ms: u64,
    /// How many instances.
    pub capacity: Capacity,
    /// What every instance starts from.
    pub image: Image,
    /// What every instance is made of.
    pub instance: InstanceTemplate,
    /// How instances are reached.
    pub network: Network,
    /// When an instance is healthy.
    pub health: Health,
    /// Where the set's traffic comes in; none leaves the set without.
    pub load_balancer: Option<LoadBalancer>,
    /// Metrics taken from the guests' `/metrics`, beside the built-in ones.
    pub metrics: Vec<GuestMetric>,
    /// Who decides the capacity: at least one.
    pub policies: Vec<PolicySpec>,
    /// How the decisions of several policies become one.
    pub combine: CombineRule,
    /// Times at which something else counts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schedules: Vec<ScheduleEntry>,
    /// What the host does not leave to the policy.
    pub guards: Guards,
    /// What happens to broken instances.
    pub repair: Repair,
    /// How running instances follow the manifest.
    #[serde(default)]
    pub upgrade: UpgradePolicy,
    /// Which instances a scale-in removes.
    #[serde(default)]
    pub scale_in: ScaleIn,
}

/// How many instances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capacity {
    /// Never fewer.
    pub min: u32,
    /// Never more, at most 10,000.
    pub max: u32,
    /// At the first apply; default `min`.
    pub initial: u32,
}

/// What every instance starts from: a named image of the host's catalogue, or
/// files: a disk, and a kernel or a firmware.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Name in the catalogue; then there are no files here, and what the name
    /// meant at the apply is in [`crate::state::ImageDigests`].
    pub name: Option<String>,
    /// How an instance's own disk is made from that of the named image; default
    /// qcow2. None without a name: files have theirs in `disk`.
    pub overlay: Option<Overlay>,
    /// Size of an instance's own disk on the named image, bytes; none keeps the
    /// image's. Files have theirs in `disk`.
    pub size_bytes: Option<u64>,
    /// The golden disk; none for a kernel with everything inside.
    pub disk: Option<ImageDisk>,
    /// Kernel (PVH ELF or bzImage); exactly one of kernel and firmware.
    pub kernel: Option<FileRef>,
    /// Initial RAM disk; needs a kernel.
    pub initramfs: Option<FileRef>,
    /// Kernel command line; the host appends the address (`ip=…`).
    pub cmdline: String,
    /// Firmware.
    pub firmware: Option<FileRef>,
}

impl Image {
    /// How an instance's own disk is made.
    #[must_use]
    pub fn overlay(&self) -> Overlay {
        self.disk.as_ref().map(|disk| disk.overlay).or(self.overlay).unwrap_or(Overlay::Qcow2)
    }

    /// Size of an instance's own disk, bytes; none keeps the image's.
    #[must_use]
    pub fn disk_size_bytes(&self) -> Option<u64> {
        self.size_bytes.or(self.disk.as_ref().and_then(|disk| disk.size_bytes))
    }
}

/// A file by path and, when given, digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileRef {
    /// Absolute path.
    pub path: String,
    /// SHA-256, 64 lower-case hex digits.
    pub sha256: Option<String>,
}

/// The golden disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageDisk {
    /// The file; raw or qcow2 is seen from its content.
    pub file: FileRef,
    /// How an instance's own disk is made from it; default qcow2.
    pub overlay: Overlay,
    /// Size of an instance's own disk; none keeps the image's.
    #[serde(default)]
    pub size_bytes: Option<u64>,
}

/// How an instance's own disk is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Overlay {
    /// A qcow2 file that holds the differences.
    Qcow2,
    /// A raw copy, reflinked where the file system can.
    Raw,
}

/// What every instance is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceTemplate {
    /// Virtual CPUs, 1 to 255; default 1.
    pub vcpus: u32,
    /// Memory; default 512 MiB; 16 MiB to 16 TiB.
    pub memory_bytes: u64,
    /// From the start of the launch to healthy; default 2 min.
    pub boot_timeout_ms: u64,
    /// From the press of its power button to its end; default 30 s.
    #[serde(default = "shutdown_timeout_ms")]
    pub shutdown_timeout_ms: u64,
    /// Disks of its own that start empty, after the root disk.
    #[serde(default)]
    pub data_disks: Vec<DataDisk>,
    /// Disks that all instances read.
    #[serde(default)]
    pub shared_disks: Vec<SharedDisk>,
    /// What the guest is told by cloud-init; none leaves it without.
    #[serde(default)]
    pub cloud_init: Option<CloudInit>,
    /// Refuses to launch where the VMM cannot be contained in every way; default false.
    #[serde(default)]
    pub require_isolation: bool,
    /// How an instance comes to run; default cold.
    #[serde(default)]
    pub start: StartMode,
}

/// How an instance comes to run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartMode {
    /// Its guest boots.
    #[default]
    Cold,
    /// Its guest goes on from a snapshot of one that has booted; launches wait for that snapshot.
    Snapshot,
    /// As with a snapshot when there is one; until then, its guest boots.
    Auto,
}

impl StartMode {
    /// The mode as manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Cold => "cold",
            Self::Snapshot => "snapshot",
            Self::Auto => "auto",
        }
    }
}

/// The default, also for sets that were stored before there was a field for it.
fn shutdown_timeout_ms() -> u64 {
    30_000
}

impl Default for InstanceTemplate {
    fn default() -> Self {
        Self {
            vcpus: 1,
            memory_bytes: 512 << 20,
            boot_timeout_ms: 120_000,
            shutdown_timeout_ms: shutdown_timeout_ms(),
            data_disks: Vec::new(),
            shared_disks: Vec::new(),
            cloud_init: None,
            require_isolation: false,
            start: StartMode::Cold,
        }
    }
}

/// A disk of an instance's own that starts empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataDisk {
    /// Name, unique among the disks; also the disk's serial number.
    pub name: String,
    /// Size in bytes.
    pub size_bytes: u64,
}

/// A disk that all instances read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SharedDisk {
    /// Name, unique among the disks; also the disk's serial number.
    pub name: String,
    /// The file; raw or qcow2 is seen from its content.
    pub file: FileRef,
}

/// What the guest is told by cloud-init.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloudInit {
    /// How it reaches the guest; default a small disk.
    pub seed: SeedKind,
    /// User data, with `${regatta.…}` to be replaced; empty for none.
    pub user_data: String,
    /// Public SSH keys of the default user.
    pub ssh_keys: Vec<String>,
    /// Where a guest without seed disk fetches `meta-data` and `user-data`.
    pub seed_url: Option<String>,
}

/// How cloud-init's data reach the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SeedKind {
    /// On a small disk with the label `CIDATA`.
    Disk,
    /// Instance id and hostname in the SMBIOS serial number, the rest from `seed_url`.
    Smbios,
}

/// What a health probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum Probe {
    /// GET; any 2xx passes.
    Http {
        /// Path, starts with `/`.
        path: String,
        /// Port; without it, that of the instance's service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
    /// The connection is accepted.
    Tcp {
        /// Port; without it, that of the instance's service.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        port: Option<u16>,
    },
}

/// How removed instances finish what they have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrainPolicy {
    /// Connections still open by then are cut; default 30 s.
    pub timeout_ms: u64,
}

/// What happens to quiet connections of an instance that drains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DrainMode {
    /// They stay until the drain time-out: on a connection that nothing is known of, quiet is not finished.
    #[default]
    Wait,
    /// They are closed.
    Idle,
}

/// Who decides the capacity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PolicySpec {
    /// What the set calls it; unique within the set. Default: as its module.
    pub name: String,
    /// A name looked up in the policy directories, or an absolute path of a module.
    pub module: String,
    /// Parameters, handed over as JSON.
    pub params: serde_json::Value,
    /// What a decision may cost.
    pub limits: PolicyLimits,
    /// Another file under that name in the policy directories takes over by itself.
    pub follow: bool,
}

/// What repair does to an unhealthy instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RepairAction {
    /// Another takes its place.
    #[default]
    Replace,
    /// Its guest is restarted.
    Restart,
}

impl RepairAction {
    /// The name that users read and write.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Replace => "replace",
            Self::Restart => "restart",
        }
    }
}

/// Sets that are stored without the field are repaired as they were.
pub(super) fn all_percent() -> u32 {
    100
}

/// Sets that are stored without the field get the default of the manifest.
pub(super) fn default_idle_timeout_ms() -> u64 {
    300_000
}

/// As `default_idle_timeout_ms`.
pub(super) fn default_queue_timeout_ms() -> u64 {
    30_000
}

/// Sets stored by a version without that limit have none of it.
pub(super) fn default_wake_after_ms() -> u64 {
    PolicyLimits::default().wake_after_ms
}

pub(super) fn default_table_elements() -> u32 {
    PolicyLimits::default().table_elements
}

impl Default for PolicyLimits {
    fn default() -> Self {
        Self {
            fuel: 50_000_000,
            deadline_ms: 100,
            memory_bytes: 64 << 20,
            output_bytes: 256 << 10,
            log_lines: 100,
            wake_after_ms: 1_000,
            table_elements: 100_000,
        }
    }
}

/// When the policy gives no decision. Never a scale-in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum OnFailure {
    /// Keep the size.
    #[default]
    Hold,
    /// Go to this size if it is larger than the present one.
    Static {
        /// That size.
        capacity: u32,
    },
}

/// When a metric that the policy wants has no fresh value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum MissingData {
    /// Scale-out is allowed, scale-in is not.
    #[default]
    NoScaleIn,
    /// Keep the size.
    Hold,
    /// Go to this size if it is larger than the present one, else keep the size.
    Default {
        /// That size.
        capacity: u32,
    },
    /// Leave it to the policy.
    Ignore,
}

/// How running instances follow a manifest whose instance model has changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UpgradeMode {
    /// Not by themselves.
    #[default]
    Manual,
    /// Batch by batch.
    Rolling,
    /// All at once.
    AllAtOnce,
}

impl UpgradeMode {
    /// The mode as manifests write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Manual => "manual",
            Self::Rolling => "rolling",
            Self::AllAtOnce => "all-at-once",
        }
    }
}

/// Where an upgrade waits to see how the new instances do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Share of the outdated instances, percent, 1 to 100.
    pub percent: u32,
    /// For how long it waits, milliseconds.
    pub bake_ms: u64,
}

/// The defaults of the manifest, for sets that were stored before there were upgrades.
impl Default for UpgradePolicy {
    fn default() -> Self {
        Self {
            mode: UpgradeMode::Manual,
            max_batch_percent: 20,
            max_surge_percent: 20,
            max_unavailable_percent: 0,
            max_unhealthy_percent: 20,
            max_unhealthy_upgraded_percent: 20,
            pause_ms: 0,
            checkpoints: Vec::new(),
            rollback: true,
        }
    }
}

/// A metric whose rise above a threshold makes the policy scale out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FlapRule {
    /// Name of the metric.
    pub metric: String,
    /// The threshold, a positive number.
    pub above: f64,
}

// It holds no NaN.
impl Eq for FlapRule {}

/// What a set may cost. Both are positive numbers.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MaxCost {
    /// Price of an instance for an hour.
    pub per_instance_hour: f64,
    /// What the set may cost in an hour.
    pub per_hour: f64,
}

// It holds no NaN.
impl Eq for MaxCost {}

impl MaxCost {
    /// How many instances that pays for.
    #[must_use]
    pub fn instances(self) -> u32 {
        // A quotient that should be whole may come out just below.
        (self.per_hour / self.per_instance_hour * (1.0 + 1e-9)).floor().min(f64::from(u32::MAX)) as u32
    }
}
