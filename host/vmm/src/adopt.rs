//! Finding VMMs again after a restart of the daemon.
//!
//! A VMM is known by (pid, start time); that it is the one of this instance is known from its socket: the kernel tells which process
//! listens on it, the command line names it, and `vmm.ping` confirms it. A VMM that does not answer is busy, not dead.

use std::io;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

use crate::api::response::VmState;
use crate::api::{ApiError, ApiErrorKind, VmmClient};
use crate::instance::{InstanceDir, Vmm, VmmHost};
use crate::process::{VmmIdentity, VmmProcess, procfs};

const PING_WITHIN: Duration = Duration::from_secs(1);

/// A VMM process that has an API socket in our instances' directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundVmm {
    /// The directory of its instance.
    pub dir: InstanceDir,
    /// The process.
    pub identity: VmmIdentity,
}

/// What became of an instance's VMM.
#[derive(Debug)]
pub enum Adoption {
    /// It runs and is ours again.
    Adopted(Box<Adopted>),
    /// It has ended. Its directory may still be there.
    Gone,
    /// The recorded process is gone, or never was of this instance, and another process holds the socket: nothing of ours to touch.
    Stranger {
        /// The process that holds the socket, or has the recorded id.
        pid: i32,
        /// What speaks against it, for people.
        why: String,
    },
}

/// A VMM that is ours again.
#[derive(Debug)]
pub struct Adopted {
    /// The VMM.
    pub vmm: Vmm,
    /// What it answered.
    pub state: AdoptedState,
}

/// What an adopted VMM says about its VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdoptedState {
    /// It answered.
    Known(VmState),
    /// It did not answer in time, or with an error: busy, hung or broken, but alive. Ask again later.
    Unresponsive,
    /// Its socket is not there or does not take connections: it is just starting, or the socket was removed. It can still be stopped.
    Unreachable,
}

/// An adoption could not be decided.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// The operating system refused to tell.
    #[error("cannot look at the VMM of instance {id}")]
    System {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The client could not be set up.
    #[error("cannot speak to the VMM of instance {id}")]
    Api {
        /// The instance.
        id: String,
        /// Why.
        #[source]
        source: ApiError,
    },
}

/// Scans `/proc` for VMMs of instances below `instances`: processes that were started with the API socket and the event file of one of our
/// instances. This also finds those whose id was never recorded because the daemon died first.
///
/// # Errors
/// `/proc` cannot be read.
pub fn discover(instances: &Path) -> io::Result<Vec<FoundVmm>> {
    let mut found: Vec<FoundVmm> = procfs::all_pids()?
        .into_iter()
        .filter_map(|pid| {
            let dir = dir_of_process(instances, pid)?;
            let stat = procfs::stat(pid).filter(|stat| !stat.is_dead())?;
            // Ours lead their own session. Between fork and exec of a helper there may be two with the same command line.
            if stat.session != pid.as_raw_nonzero().get() {
                return None;
            }
            let identity = VmmIdentity {
                pid: pid.as_raw_nonzero().get(),
                start_time_ticks: stat.start_time_ticks,
                socket: dir.api_socket(),
            };
            Some(FoundVmm { dir, identity })
        })
        .collect();
    found.sort_by(|a, b| (a.dir.path(), a.identity.pid).cmp(&(b.dir.path(), b.identity.pid)));
    Ok(found)
}

/// The instance that a process was started for, by its command line.
fn dir_of_process(instances: &Path, pid: Pid) -> Option<InstanceDir> {
    let args = procfs::cmdline(pid);
    let socket = procfs::path_option(&args, "--api-socket")?;
    // Tools like ch-remote name the socket too, but not the event file.
    let events = procfs::path_option(&args, "--event-monitor")?;
    let dir = InstanceDir::of_socket(instances, &socket)?;
    (dir.events() == events).then_some(dir)
}

impl VmmHost {
    /// Takes over the VMM of an instance: the recorded one if `recorded` is given, else whichever listens on the instance's socket.
    ///
    /// # Errors
    /// The system refused to tell. Nothing was changed then.
    pub async fn adopt(
        &self,
        dir: &InstanceDir,
        recorded: Option<&VmmIdentity>,
    ) -> Result<Adoption, AdoptError> {
        let system = |source| AdoptError::System { id: dir.id().to_owned(), source };
        let api = |source| AdoptError::Api { id: dir.id().to_owned(), source };
        let listener = listener(&dir.api_socket()).map_err(system)?;

        let candidate = match (recorded, listener) {
            (Some(recorded), _) => Pid::from_raw(recorded.pid).map(|pid| (pid, recorded.start_time_ticks)),
            (None, Listener::Pid(pid)) => procfs::stat(pid).map(|stat| (pid, stat.start_time_ticks)),
            (None, Listener::Nobody | Listener::Busy) => None,
        };
        let attached = match candidate {
            Some((pid, start)) => {
                let cgroup = self.cgroups.as_ref().and_then(|root| root.find(&dir.flat_name(), pid));
                VmmProcess::attach(pid, start, cgroup).map_err(system)?
            }
            None => None,
        };
        let Some(process) = attached else {
            return Ok(match listener {
                Listener::Pid(pid) => Adoption::Stranger {
                    pid: pid.as_raw_nonzero().get(),
                    why: "it listens on the instance's socket, but is not the recorded VMM".to_owned(),
                },
                Listener::Nobody | Listener::Busy => Adoption::Gone,
            });
        };
        if let Some(why) = stranger(dir, &process, listener) {
            return Ok(Adoption::Stranger { pid: process.pid(), why });
        }

        let client = VmmClient::new(&dir.api_socket()).map_err(api)?;
        let state = match listener {
            Listener::Nobody => AdoptedState::Unreachable,
            Listener::Pid(_) | Listener::Busy => match client.ping(PING_WITHIN).await {
                Ok(ping) if ping.pid != i64::from(process.pid()) => {
                    let why = format!("process {} answers on its socket", ping.pid);
                    return Ok(Adoption::Stranger { pid: process.pid(), why });
                }
                Ok(_) => state(&client).await,
                Err(error) => not_answering(&error),
            },
        };
        let vmm = Vmm::new(dir.clone(), process, client, None, self.network.clone());
        if vmm.process().has_ended() {
            return Ok(Adoption::Gone);
        }
        Ok(Adoption::Adopted(Box::new(Adopted { vmm, state })))
    }
}

/// What speaks against a live process being this instance's VMM.
fn stranger(dir: &InstanceDir, process: &VmmProcess, listener: Listener) -> Option<String> {
    let pid = process.pid();
    if let Listener::Pid(listener) = listener
        && listener.as_raw_nonzero().get() != pid
    {
        return Some(format!("process {} listens on the instance's socket", listener.as_raw_nonzero()));
    }
    let args = Pid::from_raw(pid).map(procfs::cmdline).unwrap_or_default();
    // An empty command line is that of a process about to end; the pidfd tells.
    if !args.is_empty() && procfs::path_option(&args, "--api-socket") != Some(dir.api_socket()) {
        return Some("its command line does not name the instance's socket".to_owned());
    }
    None
}

async fn state(client: &VmmClient) -> AdoptedState {
    match client.info_if_created().await {
        Ok(info) => AdoptedState::Known(info.map_or(VmState::NotCreated, |info| info.vm_state())),
        Err(error) => not_answering(&error),
    }
}

/// What a failed call tells. Even a wrong answer comes from a process that is alive, and that it is ours is known without it.
fn not_answering(error: &ApiError) -> AdoptedState {
    match error.kind {
        ApiErrorKind::ConnectionLost => AdoptedState::Unreachable,
        _ => AdoptedState::Unresponsive,
    }
}

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Listener {
    /// No one.
    Nobody,
    /// The process that called `listen`, as the kernel noted it.
    Pid(Pid),
    /// Someone, with no room for another connection: who, cannot be told.
    Busy,
}

/// Asks the kernel who listens on a socket, without waiting and without asking the process itself.
fn listener(socket: &Path) -> io::Result<Listener> {
    use rustix::net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with, sockopt,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let probe = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&probe, &SocketAddrUnix::new(socket)?) {
        Ok(()) => Ok(Listener::Pid(sockopt::socket_peercred(&probe)?.pid)),
        Err(rustix::io::Errno::AGAIN) => Ok(Listener::Busy),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED | rustix::io::Errno::NOTDIR) => {
            Ok(Listener::Nobody)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_listener() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("s");
        assert_eq!(listener(&socket).expect("asked"), Listener::Nobody);
        let bound = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        assert_eq!(listener(&socket).expect("asked"), Listener::Pid(rustix::process::getpid()));
        drop(bound);
        assert_eq!(listener(&socket).expect("asked"), Listener::Nobody);
    }

    #[test]
    fn discovery_ignores_processes_that_are_no_vmms_of_ours() {
        let dir = tempfile::tempdir().expect("temp dir");
        assert_eq!(discover(dir.path()).expect("scanned"), []);
    }
}
