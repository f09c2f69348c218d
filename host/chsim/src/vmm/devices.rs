//! Hot and cold plugging: `vm.add-*` and `vm.remove-device`.

use serde::Serialize;

use super::error::UnknownDevice;
use super::tree::Kind;
use super::{GuestCommand, Platform, Reply, Result, VmError, Vmm, json};
use crate::config::{
    DeviceConfig, DiskConfig, FsConfig, GenericVhostUserConfig, NetConfig, PciDevice, PmemConfig,
    UserDeviceConfig, VdpaConfig, VmConfig, VsockConfig,
};

/// The device of a `vm.add-*` call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum NewDevice {
    Disk(DiskConfig),
    Net(NetConfig),
    Fs(FsConfig),
    Pmem(PmemConfig),
    Vsock(VsockConfig),
    Vdpa(VdpaConfig),
    Vfio(DeviceConfig),
    User(UserDeviceConfig),
    GenericVhostUser(GenericVhostUserConfig),
}

/// Where a hot-plugged device went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct HotDevice {
    id: String,
    bdf: String,
}

fn push<T>(list: &mut Option<Vec<T>>, device: T) {
    list.get_or_insert_default().push(device);
}

impl NewDevice {
    /// Puts the device into the configuration's list of its kind.
    fn add_to(self, config: &mut VmConfig) {
        match self {
            Self::Disk(device) => push(&mut config.disks, device),
            Self::Net(device) => push(&mut config.net, device),
            Self::Fs(device) => push(&mut config.fs, device),
            Self::Pmem(device) => push(&mut config.pmem, device),
            Self::Vsock(device) => config.vsock = Some(device),
            Self::Vdpa(device) => push(&mut config.vdpa, device),
            Self::Vfio(device) => push(&mut config.devices, device),
            Self::User(device) => push(&mut config.user_devices, device),
            Self::GenericVhostUser(device) => push(&mut config.generic_vhost_user, device),
        }
    }

    fn id(&self) -> &str {
        let id = match self {
            Self::Disk(device) => device.id(),
            Self::Net(device) => device.id(),
            Self::Fs(device) => device.id(),
            Self::Pmem(device) => device.id(),
            Self::Vsock(device) => device.id(),
            Self::Vdpa(device) => device.id(),
            Self::Vfio(device) => device.id(),
            Self::User(device) => device.id(),
            Self::GenericVhostUser(device) => device.id(),
        };
        id.unwrap_or_default()
    }
}

impl<P: Platform> Vmm<P> {
    pub(super) fn add_device(&mut self, mut device: NewDevice) -> Result<Reply> {
        let config = self.config.as_mut().ok_or(VmError::NotCreated)?;
        if matches!(device, NewDevice::Vsock(_)) && config.vsock.is_some() {
            return Err(VmError::TooManyVsockDevices);
        }
        let mut wanted = config.clone();
        device.clone().add_to(&mut wanted);
        wanted.validate(&|path| self.platform.exists(path)).map_err(VmError::Validation)?;
        let Some(vm) = &mut self.vm else {
            device.add_to(config);
            return Ok(Reply::Nothing);
        };
        self.platform.check_hot_plug()?;

        let platform = &mut self.platform;
        let bdf = match &mut device {
            NewDevice::Disk(disk) => vm.add_disk(disk, true, platform)?,
            NewDevice::Net(net) => vm.add_net(net, platform)?,
            NewDevice::Vsock(vsock) => vm.add_vsock(vsock, platform)?,
            NewDevice::Fs(fs) => vm.add_fs(fs, platform)?,
            NewDevice::GenericVhostUser(generic) => vm.add_generic_vhost_user(generic, platform)?,
            NewDevice::User(user) => vm.add_user(user, platform)?,
            NewDevice::Pmem(pmem) => vm.add_pmem(pmem, platform)?,
            NewDevice::Vdpa(vdpa) => vm.add_vdpa(vdpa, platform)?,
            NewDevice::Vfio(vfio) => vm.add_vfio(vfio, platform)?,
        };
        let id = device.id().to_owned();
        device.add_to(config);
        Ok(json(&HotDevice { id, bdf }))
    }

    pub(super) fn remove_device(&mut self, id: &str) -> Result<Reply> {
        let Some(vm) = &self.vm else {
            let config = self.config.as_mut().ok_or(VmError::NotCreated)?;
            return match config.remove_device(id) {
                true => Ok(Reply::Nothing),
                false => Err(VmError::NoDeviceToRemove(id.to_owned())),
            };
        };
        self.platform.check_hot_plug()?;
        if !vm.bus.contains(id) {
            return Err(VmError::UnknownDevice(UnknownDevice(id.to_owned())));
        }
        match vm.bus.kind(id) {
            Some(Kind::Disk | Kind::Net | Kind::Other) => {}
            Some(Kind::Fixed(name)) => {
                let text = format!("Not allowed to remove this type of device from the VM: {name}");
                return Err(VmError::device([text]));
            }
            None => {
                return Err(VmError::device(["Could not find the node in the device tree"]));
            }
        }
        if !self.config.as_mut().is_some_and(|config| config.remove_device(id)) {
            return Err(VmError::UnknownDevice(UnknownDevice(id.to_owned())));
        }
        // The configuration forgets the device now; the tree keeps it until the guest lets go.
        self.platform.guest(GuestCommand::Eject(id.to_owned()))?;
        Ok(Reply::Nothing)
    }

    /// The guest let go of a device.
    pub(super) fn eject(&mut self, id: &str) {
        let Some((function, bdf)) = self.vm.as_mut().and_then(|vm| vm.bus.remove(id)) else {
            return;
        };
        self.platform.close_device(id);
        self.platform.event("vm", "device-removed", &[("id", &function), ("bdf", &bdf)]);
    }
}
