//! [`Platform`] on a real host.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};

use super::console::Consoles;
use super::disk::Disk;
use super::events::EventMonitor;
use super::lock::LockError;
use super::network::macs;
use super::snapshot;
use super::tap::{Tap, Taps};
use crate::clock::Clock;
use crate::config::{DiskConfig, ImageType, MacAddr, NetConfig, PayloadConfig, VmConfig, VsockConfig};
use crate::faults::Faults;
use crate::guest::{Command, EngineChoice, Guest, Misdeed, News, Spec, qemu};
use crate::knobs::Knobs;
use crate::log::{error, warn};
use crate::vmm::{Counters, GuestCommand, GuestEvent, GuestState, Platform, Tally, VmError};

type Result<T> = std::result::Result<T, VmError>;

/// How news of a guest reach the VMM's thread: with the number of the guest they are from.
pub(crate) type Listen<M> = fn(u64, GuestEvent) -> M;

/// Files, sockets, locks and the guest of this process's VM.
#[derive(Debug)]
pub(crate) struct HostPlatform<M: Send + 'static> {
    pub(super) engine: EngineChoice,
    events: EventMonitor,
    faults: Arc<Faults>,
    clock: Arc<Clock>,
    pub(super) inbox: mpsc::Sender<M>,
    pub(super) listen: Listen<M>,
    pub(super) consoles: Option<Consoles>,
    pub(super) disks: BTreeMap<String, Disk>,
    pub(super) treat_taps: Taps,
    /// Taps by the ids of their devices.
    pub(super) taps: BTreeMap<String, Tap>,
    vsock: Option<Vsock>,
    pub(super) guest: Option<Running>,
    /// Counts guests, so that news of one that is gone can be told from news of the one that is here.
    pub(super) generation: u64,
    /// What the running guest was started with; a snapshot keeps it, as it keeps the guest's memory.
    booted: GuestState,
}

/// The guest that runs.
#[derive(Debug)]
pub(super) enum Running {
    Model(Guest),
    Qemu(Box<qemu::Guest>),
}

#[derive(Debug)]
struct Vsock {
    id: String,
    listener: UnixListener,
    path: PathBuf,
}

impl<M: Send + 'static> HostPlatform<M> {
    /// What a snapshot of the running guest keeps, if its machine has this configuration.
    fn snapshot_state(&self, config: &VmConfig) -> snapshot::SnapshotState {
        // Devices that were plugged in since are in the configuration only.
        let mut guest = self.booted.clone();
        for (id, mac) in macs(config) {
            guest.macs.entry(id).or_insert(mac);
        }
        snapshot::SnapshotState {
            guest,
            vcpus: config.cpus.boot_vcpus,
            memory_bytes: config.memory.total_bytes(),
            disks: self.disks.iter().map(|(id, disk)| (id.clone(), disk.logical_bytes())).collect(),
            nets: config.net.iter().flatten().filter_map(|net| net.id.clone()).collect(),
        }
    }

    pub(crate) fn new(
        (engine, treat_taps): (EngineChoice, Taps),
        events: EventMonitor,
        faults: Arc<Faults>,
        clock: Arc<Clock>,
        inbox: mpsc::Sender<M>,
        listen: Listen<M>,
    ) -> Self {
        Self {
            engine,
            events,
            faults,
            clock,
            inbox,
            listen,
            consoles: None,
            disks: BTreeMap::new(),
            treat_taps,
            taps: BTreeMap::new(),
            vsock: None,
            guest: None,
            generation: 0,
            booted: GuestState::default(),
        }
    }

    /// Whether news of this guest are news.
    pub(crate) fn is_current(&self, generation: u64) -> bool {
        self.guest.is_some() && self.generation == generation
    }

    /// Has the guest do something of its own accord; says whether there is one.
    pub(crate) fn misdeed(&self, misdeed: Misdeed) -> bool {
        match &self.guest {
            Some(Running::Model(guest)) => guest.send(Command::Do(misdeed)),
            Some(Running::Qemu(guest)) => self.misdeed_of(guest, misdeed),
            None => return false,
        }
        true
    }

    /// Refuses what the engine `qemu` has not.
    fn only_modelled(&self, what: &str) -> Result<()> {
        match self.engine {
            EngineChoice::Model => Ok(()),
            EngineChoice::Qemu(_) => {
                Err(VmError::chain([format!("{what} not supported by the guest engine `qemu`")]))
            }
        }
    }

    /// The way of news to the VMM's thread, of a guest that is about to be started.
    pub(super) fn news(&mut self) -> News {
        self.generation += 1;
        let (generation, inbox, listen) = (self.generation, self.inbox.clone(), self.listen);
        Box::new(move |event| {
            // The VMM's thread only ends with the process.
            let _ = inbox.send(listen(generation, event));
        })
    }

    fn close_vsock(&mut self) {
        if let Some(vsock) = self.vsock.take() {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(&vsock.path);
        }
    }
}

impl<M: Send + 'static> Platform for HostPlatform<M> {
    fn pid(&self) -> i64 {
        self.faults.pid().unwrap_or_else(|| i64::from(std::process::id()))
    }

    fn event(&mut self, source: &str, event: &str, properties: &[(&str, &str)]) {
        self.events.emit(source, event, properties);
    }

    fn create_consoles(&mut self, config: &mut VmConfig) -> Result<()> {
        self.consoles = Some(Consoles::create(config)?);
        Ok(())
    }

    fn map_memory(&mut self, config: &VmConfig) -> Result<()> {
        let memory = &config.memory;
        let failed = |messages: &[&str]| {
            Err(VmError::chain(std::iter::once("Memory manager error").chain(messages.iter().copied())))
        };
        match (memory.size, &memory.zones) {
            (0, None) => return failed(&["No memory zones found"]),
            (1.., Some(_)) => return failed(&["Memory configuration is not valid"]),
            _ => {}
        }
        if memory.hugepages
            && memory.hugepage_size.is_none()
            && let Err(error) = rustix::fs::statvfs("/dev/hugepages")
        {
            return failed(&["Failed to stat filesystem", &io::Error::from(error).to_string()]);
        }
        if !memory.size.is_multiple_of(4096) {
            return failed(&["Memory size is misaligned with default page size or its hugepage size"]);
        }
        Ok(())
    }

    fn exists(&self, path: &Path) -> bool {
        path.exists()
    }

    fn open_disk(&mut self, id: &str, config: &DiskConfig) -> Result<ImageType> {
        let (disk, kind) = Disk::open(config)?;
        self.disks.insert(id.to_owned(), disk);
        Ok(kind)
    }

    fn lock_disk(&mut self, id: &str) -> Result<()> {
        let Some(disk) = self.disks.get(id) else {
            return Ok(());
        };
        if self.faults.lock_held() {
            return Err(disk.lock_failed(&LockError::AlreadyLocked));
        }
        disk.lock()
    }

    fn resize_disk(&mut self, id: &str, bytes: u64) -> Result<()> {
        let Some(disk) = self.disks.get_mut(id) else {
            return Ok(());
        };
        let failed = |error: String| VmError::device(["Disk resize error".to_owned(), error]);
        if let Some(Running::Qemu(guest)) = &self.guest {
            guest.resize_disk(id, bytes).map_err(|error| failed(error.to_string()))?;
        }
        disk.resize(bytes).map_err(|error| failed(error.to_string()))
    }

    fn open_net(&mut self, id: &str, net: &NetConfig) -> Result<Option<MacAddr>> {
        self.open_tap(id, net).map(Some)
    }

    fn open_vsock(&mut self, id: &str, config: &VsockConfig) -> Result<()> {
        let failed = |error: &io::Error| {
            VmError::device([
                "Cannot create virtio-vsock backend",
                "Error binding to the host-side Unix socket",
                &error.to_string(),
            ])
        };
        let listener = UnixListener::bind(&config.socket).map_err(|error| failed(&error))?;
        if let Some(Running::Model(guest)) = &self.guest {
            guest.send(Command::Vsock(listener.try_clone().map_err(|error| failed(&error))?));
        }
        self.vsock = Some(Vsock { id: id.to_owned(), listener, path: config.socket.clone() });
        Ok(())
    }

    fn connect_backend(&mut self, socket: &Path) -> io::Result<()> {
        UnixStream::connect(socket).map(drop)
    }

    fn open_file(&mut self, path: &Path) -> io::Result<()> {
        File::open(path).map(drop)
    }

    fn close_device(&mut self, id: &str) {
        self.disks.remove(id);
        self.taps.remove(id);
        if self.vsock.as_ref().is_some_and(|vsock| vsock.id == id) {
            self.close_vsock();
        }
    }

    fn load_payload(&mut self, payload: &PayloadConfig) -> Result<()> {
        if let Some(firmware) = &payload.firmware {
            File::open(firmware)
                .map_err(|error| VmError::chain(["Error manipulating firmware file", &error.to_string()]))?;
        }
        let Some(kernel) = &payload.kernel else {
            return Ok(());
        };
        let mut file = File::open(kernel)
            .map_err(|error| VmError::chain(["Cannot open kernel file", &error.to_string()]))?;
        let mut start = [0; 4];
        if file.read(&mut start).is_err() {
            const UNREADABLE: &str = "Kernel Loader: Unable to read bzImage header";
            let text = format!("Kernel Loader: failed to load bzImage kernel image: {UNREADABLE}");
            return Err(VmError::chain(["Cannot load the kernel into memory", &text, UNREADABLE]));
        }
        // A real VMM refuses such a file. A stand-in that did would need a real kernel to stand in for a VM.
        if self.engine == EngineChoice::Model && start != *b"\x7fELF" && !start.starts_with(b"MZ") {
            warn!(
                "{} is neither an ELF file nor a bzImage; it is only pretended to be run",
                kernel.display()
            );
        }
        Ok(())
    }

    fn start_guest(
        &mut self,
        config: &VmConfig,
        devices: Vec<String>,
        resumed: Option<&GuestState>,
    ) -> Result<()> {
        if let EngineChoice::Qemu(settings) = self.engine.clone() {
            return self.start_qemu(&settings, config);
        }
        let failed =
            |error: io::Error| VmError::chain(["Error from CPU manager".to_owned(), error.to_string()]);
        let state = match resumed {
            Some(state) => state.clone(),
            None => GuestState { cmdline: config.cmdline().to_owned(), macs: macs(config) },
        };
        let (knobs, bad) = Knobs::parse(&state.cmdline);
        for problem in bad {
            error!("{problem}; its default is used");
            eprintln!("regatta-chsim: {problem}; its default is used");
        }
        let consoles = self.consoles.as_ref();
        let sink = consoles.map(
            |consoles| {
                if knobs.console == "hvc0" { &consoles.console } else { &consoles.serial }
            },
        );
        let out = sink.map_or(Ok(super::Sink::Nowhere), super::Sink::try_clone).map_err(failed)?;
        let vsock =
            self.vsock.as_ref().map(|vsock| vsock.listener.try_clone()).transpose().map_err(failed)?;
        let payload = config.payload.as_ref();
        let image = payload.and_then(|payload| payload.kernel.as_ref().or(payload.firmware.as_ref()));
        let spec = Spec {
            knobs,
            cmdline: state.cmdline.clone(),
            kernel: image.map(|path| path.display().to_string()).unwrap_or_default(),
            vcpus: config.cpus.boot_vcpus,
            ram_bytes: config.memory.total_bytes(),
            devices,
            out,
            vsock,
            card: self.card(config, &state).map_err(failed)?,
            resumed: resumed.is_some(),
        };
        let news = self.news();
        let guest = Guest::start(spec, Arc::clone(&self.clock), news).map_err(failed)?;
        self.guest = Some(Running::Model(guest));
        self.booted = state;
        Ok(())
    }

    fn guest(&mut self, command: GuestCommand) -> Result<()> {
        let guest = match &self.guest {
            None => return Ok(()),
            Some(Running::Model(guest)) => guest,
            Some(Running::Qemu(guest)) => {
                let failed =
                    |error: qemu::QmpError| VmError::chain(["Error from CPU manager", &error.to_string()]);
                return guest.command(&command).map_err(failed);
            }
        };
        guest.send(match command {
            GuestCommand::Pause => Command::Pause(self.clock.now()),
            GuestCommand::Resume => Command::Resume(self.clock.now()),
            GuestCommand::PowerButton => Command::PowerButton,
            GuestCommand::Nmi => Command::Nmi,
            GuestCommand::Eject(id) => Command::Eject(id),
            GuestCommand::RemoveVcpus => Command::RemoveVcpus,
            GuestCommand::Balloon(bytes) => Command::Balloon(bytes),
        });
        Ok(())
    }

    fn check_hot_plug(&self) -> Result<()> {
        self.only_modelled("Hot-plug is")
    }

    fn balloon_bytes(&self) -> Option<u64> {
        match &self.guest {
            Some(Running::Qemu(guest)) => guest.balloon_bytes(),
            _ => None,
        }
    }

    fn release(&mut self) {
        self.guest = None;
        self.disks.clear();
        self.taps.clear();
        self.close_vsock();
    }

    fn drop_consoles(&mut self) {
        if let Some(path) = self.consoles.take().and_then(|consoles| consoles.socket) {
            // Somebody may have removed it already.
            let _ = std::fs::remove_file(path);
        }
    }

    fn counters(&self) -> Tally {
        match &self.guest {
            Some(Running::Qemu(guest)) => Tally::Each(guest.counters()),
            Some(Running::Model(guest)) => Tally::Whole(guest.counters()),
            None => Tally::Whole(Counters::default()),
        }
    }

    fn write_snapshot(&mut self, url: &str, config: &VmConfig) -> Result<()> {
        self.only_modelled("Snapshots are")?;
        snapshot::write(url, config, &self.snapshot_state(config), self.faults.no_space())
    }

    fn read_snapshot_config(&mut self, url: &str) -> Result<VmConfig> {
        self.only_modelled("Snapshots are")?;
        snapshot::read_config(url)
    }

    fn read_snapshot_state(&mut self, url: &str, on_demand: bool) -> Result<GuestState> {
        let state = snapshot::read_state(url)?;
        snapshot::read_memory(url, &state, on_demand)?;
        Ok(state.guest)
    }

    fn check_snapshot_state(&mut self, url: &str, config: &VmConfig) -> Result<()> {
        match snapshot::read_state(url)?.mismatch(&self.snapshot_state(config)) {
            Some(what) => Err(VmError::device(["Cannot restore the state of devices", &what])),
            None => Ok(()),
        }
    }

    fn receive_migration(&mut self, url: &str) -> Result<()> {
        let failed = |error: &io::Error| {
            VmError::chain([
                "Failed to receive migratable component snapshot",
                "Error binding to socket",
                &error.to_string(),
            ])
        };
        let socket = |error: &io::Error| VmError::chain(["Socket error", &error.to_string()]);
        let mut request = [0; 16];
        if let Some(path) = url.strip_prefix("unix:") {
            let listener = UnixListener::bind(path).map_err(|error| failed(&error))?;
            self.event("vm", "migration-receive-ready", &[]);
            let accepted = listener.accept();
            let _ = std::fs::remove_file(path);
            let (mut stream, _) = accepted.map_err(|error| socket(&error))?;
            self.event("vm", "migration-receive-started", &[]);
            stream.read_exact(&mut request).map_err(|error| socket(&error))?;
        } else {
            let address = url.strip_prefix("tcp:").unwrap_or(url);
            let listener = TcpListener::bind(address).map_err(|error| failed(&error))?;
            self.event("vm", "migration-receive-ready", &[]);
            let (mut stream, _) = listener.accept().map_err(|error| socket(&error))?;
            self.event("vm", "migration-receive-started", &[]);
            stream.read_exact(&mut request).map_err(|error| socket(&error))?;
        }
        // Memory cannot be received, so the migration ends as one that its sender aborted.
        self.event("vm", "migration-receive-failed", &[]);
        Err(VmError::chain([
            "Failed to complete migration for migratable component",
            "Migration was aborted",
        ]))
    }
}
