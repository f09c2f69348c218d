//! Resizing: vCPUs, memory, balloon, memory zones, disks.

use super::error::UnknownDevice;
use super::{GuestCommand, Platform, Reply, Result, VmError, Vmm};
use crate::config::{
    HotplugMethod, ImageType, PciDevice, ResizeData, ResizeDiskData, ResizeZoneData, VmConfig,
};

use super::machine::Machine;

/// Hot-plugged DIMMs come in multiples of this.
const DIMM_BYTES: u64 = 128 << 20;

impl<P: Platform> Vmm<P> {
    pub(super) fn resize(&mut self, request: &ResizeData) -> Result<Reply> {
        let config = self.config.as_mut().ok_or(VmError::NotCreated)?;
        let Some(vm) = &mut self.vm else {
            config.cpus.boot_vcpus = request.desired_vcpus.unwrap_or(config.cpus.boot_vcpus);
            config.memory.size = request.desired_ram.unwrap_or(config.memory.size);
            if let (Some(bytes), Some(balloon)) = (request.desired_balloon, &mut config.balloon) {
                balloon.size = bytes;
            }
            return Ok(Reply::Nothing);
        };
        self.platform.event("vm", "resizing", &[]);
        if request.desired_vcpus.is_some() || request.desired_ram.is_some() {
            self.platform.check_hot_plug()?;
        }
        if let Some(vcpus) = request.desired_vcpus {
            if vm.resize_vcpus(vcpus, config.cpus.max_vcpus)? {
                self.platform.guest(GuestCommand::RemoveVcpus)?;
            }
            config.cpus.boot_vcpus = vcpus;
        }
        if let Some(bytes) = request.desired_ram {
            vm.resize_ram(bytes, config)?;
        }
        if let Some(bytes) = request.desired_balloon {
            let Some(balloon) = &mut config.balloon else {
                return Err(VmError::device(["Missing virtio-balloon, can't proceed as expected"]));
            };
            balloon.size = bytes;
            self.platform.guest(GuestCommand::Balloon(bytes))?;
        }
        self.platform.event("vm", "resized", &[]);
        Ok(Reply::Nothing)
    }

    pub(super) fn resize_zone(&mut self, request: &ResizeZoneData) -> Result<Reply> {
        let config = self.config.as_mut().ok_or(VmError::NotCreated)?;
        let zone = config.memory.zones.iter_mut().flatten().find(|zone| zone.id == request.id);
        let zone = zone.ok_or(VmError::ResizeZone)?;
        if self.vm.is_none() {
            zone.size = request.desired_ram;
            return Ok(Reply::Nothing);
        }
        self.platform.check_hot_plug()?;
        if config.memory.hotplug_method != HotplugMethod::VirtioMem {
            return Err(VmError::chain([
                "Memory manager error",
                "Invalid hotplug method associated with memory zones resizing capability",
            ]));
        }
        zone.hotplugged_size = request.desired_ram.checked_sub(zone.size).filter(|bytes| *bytes > 0);
        Ok(Reply::Nothing)
    }

    pub(super) fn resize_disk(&mut self, request: &ResizeDiskData) -> Result<Reply> {
        let config = self.config.as_ref().ok_or(VmError::NotCreated)?;
        if self.vm.is_none() {
            return Err(VmError::ResizeDisk);
        }
        let disk = config.disks.iter().flatten().find(|disk| disk.id() == Some(&request.id));
        let disk = disk.ok_or_else(|| VmError::UnknownDevice(UnknownDevice(request.id.clone())))?;
        if disk.image_type != ImageType::Raw {
            return Err(VmError::device(["Disk resize error", "Failed resizing a disk image"]));
        }
        self.platform.resize_disk(&request.id, request.desired_size)?;
        Ok(Reply::Nothing)
    }
}

impl Machine {
    /// Says whether the guest has to give vCPUs back.
    fn resize_vcpus(&mut self, wanted: u32, max: u32) -> Result<bool> {
        let cpu = |text| VmError::chain(["Error from CPU manager", text]);
        if wanted == self.vcpus {
            return Ok(false);
        }
        if wanted < 1 {
            return Err(cpu("Requested zero vCPUs"));
        }
        if self.vcpus_leaving {
            return Err(VmError::VcpusLeaving);
        }
        if wanted > max {
            return Err(cpu("Requested vCPUs exceed maximum"));
        }
        self.vcpus_leaving = wanted < self.vcpus;
        self.vcpus = wanted;
        Ok(self.vcpus_leaving)
    }

    fn resize_ram(&mut self, wanted: u64, config: &mut VmConfig) -> Result<()> {
        let memory = |text: &str| VmError::chain(["Memory manager error", text]);
        if config.memory.zones.is_some() {
            return Err(memory(
                "Impossible to resize guest memory if it is backed by user defined memory regions",
            ));
        }
        match config.memory.hotplug_method {
            HotplugMethod::Acpi => {
                let more = wanted.saturating_sub(self.ram_bytes);
                if more > 0 {
                    if self.hotplug_slots_free == 0 {
                        return Err(memory("No ACPI slot available"));
                    }
                    if !more.is_multiple_of(DIMM_BYTES) {
                        return Err(memory("The requested hotplug memory addition is not a valid size"));
                    }
                    if more > self.hotplug_free_bytes {
                        return Err(memory("Not enough space in the hotplug RAM region"));
                    }
                    self.hotplug_slots_free -= 1;
                    self.hotplug_free_bytes -= more;
                    self.ram_bytes = wanted;
                }
                // Shrinking changes nothing until the next boot.
                config.memory.size = wanted;
            }
            HotplugMethod::VirtioMem => {
                let boot = config.memory.size;
                if wanted < boot {
                    let text =
                        format!("Invalid resize request: desired_size = {wanted} below boot size = {boot}");
                    return Err(memory(&text));
                }
                if wanted - boot > config.memory.hotplug_size.unwrap_or(0) {
                    return Err(memory("Failed to virtio-mem resize"));
                }
                config.memory.hotplugged_size = (wanted > boot).then_some(wanted - boot);
            }
        }
        Ok(())
    }
}
