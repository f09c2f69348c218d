//! Launching: directory and disk, process, socket, VM. Drop-safe: a launch that is not awaited to its end leaves nothing behind.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::Instrument;

use super::attempt::{Attempt, CancelOnDrop, DirGuard, KILL_WAIT};
use super::boot::create_and_boot;
use super::check::{body, check};
use super::dir::{InstanceDir, VMM_LOG};
use super::error::LaunchError;
use super::failed::FailedLogs;
use super::notes::{PROCESS, STARTED};
use super::prepare::{Prepared, blocking, confirm, prepare};
use super::spec::{LaunchSpec, StartFrom};
use super::vmm::Vmm;
use crate::api::{ApiErrorKind, VmmClient};
use crate::containment::{Isolation, Measure, Plan, userfaultfd};
use crate::guarded::Access;
use crate::host::VmmBinary;
use crate::identity::ProcessNote;
use crate::net::{Attachment, HostNetwork, Namespace, NetworkError};
use crate::process::procfs::{self, FileId};
use crate::process::{
    self, Among, CgroupLimits, CgroupRoot, Place, SpawnError, Spawned, VmmExit, VmmProcess,
};
use crate::snapshot::{self, Restore, Started};
use regatta_util::Said;

/// How much of a VMM's last words an error carries.
const LOG_TAIL_BYTES: u64 = 2048;
/// How long after a lost connection the process's end is waited for, to report the cause and not the symptom.
const EXIT_AFTER_LOST_CONNECTION: Duration = Duration::from_millis(500);
/// Variables of ours that begin so are handed on to VMMs; a real one knows none of them.
const FOR_STAND_IN: &[u8] = b"REGATTA_CHSIM_";
const PING_WITHIN: Duration = Duration::from_secs(2);

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
    isolation: Isolation,
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
        let isolation = Isolation::off("containment is not set up");
        let ours = |(name, _): &(OsString, OsString)| name.as_encoded_bytes().starts_with(FOR_STAND_IN);
        let env = std::env::vars_os().filter(ours).collect();
        Self { binary, cgroups, failed, starts, network, isolation, env }
    }

    /// Contains VMMs as this host allows; without it they run as the caller does, with a cgroup at most.
    #[must_use]
    pub fn with_isolation(self, isolation: Isolation) -> Self {
        Self { isolation, ..self }
    }

    /// Logs of instances that failed or were replaced.
    #[must_use]
    pub fn failed_logs(&self) -> &FailedLogs {
        &self.failed
    }

    /// What this host can do to contain VMMs.
    #[must_use]
    pub fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    /// Puts a variable into the environment of every VMM that is started from now on, in the place of one of this name. Nothing else is in it
    /// but what the stand-in is told by.
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
            self.failed.keep(&spec.dir, &regatta_util::chain(&error).into());
        }
        let (network, dir) = (attempt.network.take(), attempt.dir.take());
        blocking(move || drop((network, dir))).await;
        if matches!(spec.start, StartFrom::Snapshot(_)) && error.is_of_restore() {
            return Err(LaunchError::Restore { id: spec.id.clone(), source: Box::new(error) });
        }
        Err(error)
    }

    async fn run(&self, spec: &LaunchSpec, attempt: &mut Attempt) -> Result<Vmm, LaunchError> {
        let cancel = CancelOnDrop::default();
        let Prepared { dir, root, mut plan } =
            prepare(spec, &self.isolation, self.binary.path(), &cancel).await?;
        attempt.reached = "making its network";
        let (made, dir) = self.make_network(spec, plan.containment.uid, dir, &cancel).await;
        attempt.dir = Some(dir);
        let network = attempt.network.insert(made?);
        // The process keeps it alive from its start on, and nothing else is to.
        let namespace = network.namespace.take();

        // No await between the spawn and the guard: the process cannot be forgotten.
        attempt.reached = "starting its VMM";
        let Spawned { process, cgroup, limits } = self.spawn(spec, &plan, namespace)?;
        attempt.process = Some(process.clone());
        let noted = ProcessNote {
            pid: process.pid(),
            start_time_ticks: process.start_time_ticks(),
            boot: procfs::boot_id().to_owned(),
            program: FileId::of(self.binary.path()),
        };
        note(spec, PROCESS, &noted)?;
        if let Err(why) = cgroup {
            plan.containment.withdraw(Measure::Cgroup, why);
        }
        // A VMM of another user limits itself before it runs.
        if let (Err(why), None) = (limits, plan.containment.uid) {
            plan.containment.withdraw(Measure::ResourceLimits, why);
        }

        let client = VmmClient::new(&spec.dir.api_socket(), process.pid());
        let landlock = plan.containment.requested().any(|measure| measure == Measure::Landlock);
        let description = body(&self.network, spec, root.as_ref(), landlock)?;
        let span = tracing::debug_span!("boot", instance = spec.id);
        let started = match &spec.start {
            StartFrom::Snapshot(snapshot) => {
                let on_demand = self.binary.restores_on_demand() && userfaultfd(&plan.containment);
                let what = Restore {
                    id: &spec.id,
                    dir: &spec.dir,
                    snapshot,
                    description: &description,
                    gid: plan.containment.uid,
                    on_demand,
                    within: spec.boot_timeout,
                };
                restored(spec, &what, &process, &client, &mut attempt.reached).instrument(span).await?
            }
            start => {
                boot(spec, &description, &process, &client, &mut attempt.reached).instrument(span).await?;
                match start {
                    StartFrom::BootInstead(why) => Started::ColdInstead(why.clone()),
                    _ => Started::Cold,
                }
            }
        };
        note(spec, STARTED, &started)?;
        confirm(spec, plan.containment.clone(), &process, &self.isolation)?;
        let image = spec.root.as_ref().map(|root| root.image.clone());
        Ok(Vmm::new(spec.dir.clone(), process, client, image, self.network.clone()))
    }

    fn spawn(
        &self,
        spec: &LaunchSpec,
        plan: &Plan,
        namespace: Option<Namespace>,
    ) -> Result<Spawned, LaunchError> {
        let option = |name: &str, path: &Path| {
            let mut value = OsString::from("path=");
            value.push(path);
            [OsString::from(name), value]
        };
        let mut args: Vec<OsString> = Vec::new();
        args.extend(option("--api-socket", &spec.dir.api_socket()));
        args.extend(option("--event-monitor", &spec.dir.events()));
        // The default, but nothing that matters should hang on a default.
        args.extend(["--seccomp", "true"].map(OsString::from));
        let failed = |source| LaunchError::Spawn { id: spec.id.clone(), source };
        // A wrapper would start, and only its log would tell that the VMM did not.
        let program = self.binary.path();
        rustix::fs::access(program, rustix::fs::Access::EXEC_OK).map_err(|error| {
            failed(SpawnError::Exec { program: program.to_path_buf(), source: error.into() })
        })?;
        let open = |source| failed(SpawnError::Open { path: spec.dir.vmm_log(), source });
        let log = spec.dir.open_log(VMM_LOG, Access::Append).map_err(open)?;
        let name = spec.dir.flat_name();
        let limits = CgroupLimits::of(spec.memory_bytes, spec.vcpus);
        let place = self.cgroups.as_ref().map(|root| Place { root, name: &name, limits });
        let (program, args) = plan.command(program, args);
        let _span = tracing::debug_span!("spawn", instance = spec.id).entered();
        let among = match plan.containment.has(Measure::OwnProcesses) {
            true => Among::ItsOwn,
            false => Among::Ours,
        };
        let spawn = |among| process::spawn(&program, &args, &self.env, &log, place, among);
        let spawned = match namespace {
            None => spawn(Among::Ours),
            Some(namespace) => {
                // What watches the process belongs to this runtime, not to the thread that starts it.
                let runtime = tokio::runtime::Handle::current();
                let entered = namespace.run(|| {
                    let _runtime = runtime.enter();
                    spawn(among)
                });
                entered.map_err(|source| LaunchError::Network {
                    id: spec.id.clone(),
                    source: NetworkError::from_io("start the VMM in its network namespace", source),
                })?
            }
        };
        spawned.map_err(failed)
    }

    /// Makes the network, and gives the directory back with it.
    async fn make_network(
        &self,
        spec: &LaunchSpec,
        owner: Option<u32>,
        dir: DirGuard,
        cancel: &CancelOnDrop,
    ) -> (Result<Attachment, LaunchError>, DirGuard) {
        let (network, place, wanted) = (self.network.clone(), spec.dir.clone(), spec.network.clone());
        let cancelled = Arc::clone(&cancel.0);
        // Both are handed back through the task, so that a launch that was dropped meanwhile removes what was made, and only then the
        // directory, in which it is written down.
        let span = tracing::debug_span!("network", instance = spec.id);
        let make = move || span.in_scope(|| network.set_up(&place, &wanted, owner, &cancelled));
        let (made, dir) = blocking(move || (make(), dir)).await;
        (made.map_err(|source| LaunchError::Network { id: spec.id.clone(), source }), dir)
    }
}

/// Waits for the VMM to answer, then has it restore the VM. Ends early when the process does.
async fn restored(
    spec: &LaunchSpec,
    what: &Restore<'_>,
    process: &VmmProcess,
    client: &VmmClient,
    reached: &mut &'static str,
) -> Result<Started, LaunchError> {
    let steps = async {
        *reached = "waiting for the VMM's socket";
        wait_for_answer(client, &spec.id, process.pid()).await?;
        *reached = "restoring the VM";
        snapshot::restore(client, what).await
    };
    let on_demand = unless_exited(spec, process, steps).await?;
    if let Err(error) = snapshot::remove_links(&spec.dir) {
        tracing::debug!(instance = spec.id, %error, "links to its snapshot stay");
    }
    Ok(Started::Restored { on_demand })
}

/// Writes something down for a later daemon. A handful of bytes, like the record of containment.
fn note(spec: &LaunchSpec, name: &str, what: &impl Serialize) -> Result<(), LaunchError> {
    spec.dir.write_note_as(name, what).map_err(|source| LaunchError::Dir { id: spec.id.clone(), source })
}

/// Waits for the VMM to answer, then has it boot the VM. Ends early when the process does.
async fn boot(
    spec: &LaunchSpec,
    description: &Value,
    process: &VmmProcess,
    client: &VmmClient,
    reached: &mut &'static str,
) -> Result<(), LaunchError> {
    let steps = async {
        *reached = "waiting for the VMM's socket";
        wait_for_answer(client, &spec.id, process.pid()).await?;
        *reached = "booting the VM";
        create_and_boot(client, &spec.id, description, spec.boot_timeout).await
    };
    unless_exited(spec, process, steps).await
}

/// Carries out calls of the VMM; how it ended, when it ends meanwhile.
async fn unless_exited<T>(
    spec: &LaunchSpec,
    process: &VmmProcess,
    steps: impl Future<Output = Result<T, LaunchError>>,
) -> Result<T, LaunchError> {
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

/// Waits until the VMM answers, and makes sure that it is the process that was started. Bounded by the launch's time-out.
async fn wait_for_answer(client: &VmmClient, id: &str, pid: i32) -> Result<(), LaunchError> {
    let mut pause = Duration::from_millis(1);
    loop {
        // Looking is far cheaper than connecting, and 200 of these run at once.
        if client.socket().exists() {
            match client.ping(PING_WITHIN).await {
                // It knows itself by its number among its own processes.
                Ok(ping) if ping.pid == i64::from(pid) || Some(ping.pid) == procfs::inner_pid(pid) => {
                    return Ok(());
                }
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

fn log_tail(dir: &InstanceDir) -> Said {
    let tail = dir.log_tail(VMM_LOG, LOG_TAIL_BYTES);
    tail.map(|tail| String::from_utf8_lossy(&tail).trim().into()).unwrap_or_default()
}
