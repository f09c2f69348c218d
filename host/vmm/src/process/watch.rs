//! One VMM process: spawned or adopted, watched by a pidfd, reaped in the background.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};
use serde::{Deserialize, Serialize};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;

use super::cgroup::{Cgroup, CgroupLimits, CgroupRoot};
use super::procfs;
use crate::sys;

/// Descriptors that a VMM may have open.
const OPEN_FILES: u64 = 16_384;

/// What names one VMM process for as long as the host is up. Store it; after a restart of the daemon it finds the process again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VmmIdentity {
    /// Process id. Reused by the kernel, therefore never enough alone.
    pub pid: i32,
    /// Start of the process in clock ticks after boot (`/proc/<pid>/stat`, field 22).
    pub start_time_ticks: u64,
    /// Its API socket.
    pub socket: PathBuf,
}

impl VmmIdentity {
    /// Whether the process runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        let stat = Pid::from_raw(self.pid).and_then(super::procfs::stat);
        stat.is_some_and(|stat| stat.start_time_ticks == self.start_time_ticks && !stat.is_dead())
    }
}

/// How a VMM process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VmmExit {
    /// It exited with this code; 0 is what a guest's own power-off looks like.
    Code(i32),
    /// A signal ended it.
    Signal(i32),
    /// It ended, but it was not our child, so the kernel does not tell us how.
    Unknown,
}

impl std::fmt::Display for VmmExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("unknown exit status"),
        }
    }
}

/// A VMM could not be started or watched.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program could not be run.
    #[error("cannot start {}", program.display())]
    Exec {
        /// What was to be run.
        program: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its log file or /dev/null could not be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The process runs (or ran) but cannot be watched; it was killed.
    #[error("cannot watch process {pid}")]
    Watch {
        /// Its id.
        pid: i32,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

/// A running (or ended) VMM process. Clones share it; dropping every clone leaves the process running.
#[derive(Clone, Debug)]
pub(crate) struct VmmProcess {
    pid: Pid,
    start_time_ticks: u64,
    pidfd: Arc<OwnedFd>,
    exit: watch::Receiver<Option<VmmExit>>,
    cgroup: Option<Cgroup>,
}

/// Among which processes a VMM is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Among {
    /// Those of the daemon.
    Ours,
    /// None but those that it starts, which end with it. The calling thread keeps the IPC namespace: it should end soon.
    ItsOwn,
}

/// The cgroup that a VMM is to get.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    pub(crate) root: &'a CgroupRoot,
    pub(crate) name: &'a str,
    pub(crate) limits: CgroupLimits,
}

/// A started VMM, and what of its limits is in force.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) process: VmmProcess,
    /// Limits of its cgroup; why not, in words.
    pub(crate) cgroup: Result<(), String>,
    /// Resource limits; why not, in words.
    pub(crate) limits: Result<(), String>,
}

/// Starts `program` detached (own session, only stdin, stdout and stderr; both outputs written to `output`; the
/// variables of `env` as its whole environment) and watches it.
///
/// Call it inside a tokio runtime; a background task reaps the child whoever still holds the [`VmmProcess`].
///
/// # Errors
/// `/dev/null` cannot be opened, the program cannot be run, or the process cannot be watched (it is killed then).
pub(crate) fn spawn(
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    output: &File,
    place: Option<Place<'_>>,
    among: Among,
) -> Result<Spawned, SpawnError> {
    let null = File::open("/dev/null")
        .map_err(|source| SpawnError::Open { path: PathBuf::from("/dev/null"), source })?;
    let failed = |source| SpawnError::Exec { program: program.to_path_buf(), source };
    let start = || sys::spawn_detached(program, args, env, null.as_fd(), output.as_fd());
    let pid = match among {
        Among::Ours => start(),
        Among::ItsOwn => sys::unshare_processes().and_then(|()| {
            let started = start();
            if let Err(error) = sys::forget_processes() {
                tracing::warn!(%error, "the thread that started a VMM stays among its processes");
            }
            started
        }),
    };
    let pid = pid.map_err(failed)?;
    let (cgroup, limited) = match place {
        None => (None, Err("no cgroup was asked for".to_owned())),
        Some(place) => match place.root.adopt(place.name, pid, place.limits) {
            Ok((cgroup, limited)) => (Some(cgroup), limited),
            Err(error) => {
                tracing::debug!(%error, name = place.name, "VMM goes without a cgroup of its own");
                (None, Err(format!("its cgroup cannot be made: {error}")))
            }
        },
    };
    let limits = limit_resources(pid);
    // The child cannot be reaped by anyone else, so its id is still its own here even if it has ended.
    let watched = rustix::process::pidfd_open(pid, PidfdFlags::empty())
        .map_err(io::Error::from)
        .and_then(|pidfd| VmmProcess::watch(pid, pidfd, cgroup, true));
    let process = watched.map_err(|source| {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        SpawnError::Watch { pid: pid.as_raw_nonzero().get(), source }
    })?;
    Ok(Spawned { process, cgroup: limited, limits })
}

/// No core dumps, and no more open files than a VMM with many disks and connections needs. Of a process of another user only a daemon with
/// `CAP_SYS_RESOURCE` can do this.
fn limit_resources(pid: Pid) -> Result<(), String> {
    use rustix::process::{Resource, Rlimit, prlimit};
    let set = |resource, limit: u64| {
        prlimit(Some(pid), resource, Rlimit { current: Some(limit), maximum: Some(limit) })
            .map(drop)
            .map_err(|error| format!("prlimit failed: {error}"))
    };
    set(Resource::Core, 0)?;
    set(Resource::Nofile, open_files())
}

/// How many descriptors a VMM may have open: less than we may where that is little.
pub(crate) fn open_files() -> u64 {
    let own = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum;
    // `None` is "no limit".
    own.map_or(OPEN_FILES, |most| most.min(OPEN_FILES))
}

impl VmmProcess {
    /// Watches a process that an earlier daemon started. `None` when it is gone or dead.
    ///
    /// # Errors
    /// The kernel has no more descriptors.
    pub(crate) fn attach(
        pid: Pid,
        start_time_ticks: u64,
        cgroup: Option<Cgroup>,
    ) -> io::Result<Option<Self>> {
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(rustix::io::Errno::SRCH) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Checked after the pidfd is open: from here on the id cannot be reused behind our back.
        match procfs::stat(pid) {
            Some(stat) if stat.start_time_ticks == start_time_ticks && !stat.is_dead() => {
                Self::watch(pid, pidfd, cgroup, false).map(Some)
            }
            _ => Ok(None),
        }
    }

    fn watch(pid: Pid, pidfd: OwnedFd, cgroup: Option<Cgroup>, child: bool) -> io::Result<Self> {
        let stat = procfs::stat(pid)
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no such process in /proc"))?;
        let pidfd = Arc::new(pidfd);
        let readable = sys::watch_readable(Arc::clone(&pidfd))?;
        let (sender, exit) = watch::channel(None);
        tokio::spawn(wait_and_reap(readable, pid, child, cgroup.clone(), sender));
        Ok(Self { pid, start_time_ticks: stat.start_time_ticks, pidfd, exit, cgroup })
    }

    /// Process id.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Start of the process in clock ticks after boot.
    pub(crate) fn start_time_ticks(&self) -> u64 {
        self.start_time_ticks
    }

    /// Waits for the process to end. Safe to drop and to call again.
    pub(crate) async fn exited(&self) -> VmmExit {
        let mut exit = self.exit.clone();
        let ended = exit.wait_for(Option::is_some).await.ok().and_then(|exit| *exit);
        match ended {
            Some(exit) => exit,
            // The watching task went with its runtime: nobody knows, and "not known to be dead" must not read as dead.
            None => std::future::pending().await,
        }
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn exit_status(&self) -> Option<VmmExit> {
        *self.exit.borrow()
    }

    /// Sends a signal to the process itself; nothing happens when it has ended, and no other process can be hit.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = rustix::process::pidfd_send_signal(&self.pidfd, signal)
            && error != rustix::io::Errno::SRCH
        {
            tracing::warn!(pid = self.pid(), ?signal, %error, "cannot signal VMM");
        }
    }

    /// CPU time used so far, in nanoseconds: of its cgroup when it has one, else of the process and its helpers.
    ///
    /// `None` when it has ended.
    pub(crate) fn cpu_time_ns(&self) -> Option<u64> {
        let of_cgroup = self.cgroup.as_ref().and_then(Cgroup::cpu_time_ns);
        let used = of_cgroup.or_else(|| {
            let own = sys::process_cpu_time_ns(self.pid).ok()?;
            let helpers = procfs::children(self.pid).into_iter();
            Some(helpers.filter_map(|pid| sys::process_cpu_time_ns(pid).ok()).fold(own, u64::saturating_add))
        });
        // Asked last: while it has not ended, the id that was just read was its own.
        if self.has_ended() { None } else { used }
    }

    /// Resident memory in bytes, that of its helpers included; `None` when it has ended.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        let helpers = procfs::children(self.pid).into_iter().filter_map(procfs::rss_bytes);
        let used = procfs::rss_bytes(self.pid).map(|own| helpers.fold(own, u64::saturating_add));
        if self.has_ended() { None } else { used }
    }

    /// Whether the process is dead, asked from the kernel now.
    pub(crate) fn has_ended(&self) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        let mut fds = [PollFd::new(&self.pidfd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&now)), Ok(ready) if ready > 0)
    }
}

/// Waits for the process behind the pidfd, ends what it left in its process group, reaps it if it is our child, and tells everyone.
async fn wait_and_reap(
    pidfd: AsyncFd<Arc<OwnedFd>>,
    pid: Pid,
    child: bool,
    cgroup: Option<Cgroup>,
    tell: watch::Sender<Option<VmmExit>>,
) {
    if let Err(error) = pidfd.readable().await {
        tracing::error!(pid = pid.as_raw_nonzero().get(), %error, "pidfd cannot be waited for");
        return;
    }
    let exit = if child {
        // Not reaped yet, so the id (and with it the group id) is still this VMM's: helpers of a dead VMM must not live on.
        let _ = rustix::process::kill_process_group(pid, Signal::KILL);
        match rustix::process::waitid(WaitId::PidFd(pidfd.get_ref().as_fd()), WaitIdOptions::EXITED) {
            Ok(Some(status)) => match (status.exit_status(), status.terminating_signal()) {
                (Some(code), _) => VmmExit::Code(code),
                (None, Some(signal)) => VmmExit::Signal(signal),
                (None, None) => VmmExit::Unknown,
            },
            Ok(None) | Err(_) => VmmExit::Unknown,
        }
    } else {
        VmmExit::Unknown
    };
    if let Some(cgroup) = cgroup {
        cgroup.remove();
    }
    let _ = tell.send(Some(exit));
}
