//! Launching: directory and disk, process, socket, VM. Drop-safe: a launch that is not awaited to its end leaves nothing behind.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::attempt::{Attempt, CancelOnDrop, DirGuard, KILL_WAIT};
use super::boot::ensure_booted;
use super::dir::InstanceDir;
use super::disks::{self, DiskError, OwnDisks};
use super::error::{LaunchError, chain_text};
use super::failed::{FailedLogs, read_tail};
use super::spec::{LaunchSpec, Smbios};
use super::uses;
use super::vmm::Vmm;
use crate::api::config::{NetConfig, vm_config};
use crate::api::{ApiErrorKind, VmmClient};
use crate::host::VmmBinary;
use crate::net::{Attachment, HostNetwork, Namespace, NetworkError};
use crate::overlay::{self, Backing, OverlayError, PreparedDisk};
use crate::process::{self, CgroupRoot, VmmExit, VmmProcess};

/// How much of a VMM's last words an error carries.
const LOG_TAIL_BYTES: u64 = 2048;
/// How long after a lost connection the process's end is waited for, to report the cause and not the symptom.
const EXIT_AFTER_LOST_CONNECTION: Duration = Duration::from_millis(500);
const PING_WITHIN: Duration = Duration::from_secs(2);
/// A VMM reads no larger request (v53), and then loses its place in the connection.
const BODY_LIMIT_BYTES: usize = 50 << 10;

/// Bounds how many VMMs of the host start at the same time. Clones share the bound.
#[derive(Clone, Debug)]
pub struct StartLimiter {
    slots: Arc<Semaphore>,
}

impl StartLimiter {
    /// At most `at_once` starts at a time (at least 1).
    #[must_use]
    pub fn new(at_once: usize) -> Self {
        Self { slots: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))) }
    }

    async fn turn(&self) -> Option<SemaphorePermit<'_>> {
        // Never closed, so an error cannot happen; going on without a slot would be harmless.
        self.slots.acquire().await.ok()
    }
}

impl Default for StartLimiter {
    /// Four starts per core: they wait more than they compute.
    fn default() -> Self {
        Self::new(std::thread::available_parallelism().map_or(1, usize::from) * 4)
    }
}

/// What all VMMs of this host have in common.
#[derive(Clone, Debug)]
pub struct VmmHost {
    pub(crate) binary: VmmBinary,
    pub(crate) cgroups: Option<CgroupRoot>,
    pub(crate) failed: FailedLogs,
    starts: StartLimiter,
    pub(crate) network: HostNetwork,
    env: Vec<(OsString, OsString)>,
}

impl VmmHost {
    /// Starts VMMs with `binary`, gives each a cgroup below `cgroups` if there is one, keeps logs of failures in `failed`, makes
    /// their networks in `network`.
    #[must_use]
    pub fn new(
        binary: VmmBinary,
        cgroups: Option<CgroupRoot>,
        failed: FailedLogs,
        starts: StartLimiter,
        network: HostNetwork,
    ) -> Self {
        Self { binary, cgroups, failed, starts, network, env: Vec::new() }
    }

    /// Puts a variable into the environment of every VMM that is started from now on, over an inherited one of this name.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        let name = name.into();
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.into()));
        self
    }

    /// The VMM program.
    #[must_use]
    pub fn binary(&self) -> &VmmBinary {
        &self.binary
    }

    /// Launches an instance: waits for its turn, makes directory, root disk and network, starts the VMM, describes and boots the VM.
    ///
    /// Dropping the future at any point kills the process it started and removes network and directory (moments later, in the background); that is
    /// how a stop preempts a launch.
    ///
    /// # Errors
    /// The first step that failed. Process, network and directory are gone by then; logs are kept if the specification says so.
    pub async fn launch(&self, spec: &LaunchSpec) -> Result<Vmm, LaunchError> {
        check(&self.network, spec)?;
        let _turn = self.starts.turn().await;
        let mut attempt = Attempt { dir: None, network: None, process: None, reached: "preparing its disk" };
        let result = tokio::time::timeout(spec.boot_timeout, self.run(spec, &mut attempt)).await;
        let result = result.unwrap_or_else(|_| {
            Err(LaunchError::Timeout {
                id: spec.id.clone(),
                after: spec.boot_timeout,
                reached: attempt.reached,
                log_tail: log_tail(&spec.dir),
            })
        });
        let error = match result {
            Ok(vmm) => {
                attempt.disarm();
                return Ok(vmm);
            }
            Err(error) => error,
        };
        if let Some(process) = attempt.process.take() {
            process.signal(Signal::KILL);
            if tokio::time::timeout(KILL_WAIT, process.exited()).await.is_err() {
                tracing::warn!(instance = spec.id, pid = process.pid(), "killed VMM is still there");
            }
        }
        // A directory that was in use by another VMM is not ours to look into.
        if spec.keep_failed_logs && attempt.dir.is_some() {
            self.failed.keep(&spec.dir, &chain_text(&error));
        }
        let (network, dir) = (attempt.network.take(), attempt.dir.take());
        blocking(move || drop((network, dir))).await;
        Err(error)
    }

    /// Goes on with a launch that an earlier daemon left unfinished: describes and boots the VM of an adopted VMM. A VM that runs already is
    /// left as it is. The root disk of that launch is used if it is there, else made.
    ///
    /// # Errors
    /// As for [`VmmHost::launch`], but the VMM and its directory stay; the caller stops it.
    pub async fn finish_launch(&self, vmm: &Vmm, spec: &LaunchSpec) -> Result<(), LaunchError> {
        check(&self.network, spec)?;
        let _turn = self.starts.turn().await;
        let mut reached = "preparing its disk";
        let work = async {
            let cancel = CancelOnDrop::default();
            let root = make_disks(spec, existing_root(spec), &cancel).await?;
            boot(&self.network, spec, root.as_ref(), vmm.process(), vmm.client(), false, &mut reached).await
        };
        let result = tokio::time::timeout(spec.boot_timeout, work).await.unwrap_or_else(|_| {
            Err(LaunchError::Timeout {
                id: spec.id.clone(),
                after: spec.boot_timeout,
                reached,
                log_tail: log_tail(&spec.dir),
            })
        });
        if let (Ok(()), Some(root)) = (&result, &spec.root) {
            vmm.hold_image(root.image.clone());
        }
        result
    }

    async fn run(&self, spec: &LaunchSpec, attempt: &mut Attempt) -> Result<Vmm, LaunchError> {
        let cancel = CancelOnDrop::default();
        let (dir, root) = make_dir_and_disks(spec, &cancel).await?;
        attempt.dir = Some(dir);
        attempt.reached = "making its network";
        let network = attempt.network.insert(self.make_network(spec, &cancel).await?);
        // The process keeps it alive from its start on, and nothing else is to.
        let namespace = network.namespace.take();

        // No await between the spawn and the guard: the process cannot be forgotten.
        attempt.reached = "starting its VMM";
        let process = self.spawn(spec, namespace)?;
        attempt.process = Some(process.clone());

        let socket = spec.dir.api_socket();
        let client =
            VmmClient::new(&socket).map_err(|source| LaunchError::Api { id: spec.id.clone(), source })?;
        boot(&self.network, spec, root.as_ref(), &process, &client, true, &mut attempt.reached).await?;
        let image = spec.root.as_ref().map(|root| root.image.clone());
        Ok(Vmm::new(spec.dir.clone(), process, client, image, self.network.clone()))
    }

    fn spawn(&self, spec: &LaunchSpec, namespace: Option<Namespace>) -> Result<VmmProcess, LaunchError> {
        let option = |name: &str, path: &Path| {
            let mut value = OsString::from("path=");
            value.push(path);
            [OsString::from(name), value]
        };
        let mut args: Vec<OsString> = Vec::new();
        args.extend(option("--api-socket", &spec.dir.api_socket()));
        args.extend(option("--event-monitor", &spec.dir.events()));
        let name = spec.dir.flat_name();
        let cgroup = self.cgroups.as_ref().map(|root| (root, name.as_str()));
        let spawn = || process::spawn(self.binary.path(), &args, &self.env, &spec.dir.vmm_log(), cgroup);
        let spawned = match namespace {
            None => spawn(),
            Some(namespace) => {
                // What watches the process belongs to this runtime, not to the thread that starts it.
                let runtime = tokio::runtime::Handle::current();
                let entered = namespace.run(|| {
                    let _runtime = runtime.enter();
                    spawn()
                });
                entered.map_err(|source| LaunchError::Network {
                    id: spec.id.clone(),
                    source: NetworkError::from_io("start the VMM in its network namespace", source),
                })?
            }
        };
        spawned.map_err(|source| LaunchError::Spawn { id: spec.id.clone(), source })
    }

    async fn make_network(
        &self,
        spec: &LaunchSpec,
        cancel: &CancelOnDrop,
    ) -> Result<Attachment, LaunchError> {
        let (network, dir, wanted) = (self.network.clone(), spec.dir.clone(), spec.network.clone());
        let cancelled = Arc::clone(&cancel.0);
        // Handed back through the task, so that a launch that was dropped meanwhile drops, and so removes, what was made.
        let made = blocking(move || network.set_up(&dir, &wanted, None, &cancelled)).await;
        made.map_err(|source| LaunchError::Network { id: spec.id.clone(), source })
    }
}

/// Waits for the VMM to answer, then has it boot the VM. Ends early when the process does.
async fn boot(
    network: &HostNetwork,
    spec: &LaunchSpec,
    root: Option<&PreparedDisk>,
    process: &VmmProcess,
    client: &VmmClient,
    fresh: bool,
    reached: &mut &'static str,
) -> Result<(), LaunchError> {
    let steps = async {
        *reached = "waiting for the VMM's socket";
        wait_for_answer(client, &spec.id, process.pid()).await?;
        *reached = "booting the VM";
        let config = body(network, spec, root)?;
        ensure_booted(client, &spec.id, &config, fresh, spec.boot_timeout).await
    };
    let result = tokio::select! {
        biased;
        result = steps => result,
        exit = process.exited() => Err(exited(spec, exit)),
    };
    if let Err(LaunchError::Api { source, .. }) = &result
        && source.kind == ApiErrorKind::ConnectionLost
        && let Ok(exit) = tokio::time::timeout(EXIT_AFTER_LOST_CONNECTION, process.exited()).await
    {
        return Err(exited(spec, exit));
    }
    result
}

async fn make_dir_and_disks(
    spec: &LaunchSpec,
    cancel: &CancelOnDrop,
) -> Result<(DirGuard, Option<PreparedDisk>), LaunchError> {
    let dir = spec.dir.clone();
    let id = spec.id.clone();
    let disks = DiskPlan::of(spec);
    let files = uses::files_of(spec);
    let cancelled = Arc::clone(&cancel.0);
    blocking(move || {
        // The launch may have been dropped while this waited for a thread: then nothing is made any more, and no one reads the answer.
        if cancelled.load(Ordering::Relaxed) {
            return Err(LaunchError::Spec { id, why: "it was cancelled" });
        }
        dir.prepare().map_err(|source| LaunchError::Dir { id: id.clone(), source })?;
        let guard = DirGuard(Some(dir.clone()));
        uses::note(&dir, &files).map_err(|source| LaunchError::Dir { id, source })?;
        Ok((guard, disks.prepare(None, &cancelled)?))
    })
    .await
}

/// Makes the disks that an earlier attempt, which may have made the root disk, did not.
async fn make_disks(
    spec: &LaunchSpec,
    root: Option<PreparedDisk>,
    cancel: &CancelOnDrop,
) -> Result<Option<PreparedDisk>, LaunchError> {
    let disks = DiskPlan::of(spec);
    let cancelled = Arc::clone(&cancel.0);
    blocking(move || disks.prepare(root, &cancelled)).await
}

/// Everything that is made on disk for an instance, apart from its specification, for a blocking thread.
struct DiskPlan {
    id: String,
    dir: InstanceDir,
    root: Option<RootPlan>,
    others: OwnDisks,
}

impl DiskPlan {
    fn of(spec: &LaunchSpec) -> Self {
        let (id, dir) = (spec.id.clone(), spec.dir.clone());
        Self { id, dir, root: root_plan(spec), others: OwnDisks::of(spec) }
    }

    fn prepare(
        &self,
        root: Option<PreparedDisk>,
        cancelled: &AtomicBool,
    ) -> Result<Option<PreparedDisk>, LaunchError> {
        let id = || self.id.clone();
        let root = match (root, &self.root) {
            (None, Some(plan)) => Some(
                plan.prepare(&self.dir, cancelled)
                    .map_err(|source| LaunchError::Overlay { id: id(), source })?,
            ),
            (root, _) => root,
        };
        self.others.prepare().map_err(|source| LaunchError::Disk { id: id(), source })?;
        Ok(root)
    }
}

struct RootPlan {
    backing: Backing,
    kind: overlay::OverlayKind,
    size_bytes: Option<u64>,
}

impl RootPlan {
    fn prepare(&self, dir: &InstanceDir, cancelled: &AtomicBool) -> Result<PreparedDisk, OverlayError> {
        overlay::prepare(dir.path(), self.kind, &self.backing, self.size_bytes, cancelled)
    }
}

fn root_plan(spec: &LaunchSpec) -> Option<RootPlan> {
    spec.root.as_ref().map(|root| RootPlan {
        backing: Backing {
            path: root.image.path().to_path_buf(),
            format: root.image.format(),
            virtual_size_bytes: root.image.virtual_size_bytes(),
        },
        kind: root.overlay,
        size_bytes: root.size_bytes,
    })
}

/// The root disk that an earlier attempt made in the directory.
fn existing_root(spec: &LaunchSpec) -> Option<PreparedDisk> {
    planned_root(spec).filter(|disk| disk.path.exists())
}

fn planned_root(spec: &LaunchSpec) -> Option<PreparedDisk> {
    let plan = root_plan(spec)?;
    Some(overlay::planned(spec.dir.path(), plan.kind, &plan.backing))
}

pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime shuts down: there is no one left to answer to.
            Err(_) => std::future::pending().await,
        },
    }
}

fn body(network: &HostNetwork, spec: &LaunchSpec, root: Option<&PreparedDisk>) -> Result<Value, LaunchError> {
    let mut config = vm_config(spec, root, &spec.dir.serial_log());
    config.net.extend(network.device(&spec.network).map(|(tap, mac)| NetConfig {
        id: "net0".to_owned(),
        tap,
        mac: mac.to_owned(),
    }));
    serde_json::to_value(config)
        .map_err(|_| LaunchError::Spec { id: spec.id.clone(), why: "a path in it is not valid UTF-8" })
}

/// Waits until the VMM answers, and makes sure that it is the process that was started. Bounded by the launch's time-out.
async fn wait_for_answer(client: &VmmClient, id: &str, pid: i32) -> Result<(), LaunchError> {
    let mut pause = Duration::from_millis(1);
    loop {
        // Looking is far cheaper than connecting, and 200 of these run at once.
        if client.socket().exists() {
            match client.ping(PING_WITHIN).await {
                Ok(ping) if ping.pid == i64::from(pid) => return Ok(()),
                Ok(ping) => {
                    return Err(LaunchError::Stranger { id: id.to_owned(), expected: pid, found: ping.pid });
                }
                Err(error) => match error.kind {
                    ApiErrorKind::ConnectionLost | ApiErrorKind::Timeout | ApiErrorKind::TryLater => {}
                    _ => {
                        return Err(LaunchError::Api { id: id.to_owned(), source: error });
                    }
                },
            }
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(10));
    }
}

fn exited(spec: &LaunchSpec, exit: VmmExit) -> LaunchError {
    LaunchError::Exited { id: spec.id.clone(), exit, log_tail: log_tail(&spec.dir) }
}

fn log_tail(dir: &InstanceDir) -> String {
    let log: PathBuf = dir.vmm_log();
    read_tail(&log, LOG_TAIL_BYTES)
        .map(|tail| String::from_utf8_lossy(&tail).into_owned())
        .unwrap_or_default()
}

/// Everything that can be known to go wrong before anything is made.
fn check(network: &HostNetwork, spec: &LaunchSpec) -> Result<(), LaunchError> {
    let id = || spec.id.clone();
    let refuse = |why| Err(LaunchError::Spec { id: id(), why });
    if spec.vcpus == 0 {
        return refuse("it has no processor");
    }
    if spec.memory_bytes < 1 << 20 {
        return refuse("it has less than 1 MiB of memory");
    }
    if let Some(why) = disks::problem(spec).or_else(|| smbios_problem(spec.smbios.as_ref()?)) {
        return refuse(why);
    }
    if let Some(seed) = &spec.seed {
        crate::seed::check(seed)
            .map_err(|source| LaunchError::Disk { id: id(), source: DiskError::Seed(source) })?;
    }
    if body(network, spec, planned_root(spec).as_ref())?.to_string().len() > BODY_LIMIT_BYTES {
        return refuse(
            "its description has more than 50 KiB, which a VMM does not take: a shorter command line, fewer disks",
        );
    }
    Ok(())
}

fn smbios_problem(smbios: &Smbios) -> Option<&'static str> {
    let hyphens = [8, 13, 18, 23];
    let uuid =
        smbios.uuid.len() == 36
            && smbios.uuid.bytes().enumerate().all(|(at, byte)| {
                if hyphens.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() }
            });
    if !uuid {
        Some("its SMBIOS UUID is none")
    } else if smbios.serial.is_empty() || smbios.serial.contains(char::is_control) {
        Some("its SMBIOS serial number is empty or has control characters")
    } else {
        None
    }
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
