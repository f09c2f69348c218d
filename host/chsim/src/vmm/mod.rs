//! The VMM: what each call does to the VM, what it answers and which events it emits.
//!
//! ```text
//!            create            boot
//!   (none) ─────────► created ──────► Running ⇄ Paused
//!      ▲                 │ ▲             │  shutdown, or the guest powers off under --no-shutdown
//!      └──── delete ─────┘ └─────────────┘
//!      └── restore ──────────────────► Paused (Running with "resume": true)
//! ```
//! Nothing here touches a file or a socket: that is the [`Platform`]'s part, so that the state machine can be tested
//! against a model. Source: `impl RequestHandler for Vmm` in `vmm/src/lib.rs` of v53.0.

mod devices;
mod error;
mod machine;
mod migration;
#[cfg(test)]
mod model_test;
mod platform;
mod profile;
mod resize;
mod tree;

use serde::Serialize;

use crate::config::{
    ReceiveMigrationData, RemoveDeviceData, ResizeData, ResizeDiskData, ResizeZoneData, RestoreConfig,
    SendMigrationData, SnapshotConfig, VmConfig,
};
pub(crate) use devices::NewDevice;
pub(crate) use error::{VmError, messages};
pub(crate) use machine::{Machine, State};
pub(crate) use platform::{Counters, GuestCommand, GuestState, Platform, Tally};
pub(crate) use profile::Profile;
pub(crate) use tree::DeviceNode;

/// A call of the API, with its body already read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Action {
    Ping,
    VmmShutdown,
    Create(Box<VmConfig>),
    Delete,
    Boot,
    Info,
    Counters,
    Shutdown,
    PowerButton,
    Nmi,
    Reboot,
    Pause,
    Resume,
    Snapshot(SnapshotConfig),
    Restore(RestoreConfig),
    Resize(ResizeData),
    ResizeZone(ResizeZoneData),
    ResizeDisk(ResizeDiskData),
    Add(Box<NewDevice>),
    RemoveDevice(RemoveDeviceData),
    SendMigration(SendMigrationData),
    ReceiveMigration(ReceiveMigrationData),
}

/// What a call answers when it succeeds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// 204.
    Nothing,
    /// 200 with no body; the process ends next.
    ShuttingDown,
    /// 200 with this JSON.
    Json(String),
}

/// What the guest did by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum GuestEvent {
    /// A driver started to use a virtio device.
    Activated(String),
    /// Powered off (ACPI S5).
    PowerOff,
    /// Asked for a reset.
    Reset,
    /// The kernel panicked; seen only with a pvpanic device.
    Panic,
    /// The guest let go of a device that `vm.remove-device` took away.
    Ejected(String),
    /// The guest gave its surplus vCPUs back.
    VcpusRemoved,
    /// The balloon reached this size, bytes.
    Ballooned(u64),
    /// What ran it has ended by itself: a crash of the VMM.
    Gone,
}

/// Whether the process goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flow {
    Continue,
    Exit,
}

/// The virtual machine monitor: at most one VM.
#[derive(Debug)]
pub(crate) struct Vmm<P> {
    platform: P,
    profile: Profile,
    /// `--no-shutdown`: a guest that powers off leaves the process running.
    no_shutdown: bool,
    config: Option<VmConfig>,
    /// Set by `vm.create` or a (re)boot, cleared by a shutdown. Like upstream's it can outlive its configuration: a
    /// create that fails on its serial file after an earlier VM then boots all the same.
    consoles: bool,
    vm: Option<Machine>,
}

#[derive(Serialize)]
struct Info<'a> {
    config: &'a VmConfig,
    state: State,
    memory_actual_size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    device_tree: Option<&'a std::collections::BTreeMap<String, DeviceNode>>,
}

#[derive(Serialize)]
struct Pong<'a> {
    build_version: &'a str,
    version: &'a str,
    pid: i64,
    features: [&'a str; 2],
}

type Result<T> = std::result::Result<T, VmError>;

impl<P: Platform> Vmm<P> {
    /// A VMM with no VM.
    pub(crate) fn new(platform: P, profile: Profile, no_shutdown: bool) -> Self {
        Self { platform, profile, no_shutdown, config: None, consoles: false, vm: None }
    }

    /// Carries out one call.
    pub(crate) fn handle(&mut self, action: Action) -> Result<Reply> {
        match action {
            Action::Ping => Ok(self.ping()),
            Action::VmmShutdown => self.vmm_shutdown().map(|()| Reply::ShuttingDown),
            Action::Create(config) => self.create(*config),
            Action::Delete => self.delete().map(|()| Reply::Nothing),
            Action::Boot => self.boot(),
            Action::Info => self.info(),
            Action::Counters => self.counters(),
            Action::Shutdown => self.shutdown().map(|()| Reply::Nothing),
            Action::PowerButton => self.press(GuestCommand::PowerButton),
            Action::Nmi => self.press(GuestCommand::Nmi),
            Action::Reboot => self.reboot().map(|()| Reply::Nothing),
            Action::Pause => self.pause(),
            Action::Resume => self.resume().map(|()| Reply::Nothing),
            Action::Snapshot(request) => self.snapshot(&request.destination_url),
            Action::Restore(request) => self.restore(request),
            Action::Resize(request) => self.resize(&request),
            Action::ResizeZone(request) => self.resize_zone(&request),
            Action::ResizeDisk(request) => self.resize_disk(&request),
            Action::Add(device) => self.add_device(*device),
            Action::RemoveDevice(request) => self.remove_device(&request.id),
            Action::SendMigration(request) => self.send_migration(&request),
            Action::ReceiveMigration(request) => self.receive_migration(&request),
        }
    }

    /// Takes in what the guest did; stale news of a guest that is gone is dropped by the caller.
    pub(crate) fn guest_event(&mut self, event: &GuestEvent) -> Result<Flow> {
        match event {
            GuestEvent::Activated(id) => self.platform.event("virtio-device", "activated", &[("id", id)]),
            GuestEvent::Panic => {
                if self.config.as_ref().is_some_and(|config| config.pvpanic) {
                    self.platform.event("guest", "panic", &[("event", "panic")]);
                }
            }
            GuestEvent::Reset => self.reboot()?,
            GuestEvent::PowerOff if self.no_shutdown => self.shutdown()?,
            GuestEvent::PowerOff => {
                self.vmm_shutdown()?;
                return Ok(Flow::Exit);
            }
            GuestEvent::Ejected(id) => self.eject(id),
            GuestEvent::Gone => {
                return Err(VmError::chain(["Error from CPU manager", "the guest's engine has crashed"]));
            }
            GuestEvent::VcpusRemoved => {
                if let Some(vm) = &mut self.vm {
                    vm.vcpus_leaving = false;
                }
            }
            GuestEvent::Ballooned(bytes) => {
                if let Some(vm) = &mut self.vm {
                    vm.balloon_actual_bytes = *bytes;
                }
            }
        }
        Ok(Flow::Continue)
    }

    /// Deletes the VM on the way out; also what SIGTERM and SIGINT do.
    pub(crate) fn vmm_shutdown(&mut self) -> Result<()> {
        self.delete()?;
        self.platform.event("vmm", "shutdown", &[]);
        Ok(())
    }

    /// The status a failure gets in this profile.
    pub(crate) fn status(&self, error: &VmError) -> u16 {
        self.profile.status(error)
    }

    /// The world under the VMM.
    pub(crate) fn platform(&mut self) -> &mut P {
        &mut self.platform
    }

    fn ping(&self) -> Reply {
        let (build_version, version) = self.profile.versions();
        json(&Pong { build_version, version, pid: self.platform.pid(), features: ["io_uring", "kvm"] })
    }

    fn create(&mut self, mut config: VmConfig) -> Result<Reply> {
        if self.config.is_some() {
            return Err(VmError::AlreadyCreated);
        }
        // Descriptors never come with vm.create; upstream drops the -1s that stand for them.
        for net in config.net.iter_mut().flatten() {
            net.fds = None;
        }
        for device in config.devices.iter_mut().flatten() {
            device.fd = None;
        }
        let config = self.config.insert(config);
        // A failure leaves the configuration behind, as upstream does: the next create says "already created".
        self.platform.create_consoles(config)?;
        self.consoles = true;
        Ok(Reply::Nothing)
    }

    fn boot(&mut self) -> Result<Reply> {
        if self.vm.is_some() {
            return Err(VmError::AlreadyCreated);
        }
        self.platform.event("vm", "booting", &[]);
        let config = self.config.as_mut().ok_or(VmError::MissingConfig)?;
        if !self.consoles {
            self.platform.create_consoles(config)?;
            self.consoles = true;
        }
        let vm = match Machine::new(config, &mut self.platform) {
            Ok(vm) => vm,
            Err(error) => {
                self.platform.release();
                return Err(error);
            }
        };
        let vm = self.vm.insert(vm);
        // From here on a failure leaves a VM that only vm.delete or vm.shutdown gets rid of.
        vm.start(config, &mut self.platform)?;
        self.platform.event("vm", "booted", &[]);
        Ok(Reply::Nothing)
    }

    fn delete(&mut self) -> Result<()> {
        if self.config.is_none() {
            return Ok(());
        }
        if self.vm.is_some() {
            self.shutdown()?;
        }
        self.config = None;
        self.platform.event("vm", "deleted", &[]);
        Ok(())
    }

    fn shutdown(&mut self) -> Result<()> {
        self.vm.take().ok_or(VmError::NotRunning)?;
        self.consoles = false;
        self.platform.release();
        self.platform.drop_consoles();
        self.platform.event("vm", "shutdown", &[]);
        Ok(())
    }

    fn reboot(&mut self) -> Result<()> {
        self.platform.event("vm", "rebooting", &[]);
        let config = match (&self.vm, &mut self.config) {
            (Some(_), Some(config)) => config,
            _ => return Err(VmError::NotCreated),
        };
        self.vm = None;
        self.consoles = false;
        self.platform.release();
        self.platform.drop_consoles();
        self.platform.create_consoles(config)?;
        self.consoles = true;
        // Unlike a boot, a failure on the way leaves no VM behind.
        let booted = Machine::new(config, &mut self.platform)
            .and_then(|mut vm| vm.start(config, &mut self.platform).map(|()| vm));
        match booted {
            Ok(vm) => self.vm = Some(vm),
            Err(error) => {
                self.platform.release();
                return Err(error);
            }
        }
        self.platform.event("vm", "rebooted", &[]);
        Ok(())
    }

    fn pause(&mut self) -> Result<Reply> {
        let vm = self.vm.as_mut().ok_or(VmError::NotRunning)?;
        self.platform.event("vm", "pausing", &[]);
        vm.enter(State::Paused).map_err(|text| {
            VmError::chain(["Cannot pause VM", "Failed to pause migratable component", text.as_str()])
        })?;
        if let Err(error) = self.platform.guest(GuestCommand::Pause) {
            vm.state = State::Running;
            return Err(error);
        }
        self.platform.event("vm", "paused", &[]);
        Ok(Reply::Nothing)
    }

    fn resume(&mut self) -> Result<()> {
        let vm = self.vm.as_mut().ok_or(VmError::NotRunning)?;
        self.platform.event("vm", "resuming", &[]);
        vm.enter(State::Running).map_err(|text| {
            VmError::chain(["Cannot resume VM", "Failed to resume migratable component", text.as_str()])
        })?;
        if let Err(error) = self.platform.guest(GuestCommand::Resume) {
            vm.state = State::Paused;
            return Err(error);
        }
        self.platform.event("vm", "resumed", &[]);
        Ok(())
    }

    /// The power button and the NMI: an owned VM takes them in any state, and what the guest makes of it is its own.
    fn press(&mut self, command: GuestCommand) -> Result<Reply> {
        if self.vm.is_none() {
            return Err(VmError::NotRunning);
        }
        self.platform.guest(command)?;
        Ok(Reply::Nothing)
    }

    fn info(&self) -> Result<Reply> {
        let config = self.config.as_ref().ok_or(VmError::NotCreated)?;
        let boot_bytes = config.memory.boot_bytes();
        let info = match &self.vm {
            Some(vm) => Info {
                config,
                state: vm.state,
                memory_actual_size: boot_bytes
                    .saturating_sub(self.platform.balloon_bytes().unwrap_or(vm.balloon_actual_bytes))
                    + config.memory.plugged_bytes(),
                device_tree: Some(vm.tree()),
            },
            None => Info { config, state: State::Created, memory_actual_size: boot_bytes, device_tree: None },
        };
        Ok(json(&info))
    }

    fn counters(&mut self) -> Result<Reply> {
        let vm = self.vm.as_ref().ok_or(VmError::NotRunning)?;
        Ok(json(&self.platform.counters().by_device(vm.bus.devices())))
    }
}

/// Serialises what cannot fail to serialise: structures of plain fields with string keys.
fn json(value: &impl Serialize) -> Reply {
    Reply::Json(serde_json::to_string(value).unwrap_or_default())
}
