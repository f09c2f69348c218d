//! One VM: its devices, its state, and the order in which a boot makes them. Source: `Vm::new` and `Vm::boot` in
//! `vmm/src/vm.rs`, `make_virtio_devices` in `vmm/src/device_manager.rs` of v53.0.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Serialize;

use super::tree::{BarType, Bus, BusFull, DeviceNode, Kind};
use super::{Platform, VmError};
use crate::config::{
    ConsoleMode, DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, ImageType, NetConfig, PciDevice,
    PmemConfig, RtcConfig, UserDeviceConfig, VdpaConfig, VmConfig, VsockConfig,
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
    /// Makes all devices of `config`, and writes the ids it gave them into it. When a device fails, its whole
    /// list is gone from the configuration afterwards, as it is upstream.
    pub(crate) fn new(config: &mut VmConfig, platform: &mut impl Platform) -> Result<Self> {
        config.validate(&|path| platform.exists(path)).map_err(VmError::Validation)?;
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
            self.plug("__console", Kind::Fixed("console"), BarType::Mmio64, &config.console)?;
        }
        if let Some(tpm) = &config.tpm {
            platform.connect_backend(&tpm.socket).map_err(|error| {
                VmError::device([
                    "Cannot create tmp device",
                    &format!("Failed to create TPM Device : {error}"),
                ])
            })?;
        }
        self.add_list(&mut config.disks, platform, |vm, disk, platform| vm.add_disk(disk, false, platform))?;
        self.add_list(&mut config.net, platform, Self::add_net)?;
        platform
            .open_file(&config.rng.src)
            .map_err(|error| VmError::device(["Cannot create virtio-rng device", &error.to_string()]))?;
        self.plug("__rng", Kind::Fixed("rng"), BarType::Mmio64, &config.rng)?;
        self.add_list(&mut config.generic_vhost_user, platform, Self::add_generic_vhost_user)?;
        self.add_list(&mut config.fs, platform, Self::add_fs)?;
        self.add_list(&mut config.pmem, platform, Self::add_pmem)?;
        if let Some(mut vsock) = config.vsock.take() {
            self.add_vsock(&mut vsock, platform)?;
            config.vsock = Some(vsock);
        }
        if let Some(balloon) = &config.balloon {
            self.plug("__balloon", Kind::Fixed("balloon"), BarType::Mmio64, balloon)?;
        }
        if config.watchdog {
            let plain = RtcConfig { id: None, iommu: false, pci_segment: 0, pci_device_id: None };
            self.plug("__watchdog", Kind::Fixed("watchdog"), BarType::Mmio64, &plain)?;
        }
        self.add_list(&mut config.vdpa, platform, Self::add_vdpa)?;
        if let Some(rtc) = &config.rtc {
            self.plug("__rtc", Kind::Fixed("rtc"), BarType::Mmio64, rtc)?;
        }
        self.add_list(&mut config.devices, platform, Self::add_vfio)?;
        self.add_list(&mut config.user_devices, platform, Self::add_user)?;
        if config.pvpanic {
            self.bus.add_pvpanic().map_err(bus_full)?;
        }
        if let Some(initramfs) = config.payload.as_ref().and_then(|payload| payload.initramfs.as_ref()) {
            platform
                .open_file(initramfs)
                .map_err(|error| VmError::chain(["Cannot open initramfs file", &error.to_string()]))?;
        }
        Ok(())
    }

    /// Adds a list of devices. It is out of the configuration meanwhile, and stays out when one fails: upstream's.
    fn add_list<T, P: Platform>(
        &mut self,
        list: &mut Option<Vec<T>>,
        platform: &mut P,
        add: impl Fn(&mut Self, &mut T, &mut P) -> Result<String>,
    ) -> Result<()> {
        let Some(mut devices) = list.take() else {
            return Ok(());
        };
        for device in &mut devices {
            add(self, device, platform)?;
        }
        *list = Some(devices);
        Ok(())
    }

    /// Locks the disks, loads the payload and lets the guest run.
    pub(crate) fn start(&mut self, config: &VmConfig, platform: &mut impl Platform) -> Result<()> {
        self.lock_disks(config, platform)?;
        if let Some(payload) = &config.payload {
            platform.load_payload(payload)?;
        }
        platform.start_guest(config, self.virtio_ids(), None)?;
        self.state = State::Running;
        if let Some(balloon) = &config.balloon
            && balloon.size > 0
        {
            platform.guest(super::GuestCommand::Balloon(balloon.size))?;
        }
        Ok(())
    }

    /// Takes the locks of all disks; a disk that another process holds fails the boot late.
    pub(super) fn lock_disks(&self, config: &VmConfig, platform: &mut impl Platform) -> Result<()> {
        for id in config.disks.iter().flatten().filter(|disk| !disk.vhost_user).filter_map(PciDevice::id) {
            platform.lock_disk(id).map_err(|error| {
                let first = "Error locking disk images: Another instance likely holds a lock".to_owned();
                VmError::chain(std::iter::once(first).chain(error.messages()))
            })?;
        }
        Ok(())
    }

    /// Moves to Running or Paused; the error is upstream's text for a move that is not a move.
    pub(crate) fn enter(&mut self, next: State) -> std::result::Result<(), String> {
        if self.state == next {
            return Err(format!("Invalid transition: InvalidStateTransition({next:?}, {next:?})"));
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
        self.bus.devices().map(|(id, _)| id.to_owned()).collect()
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
            connect("Cannot create vhost-user-blk device", socket.as_ref(), platform)?;
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
                platform.lock_disk(&id).map_err(|error| VmError::device(error.messages()))
            } else {
                Ok(())
            };
            if let Err(error) = checked {
                platform.close_device(&id);
                return Err(error);
            }
        }
        let bar = if hot { BarType::Mmio64 } else { BarType::Mmio32 };
        self.plug(&id, Kind::Disk, bar, disk)
    }

    pub(super) fn add_net(&mut self, net: &mut NetConfig, platform: &mut impl Platform) -> Result<String> {
        let id = self.name(net, "_net");
        if net.vhost_user {
            let socket = net.vhost_socket.clone().unwrap_or_default();
            connect("Cannot create vhost-user-net device", socket.as_ref(), platform)?;
        } else {
            let host_mac = platform.open_net(&id, net)?;
            net.host_mac = net.host_mac.or(host_mac);
        }
        self.plug(&id, Kind::Net, BarType::Mmio64, net)
    }

    pub(super) fn add_vsock(
        &mut self,
        vsock: &mut VsockConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(vsock, "_vsock");
        platform.open_vsock(&id, vsock)?;
        self.plug(&id, Kind::Other, BarType::Mmio64, vsock)
    }

    pub(super) fn add_fs(&mut self, fs: &mut FsConfig, platform: &mut impl Platform) -> Result<String> {
        let id = self.name(fs, "_fs");
        connect("Cannot create virtio-fs device", &fs.socket, platform)?;
        self.plug(&id, Kind::Other, BarType::Mmio64, fs)
    }

    pub(super) fn add_generic_vhost_user(
        &mut self,
        device: &mut GenericVhostUserConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(device, "_generic_vhost_user");
        connect("Cannot create generic vhost-user device", &device.socket, platform)?;
        self.plug(&id, Kind::Other, BarType::Mmio64, device)
    }

    pub(super) fn add_pmem(&mut self, pmem: &mut PmemConfig, platform: &mut impl Platform) -> Result<String> {
        let id = self.name(pmem, "_pmem");
        platform
            .open_file(&pmem.file)
            .map_err(|error| VmError::device(["Cannot open persistent memory file", &error.to_string()]))?;
        self.plug(&id, Kind::Other, BarType::Mmio64, pmem)
    }

    pub(super) fn add_vdpa(&mut self, vdpa: &mut VdpaConfig, platform: &mut impl Platform) -> Result<String> {
        let id = self.name(vdpa, "_vdpa");
        platform.open_file(&vdpa.path).map_err(|error| {
            let text = format!("failure in opening vhost file: {error}");
            VmError::device(["Cannot create vdpa device", "Failed to create vhost-vdpa", &text])
        })?;
        self.plug(&id, Kind::Other, BarType::Mmio64, vdpa)
    }

    /// A passed-through device. One that fails keeps its slot: upstream's.
    pub(super) fn add_vfio(
        &mut self,
        device: &mut DeviceConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(device, "_vfio");
        let slot = self.bus.take_slot(device.pci_device_id).map_err(bus_full)?;
        let path = device.path.clone().unwrap_or_default();
        platform.open_file(Path::new(VFIO)).and_then(|()| platform.open_file(&path)).map_err(|error| {
            let text = format!("failed to open {VFIO} container: {error}");
            VmError::device(["Cannot create a VFIO device", &text, &error.to_string()])
        })?;
        self.bus.give_slot(slot);
        self.plug(&id, Kind::Other, BarType::Mmio64, device)
    }

    pub(super) fn add_user(
        &mut self,
        device: &mut UserDeviceConfig,
        platform: &mut impl Platform,
    ) -> Result<String> {
        let id = self.name(device, "_vfio_user");
        platform
            .connect_backend(&device.socket)
            .map_err(|error| VmError::device(["Failed to create vfio-user client", &error.to_string()]))?;
        self.plug(&id, Kind::Other, BarType::Mmio64, device)
    }

    fn name(&mut self, device: &mut impl PciDevice, prefix: &str) -> String {
        let (bus, taken) = (&mut self.bus, &self.taken);
        device.id_mut().get_or_insert_with(|| bus.next_name(prefix, taken)).clone()
    }

    fn plug(&mut self, id: &str, kind: Kind, bar: BarType, device: &impl PciDevice) -> Result<String> {
        self.bus.add_virtio(id, kind, bar, device.segment(), device.slot()).map_err(bus_full)
    }
}

/// Where VFIO devices are had from.
const VFIO: &str = "/dev/vfio/vfio";

fn connect(what: &str, socket: &Path, platform: &mut impl Platform) -> Result<()> {
    platform.connect_backend(socket).map_err(|error| {
        let text = format!("vhost-user: can't connect to peer: {error}");
        VmError::device([what, "Connection to socket failed", &text])
    })
}

fn bus_full(full: BusFull) -> VmError {
    const FULL: &str = "Failed to find an available PCI device ID";
    match full {
        BusFull::All => VmError::device([FULL]),
        BusFull::Taken(slot) => {
            VmError::device([FULL, &format!("Valid PCI device identifier but already used: {slot}")])
        }
    }
}

fn ids(config: &VmConfig) -> BTreeSet<String> {
    fn of<T: PciDevice>(list: &Option<Vec<T>>) -> impl Iterator<Item = String> + '_ {
        list.iter().flatten().filter_map(|device| device.id().map(str::to_owned))
    }
    let vsock = config.vsock.iter().filter_map(|vsock| vsock.id().map(str::to_owned));
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
