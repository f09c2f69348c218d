//! The process: start-up, the VMM's loop, and the way out. Source: `cloud-hypervisor/src/main.rs` of v53.0.

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::num::ParseIntError;
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use clap::Parser;
use rustix::event::{EventfdFlags, eventfd};
use thiserror::Error;

use crate::api::{self, Failure, Routed};
use crate::cli::Arguments;
use crate::clock::{Clock, Mode, wake};
use crate::config::RestoreConfig;
use crate::faults::{CallFault, Faults};
use crate::guest::{EngineChoice, Misdeed, qemu};
use crate::host::{EventMonitor, HostPlatform, LockError, LockKind, Range, Taps, adopt, lock};
use crate::http::{Answer, Request, Server, serve};
use crate::log::{Level, error, info};
use crate::options::{OptionsError, split};
use crate::vmm::{Action, Flow, GuestEvent, Profile, Reply, VmError, Vmm, messages};

/// How long the VMM's thread waits until the caller of a misdeed has its answer.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What the VMM's thread is told.
#[derive(Debug)]
pub(crate) enum Message {
    Call(Action, mpsc::SyncSender<Result<Reply, Failure>>),
    /// News of the guest with this number.
    Guest(u64, GuestEvent),
    /// The receiver hears of its sender's end once the caller has its answer.
    Misdeed(Misdeed, mpsc::SyncSender<bool>, mpsc::Receiver<()>),
    /// SIGTERM or SIGINT.
    Exit,
}

/// Why the process ends with 1. Variants and texts are upstream's, because both are printed.
#[derive(Debug, Error)]
enum AppError {
    #[error("Error parsing --api-socket")]
    ParsingApiSocket(#[source] ParseIntError),
    #[error("Error parsing --event-monitor")]
    ParsingEventMonitor(#[source] OptionsError),
    #[error("Error parsing --event-monitor: path or fd required")]
    BareEventMonitor,
    #[error("Error doing event monitor I/O")]
    EventMonitorIo(#[source] io::Error),
    #[error("Error creating log file")]
    LogFileCreation(#[source] io::Error),
    #[error("Failed to start the VMM thread")]
    StartVmmThread(#[source] VmmError),
    #[error("VMM thread exited with error")]
    VmmThread(#[source] VmError),
    #[error("Error parsing config")]
    ParsingConfig(#[source] OptionsError),
    #[error("Error creating VM")]
    VmCreate(#[source] CallFailed),
    #[error("Error booting VM")]
    VmBoot(#[source] CallFailed),
    #[error("Error restoring VM")]
    VmRestore(#[source] CallFailed),
    #[error("Error reading {variable}: {problem}")]
    Environment { variable: &'static str, problem: String },
}

/// A call of the API that the process made itself.
#[derive(Debug, Error)]
#[error("{failed}")]
struct CallFailed {
    failed: &'static str,
    #[source]
    error: VmError,
}

#[derive(Debug, Error)]
enum VmmError {
    #[error("API socket {0:?} is already in use by another running instance")]
    ApiSocketInUse(PathBuf),
    #[error("Error creating API server's socket")]
    CreateApiServerSocket(#[source] io::Error),
    #[error("Error spawning HTTP thread")]
    HttpThreadSpawn(#[source] io::Error),
    #[error("Error creating signal handler")]
    SignalHandler(#[source] io::Error),
}

/// Runs the process; see [`crate::run`].
pub(crate) fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    // All files and sockets are the user's own, whatever mask was inherited.
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(error) => {
            // Help goes to standard output, mistakes to standard error; the code is clap's, 2 for mistakes.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    match start(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            error!("Fatal error: {problem:?}");
            eprint!("{}", chain(&problem));
            ExitCode::FAILURE
        }
    }
}

/// The error as upstream prints it.
fn chain(top: &AppError) -> String {
    let first = "Error: Cloud Hypervisor exited with the following";
    if top.source().is_none() {
        return format!("{first} error:\n  {top}\n");
    }
    let mut text = format!("{first} chain of errors:\n");
    for (level, error) in messages(top).iter().enumerate() {
        text += &format!("  {level}: {error}\n");
    }
    text
}

fn environment<T>(
    variable: &'static str,
    parse: impl FnOnce(&str) -> Result<T, String>,
) -> Result<T, AppError> {
    let value = std::env::var(variable).unwrap_or_default();
    parse(&value).map_err(|problem| AppError::Environment { variable, problem })
}

fn profile(name: &str) -> Result<Profile, String> {
    let found = Profile::NAMES.iter().find(|(known, _)| *known == name);
    match (name, found) {
        ("", _) => Ok(Profile::default()),
        (_, Some((_, profile))) => Ok(*profile),
        _ => Err(format!("unknown profile {name:?}: expected `v52`, `v53` or `next`")),
    }
}

/// The guest engine and its settings.
fn engine() -> Result<EngineChoice, AppError> {
    let mut engine = environment("REGATTA_CHSIM_GUEST", EngineChoice::parse)?;
    if let EngineChoice::Qemu(settings) = &mut engine {
        settings.accelerator = environment("REGATTA_CHSIM_QEMU_ACCEL", qemu::Accelerator::parse)?;
        if let Some(program) = std::env::var_os("REGATTA_CHSIM_QEMU").filter(|program| !program.is_empty()) {
            settings.program = PathBuf::from(program);
        }
    }
    Ok(engine)
}

fn start(arguments: &Arguments) -> Result<(), AppError> {
    let profile = environment("REGATTA_CHSIM_PROFILE", profile)?;
    if arguments.version {
        println!("cloud-hypervisor {}", profile.versions().0);
        println!("Migration Protocol Versions: 0");
        return Ok(());
    }
    let level = match arguments.v {
        0 => Level::Warn,
        _ => Level::Info,
    };
    let out: Box<dyn io::Write + Send> = match &arguments.log_file {
        Some(path) => Box::new(File::create(path).map_err(AppError::LogFileCreation)?),
        None => Box::new(io::stderr()),
    };
    crate::log::start(level, out);

    let faults = Arc::new(environment("REGATTA_CHSIM_FAULTS", Faults::parse)?);
    let clock = environment("REGATTA_CHSIM_CLOCK", |mode| {
        if mode.is_empty() { Ok(Mode::Auto(1.0)) } else { Mode::parse(mode) }
    })?;
    let clock = Arc::new(Clock::new(clock));
    let engine = engine()?;
    let taps = environment("REGATTA_CHSIM_TAPS", Taps::parse)?;
    let control =
        arguments.sim_control || std::env::var_os("REGATTA_CHSIM_CONTROL").is_some_and(|value| value == "1");

    let socket = api_socket(arguments.api_socket.as_deref())?;
    let mut events = EventMonitor::new(event_file(arguments.event_monitor.as_deref())?, Arc::clone(&faults));
    events.emit("vmm", "starting", &[]);

    let (sender, inbox) = mpsc::channel();
    let vm = arguments.vm.to_config().map_err(AppError::ParsingConfig)?;
    watch_signals(sender.clone()).map_err(AppError::StartVmmThread)?;
    // The lock lasts as long as the process may serve the socket.
    let (path, _lock, listener) = open_api_socket(socket).map_err(AppError::StartVmmThread)?;
    let http = listener
        .map(|listener| Http::start(listener, profile, sender.clone(), Arc::clone(&faults)))
        .transpose()
        .map_err(|error| AppError::StartVmmThread(VmmError::HttpThreadSpawn(error)))?;
    let control = match &path {
        Some(path) if control => {
            let started = crate::sim::start(path, sender.clone(), Arc::clone(&clock), Arc::clone(&faults));
            Some(started.map_err(|error| AppError::StartVmmThread(VmmError::CreateApiServerSocket(error)))?)
        }
        _ => None,
    };

    let platform = HostPlatform::new((engine, taps), events, faults, clock, sender, Message::Guest);
    let mut vmm = Vmm::new(platform, profile, arguments.no_shutdown);
    let outcome = first_vm(&mut vmm, vm, arguments.restore.as_deref());
    let outcome = match outcome {
        Ok(()) => control_loop(&mut vmm, &inbox).map_err(AppError::VmmThread),
        // As upstream: what was started is shut down, and the failure is what the process ends with.
        Err(problem) => vmm.vmm_shutdown().map_err(AppError::VmmThread).and(Err(problem)),
    };
    drop(vmm);
    drop(inbox);
    if let Some(http) = http {
        http.stop();
    }
    for path in path.into_iter().filter(|_| outcome.is_ok()).chain(control) {
        let _ = std::fs::remove_file(path);
    }
    info!("Cloud Hypervisor exited");
    outcome
}

/// The VM that the command line describes, if it does.
fn first_vm(
    vmm: &mut Vmm<HostPlatform<Message>>,
    vm: Option<crate::config::VmConfig>,
    restore: Option<&str>,
) -> Result<(), AppError> {
    let mut call =
        |action, failed| vmm.handle(action).map(drop).map_err(|error| CallFailed { failed, error });
    if let Some(config) = vm {
        call(Action::Create(Box::new(config)), "The VM could not be created").map_err(AppError::VmCreate)?;
        call(Action::Boot, "The VM could not boot").map_err(AppError::VmBoot)?;
    } else if let Some(text) = restore {
        let request = restore_config(text).map_err(AppError::ParsingConfig)?;
        call(Action::Restore(request), "The VM could not be restored").map_err(AppError::VmRestore)?;
    }
    Ok(())
}

fn restore_config(text: &str) -> Result<RestoreConfig, OptionsError> {
    let mut object = serde_json::Map::new();
    for (option, value) in split(text)? {
        let value = match option.as_str() {
            "source_url" => serde_json::Value::from(value),
            "prefault" | "resume" => serde_json::Value::from(matches!(value.as_str(), "on" | "true")),
            _ => return Err(OptionsError::UnknownOption(option)),
        };
        object.insert(option, value);
    }
    serde_json::from_value(object.into()).map_err(|error| OptionsError::Config(error.to_string()))
}

/// Takes messages one at a time until something ends the process.
fn control_loop(
    vmm: &mut Vmm<HostPlatform<Message>>,
    inbox: &mpsc::Receiver<Message>,
) -> Result<(), VmError> {
    while let Ok(message) = inbox.recv() {
        match message {
            Message::Call(action, reply) => {
                let ends = action == Action::VmmShutdown;
                let outcome = vmm.handle(action);
                let outcome = outcome
                    .map_err(|error| Failure { status: vmm.status(&error), messages: error.messages() });
                // A client that is gone does not change what was done.
                let _ = reply.send(outcome);
                if ends {
                    return Ok(());
                }
            }
            Message::Guest(number, event) => {
                if vmm.platform().is_current(number) {
                    info!("VM guest event: {event:?}");
                    if vmm.guest_event(&event)? == Flow::Exit {
                        return Ok(());
                    }
                }
            }
            Message::Misdeed(misdeed, reply, answered) => {
                let _ = reply.send(vmm.platform().misdeed(misdeed));
                // What the guest does next may end this process, and the answer with it.
                let _ = answered.recv_timeout(LAST_WORDS);
            }
            Message::Exit => {
                info!("VM exit event");
                return vmm.vmm_shutdown();
            }
        }
    }
    Ok(())
}

/// Where the API is to be served.
enum ApiSocket {
    Nowhere,
    Path(PathBuf),
    Fd(i32),
}

fn api_socket(argument: Option<&str>) -> Result<ApiSocket, AppError> {
    let Some(argument) = argument else {
        return Ok(ApiSocket::Nowhere);
    };
    // Upstream takes whatever it cannot read as a bare path.
    let options = split(argument).unwrap_or_default();
    let find = |name: &str| options.iter().find(|(option, _)| option == name).map(|(_, value)| value);
    if let Some(fd) = find("fd") {
        return fd.parse().map(ApiSocket::Fd).map_err(AppError::ParsingApiSocket);
    }
    Ok(ApiSocket::Path(PathBuf::from(find("path").map_or(argument, String::as_str))))
}

fn event_file(argument: Option<&str>) -> Result<Option<File>, AppError> {
    let Some(argument) = argument else {
        return Ok(None);
    };
    let options = split(argument).map_err(AppError::ParsingEventMonitor)?;
    if let Some((option, _)) = options.iter().find(|(option, _)| !matches!(option.as_str(), "path" | "fd")) {
        return Err(AppError::ParsingEventMonitor(OptionsError::UnknownOption(option.clone())));
    }
    let find = |name: &str| options.iter().find(|(option, _)| option == name).map(|(_, value)| value);
    let file = if let Some(fd) = find("fd") {
        let error = || OptionsError::Conversion { option: "fd".to_owned(), value: fd.clone() };
        let number = fd.parse().map_err(|_| AppError::ParsingEventMonitor(error()))?;
        File::from(adopt(number).map_err(AppError::EventMonitorIo)?)
    } else if let Some(path) = find("path") {
        File::create(path).map_err(AppError::EventMonitorIo)?
    } else {
        return Err(AppError::BareEventMonitor);
    };
    let flags = rustix::fs::fcntl_getfl(&file).map_err(|error| AppError::EventMonitorIo(error.into()))?;
    rustix::fs::fcntl_setfl(&file, flags | rustix::fs::OFlags::NONBLOCK)
        .map_err(|error| AppError::EventMonitorIo(error.into()))?;
    Ok(Some(file))
}

type OpenSocket = (Option<PathBuf>, Option<File>, Option<UnixListener>);

/// Takes the socket's lock, removes what a killed instance left, and listens.
fn open_api_socket(socket: ApiSocket) -> Result<OpenSocket, VmmError> {
    match socket {
        ApiSocket::Nowhere => Ok((None, None, None)),
        ApiSocket::Fd(fd) => {
            let fd = adopt(fd).map_err(VmmError::CreateApiServerSocket)?;
            Ok((None, None, Some(UnixListener::from(fd))))
        }
        ApiSocket::Path(path) => {
            let lock_path = path_with(&path, ".lock");
            let file = File::options().create(true).truncate(false).write(true).open(lock_path);
            let file = file.map_err(VmmError::CreateApiServerSocket)?;
            match lock(&file, LockKind::Write, Range::WholeFile) {
                Ok(()) => {}
                Err(LockError::AlreadyLocked) => return Err(VmmError::ApiSocketInUse(path)),
                Err(LockError::Io(error)) => return Err(VmmError::CreateApiServerSocket(error)),
            }
            // With the lock held, a socket at this path has no owner any more.
            let _ = std::fs::remove_file(&path);
            let listener = UnixListener::bind(&path).map_err(VmmError::CreateApiServerSocket)?;
            Ok((Some(path), Some(file), Some(listener)))
        }
    }
}

/// The path with something behind its name.
pub(crate) fn path_with(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Turns SIGTERM and SIGINT into messages. SIGPIPE needs nothing: Rust programs ignore it from the start.
fn watch_signals(sender: mpsc::Sender<Message>) -> Result<(), VmmError> {
    let (mut read, write) = UnixStream::pair().map_err(VmmError::SignalHandler)?;
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let write = write.try_clone().map_err(VmmError::SignalHandler)?;
        signal_hook::low_level::pipe::register(signal, write).map_err(VmmError::SignalHandler)?;
    }
    let watch = move || {
        let mut byte = [0];
        while read.read_exact(&mut byte).is_ok() {
            if sender.send(Message::Exit).is_err() {
                return;
            }
        }
    };
    thread::Builder::new()
        .name("vmm_signal_handler".to_owned())
        .spawn(watch)
        .map_err(VmmError::SignalHandler)?;
    Ok(())
}

/// The HTTP thread.
struct Http {
    stop: OwnedFd,
    done: mpsc::Receiver<()>,
}

/// How long the way out waits for the last answer to be sent.
const LAST_ANSWER: Duration = Duration::from_secs(2);

impl Http {
    fn start(
        listener: UnixListener,
        profile: Profile,
        sender: mpsc::Sender<Message>,
        faults: Arc<Faults>,
    ) -> io::Result<Self> {
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let server = Server::new(listener, stop.try_clone()?, profile.body_limit_bytes())?;
        let (finished, done) = mpsc::channel();
        let body = move || {
            if let Err(error) = serve(server, |request| handle(request, &sender, &faults)) {
                error!("HTTP server error: {error}");
                // Without its API a VMM is of no use to anybody.
                let _ = sender.send(Message::Exit);
            }
            let _ = finished.send(());
        };
        thread::Builder::new().name("http-server".to_owned()).spawn(body)?;
        Ok(Self { stop, done })
    }

    /// Lets the thread send what it still has to say. One that hangs by a fault is left behind.
    fn stop(self) {
        wake(&self.stop);
        let _ = self.done.recv_timeout(LAST_ANSWER);
    }
}

fn handle(request: &Request, sender: &mpsc::Sender<Message>, faults: &Faults) -> Answer {
    let call = match api::route(request) {
        Routed::Answer(response) => return Answer::Send(response),
        Routed::Call(call) => call,
    };
    let failed = call.failed();
    let mut cut = false;
    for fault in faults.on_call(call.name) {
        match fault {
            CallFault::Slow(time) => thread::sleep(time),
            CallFault::Hang => loop {
                thread::park();
            },
            CallFault::Refuse => {
                let messages = vec![
                    "Error initializing VM".to_owned(),
                    "Failed to create Vm: injected fault".to_owned(),
                ];
                return Answer::Send(api::answer(failed, Err(Failure { status: 500, messages })));
            }
            CallFault::Reset => cut = true,
            CallFault::Crash => {
                let _ =
                    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
                // The first process of a PID namespace does not hear its own signals.
                std::process::abort();
            }
            CallFault::Exit(code) => std::process::exit(code),
        }
    }
    let (reply, outcome) = mpsc::sync_channel(1);
    let outcome = match sender.send(Message::Call(call.action, reply)) {
        Ok(()) => outcome.recv().ok(),
        Err(_) => None,
    };
    let response = match outcome {
        Some(outcome) => api::answer(failed, outcome),
        // The VMM is on its way out.
        None => api::answer(
            failed,
            Err(Failure { status: 500, messages: vec!["API response receive error".to_owned()] }),
        ),
    };
    if cut {
        let bytes = response.to_bytes().len() / 2;
        return Answer::Cut(response, bytes);
    }
    Answer::Send(response)
}
