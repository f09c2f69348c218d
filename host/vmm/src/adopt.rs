//! Finding VMMs again after a restart of the daemon.
//!
//! Which process it is, [`crate::identity`] decides. A VMM that does not answer is busy, not dead.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Pid;

use crate::api::response::VmState;
use crate::api::{ApiError, ApiErrorKind, Listener, VmmClient, listener};
use crate::containment::Containment;
use crate::identity::{Choice, Expected, ProcessNote, Recorded, Seen};
use crate::instance::{InstanceDir, PROCESS, Vmm, VmmHost, blocking};
use crate::process::procfs::FileId;
use crate::process::{VmmIdentity, VmmProcess, procfs};
use regatta_util::chain;

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
    /// A process holds the socket, or has the recorded id, that is not its VMM, and there is no other: nothing of ours to touch.
    Stranger {
        /// The process.
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
}

impl VmmHost {
    /// Looks for the VMMs of instances below `instances`, of those with a directory and of those whose directory was removed. `recorded`
    /// tells what is known of an instance's process. This also finds those whose id was never recorded because the daemon died first.
    /// What only looks like a VMM is told in the log. Blocking.
    ///
    /// # Errors
    /// `/proc` or the directories cannot be read.
    pub fn discover(
        &self,
        instances: &Path,
        recorded: impl Fn(&InstanceDir) -> Option<(i32, u64)>,
    ) -> io::Result<Vec<FoundVmm>> {
        let mut dirs: BTreeMap<PathBuf, (InstanceDir, Vec<i32>)> = BTreeMap::new();
        for dir in InstanceDir::list(instances).map_err(io::Error::other)? {
            dirs.insert(dir.path().to_owned(), (dir, Vec::new()));
        }
        for pid in procfs::all_pids()? {
            let Some(dir) = dir_of_process(instances, pid) else { continue };
            // Ours lead their own session. Between fork and exec of a helper there may be two with the same command line.
            if procfs::stat(pid).is_some_and(|stat| stat.session == raw(pid)) {
                dirs.entry(dir.path().to_owned()).or_insert((dir, Vec::new())).1.push(raw(pid));
            }
        }
        let mut found = Vec::new();
        for (dir, claimants) in dirs.into_values() {
            let (choice, _) = self.look_for(&dir, recorded(&dir), &claimants)?;
            for (pid, why) in choice.refused {
                tracing::warn!(
                    set = dir.set(),
                    instance = dir.id(),
                    pid,
                    why,
                    "a process that looks like its VMM is not, and is ignored"
                );
            }
            if let Some(seen) = choice.vmm {
                let identity = VmmIdentity {
                    pid: seen.pid,
                    start_time_ticks: seen.start_time_ticks,
                    socket: dir.api_socket(),
                };
                found.push(FoundVmm { dir, identity });
            }
        }
        Ok(found)
    }

    /// Which process is the VMM of an instance, and who listens on its socket.
    fn look_for(
        &self,
        dir: &InstanceDir,
        recorded: Option<(i32, u64)>,
        claimants: &[i32],
    ) -> io::Result<(Choice, Listener)> {
        let noted: Option<ProcessNote> = dir.note_as(PROCESS).unwrap_or_else(|error| {
            tracing::warn!(instance = dir.id(), error = chain(&error), "its process's record cannot be read");
            None
        });
        let containment = Containment::load(dir).unwrap_or_else(|error| {
            tracing::warn!(
                instance = dir.id(),
                error = chain(&error),
                "its containment's record cannot be read"
            );
            None
        });
        let own_uid = rustix::process::geteuid().as_raw();
        let program = noted.as_ref().map_or_else(|| FileId::of(self.binary.path()), |note| note.program);
        let sure = |note: &ProcessNote| !note.boot.is_empty() && note.boot == procfs::boot_id();
        let mut known: Vec<Recorded> = noted
            .iter()
            .map(|note| Recorded { pid: note.pid, start_time_ticks: note.start_time_ticks, sure: sure(note) })
            .collect();
        known.extend(recorded.map(|(pid, start_time_ticks)| Recorded { pid, start_time_ticks, sure: false }));
        let expected = Expected {
            recorded: known,
            uid: containment.map(|it| it.uid.unwrap_or(own_uid)),
            uids: self.isolation().uids(),
            own_uid,
            program,
            noted: noted.is_some(),
        };
        let listener = listener(&dir.api_socket())?;
        let listens = match listener {
            Listener::Process(pid) => Some(raw(pid)),
            Listener::Nobody | Listener::Busy => None,
        };
        Ok((expected.choose(listens, claimants, |pid| seen(dir, pid)), listener))
    }

    /// Takes over the VMM of an instance: the recorded one, or else whichever fits and listens on the instance's socket.
    ///
    /// # Errors
    /// The system refused to tell. Nothing was changed then.
    pub async fn adopt(
        &self,
        dir: &InstanceDir,
        recorded: Option<&VmmIdentity>,
    ) -> Result<Adoption, AdoptError> {
        let system = |source| AdoptError::System { id: dir.id().to_owned(), source };
        let (this, place) = (self.clone(), dir.clone());
        let recorded = recorded.map(|it| (it.pid, it.start_time_ticks));
        let claimants: Vec<i32> = recorded.iter().map(|(pid, _)| *pid).collect();
        let look = move || this.look_for(&place, recorded, &claimants);
        let (choice, listener) = blocking(look).await.map_err(system)?;
        let Some(seen) = choice.vmm else {
            return Ok(match choice.refused.into_iter().next() {
                Some((pid, why)) => Adoption::Stranger { pid, why },
                None => Adoption::Gone,
            });
        };
        let cgroup = |pid| self.cgroups.as_ref().and_then(|root| root.find(&dir.flat_name(), pid));
        let attached = match Pid::from_raw(seen.pid) {
            Some(pid) => VmmProcess::attach(pid, seen.start_time_ticks, cgroup(pid)).map_err(system)?,
            None => None,
        };
        let Some(process) = attached else { return Ok(Adoption::Gone) };

        let client = VmmClient::new(&dir.api_socket(), process.pid());
        let state = match listener {
            Listener::Process(pid) if raw(pid) == process.pid() => ask(&client).await,
            Listener::Busy => ask(&client).await,
            Listener::Process(_) | Listener::Nobody => AdoptedState::Unreachable,
        };
        let vmm = Vmm::new(dir.clone(), process, client, None, self.network.clone());
        if vmm.process().has_ended() {
            return Ok(Adoption::Gone);
        }
        Ok(Adoption::Adopted(Box::new(Adopted { vmm, state })))
    }
}

/// What the kernel says about a process now; none when it is dead.
fn seen(dir: &InstanceDir, raw: i32) -> Option<Seen> {
    let pid = Pid::from_raw(raw)?;
    let stat = procfs::stat(pid).filter(|stat| !stat.is_dead())?;
    let args = procfs::cmdline(pid);
    let says_so = procfs::path_option(&args, "--api-socket") == Some(dir.api_socket())
        && procfs::path_option(&args, "--event-monitor") == Some(dir.events());
    let uids = procfs::status(pid)?.uids;
    let program = procfs::program(pid);
    // Asked last: all of this is of one process.
    let again = procfs::stat(pid)?;
    (again.start_time_ticks == stat.start_time_ticks).then_some(Seen {
        pid: raw,
        start_time_ticks: stat.start_time_ticks,
        uids,
        program,
        says_so,
    })
}

/// The instance that a process says it was started for.
fn dir_of_process(instances: &Path, pid: Pid) -> Option<InstanceDir> {
    let args = procfs::cmdline(pid);
    let socket = procfs::path_option(&args, "--api-socket")?;
    // Tools like ch-remote name the socket too, but not the event file.
    let events = procfs::path_option(&args, "--event-monitor")?;
    let dir = InstanceDir::of_socket(instances, &socket)?;
    (dir.events() == events).then_some(dir)
}

fn raw(pid: Pid) -> i32 {
    pid.as_raw_nonzero().get()
}

async fn ask(client: &VmmClient) -> AdoptedState {
    match client.ping(PING_WITHIN).await {
        Ok(_) => state(client).await,
        Err(error) => not_answering(&error),
    }
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
        ApiErrorKind::ConnectionLost | ApiErrorKind::Stranger => AdoptedState::Unreachable,
        _ => AdoptedState::Unresponsive,
    }
}
