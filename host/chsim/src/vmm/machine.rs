//! One VM: its devices, its state, and the order in which a boot makes them. Source: `Vm::new` and `Vm::boot` in
//! `vmm/src/vm.rs`, `make_virtio_devices` in `vmm/src/device_manager.rs` of v53.0.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::tree::{BarType, Bus, DeviceNode, Kind};
use super::{Platform, VmError};
use crate::config::{
    ConsoleMode, DiskConfig, ImageType, NetConfig, PciDevice, VmConfig, VsockConfig,
};

/// State of a VM as `vm.info` names it. Upstream's `Shutdown` and `BreakPoint` are never seen through the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum State {
    Created,
    Running,
    Paused,
}

/// A VM that exists: running, paused, or left half-made by a boot that failed late.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(super) state: State,
    pub(super) bus: Bus,
    /// Ids that a configuration or a snapshot brought along; names made up later avoid them.
    taken: BTreeSet<String>,
    /// What the balloon took so far, bytes.
    pub(super) balloon_actual_bytes: u64,
    /// vCPUs were taken away and the guest has not let go of them yet.
    pub(super) vcpus_leaving: bool,
    pub(super) vcpus: u32,
    /// RAM now, bytes; hot-plug only ever adds to it.
    pub(super) ram_bytes: u64,
    pub(super) hotplug_free_bytes: u64,
    pub(super) hotplug_slots_free: u8,
}

type Result<T> = std::result::Result<T, VmError>;

/// Slots for hot-plugged memory.
const HOTPLUG_SLOTS: u8 = 8;

impl Machine {
    /// Makes all devices of `config`, and writes the ids it gave them into it. When a disk or network device fails,
    /// its whole list is gone from the configuration afterwards, as it is upstream.
    pub(crate) fn new(config: &mut VmConfig, platform: &mut impl Platform) -> Result<Self> {
        config
            .validate(&|path| platform.exists(path))
            .map_err(VmError::Validation)?;
        platform.map_memory(config)?;
        let mut vm = Self {
            state: State::Created,
            bus: Bus::default(),
            taken: ids(config),
            balloon_actual_bytes: 0,
            vcpus_leaving: false,
            vcpus: config.cpus.boot_vcpus,
            ram_bytes: config.memory.boot_bytes(),
            hotplug_free_bytes: config.memory.hotplug_size.unwrap_or(0),
            hotplug_slots_free: HOTPLUG_SLOTS,
        };
        vm.add_all(config, platform)?;
        Ok(vm)
    }

    fn add_all(&mut self, config: &mut VmConfig, platform: &mut impl Platform) -> Result<()> {
        self.bus.add_legacy("__ioapic");
        if config.serial.mode != ConsoleMode::Off {
            self.bus.add_legacy("__serial");
        }
        if config.console.mode != ConsoleMode::Off {
            self.plug(
                "__console",
                Kind::Fixed("console"),
                BarType::Mmio64,
                &config.console,
            )?;
        }
        if let Some(mut disks) = config.disks.take() {
            for disk in &mut disks {
                self.add_disk(disk, false, platform)?;
            }
            config.disks = Some(disks);
        }
        if let Some(mut nets) = config.net.take() {
            for net in &mut nets {
                self.add_net(net, platform)?;
            }
            config.net = Some(nets);
        }
        self.plug("__rng", Kind::Fixed("rng"), BarType::Mmio64, &config.rng)?;
        for device in config.generic_vhost_user.iter_mut().flatten() {
            platform.connect_backend("Cannot create generic vhost-user device", &device.socket)?;
            self.add_simple(device, "_generic_vhost_user")?;
        }
        for fs in config.fs.iter_mut().flatten() {
            platform.connect_backend("Cannot create virtio-fs device", &fs.socket)?;
            self.add_simple(fs, "_fs")?;
        }
        for pmem in config.pmem.iter_mut().flatten() {
            platform.open_backing("Cannot open persistent memory file", &pmem.file)?;
            self.add_simple(pmem, "_pmem")?;
        }
        if let Some(vsock) = &mut config.vsock {
            self.add_vsock(vsock, platform)?;
        }
        if let Some(balloon) = &config.balloon {
            self.plug(
                "__balloon",
                Kind::Fixed("balloon"),
                BarType::Mmio64,
                balloon,
            )?;
        }
        if config.watchdog {
            let plain = crate::config::RtcConfig {
                id: None,
                iommu: false,
                pci_segment: 0,
                pci_device_id: None,
            };
            self.plug(
                "__watchdog",
                Kind::Fixed("watchdog"),
                BarType::Mmio64,
                &plain,
            )?;
        }
        for vdpa in config.vdpa.iter_mut().flatten() {
            platform.open_backing("Cannot create vdpa device", &vdpa.path)?;
            self.add_simple(vdpa, "_vdpa")?;
        }
        if let Some(rtc) = &config.rtc {
            self.plug("__rtc", Kind::Fixed("rtc"), BarType::Mmio64, rtc)?;
        }
        if config.pvpanic {
            self.bus.add_legacy("_pvpanic");
        }
        for device in config.devices.iter_mut().flatten() {
            platform.open_backing(
                "Cannot create a VFIO device",
                device.path.as_deref().unwrap_or("".as_ref()),
            )?;
            self.add_simple(device, "_vfio")?;
        }
        for device in config.user_devices.iter_mut().flatten() {
            platform.connect_backend("Failed to create vfio-user client", &device.socket)?;
            self.add_simple(device, "_vfio_user")?;
        }
        Ok(())
    }

    /// Locks the disks, loads the payload and lets the guest run.
    pub(crate) fn start(&mut self, config: &VmConfig, platform: &mut impl Platform) -> Result<()> {
        self.lock_disks(config, platform)?;
        if let Some(payload) = &config.payload {
            platform.load_payload(payload)?;
        }
        self.state = State::Running;
        platform.start_guest(config, self.virtio_ids(), None)?;
        if let Some(balloon) = &config.balloon
            && balloon.size > 0
        {
            platform.guest(super::GuestCommand::Balloon(balloon.size));
        }
        Ok(())
    }

    /// Takes the locks of all disks; a disk that another process holds fails the boot late.
    pub(super) fn lock_disks(&self, config: &VmConfig, platform: &mut impl Platform) -> Result<()> {
        for id in config
            .disks
            .iter()
            .flatten()
            .filter(|disk| !disk.vhost_user)
            .filter_map(PciDevice::id)
        {
            platform.lock_disk(id).map_err(|error| {
                let first =
                    "Error locking disk images: Another instance likely holds a lock".to_owned();
                VmError::chain(std::iter::once(first).chain(error.messages()))
            })?;
        }
        Ok(())
    }

    /// Moves to Running or Paused; the error is upstream's text for a move that is no move.
    pub(crate) fn enter(&mut self, next: State) -> std::result::Result<(), String> {
        if self.state == next {
            return Err(format!(
                "Invalid transition: InvalidStateTransition({next:?}, {next:?})"
            ));
        }
        self.state = next;
        Ok(())
    }

    /// The device tree.
    pub(crate) fn tree(&self) -> &BTreeMap<String, DeviceNode> {
        self.bus.nodes()
    }

    /// Ids of the virtio devices that a driver will find.
    pub(super) fn virtio_ids(&self) -> Vec<String> {
        self.bus
            .nodes()
            .keys()
            .filter(|id| !id.starts_with("_virtio-pci-") && self.bus.kind(id).is_some())
            .cloned()
            .collect()
    }

    /// Opens a disk, settles its type and plugs it in. The name is used up even when this fails.
    /// Locks are taken by [`Machine::start`], except that a hot-plugged disk is locked at once.
    pub(super) fn add_disk(
        &mut self,
        disk: &mut DiskConfig,
        hot: bool,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(disk, "_disk");
        if disk.vhost_user {
            let socket = disk.vhost_socket.clone().unwrap_or_default();
            platform.connect_backend("Cannot create vhost-user-blk device", socket.as_ref())?;
        } else {
            let found = platform.open_disk(&id, disk)?;
            if disk.image_type == ImageType::Unknown {
                disk.image_type = found;
                // An image whose type was guessed may not name other files.
                disk.backing_files &= found != ImageType::Qcow2;
            }
            let checked = if disk.image_type != found {
                Err(VmError::device([format!(
                    "Disk image type does not match expected type: specified = {}, detected = {found}",
                    disk.image_type
                )]))
            } else if hot {
                platform
                    .lock_disk(&id)
                    .map_err(|error| VmError::device(error.messages()))
            } else {
                Ok(())
            };
            if let Err(error) = checked {
                platform.close_device(&id);
                return Err(error);
            }
        }
        let bar = if hot {
            BarType::Mmio64
        } else {
            BarType::Mmio32
        };
        self.plug(&id, Kind::Removable, bar, disk)
    }

    pub(super) fn add_net(
        &mut self,
        net: &mut NetConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(net, "_net");
        if net.vhost_user {
            let socket = net.vhost_socket.clone().unwrap_or_default();
            platform.connect_backend("Cannot create vhost-user-net device", socket.as_ref())?;
        } else {
            let host_mac = platform.open_net(&id, net)?;
            net.host_mac = net.host_mac.or(host_mac);
        }
        self.plug(&id, Kind::Removable, BarType::Mmio64, net)
    }

    pub(super) fn add_vsock(
        &mut self,
        vsock: &mut VsockConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(vsock, "_vsock");
        platform.open_vsock(&id, vsock)?;
        self.plug(&id, Kind::Removable, BarType::Mmio64, vsock)
    }

    /// A device with nothing to open, or whose backing is open already.
    pub(super) fn add_simple(
        &mut self,
        device: &mut impl PciDevice,
        prefix: &str,
    ) -> Result<String> {
        let id = self.name(device, prefix);
        self.plug(&id, Kind::Removable, BarType::Mmio64, device)
    }

    fn name(&mut self, device: &mut impl PciDevice, prefix: &str) -> String {
        let (bus, taken) = (&mut self.bus, &self.taken);
        device
            .id_mut()
            .get_or_insert_with(|| bus.next_name(prefix, taken))
            .clone()
    }

    fn plug(
        &mut self,
        id: &str,
        kind: Kind,
        bar: BarType,
        device: &impl PciDevice,
    ) -> Result<String> {
        self.bus
            .add_virtio(id, kind, bar, device.segment(), device.slot())
            .map_err(|_| VmError::device(["Failed to find an available PCI device ID"]))
    }
}

fn ids(config: &VmConfig) -> BTreeSet<String> {
    fn of<T: PciDevice>(list: &Option<Vec<T>>) -> impl Iterator<Item = String> + '_ {
        list.iter()
            .flatten()
            .filter_map(|device| device.id().map(str::to_owned))
    }
    let vsock = config
        .vsock
        .iter()
        .filter_map(|vsock| vsock.id().map(str::to_owned));
    of(&config.disks)
        .chain(of(&config.net))
        .chain(of(&config.fs))
        .chain(of(&config.generic_vhost_user))
        .chain(of(&config.pmem))
        .chain(of(&config.devices))
        .chain(of(&config.user_devices))
        .chain(of(&config.vdpa))
        .chain(vsock)
        .collect()
}
