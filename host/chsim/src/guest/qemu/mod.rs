//! The guest engine `qemu`: a real guest under `qemu-system-x86_64`, as a child that does not outlive this process.
//!
//! ```text
//!   VMM's thread    starts and ends QEMU, sends commands and waits for answers   here
//!   guest           receives answers, events, console output, last words        engine.rs
//! ```
//! Locks on disks stay the VMM's; QEMU inherits the locked files, so that a lock lasts as long as either has the disk.

mod args;
#[cfg(test)]
mod args_test;
mod counters;
mod engine;
mod qmp;

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, eventfd};
use serde_json::{Value, json};
use thiserror::Error;

pub(crate) use args::Accelerator;
use args::{Plan, arguments, devices, disk_name, unsupported};
use counters::{disk_counters, net_counters};
use engine::{Engine, Port, Shared};
use qmp::Qmp;
pub(crate) use qmp::QmpError;

use super::handle::News;
use crate::clock::wake;
use crate::config::{ConsoleMode, PciDevice, VmConfig};
use crate::host::{Layer, Sink, Tap, spawn_companion};
use crate::log::{info, warn};
use crate::vmm::{Counters, GuestCommand};

/// How long QEMU may take to build a machine.
const START_WITHIN: Duration = Duration::from_secs(60);
/// How long it may take for any other command.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// How long it may take to close its disks; then it is killed.
const QUIT_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(2);
const VHOST_VSOCK: &str = "/dev/vhost-vsock";

/// Which QEMU runs guests, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) program: PathBuf,
    pub(crate) accelerator: Accelerator,
}

/// A machine to be switched on.
#[derive(Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) config: &'a VmConfig,
    /// For each disk of the configuration: its locked file, and the files it stands on.
    pub(crate) disks: Vec<(&'a File, &'a [Layer])>,
    /// For each network device of the configuration.
    pub(crate) taps: Vec<&'a Tap>,
    pub(crate) serial: Sink,
    pub(crate) console: Sink,
}

/// A machine was not switched on.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    #[error("Not supported by the guest engine `qemu`: {0}")]
    Unsupported(&'static str),
    #[error("Cannot start {}", program.display())]
    Spawn {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("Cannot talk to qemu")]
    Sockets(#[source] io::Error),
    /// It ended; the text is its last words.
    #[error("qemu ended at its start ({status}): {said}")]
    Ended { status: ExitStatus, said: String },
    #[error("qemu does not start the machine")]
    Command(#[source] QmpError),
}

/// A guest that is switched on. Dropping it switches it off, at once, as pulling the plug does.
#[derive(Debug)]
pub(crate) struct Guest {
    child: Child,
    qmp: Arc<Qmp>,
    shared: Arc<Shared>,
    waker: Arc<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    ram_bytes: u64,
    /// Ids of disks and network devices with QEMU's names and the taps' names.
    disks: Vec<(String, String)>,
    taps: Vec<(String, String)>,
}

impl Guest {
    /// Switches a machine on. Call it on the process's first thread: QEMU ends with the thread that started it.
    pub(crate) fn start(settings: &Settings, spec: Spec<'_>, news: News) -> Result<Self, StartError> {
        let config = spec.config;
        if let Some(name) = unsupported(config) {
            return Err(StartError::Unsupported(name));
        }
        let pair = || UnixStream::pair().map_err(StartError::Sockets);
        let (ours, qmp_end) = pair()?;
        let mut ports = Vec::new();
        let mut ends = Vec::new();
        let consoles = [(config.serial.mode, spec.serial), (config.console.mode, spec.console)];
        for (mode, sink) in consoles {
            ends.push(match mode {
                ConsoleMode::Off | ConsoleMode::Null => None,
                _ => {
                    let (stream, end) = pair()?;
                    stream.set_nonblocking(true).map_err(StartError::Sockets)?;
                    ports.push(Port { stream, sink });
                    Some(end)
                }
            });
        }
        let vsock = config.vsock.is_some() && std::path::Path::new(VHOST_VSOCK).exists();
        if config.vsock.is_some() && !vsock {
            warn!("there is no {VHOST_VSOCK} on this host: the guest has no vsock device");
        }
        let fd = |end: &Option<UnixStream>| end.as_ref().map(AsRawFd::as_raw_fd);
        let plan = Plan {
            config,
            accelerator: settings.accelerator,
            qmp: qmp_end.as_raw_fd(),
            serial: fd(&ends[0]),
            console: fd(&ends[1]),
            backing: spec.disks.iter().map(|(_, layers)| *layers).collect(),
            taps: spec.taps.iter().map(|tap| tap.queues.iter().map(AsRawFd::as_raw_fd).collect()).collect(),
            firmware_is_elf: firmware_is_elf(config),
            vsock,
        };
        let mut command = Command::new(&settings.program);
        command.args(arguments(&plan)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        info!("starting {command:?}");
        let mut keep: Vec<BorrowedFd<'_>> = vec![qmp_end.as_fd()];
        keep.extend(ends.iter().flatten().map(AsFd::as_fd));
        keep.extend(spec.taps.iter().flat_map(|tap| &tap.queues).map(AsFd::as_fd));
        keep.extend(spec.disks.iter().map(|(file, _)| file.as_fd()));
        let mut child = spawn_companion(&mut command, &keep)
            .map_err(|source| StartError::Spawn { program: settings.program.clone(), source })?;
        // QEMU alone has its ends from here on, so that its end is seen.
        drop((qmp_end, ends));

        let errors = child.stderr.take().map(|stderr| File::from(OwnedFd::from(stderr)));
        let shared = Arc::new(Shared::default());
        let ids = |list: Vec<(Option<&str>, String)>| -> Vec<(String, String)> {
            list.into_iter().map(|(id, name)| (id.unwrap_or_default().to_owned(), name)).collect()
        };
        let disks = config.disks.iter().flatten().enumerate();
        let net = config.net.iter().flatten().zip(&spec.taps);
        let mut guest = Self {
            child,
            qmp: Arc::new(Qmp::new(ours.try_clone().map_err(StartError::Sockets)?)),
            shared: Arc::clone(&shared),
            waker: Arc::new(
                eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
                    .map_err(|error| StartError::Sockets(error.into()))?,
            ),
            thread: None,
            ram_bytes: config.memory.boot_bytes(),
            disks: ids(disks.map(|(index, disk)| (disk.id(), disk_name(index))).collect()),
            taps: ids(net.map(|(net, tap)| (net.id(), tap.name.clone())).collect()),
        };
        guest.listen(ours, errors, ports, news, devices(config)).map_err(StartError::Sockets)?;
        guest.begin()?;
        Ok(guest)
    }

    /// Starts the thread that receives.
    fn listen(
        &mut self,
        answers: UnixStream,
        errors: Option<File>,
        ports: Vec<Port>,
        news: News,
        inactive: Vec<(String, String)>,
    ) -> io::Result<()> {
        // Its flags are those of the writing half, too: commands are short, and QEMU reads them at once.
        answers.set_nonblocking(true)?;
        if let Some(errors) = &errors {
            let flags = rustix::fs::fcntl_getfl(errors)?;
            rustix::fs::fcntl_setfl(errors, flags | rustix::fs::OFlags::NONBLOCK)?;
        }
        let engine = Engine {
            qmp: Arc::clone(&self.qmp),
            shared: Arc::clone(&self.shared),
            waker: Arc::clone(&self.waker),
            answers: Some(answers),
            errors,
            ports,
            news,
            ram_bytes: self.ram_bytes,
            inactive,
        };
        let thread = std::thread::Builder::new().name("guest".to_owned()).spawn(move || engine.run())?;
        self.thread = Some(thread);
        Ok(())
    }

    /// Waits until the machine is built, and lets it run.
    fn begin(&mut self) -> Result<(), StartError> {
        for (command, within) in [("qmp_capabilities", START_WITHIN), ("cont", ANSWER_WITHIN)] {
            match self.qmp.execute(command, &json!({}), within) {
                Ok(_) => {}
                Err(QmpError::Gone { .. }) => return Err(self.post_mortem()),
                Err(error) => return Err(StartError::Command(error)),
            }
        }
        self.shared.running.store(true, Ordering::SeqCst);
        wake(&self.waker);
        Ok(())
    }

    fn post_mortem(&mut self) -> StartError {
        self.shared.stopping.store(true, Ordering::SeqCst);
        let status = match self.end(QUIT_WITHIN) {
            Ok(status) => status,
            Err(error) => return StartError::Sockets(error),
        };
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        StartError::Ended { status, said: self.last_words() }
    }

    /// What QEMU said last, as one line.
    pub(crate) fn last_words(&self) -> String {
        let words = self.shared.last_words.lock().unwrap_or_else(PoisonError::into_inner);
        let words: &VecDeque<String> = &words;
        if words.is_empty() {
            return "it said nothing".to_owned();
        }
        words.iter().map(String::as_str).collect::<Vec<_>>().join("; ")
    }

    /// Waits for QEMU's end, and kills it if that does not come in time.
    fn end(&mut self, within: Duration) -> io::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                warn!("qemu does not end: it is killed");
                self.child.kill()?;
                return self.child.wait();
            }
            std::thread::sleep(LOOK_AGAIN);
        }
    }

    fn execute(&self, command: &'static str, arguments: Value) -> Result<Value, QmpError> {
        self.qmp.execute(command, &arguments, ANSWER_WITHIN)
    }

    /// Does something to the machine; it is done when this returns.
    pub(crate) fn command(&self, command: &GuestCommand) -> Result<(), QmpError> {
        match command {
            GuestCommand::Pause => self.execute("stop", json!({})),
            GuestCommand::Resume => self.execute("cont", json!({})),
            GuestCommand::PowerButton => self.execute("system_powerdown", json!({})),
            GuestCommand::Nmi => self.execute("inject-nmi", json!({})),
            GuestCommand::Balloon(bytes) => {
                self.execute("balloon", json!({"value": self.ram_bytes.saturating_sub(*bytes)}))
            }
            // The VMM refuses what would lead here.
            GuestCommand::Eject(_) | GuestCommand::RemoveVcpus => Ok(Value::Null),
        }
        .map(drop)
    }

    /// Makes a disk larger or smaller, bytes.
    pub(crate) fn resize_disk(&self, id: &str, bytes: u64) -> Result<(), QmpError> {
        let name = self.disks.iter().find(|(disk, _)| disk == id).map_or(id, |(_, name)| name);
        self.execute("block_resize", json!({"node-name": name, "size": bytes})).map(drop)
    }

    /// What the balloon has taken, bytes; `None` when there is no balloon.
    pub(crate) fn balloon_bytes(&self) -> Option<u64> {
        let info = self.execute("query-balloon", json!({})).ok()?;
        Some(self.ram_bytes.saturating_sub(info["actual"].as_u64()?))
    }

    /// I/O of each device so far, by its id.
    pub(crate) fn counters(&self) -> BTreeMap<String, Counters> {
        let mut counters = BTreeMap::new();
        let stats = self.execute("query-blockstats", json!({})).unwrap_or_default();
        for (id, name) in &self.disks {
            let entries = stats.as_array().into_iter().flatten();
            let of = format!("/peripheral/{name}/");
            let entry =
                entries.clone().find(|entry| entry["qdev"].as_str().is_some_and(|qdev| qdev.contains(&of)));
            if let Some(entry) = entry {
                counters.insert(id.clone(), disk_counters(&entry["stats"]));
            }
        }
        let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
        for (id, tap) in &self.taps {
            if let Some(found) = net_counters(&table, tap) {
                counters.insert(id.clone(), found);
            }
        }
        counters
    }

    /// Has the guest hang.
    pub(crate) fn freeze(&self) {
        // A machine that is stopped behind the VMM's back hangs.
        if let Err(error) = self.execute("stop", json!({})) {
            warn!("{error}");
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Unlike a kill it writes out what a qcow2 image has in memory.
        if !matches!(self.child.try_wait(), Ok(Some(_)))
            && let Err(error) = self.execute("quit", json!({}))
            && !matches!(error, QmpError::Gone { .. })
        {
            warn!("{error}");
            let _ = self.child.kill();
        }
        if let Err(error) = self.end(QUIT_WITHIN) {
            warn!("qemu cannot be ended: {error}");
        }
        wake(&self.waker);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has nothing more to do either.
            let _ = thread.join();
        }
    }
}

fn firmware_is_elf(config: &VmConfig) -> bool {
    use std::io::Read;
    let firmware = config.payload.as_ref().and_then(|payload| payload.firmware.as_ref());
    let mut start = [0; 4];
    firmware.is_some_and(|path| File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok())
        && start == *b"\x7fELF"
}
