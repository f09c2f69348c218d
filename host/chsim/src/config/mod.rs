//! `VmConfig` as upstream defines it: same fields, same order, same defaults, so that `vm.info` echoes the same bytes
//! and serde's error texts come out the same. Source: `vmm/src/vm_config.rs` of v53.0.

mod devices;
mod invalid;
mod machine;
mod requests;
mod validate;

use serde::{Deserialize, Serialize};

pub(crate) use devices::*;
pub(crate) use invalid::ValidationError;
pub(crate) use machine::*;
pub(crate) use requests::*;

/// The whole of a VM's configuration, as `vm.create` takes it and `vm.info` gives it back.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct VmConfig {
    #[serde(default)]
    pub(crate) cpus: CpusConfig,
    #[serde(default)]
    pub(crate) memory: MemoryConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) payload: Option<PayloadConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate_limit_groups: Option<Vec<RateLimiterGroupConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) disks: Option<Vec<DiskConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) net: Option<Vec<NetConfig>>,
    #[serde(default)]
    pub(crate) rng: RngConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) balloon: Option<BalloonConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) generic_vhost_user: Option<Vec<GenericVhostUserConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fs: Option<Vec<FsConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pmem: Option<Vec<PmemConfig>>,
    #[serde(default)]
    pub(crate) serial: SerialConfig,
    #[serde(default)]
    pub(crate) console: ConsoleConfig,
    #[serde(default)]
    pub(crate) debug_console: DebugConsoleConfig,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) devices: Option<Vec<DeviceConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user_devices: Option<Vec<UserDeviceConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vdpa: Option<Vec<VdpaConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) vsock: Option<VsockConfig>,
    #[serde(default)]
    pub(crate) pvpanic: bool,
    #[serde(default)]
    pub(crate) iommu: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) numa: Option<Vec<NumaConfig>>,
    #[serde(default)]
    pub(crate) watchdog: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rtc: Option<RtcConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) pci_segments: Option<Vec<PciSegmentConfig>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<PlatformConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tpm: Option<TpmConfig>,
    #[serde(default)]
    pub(crate) landlock_enable: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) landlock_rules: Option<Vec<LandlockConfig>>,
}

impl VmConfig {
    /// The kernel command line; empty when there is none.
    pub(crate) fn cmdline(&self) -> &str {
        self.payload.as_ref().and_then(|payload| payload.cmdline.as_deref()).unwrap_or_default()
    }

    /// Removes the device with this id from every list; says whether there was one. Console, random source, balloon
    /// and watchdog cannot be removed.
    pub(crate) fn remove_device(&mut self, id: &str) -> bool {
        fn drop_from<T: PciDevice>(list: &mut Option<Vec<T>>, id: &str) -> bool {
            let Some(list) = list else { return false };
            let before = list.len();
            list.retain(|device| device.id() != Some(id));
            list.len() != before
        }
        let vsock = self.vsock.as_ref().is_some_and(|vsock| vsock.id() == Some(id));
        if vsock {
            self.vsock = None;
        }
        // No short cut: an id must go from every list.
        drop_from(&mut self.devices, id)
            | drop_from(&mut self.user_devices, id)
            | drop_from(&mut self.disks, id)
            | drop_from(&mut self.fs, id)
            | drop_from(&mut self.generic_vhost_user, id)
            | drop_from(&mut self.net, id)
            | drop_from(&mut self.pmem, id)
            | drop_from(&mut self.vdpa, id)
            | vsock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_those_of_an_empty_object() {
        let empty: VmConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(empty, VmConfig::default());
    }

    #[test]
    fn the_echo_of_an_empty_object_is_upstreams() {
        let empty: VmConfig = serde_json::from_str("{}").unwrap();
        assert_eq!(
            serde_json::to_string(&empty).unwrap(),
            r#"{"cpus":{"boot_vcpus":1,"max_vcpus":1,"kvm_hyperv":false,"max_phys_bits":46,"features":{"amx":false},"nested":true,"core_scheduling":"Vm","profile":"Host"},"memory":{"size":536870912,"mergeable":false,"hotplug_method":"Acpi","shared":false,"hugepages":false,"prefault":false,"reserve":false,"thp":true},"rng":{"pci_segment":0,"src":"/dev/urandom"},"serial":{"mode":"Null"},"console":{"mode":"Tty","pci_segment":0},"debug_console":{"mode":"Off","iobase":233},"pvpanic":false,"iommu":false,"watchdog":false,"landlock_enable":false}"#
        );
    }

    #[test]
    fn unknown_fields_are_ignored_and_duplicate_ones_refused() {
        serde_json::from_str::<VmConfig>(r#"{"bogus":1}"#).unwrap();
        let error = serde_json::from_str::<DiskConfig>(r#"{"path":"/x","vhost_socket":null,"path":null}"#)
            .unwrap_err();
        assert_eq!(error.to_string(), "duplicate field `path` at line 1 column 39");
    }

    #[test]
    fn removing_a_device_takes_it_from_its_list_only() {
        let mut config: VmConfig =
            serde_json::from_str(r#"{"disks":[{"id":"a","path":"/a"},{"id":"b","path":"/b"}],"vsock":{"id":"v","cid":3,"socket":"/v"}}"#)
                .unwrap();
        assert!(config.remove_device("a"));
        assert!(!config.remove_device("a"));
        assert!(config.remove_device("v"));
        assert_eq!(config.disks.map(|disks| disks.len()), Some(1));
        assert_eq!(config.vsock, None);
    }
}
