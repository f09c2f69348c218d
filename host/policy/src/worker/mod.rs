//! Policies run in a process of their own, which has no rights, no network, no files and few system calls: who breaks
//! out of the sandbox is in there. It ends with this process, and a call during which it ends has failed.
//!
//! One socket pair per call that runs at once: who asks writes a frame and waits for one, without a thread between.

mod observation;
mod process;
pub(crate) mod serve;
mod wire;

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regatta_core::decision::FailureKind;
use regatta_core::manifest::PolicyLimits;
use regatta_util::SAID_BYTES;

use self::process::{Connection, Process};
use self::wire::{Loaded, PolicyId, Question, Ready, Request};
use crate::ask::{Ask, Ran};
use crate::compile::Program;
use crate::engine::CALLS_AT_ONCE;
use crate::error::{EngineError, LoadError};
use crate::failure::failed;
use crate::jail::WallState;
use crate::load::Abi;
use crate::sys::Native;

/// Calls that run at once.
const LANES: usize = CALLS_AT_ONCE as usize;
/// Code, or an observation with a state and parameters.
const MAX_REQUEST_BYTES: usize = 1 << 30;
/// What comes beside what a policy may give and log.
const REPLY_BYTES: u64 = 1 << 20;
/// How much longer than its policy a worker may take. One that does not answer by then is ended.
const GRACE: Duration = Duration::from_secs(30);

/// The worker, and the next when it has ended.
pub(crate) struct Worker {
    program: Program,
    user: Option<u32>,
    pooling: bool,
    process: Mutex<Arc<Process>>,
    policies: AtomicU64,
    /// Policies that nobody has any more, to be forgotten by the worker.
    dropped: Arc<Mutex<Vec<PolicyId>>>,
}

/// A policy in the worker.
pub(crate) struct Hosted {
    id: PolicyId,
    abi: Abi,
    /// For the next worker.
    code: Native,
    ready: Ready,
    /// Number of the process that has it; 0 for none.
    process: AtomicU64,
    dropped: Arc<Mutex<Vec<PolicyId>>>,
}

impl Worker {
    /// Starts a worker.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(program: Program, user: Option<u32>, pooling: bool) -> Result<Self, EngineError> {
        let process = Process::start(&program, user, pooling)
            .map_err(|source| EngineError::Worker { program: program.path.clone(), source })?;
        for WallState { wall, missing } in process.walls() {
            if let Some(why) = missing {
                tracing::warn!(
                    wall = wall.as_str(),
                    why,
                    "the policy worker is less confined than it could be"
                );
            }
        }
        let pooling = process.pooling();
        Ok(Self {
            program,
            user,
            pooling,
            process: Mutex::new(Arc::new(process)),
            policies: AtomicU64::new(1),
            dropped: Arc::default(),
        })
    }

    pub(crate) fn pooling(&self) -> bool {
        self.pooling
    }

    /// What the worker cannot reach.
    pub(crate) fn walls(&self) -> Vec<WallState> {
        lock(&self.process).walls().to_vec()
    }

    /// Process id of the worker.
    pub(crate) fn pid(&self) -> u32 {
        lock(&self.process).pid()
    }

    /// Gets code ready.
    ///
    /// # Errors
    /// When the worker's engine does not take it, or there is no worker.
    pub(crate) fn load(&self, abi: Abi, code: Native) -> Result<Hosted, LoadError> {
        let id = self.policies.fetch_add(1, Ordering::Relaxed);
        let unavailable = |source| LoadError::Worker { program: self.program.path.clone(), source };
        let process = self.process().map_err(unavailable)?;
        let loaded =
            process.with_connection(|connection| load(connection, id, abi, &code)).map_err(unavailable)?;
        Ok(Hosted {
            id,
            abi,
            code,
            ready: loaded?,
            process: AtomicU64::new(process.number()),
            dropped: Arc::clone(&self.dropped),
        })
    }

    /// Asks a policy.
    pub(crate) fn run(&self, policy: &Hosted, ask: &Ask<'_>, limits: &PolicyLimits) -> Ran {
        let lost = |error: io::Error| {
            Ran::failed(failed(FailureKind::Host, format!("the policy worker gave no answer: {error}")))
        };
        let process = match self.process() {
            Ok(process) => process,
            Err(error) => return lost(error),
        };
        let ran = process.with_connection(|connection| {
            let dropped = std::mem::take(&mut *lock(&self.dropped));
            if !dropped.is_empty() {
                connection.send(&Request::Drop { ids: dropped })?;
                connection.receive::<()>(0, Instant::now() + GRACE)?;
            }
            if policy.process.load(Ordering::Acquire) != process.number() {
                load(connection, policy.id, policy.abi, &policy.code)?
                    .map_err(|error| io::Error::other(regatta_util::chain(&error)))?;
                policy.process.store(process.number(), Ordering::Release);
            }
            connection.send(&Request::Run { id: policy.id, limits: *limits, ask: Question::of(ask) })?;
            let deadline = Instant::now() + Duration::from_millis(limits.deadline_ms) + GRACE;
            connection.receive(most(limits), deadline)
        });
        ran.map_or_else(lost, |ran| bounded(ran, limits))
    }

    /// The worker; a new one when the last has ended.
    fn process(&self) -> io::Result<Arc<Process>> {
        let mut process = lock(&self.process);
        if let Some(how) = process.ended() {
            tracing::error!(
                pid = process.pid(),
                how,
                "the policy worker has ended; decisions that were under way have failed, and a new one is started"
            );
            *process = Arc::new(Process::start(&self.program, self.user, self.pooling)?);
        }
        Ok(Arc::clone(&process))
    }
}

impl Hosted {
    pub(crate) fn migrates(&self) -> bool {
        self.ready.migrates
    }

    pub(crate) fn bytes(&self) -> usize {
        self.ready.bytes
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        lock(&self.dropped).push(self.id);
    }
}

fn load(
    connection: &mut Connection,
    id: PolicyId,
    abi: Abi,
    code: &Native,
) -> io::Result<Result<Ready, LoadError>> {
    connection.send(&Request::Load { id, abi, code: code.bytes() })?;
    let most = usize::try_from(REPLY_BYTES).unwrap_or(usize::MAX);
    let loaded: Loaded = connection.receive(most, Instant::now() + GRACE)?;
    Ok(loaded.map_err(LoadError::from))
}

/// Bytes that a reply may have.
fn most(limits: &PolicyLimits) -> usize {
    let logged = u64::from(limits.log_lines).saturating_mul(SAID_BYTES as u64 + 16);
    // Lifted texts may be longer than the exact check lets through, which comes after.
    let most = limits.output_bytes.saturating_mul(4).saturating_add(logged).saturating_add(REPLY_BYTES);
    usize::try_from(most).unwrap_or(usize::MAX)
}

/// What the worker says may be what a policy that has taken it over says. Its words are bounded by their type.
fn bounded(mut ran: Ran, limits: &PolicyLimits) -> Ran {
    ran.fuel = ran.fuel.min(limits.fuel);
    // And one that tells how many were dropped.
    ran.log.truncate(usize::try_from(limits.log_lines).unwrap_or(usize::MAX).saturating_add(1));
    ran
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
