//! What upstream checks when a VM is made of a configuration (not at `vm.create`): same order, same texts, first
//! problem only. Source: `VmConfig::validate` in `vmm/src/config.rs` of v53.0.

use std::collections::{BTreeMap, BTreeSet};

use super::invalid::*;
use super::{ConsoleMode, DiskConfig, MemoryRestoreMode, NetConfig, PciDevice, RestoreConfig, VmConfig};

type Result<T> = std::result::Result<T, ValidationError>;

/// Ids seen so far.
#[derive(Default)]
struct Ids(BTreeSet<String>);

impl Ids {
    fn add(&mut self, id: Option<&str>) -> Result<()> {
        match id {
            Some(id) if id.starts_with("__") => Err(ValidationError::InvalidIdentifier(id.to_owned())),
            Some(id) if !self.0.insert(id.to_owned()) => {
                Err(ValidationError::IdentifierNotUnique(id.to_owned()))
            }
            _ => Ok(()),
        }
    }
}

impl VmConfig {
    /// Checks the configuration, and as upstream does on the way: drops what firmware makes meaningless and turns the
    /// virtual IOMMU on when a device asks for it. `exists` answers whether a path is there.
    pub(crate) fn validate(&mut self, exists: &dyn Fn(&std::path::Path) -> bool) -> Result<()> {
        let mut ids = Ids::default();
        let mut iommu = false;

        self.validate_payload()?;
        self.validate_consoles()?;
        self.validate_cpu_counts()?;
        for group in self.rate_limit_groups.iter().flatten() {
            ids.add(Some(&group.id))?;
        }
        for disk in self.disks.iter().flatten() {
            self.validate_disk(disk)?;
            iommu |= disk.iommu;
            ids.add(disk.id())?;
        }
        for net in self.net.iter().flatten() {
            self.validate_net(net)?;
            iommu |= net.iommu;
            ids.add(net.id())?;
        }
        let shared = self.memory.is_shared();
        self.validate_list(&self.fs, shared, &mut ids)?;
        self.validate_list(&self.generic_vhost_user, shared, &mut ids)?;
        for pmem in self.pmem.iter().flatten() {
            iommu |= self.validate_pci(pmem, &mut ids)?;
        }
        iommu |= self.validate_pci(&self.rng, &mut ids)?;
        if let Some(rtc) = &self.rtc {
            iommu |= self.validate_pci(rtc, &mut ids)?;
        }
        iommu |= self.validate_pci(&self.console, &mut ids)?;
        self.validate_topology()?;
        self.validate_memory()?;
        for device in self.user_devices.iter().flatten() {
            if !shared {
                return Err(ValidationError::UserDevicesRequireSharedMemory);
            }
            self.validate_pci(device, &mut ids)?;
        }
        for vdpa in self.vdpa.iter().flatten() {
            iommu |= self.validate_pci(vdpa, &mut ids)?;
        }
        if let Some(vsock) = &self.vsock
            && [u32::MAX, 0, 1, 2].contains(&vsock.cid)
        {
            return Err(ValidationError::VsockSpecialCid(vsock.cid));
        }
        if let Some(balloon) = &self.balloon {
            iommu |= self.validate_pci(balloon, &mut ids)?;
            let ram = self.memory.total_bytes();
            if balloon.size >= ram {
                return Err(ValidationError::BalloonLargerThanRam(balloon.size, ram));
            }
        }
        iommu |= self.validate_passthrough(&mut ids)?;
        if let Some(vsock) = &self.vsock {
            iommu |= self.validate_pci(vsock, &mut ids)?;
        }
        self.validate_numa()?;
        for zone in self.memory.zones.iter().flatten() {
            ids.add(Some(&zone.id))?;
        }
        iommu |= self.validate_platform()?;
        for rule in self.landlock_rules.iter().flatten() {
            if !exists(&rule.path) {
                return Err(ValidationError::LandlockPath(rule.path.clone()));
            }
            if !rule.access.bytes().all(|byte| byte == b'r' || byte == b'w') {
                return Err(ValidationError::LandlockAccess(rule.access.clone()));
            }
        }
        self.iommu |= iommu;
        Ok(())
    }

    fn validate_payload(&mut self) -> Result<()> {
        let payload = self.payload.as_mut().ok_or(ValidationError::Payload(PayloadError::MissingBootitem))?;
        match (&payload.firmware, &payload.kernel) {
            (Some(_), Some(_)) => Err(ValidationError::Payload(PayloadError::FirmwarePlusOther)),
            (None, None) => Err(ValidationError::Payload(PayloadError::MissingBootitem)),
            (Some(_), None) => {
                payload.cmdline = None;
                payload.initramfs = None;
                Ok(())
            }
            (None, Some(_)) => Ok(()),
        }
    }

    fn validate_consoles(&self) -> Result<()> {
        let console = self.console.mode == ConsoleMode::File && self.console.file.is_none();
        let serial = self.serial.mode == ConsoleMode::File && self.serial.file.is_none();
        if console || serial { Err(ValidationError::ConsoleFileMissing) } else { Ok(()) }
    }

    fn validate_cpu_counts(&self) -> Result<()> {
        let (max, boot) = (self.cpus.max_vcpus, self.cpus.boot_vcpus);
        if max < boot {
            return Err(ValidationError::CpusMaxLowerThanBoot(max, boot));
        }
        if max > MAX_CPUS { Err(ValidationError::TooManyCpus(max)) } else { Ok(()) }
    }

    fn validate_topology(&self) -> Result<()> {
        let Some(topology) = &self.cpus.topology else {
            return Ok(());
        };
        let parts =
            [topology.threads_per_core, topology.cores_per_die, topology.dies_per_package, topology.packages];
        if parts.contains(&0) {
            return Err(ValidationError::TopologyZeroPart);
        }
        if topology.threads_per_core > 2 {
            return Err(ValidationError::TopologyThreadsPerCore);
        }
        let total = parts.iter().fold(1u64, |product, part| product.saturating_mul(u64::from(*part)));
        if total == u64::from(self.cpus.max_vcpus) { Ok(()) } else { Err(ValidationError::TopologyCount) }
    }

    fn validate_memory(&self) -> Result<()> {
        if let Some(size) = self.memory.hugepage_size {
            if !self.memory.hugepages {
                return Err(ValidationError::HugePageSizeWithoutHugePages);
            }
            if !size.is_power_of_two() {
                return Err(ValidationError::HugePageSize(size));
            }
        }
        let zones = self.memory.zones.iter().flatten().any(|zone| zone.shared && zone.mergeable);
        if (self.memory.shared && self.memory.mergeable) || zones {
            return Err(ValidationError::SharedMemoryMergeable);
        }
        Ok(())
    }

    fn validate_disk(&self, disk: &DiskConfig) -> Result<()> {
        if disk.vhost_socket.is_some() && disk.path.is_some() {
            return Err(ValidationError::DiskSocketAndPath);
        }
        self.validate_vhost_user(disk.vhost_user, disk.vhost_socket.is_some())?;
        let limited = disk.rate_limiter_config.is_some();
        if disk.vhost_user && (limited || disk.rate_limit_group.is_some()) {
            return Err(ValidationError::VhostUserRateLimiter);
        }
        if let Some(group) = &disk.rate_limit_group
            && !self.rate_limit_groups.iter().flatten().any(|known| known.id == *group)
        {
            return Err(ValidationError::RateLimiterGroup);
        }
        self.validate_slot(disk)?;
        self.validate_queues(disk.num_queues, disk.num_queues, disk.queue_size)?;
        if disk.queue_size <= MIN_DISK_QUEUE_SIZE {
            return Err(ValidationError::DiskQueueSizeTooSmall(disk.queue_size));
        }
        if disk.vhost_user && disk.iommu {
            return Err(ValidationError::IommuNotSupported);
        }
        if limited && disk.rate_limit_group.is_some() {
            return Err(ValidationError::RateLimiterGroup);
        }
        match &disk.serial {
            Some(serial) if serial.len() > MAX_DISK_SERIAL_BYTES => {
                Err(ValidationError::DiskSerialTooLong(serial.len(), MAX_DISK_SERIAL_BYTES))
            }
            _ => Ok(()),
        }
    }

    fn validate_net(&self, net: &NetConfig) -> Result<()> {
        self.validate_vhost_user(net.vhost_user, net.vhost_socket.is_some())?;
        if net.vhost_user && net.rate_limiter_config.is_some() {
            return Err(ValidationError::VhostUserRateLimiter);
        }
        self.validate_slot(net)?;
        if net.num_queues < 2 {
            return Err(ValidationError::NetQueuesTooFew(net.num_queues));
        }
        if let Some(fds) = &net.fds {
            if fds.len() * 2 != net.num_queues {
                return Err(ValidationError::NetQueueFdMismatch(net.num_queues, fds.len() * 2));
            }
            if let Some(fd) = fds.iter().find(|fd| **fd <= 2) {
                return Err(ValidationError::NetReservedFd(*fd));
            }
        }
        self.validate_queues(net.num_queues / 2, net.num_queues, net.queue_size)?;
        if net.vhost_user && net.iommu {
            return Err(ValidationError::IommuNotSupported);
        }
        if let Some(mtu) = net.mtu
            && mtu < MIN_MTU
        {
            return Err(ValidationError::Mtu(mtu));
        }
        if !net.offload_csum && (net.offload_tso || net.offload_ufo) {
            return Err(ValidationError::OffloadNeedsChecksum);
        }
        match (net.ip, net.mask) {
            (None, Some(_)) => Err(ValidationError::MaskWithoutIp),
            (Some(_), None) => Err(ValidationError::IpWithoutMask),
            _ => Ok(()),
        }
    }

    fn validate_vhost_user(&self, wanted: bool, socket: bool) -> Result<()> {
        if wanted && !self.memory.is_shared() {
            return Err(ValidationError::VhostUserRequiresSharedMemory);
        }
        if wanted && !socket { Err(ValidationError::VhostUserMissingSocket) } else { Ok(()) }
    }

    /// `pairs` is what must fit the vCPUs, `queues` what the message names.
    fn validate_queues(&self, pairs: usize, queues: usize, size: u16) -> Result<()> {
        if pairs as u64 > u64::from(self.cpus.boot_vcpus) {
            return Err(ValidationError::TooManyQueues(queues, self.cpus.boot_vcpus));
        }
        if size.is_power_of_two() { Ok(()) } else { Err(ValidationError::QueueSize(size)) }
    }

    /// Segment and slot of a device.
    fn validate_slot(&self, device: &impl PciDevice) -> Result<()> {
        let segment = device.segment();
        let segments = self.platform.as_ref().map_or(1, |platform| platform.num_pci_segments);
        if segment >= segments {
            return Err(ValidationError::PciSegment(segment));
        }
        let iommu_segments = self.platform.as_ref().and_then(|platform| platform.iommu_segments.as_ref());
        if iommu_segments.is_some_and(|segments| segments.contains(&segment)) && !device.iommu() {
            return Err(ValidationError::OnIommuSegment(segment));
        }
        match device.slot() {
            Some(slot) if slot >= PCI_SLOTS => Err(ValidationError::PciDeviceId(slot)),
            Some(0) => Err(ValidationError::ReservedPciDeviceId(0)),
            _ => Ok(()),
        }
    }

    /// Slot and id of a device; says whether it sits behind the IOMMU.
    fn validate_pci(&self, device: &impl PciDevice, ids: &mut Ids) -> Result<bool> {
        self.validate_slot(device)?;
        ids.add(device.id())?;
        Ok(device.iommu())
    }

    /// vhost-user devices, which all need shared memory.
    fn validate_list<T: PciDevice>(&self, list: &Option<Vec<T>>, shared: bool, ids: &mut Ids) -> Result<()> {
        for device in list.iter().flatten() {
            if !shared {
                return Err(ValidationError::VhostUserRequiresSharedMemory);
            }
            self.validate_slot(device)?;
            if device.iommu() {
                return Err(ValidationError::IommuNotSupported);
            }
            ids.add(device.id())?;
        }
        Ok(())
    }

    fn validate_passthrough(&self, ids: &mut Ids) -> Result<bool> {
        let mut paths = BTreeSet::new();
        let mut iommu = false;
        for device in self.devices.iter().flatten() {
            if let Some(path) = &device.path
                && !paths.insert(path)
            {
                return Err(ValidationError::DuplicateDevicePath(path.display().to_string()));
            }
            match (&device.path, device.fd) {
                (None, None) => return Err(ValidationError::VfioNeitherPathNorFd),
                (Some(_), Some(_)) => return Err(ValidationError::VfioBothPathAndFd),
                _ => {}
            }
            iommu |= self.validate_pci(device, ids)?;
        }
        Ok(iommu)
    }

    fn validate_numa(&self) -> Result<()> {
        let segments = self.platform.as_ref().map_or(1, |platform| platform.num_pci_segments);
        let (mut zones, mut used_segments) = (BTreeMap::new(), BTreeMap::new());
        for node in self.numa.iter().flatten() {
            match (&node.device_id, &node.cpus, &node.memory_zones) {
                (Some(id), None, None) if id.is_empty() => {
                    return Err(ValidationError::Numa("device_id in numa config cannot be empty"));
                }
                (None, Some(cpus), _) if cpus.is_empty() => {
                    return Err(ValidationError::Numa("cpus list in numa config cannot be empty"));
                }
                (None, None, Some(zones)) if zones.is_empty() => {
                    return Err(ValidationError::Numa("memory_zones in numa config cannot be empty"));
                }
                _ => {}
            }
            for zone in node.memory_zones.iter().flatten() {
                if let Some(other) = zones.insert(zone, node.guest_numa_id) {
                    return Err(ValidationError::MemoryZoneReused(zone.clone(), other, node.guest_numa_id));
                }
            }
            for segment in node.pci_segments.iter().flatten() {
                if *segment >= segments {
                    return Err(ValidationError::PciSegment(*segment));
                }
                if *segment == 0 && node.guest_numa_id != 0 {
                    return Err(ValidationError::DefaultPciSegmentNode(node.guest_numa_id));
                }
                if let Some(other) = used_segments.insert(*segment, node.guest_numa_id) {
                    return Err(ValidationError::PciSegmentReused(*segment, other, node.guest_numa_id));
                }
            }
        }
        Ok(())
    }

    fn validate_platform(&self) -> Result<bool> {
        let segments = self.platform.as_ref().map_or(1, |platform| platform.num_pci_segments);
        for segment in self.pci_segments.iter().flatten() {
            if segment.pci_segment >= segments {
                return Err(ValidationError::PciSegment(segment.pci_segment));
            }
            if segment.mmio32_aperture_weight == 0 || segment.mmio64_aperture_weight == 0 {
                return Err(ValidationError::PciSegmentWeight(0));
            }
        }
        let Some(platform) = &self.platform else {
            return Ok(false);
        };
        if platform.num_pci_segments == 0 || platform.num_pci_segments > MAX_PCI_SEGMENTS {
            return Err(ValidationError::NumPciSegments(platform.num_pci_segments));
        }
        for segment in platform.iommu_segments.iter().flatten() {
            if *segment >= platform.num_pci_segments {
                return Err(ValidationError::PciSegment(*segment));
            }
        }
        if platform.iommu_address_width_bits > MAX_ADDRESS_WIDTH_BITS {
            return Err(ValidationError::IommuAddressWidth(platform.iommu_address_width_bits));
        }
        if platform.iommufd_fd.is_some() && !platform.iommufd {
            return Err(ValidationError::IommufdFdRequiresIommufd);
        }
        Ok(platform.iommu_segments.is_some())
    }
}

impl RestoreConfig {
    /// Checks the request against the configuration that the snapshot brought along.
    pub(crate) fn validate(&self, config: &VmConfig) -> Result<()> {
        if self.memory_restore_mode == MemoryRestoreMode::OnDemand && self.prefault {
            return Err(ValidationError::PrefaultWithOnDemand);
        }
        for net in config.net.iter().flatten().filter(|net| net.fds.is_some()) {
            let id = net.id.clone().unwrap_or_default();
            if !self.net_fds.iter().flatten().any(|given| given.id == id && given.num_fds > 0) {
                return Err(ValidationError::RestoreMissingNetId(id));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(json: &str) -> String {
        let mut config: VmConfig = serde_json::from_str(json).unwrap();
        config.validate(&|_| true).unwrap_err().to_string()
    }

    #[test]
    fn each_problem_has_upstreams_text() {
        let cases = [
            (r#"{}"#, "Payload configuration is not bootable"),
            (
                r#"{"payload":{"kernel":"/k"},"cpus":{"boot_vcpus":4,"max_vcpus":2}}"#,
                "Max CPUs (2) lower than boot CPUs (4)",
            ),
            (r#"{"payload":{"kernel":"/k"},"vsock":{"cid":2,"socket":"/v"}}"#, "2 is a special VSOCK CID"),
            (
                r#"{"payload":{"kernel":"/k"},"disks":[{"id":"a","path":"/a"},{"id":"a","path":"/b"}]}"#,
                "Identifier a is not unique",
            ),
            (
                r#"{"payload":{"kernel":"/k"},"disks":[{"id":"__a","path":"/a"}]}"#,
                "Identifier __a is not invalid",
            ),
            (
                r#"{"payload":{"kernel":"/k"},"memory":{"size":134217728},"balloon":{"size":999999999999}}"#,
                "Balloon size (999999999999) greater than RAM (134217728)",
            ),
            (
                r#"{"payload":{"kernel":"/k"},"disks":[{"path":"/a","num_queues":2}]}"#,
                "Queue count (2) must not exceed boot vCPUs (1)",
            ),
            (
                r#"{"payload":{"kernel":"/k"},"disks":[{"path":"/a","pci_segment":1}]}"#,
                "Invalid PCI segment id: 1",
            ),
            (
                r#"{"payload":{"kernel":"/k"},"fs":[{"tag":"t","socket":"/s"}]}"#,
                "Using vhost-user requires using shared memory or huge pages",
            ),
        ];
        for (json, text) in cases {
            assert_eq!(problem(json), text, "{json}");
        }
    }

    #[test]
    fn firmware_makes_the_command_line_meaningless() {
        let mut config: VmConfig =
            serde_json::from_str(r#"{"payload":{"firmware":"/f","cmdline":"quiet"}}"#).unwrap();
        config.validate(&|_| true).unwrap();
        assert_eq!(config.cmdline(), "");
    }
}
