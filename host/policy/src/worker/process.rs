//! One worker process, as who started it sees it.

use std::io::{self, IoSlice, Read};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use serde::{Deserialize, Serialize};

use super::wire::{self, Hello};
use super::{LANES, lock};
use crate::compile::{Job, Program, Work};
use crate::jail::WallState;
use crate::text::capped;

/// How often who waits for an answer looks at the clock.
const LOOK: Duration = Duration::from_secs(1);
/// From its start until it is ready.
const START: Duration = Duration::from_secs(60);
const HELLO_BYTES: usize = 64 << 10;
/// What is kept of what it says on its standard error.
const STDERR_BYTES: u64 = 4 << 10;

pub(super) struct Process {
    number: u64,
    child: Mutex<Child>,
    /// Closed with this; the worker ends with it.
    _control: UnixStream,
    idle: Mutex<Vec<Connection>>,
    /// Notified when there is one more of them, and when there will be none.
    freed: Condvar,
    hello: Hello,
    /// How it ended, once that is known.
    ended: OnceLock<String>,
}

/// A way to ask, one question at a time.
pub(super) struct Connection {
    socket: UnixStream,
    request: Vec<u8>,
    reply: Vec<u8>,
}

impl Process {
    pub(super) fn start(program: &Program, user: Option<u32>, pooling: bool) -> io::Result<Self> {
        static STARTED: AtomicU64 = AtomicU64::new(0);
        let (control, theirs) = UnixStream::pair()?;
        let job = Job::new(Work::Run, pooling, user, None);
        let mut child = program
            .command(&job)?
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()?;
        match introduce(&control) {
            Ok((hello, idle)) => Ok(Self {
                number: STARTED.fetch_add(1, Ordering::Relaxed) + 1,
                child: Mutex::new(child),
                _control: control,
                idle: Mutex::new(idle),
                freed: Condvar::new(),
                hello,
                ended: OnceLock::new(),
            }),
            Err(error) => {
                let _ = child.kill();
                Err(io::Error::new(error.kind(), format!("{error} ({})", how_it_ended(&mut child))))
            }
        }
    }

    /// Tells one process from the next.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    pub(super) fn pid(&self) -> u32 {
        lock(&self.child).id()
    }

    pub(super) fn pooling(&self) -> bool {
        self.hello.pooling
    }

    pub(super) fn walls(&self) -> &[WallState] {
        &self.hello.walls
    }

    /// How it ended, for people; nothing while it runs.
    pub(super) fn ended(&self) -> Option<&str> {
        if self.ended.get().is_none() && !matches!(lock(&self.child).try_wait(), Ok(None)) {
            self.end();
        }
        self.ended.get().map(String::as_str)
    }

    /// Asks over a connection that nobody else has, when there is one. Whatever goes wrong on it ends this process.
    pub(super) fn with_connection<T>(
        &self,
        ask: impl FnOnce(&mut Connection) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut connection = self.connection()?;
        match ask(&mut connection) {
            Ok(answer) => {
                lock(&self.idle).push(connection);
                self.freed.notify_one();
                Ok(answer)
            }
            Err(error) => Err(io::Error::new(error.kind(), format!("{error} ({})", self.end()))),
        }
    }

    fn connection(&self) -> io::Result<Connection> {
        let mut idle = lock(&self.idle);
        loop {
            // Looked at under the lock that `end` takes: no wait begins after its notification.
            if let Some(how) = self.ended.get() {
                return Err(io::Error::other(how.as_str()));
            }
            match idle.pop() {
                Some(connection) => return Ok(connection),
                None => idle = self.freed.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    fn end(&self) -> &str {
        let how = self.ended.get_or_init(|| {
            let mut child = lock(&self.child);
            // One that has ended by itself keeps its own status.
            let _ = child.kill();
            how_it_ended(&mut child)
        });
        drop(lock(&self.idle));
        self.freed.notify_all();
        how
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let mut child = lock(&self.child);
        let _ = child.kill();
        // So that no zombie stays.
        let _ = child.wait();
    }
}

impl Connection {
    pub(super) fn send(&mut self, message: &impl Serialize) -> io::Result<()> {
        wire::send(&self.socket, message, &mut self.request)
    }

    pub(super) fn receive<'a, T: Deserialize<'a>>(
        &'a mut self,
        most: usize,
        deadline: Instant,
    ) -> io::Result<T> {
        wire::receive(&self.socket, most, Some(deadline), &mut self.reply)
    }
}

/// Sends the worker its ends of the connections, and hears what it is.
fn introduce(control: &UnixStream) -> io::Result<(Hello, Vec<Connection>)> {
    let mut ours = Vec::with_capacity(LANES);
    let mut theirs = Vec::with_capacity(LANES);
    for _ in 0..LANES {
        let (socket, other) = UnixStream::pair()?;
        socket.set_read_timeout(Some(LOOK))?;
        socket.set_write_timeout(Some(super::GRACE))?;
        ours.push(Connection { socket, request: Vec::new(), reply: Vec::new() });
        theirs.push(other);
    }
    let fds: Vec<BorrowedFd<'_>> = theirs.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(LANES))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    ancillary.push(SendAncillaryMessage::ScmRights(&fds));
    sendmsg(control, &[IoSlice::new(&[0])], &mut ancillary, SendFlags::NOSIGNAL)?;
    control.set_read_timeout(Some(LOOK))?;
    let mut buffer = Vec::new();
    let hello = wire::receive(control, HELLO_BYTES, Some(Instant::now() + START), &mut buffer)?;
    Ok((hello, ours))
}

/// Waits for the end of a process, and says how it ended and what it said last.
fn how_it_ended(child: &mut Child) -> String {
    let status = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
    let mut said = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        // It has ended: what it wrote is there, and nobody else holds the other end.
        let _ = stderr.take(STDERR_BYTES).read_to_end(&mut said);
    }
    let said = String::from_utf8_lossy(&said);
    match said.lines().find(|line| line.contains("panicked")).or(said.lines().last()) {
        Some(line) => format!("{status}: {}", capped(line.escape_debug().to_string(), 500)),
        None => status,
    }
}
