//! Starting and stopping the daemon.

use std::fs::{DirBuilder, Permissions};
use std::io::IsTerminal as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use regatta_metrics::Exposition;
use regatta_policy_host::{Engine, EngineOptions, Place, Program};
use regatta_store::{Options, QUEUE_DEFAULT, RedbStore, StateStore, Store, Writer, refuse_untrusted};
use regatta_traffic::{Listeners, WatchRuntime};
use regatta_util::program;
use regatta_vmm::{
    BinaryRequest, CgroupRoot, FailedLogs, HostNetwork, ImageStore, Isolation, IsolationOptions, Measure,
    SnapshotStore, StartLimiter, VmmBinary, VmmHost,
};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use crate::api;
use crate::api::types::VmmInfo;
use crate::cli::serve_args::{GuestEngine, LogFormat, ServeArgs, VmmChoice};
use crate::clock;
use crate::copies::Copies;
use crate::descriptors::Shares;
use crate::fleet::{Fleet, PolicyDirs};
use crate::hot_restart;
use crate::node::{self, HostLimits, Node};
use crate::origins::Origins;
use crate::paths::{DataDirs, default_data_dir, socket_in};
use crate::recordings::Recordings;
use crate::restore;
use crate::set::Watchdog;
use crate::shared::Shared;

/// Logs of so many instances that failed or were replaced are kept, and of so many of one set.
const FAILED_LOGS_KEPT: usize = 100;
const FAILED_LOGS_KEPT_OF_SET: usize = 20;
/// Others, namely VMMs with users of their own, may go through these directories, but not look into them.
const PASSAGE: u32 = 0o711;
const PRIVATE: u32 = 0o700;
/// Launches at once, per CPU of the host.
const STARTS_PER_CPU: usize = 4;

/// Runs the daemon until it is told to stop. The VMs outlive it.
///
/// # Errors
/// The daemon cannot be started: the data directory is in use, cannot be
/// written or is damaged; no VMM can be found; the socket cannot be bound.
pub fn run(args: ServeArgs) -> anyhow::Result<()> {
    start_log(args.log_format);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let served = runtime.block_on(serve(args));
    // Half-made launches are dropped with the runtime; blocking work is not waited for.
    runtime.shutdown_background();
    served
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    check_guest(args.guest, &args.vmm)?;
    let shares = Shares::take();
    let listeners = Arc::new(Listeners::from_environment(shares.connections));
    let data = args.data.clone().map_or_else(default_data_dir, Ok)?;
    let data =
        std::path::absolute(&data).with_context(|| format!("the data directory {}", data.display()))?;
    let socket = args.socket.clone().unwrap_or_else(|| socket_in(&data));
    let dirs = DataDirs::under(&data);
    let (binary, why) = VmmBinary::resolve(&request_of(&args.vmm)?)?;
    tracing::info!(path = %binary.path().display(), version = binary.version(), why, "VMM");
    let vmm = VmmInfo {
        path: binary.path().display().to_string(),
        version: binary.version().to_owned(),
        chosen_because: why,
    };
    // What may fail without the data directory has been tried: the daemon before ends for this one.
    if args.hot_restart {
        refuse_untrusted(&dirs.root)?;
        let (socket, listeners) = (dirs.hot_restart.clone(), Arc::clone(&listeners));
        tokio::task::spawn_blocking(move || hot_restart::take_over(&socket, &listeners)).await??;
    }

    // Refuses a directory that others could change, and makes one that is not there. Holds it from here on: a second daemon is
    // refused before it touches anything.
    let file =
        RedbStore::open(&data, Options::default()).map_err(|why| restore::advise(why.into(), &data))?;
    let file = Arc::new(file);
    let store: Arc<dyn Store> = Arc::clone(&file) as Arc<dyn Store>;
    for (dir, mode) in [
        (&dirs.root, PASSAGE),
        (&dirs.images, PASSAGE),
        (&dirs.instances, PASSAGE),
        (&dirs.failed, PRIVATE),
        (&dirs.recordings, PRIVATE),
    ] {
        make_dir(dir, mode)?;
    }
    for dir in [
        &dirs.images,
        &dirs.instances,
        &dirs.failed,
        &dirs.recordings,
        &dirs.snapshots,
        &dirs.manifests,
        &dirs.copies,
    ] {
        refuse_untrusted(dir)?;
    }
    let cgroups = CgroupRoot::detect();
    // The simulator runs no guest that could break out of it.
    let allow_root = args.allow_root_vmms || binary.is_simulator();
    let options = IsolationOptions { uids: args.vm_ids.vms(), allow_root, ..IsolationOptions::default() };
    let isolation = Isolation::detect(options, &cgroups);
    let root_vmms = root_vmms(&isolation, &binary, args.allow_root_vmms);
    if let Some(told) = &root_vmms {
        tracing::error!("{told}");
    }
    for (measure, why) in isolation.host(true).missing() {
        tracing::info!(%measure, why, "VMMs are not contained in this way");
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let mut vmms = VmmHost::new(
        binary,
        cgroups.ok(),
        FailedLogs::new(&dirs.failed, FAILED_LOGS_KEPT, FAILED_LOGS_KEPT_OF_SET),
        StartLimiter::new(cpus * STARTS_PER_CPU),
        HostNetwork::new(&data),
    )
    .with_isolation(isolation);
    if let Some(engine) = args.guest {
        vmms = vmms.with_env(GUEST_ENGINE, engine.name());
        // The stand-in looks for the program of its guests.
        vmms = vmms.with_env("PATH", std::env::var_os("PATH").unwrap_or_default());
    }
    let (writer, _writer_thread) = Writer::start(Arc::clone(&store) as Arc<dyn StateStore>, QUEUE_DEFAULT)?;
    let limits = HostLimits {
        memory_overcommit: args.memory_overcommit,
        memory_reserve_bytes: args.memory_reserve,
        cpu_overcommit: args.cpu_overcommit,
        disk_reserve_bytes: args.disk_reserve,
        open_files: shares.instances,
    };
    let policy_dirs = policy_dirs(args.policies, &data);
    let images = ImageStore::open(&dirs.images)?;
    match images.reflink().await {
        Ok(true) => tracing::info!("the data directory shares blocks: `overlay: raw` costs next to nothing"),
        Ok(false) => {
            tracing::info!("the data directory does not share blocks: `overlay: raw` makes full copies")
        }
        Err(why) => tracing::warn!(%why, "whether the data directory shares blocks is not known"),
    }
    clock::start()?;
    let node = Node::new(
        limits,
        dirs.instances.clone(),
        vmms,
        images,
        SnapshotStore::new(&dirs.snapshots),
        Origins::new(&dirs.manifests),
        WatchRuntime::start()?,
    );
    node::keep_logs_short(&dirs.instances)?;
    let shared = Arc::new(Shared {
        node: Arc::new(node),
        writer,
        file,
        copies: Copies::new(&dirs.copies),
        store,
        policies: Engine::new(EngineOptions {
            own: policy_dirs.own(),
            ..policy_engine(Some(dirs.compiled.clone()), args.vm_ids.policies())
        })?,
        recordings: Recordings::open(&dirs.recordings)?,
        listeners: Arc::clone(&listeners),
        shutdown_grace: args.shutdown_grace,
        exposition: Exposition::new(),
        root_vmms,
        watchdog: Watchdog::start()?,
        reload: Notify::new(),
        events: Notify::new(),
        dirs,
    });

    let hand_over_at = shared.dirs.hot_restart.clone();
    let shutdown = CancellationToken::new();
    let signals = Signals::catch()?;
    let fleet = Arc::new(Fleet::new(Arc::clone(&shared), policy_dirs, vmm, shutdown.clone()));
    fleet.restart().await.map_err(|why| restore::advise(why, &data))?;
    listeners.close_unused();
    tokio::spawn(Arc::clone(&fleet).watch_policy_dirs(shutdown.clone()));
    tokio::spawn(Arc::clone(&fleet).look_after_state(shutdown.clone()));
    let listener = api::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    tracing::info!(socket = %socket.display(), data = %data.display(), "ready");
    let stop = shutdown.clone();
    let control = Arc::clone(&fleet);
    let api = tokio::spawn(api::serve_unix(listener, api::router(control), shares.api, async move {
        stop.cancelled().await;
    }));
    let (successor, mut successors) = mpsc::channel(1);
    let offer =
        api::bind(&hand_over_at).with_context(|| format!("cannot listen on {}", hand_over_at.display()))?;
    tokio::spawn(hot_restart::offer(offer, Arc::clone(&listeners), args.shutdown_grace, successor));
    let successor = tokio::select! {
        () = signals.wait_for_the_end(&shared.reload) => {
            tracing::info!("stopping; VMs keep running");
            listeners.let_go();
            None
        }
        successor = successors.recv() => {
            tracing::info!("stopping for the daemon that takes over; VMs keep running");
            successor
        }
    };
    shutdown.cancel();
    api.await??;
    fleet.end().await;
    let _ = std::fs::remove_file(&socket);
    if let Some(successor) = successor {
        hot_restart::follow_up(successor, &mut successors).await?;
    }
    let _ = std::fs::remove_file(&hand_over_at);
    Ok(())
}

/// The command by which this program compiles a module or runs policies for the daemon, with nothing else in the process.
pub const POLICY_COMMAND: &str = "policy-child";

/// How policies are compiled and run, by the daemon and by every tool for their authors: in children that have `user`,
/// where this process may choose.
pub fn policy_engine(compiled: Option<PathBuf>, user: u32) -> EngineOptions {
    let child = Place::Child(Program {
        // This very program, also when its file has been replaced since it was started.
        path: "/proc/self/exe".into(),
        args: vec![POLICY_COMMAND.into()],
    });
    EngineOptions {
        compile_in: child.clone(),
        run_in: child,
        user: rustix::process::geteuid().is_root().then_some(user),
        cache: compiled,
        ..EngineOptions::default()
    }
}

/// What an operator should know of VMMs that would run as root; none if they do not.
fn root_vmms(isolation: &Isolation, binary: &VmmBinary, allowed: bool) -> Option<String> {
    let root = rustix::process::geteuid().is_root() && !binary.is_simulator();
    let host = isolation.host(true);
    let (_, why) = host.missing().find(|(measure, _)| root && *measure == Measure::OwnUser)?;
    Some(match allowed {
        true => format!(
            "VMMs run as root (--allow-root-vmms): a guest that takes over its VMM owns this host; {why}"
        ),
        false => format!("VMMs that would run as root are not launched: {why}; or --allow-root-vmms"),
    })
}

/// Makes a directory, or has one that is there and ours let VMMs through: earlier versions made all of them private.
fn make_dir(dir: &Path, mode: u32) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(mode)
        .create(dir)
        .with_context(|| format!("cannot make the directory {}", dir.display()))?;
    let found = dir.metadata().with_context(|| format!("cannot look at the directory {}", dir.display()))?;
    let lacking = mode & !found.mode();
    if lacking != 0 && found.uid() == rustix::process::geteuid().as_raw() {
        std::fs::set_permissions(dir, Permissions::from_mode(found.mode() | mode))
            .with_context(|| format!("cannot change the mode of {}", dir.display()))?;
    }
    Ok(())
}

/// What the stand-in is told of its guests by.
const GUEST_ENGINE: &str = "REGATTA_CHSIM_GUEST";
const QEMU: &str = "qemu-system-x86_64";

/// Refuses a guest engine that nobody would run.
fn check_guest(guest: Option<GuestEngine>, vmm: &VmmChoice) -> anyhow::Result<()> {
    let Some(engine) = guest else { return Ok(()) };
    if *vmm != VmmChoice::Sim {
        bail!(
            "--guest {} is for the simulator only; Cloud Hypervisor always runs real guests: \
             use it with --vmm sim, or leave it out",
            engine.name()
        );
    }
    if engine == GuestEngine::Qemu && program::on_path(QEMU).is_none() {
        bail!("--guest qemu needs {QEMU}, which is not on PATH: install qemu-system-x86 (Debian's name)");
    }
    Ok(())
}

fn request_of(choice: &VmmChoice) -> anyhow::Result<BinaryRequest> {
    Ok(match choice {
        VmmChoice::Auto => BinaryRequest::Auto,
        VmmChoice::Sim => BinaryRequest::Path(beside_us("regatta-chsim")?),
        VmmChoice::CloudHypervisor(Some(path)) => BinaryRequest::Path(path.clone()),
        VmmChoice::CloudHypervisor(None) => BinaryRequest::Path(on_path("cloud-hypervisor")?),
    })
}

/// A program in the directory of our own, or on PATH.
fn beside_us(program: &str) -> anyhow::Result<PathBuf> {
    let beside = std::env::current_exe()?.with_file_name(program);
    if beside.is_file() { Ok(beside) } else { on_path(program) }
}

fn on_path(program: &str) -> anyhow::Result<PathBuf> {
    match program::on_path(program) {
        Some(path) => Ok(path),
        None => bail!("there is no {program} beside regatta or on PATH"),
    }
}

/// Where policies are looked up by name: what the operator says, the data
/// directory, and where an installation and a build put the built-in ones.
fn policy_dirs(asked: Vec<PathBuf>, data: &Path) -> PolicyDirs {
    let mut dirs = PolicyDirs { asked, built_in: Vec::new() };
    dirs.asked.push(data.join("policies"));
    if let Ok(exe) = std::env::current_exe()
        && let Some(bin) = exe.parent()
    {
        dirs.built_in.push(bin.join("../share/regatta/policies"));
        dirs.built_in.push(bin.join("../policies"));
    }
    dirs
}

/// Signals that would end the process if nobody caught them.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    user: [Signal; 2],
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            user: [signal(SignalKind::user_defined1())?, signal(SignalKind::user_defined2())?],
        })
    }

    async fn wait_for_the_end(mut self, reload: &Notify) {
        let [first, second] = &mut self.user;
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                // Also sent when the terminal that it was started from closes, which does not mean stop.
                _ = self.hangup.recv() => {
                    tracing::info!("SIGHUP: the policy directories are read again; SIGTERM stops the daemon");
                    reload.notify_one();
                }
                _ = first.recv() => tracing::info!("SIGUSR1 ignored"),
                _ = second.recv() => tracing::info!("SIGUSR2 ignored"),
            }
        }
    }
}

fn start_log(format: LogFormat) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("REGATTA_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        // A log on a full disk loses lines; telling of that on standard error, as
        // is the default, would panic when that is the log.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .with_writer(std::io::stderr);
    // A second call in one process (tests) keeps the first log.
    let _ = match format {
        LogFormat::Text => log.with_target(false).try_init(),
        LogFormat::Json => log.json().try_init(),
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_engine_is_for_the_stand_in_only() {
        let refused = |vmm| check_guest(Some(GuestEngine::Qemu), &vmm).expect_err("refused").to_string();
        for vmm in [VmmChoice::CloudHypervisor(None), VmmChoice::Auto] {
            assert!(refused(vmm).contains("use it with --vmm sim"));
        }
        check_guest(Some(GuestEngine::Model), &VmmChoice::Sim).expect("the simulator has it");
        check_guest(None, &VmmChoice::Auto).expect("nothing was asked for");
    }
}
