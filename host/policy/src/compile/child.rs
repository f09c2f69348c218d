//! What a module can make expensive, in a child process: the input on its standard input, the answer or a refusal on its
//! standard output. Most of the time it is the compiler.
//!
//! The child sets its own limits before it reads a byte of the module; until then it runs nothing but this program.

use std::ffi::OsStr;
use std::io::{self, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{
    Pid, PidfdFlags, Resource, Signal, getppid, pidfd_open, set_parent_process_death_signal,
};
use serde::{Deserialize, Serialize};

use super::artifact::{Artifact, Refusal};
use super::{CompileLimit, CompileLimits, Program};
use crate::compiled::MAX_MODULE_BYTES;
use crate::error::LoadError;
use crate::jail::{self, Threads};
use crate::text::capped;
use crate::worker::serve::serve;
use crate::{engine, schema, sys};

/// Threads of one compilation: each has a stack and an arena that count as address space.
const THREADS: &str = "4";
/// Bytes of free memory that a child keeps: a worker would have each observation's pages given back and faulted in again.
const KEPT: &str = "67108864";
/// Below everything that has a tick to keep.
const NICE: i32 = 10;
/// From its start to its end it may take this many times its CPU time. It computes and waits for nobody, so this only ends
/// one that the host has stopped.
const WALL_PER_CPU: u32 = 30;
/// What is kept of what the child says on its standard error.
const STDERR_BYTES: u64 = 8 << 10;
const DONE: u8 = b'+';
const REFUSED: u8 = b'-';

/// What the child does.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Work {
    /// Compiles a module.
    Compile,
    /// Holds parameters against a schema.
    Schema,
    /// Runs policies.
    Run,
}

/// What the child is told: the argument that is appended.
#[derive(Serialize, Deserialize)]
pub(crate) struct Job {
    work: Work,
    pooling: bool,
    /// The user to become.
    user: Option<u32>,
    /// None for work that ends when nobody asks for more.
    limits: Option<JobLimits>,
    parent: i32,
}

#[derive(Serialize, Deserialize)]
struct JobLimits {
    memory_bytes: u64,
    cpu_seconds: u64,
}

impl Job {
    pub(crate) fn new(work: Work, pooling: bool, user: Option<u32>, limits: Option<&CompileLimits>) -> Self {
        let limits = limits.map(|limits| JobLimits {
            memory_bytes: limits.memory_bytes,
            cpu_seconds: limits.cpu_time.as_secs().max(1),
        });
        let parent = rustix::process::getpid().as_raw_nonzero().get();
        Self { work, pooling, user, limits, parent }
    }
}

impl Program {
    /// Its command to do `job`: with nothing of this process's environment.
    ///
    /// # Errors
    /// Never, but for a job that cannot be written down.
    pub(crate) fn command(&self, job: &Job) -> io::Result<Command> {
        let mut command = Command::new(&self.path);
        command
            .args(&self.args)
            .arg(serde_json::to_string(job)?)
            .env_clear()
            .envs([
                ("RAYON_NUM_THREADS", THREADS),
                ("MALLOC_ARENA_MAX", "2"),
                ("MALLOC_TRIM_THRESHOLD_", KEPT),
            ])
            .current_dir("/");
        Ok(command)
    }
}

/// Compiles `module` in a child.
pub(super) fn run(
    program: &Program,
    pooling: bool,
    user: Option<u32>,
    limits: &CompileLimits,
    module: &[u8],
) -> Result<Artifact, LoadError> {
    let job = Job::new(Work::Compile, pooling, user, Some(limits));
    let answer = caged(&job, program, limits, module)?;
    let failed = |source: io::Error| LoadError::Compiler { program: program.path.clone(), source };
    let artifact = match answer.split_first() {
        // The only writer of the pipe was the child.
        Some((&DONE, artifact)) => Artifact::from_trusted(artifact),
        Some((&REFUSED, refusal)) => {
            return Err(serde_json::from_slice::<Refusal>(refusal)
                .map_err(|error| failed(error.into()))?
                .into());
        }
        _ => None,
    };
    artifact.ok_or_else(|| failed(io::Error::other("its answer is none")))
}

/// Has a child do `job` on `input` and returns its answer.
pub(crate) fn caged(
    job: &Job,
    program: &Program,
    limits: &CompileLimits,
    input: &[u8],
) -> Result<Vec<u8>, LoadError> {
    let failed = |source: io::Error| LoadError::Compiler { program: program.path.clone(), source };
    let started = Instant::now();
    let mut child = program
        .command(job)
        .map_err(failed)?
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(mut stdin), Some(stdout), Some(stderr)) = pipes else {
        return Err(failed(io::Error::other("it has no pipes")));
    };
    let most = limits.code_bytes.saturating_add(1 << 20);
    let (status, answer, said) = thread::scope(|scope| {
        // It may end before it has read all: that is told by its status.
        scope.spawn(move || drop(stdin.write_all(input)));
        let answer = scope.spawn(move || read(stdout, most));
        let said = scope.spawn(move || read(stderr, STDERR_BYTES));
        let status = wait(&mut child, started + limits.cpu_time * WALL_PER_CPU);
        (status, answer.join().unwrap_or_default(), said.join().unwrap_or_default())
    });
    let said = String::from_utf8_lossy(&said).into_owned();
    let Some(status) = status.map_err(failed)? else {
        return Err(CompileLimit::Stalled { seconds: started.elapsed().as_secs() }.into());
    };
    if answer.len() as u64 > limits.code_bytes {
        return Err(CompileLimit::Code { mebibytes: limits.code_bytes >> 20 }.into());
    }
    if !status.success() {
        return Err(crashed(status, &said, limits).into());
    }
    Ok(answer)
}

/// All that comes, at most `most` bytes; what comes after that is read and forgotten, so that the writer can end.
fn read(mut from: impl Read, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    // What has come until an error is all that there is.
    let _ = from.by_ref().take(most).read_to_end(&mut bytes);
    let _ = io::copy(&mut from, &mut io::sink());
    bytes
}

/// Waits until the child has ended; past `deadline` it is killed, and there is no status.
fn wait(child: &mut Child, deadline: Instant) -> io::Result<Option<ExitStatus>> {
    let ended = wait_until(child, deadline);
    if !matches!(ended, Ok(true)) {
        child.kill()?;
    }
    let status = child.wait()?;
    Ok(ended?.then_some(status))
}

fn wait_until(child: &Child, deadline: Instant) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left.max(Duration::from_millis(1))).ok();
        match poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], timeout.as_ref()) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(0) | Err(rustix::io::Errno::INTR) => {}
            Ok(_) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a child that gave no answer died of.
fn crashed(status: ExitStatus, said: &str, limits: &CompileLimits) -> CompileLimit {
    let signal = status.signal().and_then(Signal::from_named_raw);
    if said.contains("memory allocation of") || said.contains("Cannot allocate memory") {
        return CompileLimit::Memory { mebibytes: limits.memory_bytes >> 20 };
    }
    if signal == Some(Signal::XCPU) {
        return CompileLimit::Time { seconds: limits.cpu_time.as_secs() };
    }
    let line = said.lines().find(|line| line.contains("overflowed its stack") || line.contains("panicked"));
    let last = line.or(said.lines().last()).unwrap_or("no words");
    CompileLimit::Crash { status: capped(format!("{status}: {last}"), 500) }
}

/// What the program does that [`Place::Child`](crate::Place::Child) names: compiles the module on standard input, or runs
/// policies for who holds the other end of it, within limits that this process sets itself. `job` is its last argument.
///
/// Exits with 0 when there is an answer on standard output, also one that the module is refused.
#[must_use]
pub fn policy_child(job: &OsStr) -> ExitCode {
    match answer(job) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cannot work on policies: {error}");
            ExitCode::from(2)
        }
    }
}

fn answer(job: &OsStr) -> io::Result<()> {
    sys::close_all_others();
    let job: Job = serde_json::from_slice(job.as_encoded_bytes())?;
    let Some(limits) = &job.limits else { return serve(job.user, job.pooling) };
    confine(&job, limits)?;
    let mut module = Vec::new();
    io::stdin().lock().take(MAX_MODULE_BYTES as u64 + 1).read_to_end(&mut module)?;
    if let Work::Schema = job.work {
        return io::stdout().lock().write_all(&schema::answer(&module)?);
    }
    let engine = engine::for_compiling(job.pooling).map_err(io::Error::other)?;
    let (kind, content) = match super::build(&engine, &module) {
        Ok(artifact) => (DONE, artifact.to_bytes()),
        Err(error) => (REFUSED, serde_json::to_vec(&refusal(error, limits))?),
    };
    let mut out = io::stdout().lock();
    out.write_all(&[kind])?;
    out.write_all(&content)?;
    out.flush()
}

/// Memory that the compiler maps itself is refused with an error; what the allocator is refused ends the process.
fn refusal(error: LoadError, limits: &JobLimits) -> Refusal {
    match Refusal::from(error) {
        Refusal::Compile(cause) if cause.contains("os error 12") => {
            Refusal::Limit(CompileLimit::Memory { mebibytes: limits.memory_bytes >> 20 })
        }
        refusal => refusal,
    }
}

fn confine(job: &Job, limits: &JobLimits) -> io::Result<()> {
    // Walls that the host cannot give are told of by the worker, which has the same.
    jail::confine(
        job.user,
        &[
            (Resource::Core, 0),
            (Resource::Fsize, 0),
            (Resource::Nofile, 64),
            (Resource::Cpu, limits.cpu_seconds),
            (Resource::As, limits.memory_bytes),
        ],
    )?;
    // Only now: it is forgotten when the user changes.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    // It may have gone before that.
    if getppid().map(|parent| parent.as_raw_nonzero().get()) != Some(job.parent) {
        return Err(io::Error::other("who asked for this is gone"));
    }
    // Threads inherit it.
    rustix::process::nice(NICE)?;
    jail::restrict_system_calls(Threads::More);
    Ok(())
}
