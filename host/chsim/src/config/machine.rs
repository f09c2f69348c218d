//! The parts of a VM that are not devices: CPUs, memory, payload, NUMA, platform.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuAffinity {
    pub(crate) vcpu: u32,
    pub(crate) host_cpus: Vec<usize>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuFeatures {
    #[serde(default)]
    pub(crate) amx: bool,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CoreScheduling {
    #[default]
    Vm,
    Vcpu,
    Off,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CpuProfile {
    #[default]
    Host,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpuTopology {
    pub(crate) threads_per_core: u16,
    pub(crate) cores_per_die: u16,
    pub(crate) dies_per_package: u16,
    pub(crate) packages: u16,
}

fn max_phys_bits() -> u8 {
    46
}

pub(super) fn yes() -> bool {
    true
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CpusConfig {
    pub(crate) boot_vcpus: u32,
    pub(crate) max_vcpus: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) topology: Option<CpuTopology>,
    #[serde(default)]
    pub(crate) kvm_hyperv: bool,
    #[serde(default = "max_phys_bits")]
    pub(crate) max_phys_bits: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) affinity: Option<Vec<CpuAffinity>>,
    #[serde(default)]
    pub(crate) features: CpuFeatures,
    #[serde(default = "yes")]
    pub(crate) nested: bool,
    #[serde(default)]
    pub(crate) core_scheduling: CoreScheduling,
    #[serde(default)]
    pub(crate) profile: CpuProfile,
}

impl Default for CpusConfig {
    fn default() -> Self {
        Self {
            boot_vcpus: 1,
            max_vcpus: 1,
            topology: None,
            kvm_hyperv: false,
            max_phys_bits: max_phys_bits(),
            affinity: None,
            features: CpuFeatures::default(),
            nested: true,
            core_scheduling: CoreScheduling::Vm,
            profile: CpuProfile::Host,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum HotplugMethod {
    #[default]
    Acpi,
    VirtioMem,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryZoneConfig {
    pub(crate) id: String,
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    #[serde(default)]
    pub(crate) shared: bool,
    #[serde(default)]
    pub(crate) hugepages: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hugepage_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) host_numa_node: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotplug_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotplugged_size: Option<u64>,
    #[serde(default)]
    pub(crate) prefault: bool,
    #[serde(default)]
    pub(crate) reserve: bool,
    #[serde(default)]
    pub(crate) mergeable: bool,
}

/// Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct MemoryConfig {
    pub(crate) size: u64,
    #[serde(default)]
    pub(crate) mergeable: bool,
    #[serde(default)]
    pub(crate) hotplug_method: HotplugMethod,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotplug_size: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hotplugged_size: Option<u64>,
    #[serde(default)]
    pub(crate) shared: bool,
    #[serde(default)]
    pub(crate) hugepages: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) hugepage_size: Option<u64>,
    #[serde(default)]
    pub(crate) prefault: bool,
    #[serde(default)]
    pub(crate) reserve: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) zones: Option<Vec<MemoryZoneConfig>>,
    #[serde(default = "yes")]
    pub(crate) thp: bool,
}

impl MemoryConfig {
    fn zones(&self) -> &[MemoryZoneConfig] {
        self.zones.as_deref().unwrap_or_default()
    }

    /// Bytes of RAM the VM starts with, without what virtio-mem plugged later.
    pub(crate) fn boot_bytes(&self) -> u64 {
        self.zones().iter().fold(self.size, |sum, zone| sum.saturating_add(zone.size))
    }

    /// Bytes plugged by virtio-mem.
    pub(crate) fn plugged_bytes(&self) -> u64 {
        let zones = self.zones().iter().filter_map(|zone| zone.hotplugged_size);
        zones.fold(self.hotplugged_size.unwrap_or(0), u64::saturating_add)
    }

    /// Boot memory and plugged memory together, bytes.
    pub(crate) fn total_bytes(&self) -> u64 {
        self.boot_bytes().saturating_add(self.plugged_bytes())
    }

    /// Whether another process could map the guest's memory, as vhost-user needs.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared
            || self.hugepages
            || (self.size == 0 && self.zones().iter().all(|zone| zone.shared || zone.hugepages))
    }
}

impl Default for MemoryConfig {
    fn default() -> Self {
        Self {
            size: 512 << 20,
            mergeable: false,
            hotplug_method: HotplugMethod::Acpi,
            hotplug_size: None,
            hotplugged_size: None,
            shared: false,
            hugepages: false,
            hugepage_size: None,
            prefault: false,
            reserve: false,
            zones: None,
            thp: true,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PayloadConfig {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) firmware: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cmdline: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) initramfs: Option<PathBuf>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NumaDistance {
    #[serde(default)]
    pub(crate) destination: u32,
    #[serde(default)]
    pub(crate) distance: u8,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct NumaConfig {
    pub(crate) guest_numa_id: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cpus: Option<Vec<u32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) distances: Option<Vec<NumaDistance>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) memory_zones: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) pci_segments: Option<Vec<u16>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) device_id: Option<String>,
}

fn one_segment() -> u16 {
    1
}

fn one_weight() -> u32 {
    1
}

fn address_width_bits() -> u8 {
    64
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PciSegmentConfig {
    #[serde(default)]
    pub(crate) pci_segment: u16,
    #[serde(default = "one_weight")]
    pub(crate) mmio32_aperture_weight: u32,
    #[serde(default = "one_weight")]
    pub(crate) mmio64_aperture_weight: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PlatformConfig {
    #[serde(default = "one_segment")]
    pub(crate) num_pci_segments: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) iommu_segments: Option<Vec<u16>>,
    #[serde(default = "address_width_bits")]
    pub(crate) iommu_address_width_bits: u8,
    #[serde(default, alias = "serial_number", skip_serializing_if = "Option::is_none")]
    pub(crate) system_serial_number: Option<String>,
    #[serde(default, alias = "uuid", skip_serializing_if = "Option::is_none")]
    pub(crate) system_uuid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) oem_strings: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_manufacturer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_product_name: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_version: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_family: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) system_sku_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) chassis_asset_tag: Option<String>,
    #[serde(default)]
    pub(crate) iommufd: bool,
    #[serde(
        default,
        deserialize_with = "super::devices::invalid_fd",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) iommufd_fd: Option<i32>,
    #[serde(default = "yes")]
    pub(crate) vfio_p2p_dma: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct TpmConfig {
    pub(crate) socket: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LandlockConfig {
    pub(crate) path: PathBuf,
    pub(crate) access: String,
}
