//! One daemon after another without a refused connection: the next one asks for the listening sockets, and only then the one
//! before finishes its connections, gives the data directory back and ends. Clients that connect meanwhile wait in the
//! kernel's queue of the sockets.
//!
//! ```text
//! next → before   REQUEST
//! before → next   number of sockets, seconds it takes at most to end; then each socket, with one byte
//! next → before   END
//! ```

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use regatta_traffic::Listeners;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, recvmsg, sendmsg,
};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::net::UnixListener;
use tokio::sync::mpsc;

/// The argument of `regatta serve`.
const ARGUMENT: &str = "--hot-restart";
const REQUEST: &[u8] = b"regatta hot-restart 1\n";
const END: &[u8] = b"end\n";
/// How long either side waits for a word of the other.
const PATIENCE: Duration = Duration::from_secs(5);
/// One that is being killed is gone within that time.
const DYING: Duration = Duration::from_secs(1);
/// How long a daemon may take for its last steps when its connections have ended.
const LAST_STEPS: Duration = Duration::from_secs(30);
/// More sockets are not taken.
const SOCKETS_MAX: u32 = 4_096;

/// Offers the listening sockets to the next daemon. Whoever has taken them is told of by `successors`; this daemon shall end
/// then, within `ends_within`.
pub(crate) async fn offer(
    socket: UnixListener,
    listeners: Arc<Listeners>,
    ends_within: Duration,
    successors: mpsc::Sender<UnixStream>,
) {
    loop {
        let stream = match socket.accept().await {
            Ok((stream, _)) => stream,
            Err(why) => {
                tracing::warn!(%why, "the next daemon cannot be heard");
                tokio::time::sleep(PATIENCE).await;
                continue;
            }
        };
        let own = rustix::process::geteuid().as_raw();
        let asks = stream.peer_cred().map(|peer| peer.uid());
        if !asks.as_ref().is_ok_and(|uid| *uid == 0 || *uid == own) {
            tracing::warn!(?asks, "neither root nor this daemon's user: no listening socket is handed over");
            continue;
        }
        let listeners = Arc::clone(&listeners);
        let handed_over = tokio::task::spawn_blocking(move || -> io::Result<UnixStream> {
            let stream = stream.into_std()?;
            stream.set_nonblocking(false)?;
            hand_over(&stream, &listeners, ends_within + LAST_STEPS)?;
            Ok(stream)
        });
        match handed_over.await {
            Ok(Ok(successor)) => drop(successors.send(successor).await),
            Ok(Err(why)) => {
                tracing::warn!(%why, "the next daemon did not take the listening sockets; this one stays")
            }
            Err(why) => tracing::warn!(%why, "the listening sockets cannot be handed over"),
        }
    }
}

fn patient(stream: &UnixStream) -> io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))
}

fn expect(mut stream: &UnixStream, words: &[u8]) -> io::Result<()> {
    let mut said = vec![0; words.len()];
    stream.read_exact(&mut said)?;
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "it does not speak this protocol");
    if said == words { Ok(()) } else { Err(wrong()) }
}

fn hand_over(mut stream: &UnixStream, listeners: &Listeners, ends_within: Duration) -> io::Result<()> {
    patient(stream)?;
    expect(stream, REQUEST)?;
    let sockets = listeners.copies()?;
    let count = u32::try_from(sockets.len()).unwrap_or(u32::MAX);
    let seconds = u32::try_from(ends_within.as_secs()).unwrap_or(u32::MAX);
    stream.write_all(&[count.to_le_bytes(), seconds.to_le_bytes()].concat())?;
    for socket in &sockets {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        let of_socket = [socket.as_fd()];
        control.push(SendAncillaryMessage::ScmRights(&of_socket));
        sendmsg(stream, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL)?;
    }
    expect(stream, END)
}

/// Takes the listening sockets of the daemon that runs, if one does, and waits until it has ended. Blocking.
///
/// # Errors
/// It refuses, does not answer or does not end: then it keeps the data directory.
pub(crate) fn take_over(socket: &Path, listeners: &Listeners) -> anyhow::Result<()> {
    let stream = match UnixStream::connect(socket) {
        Ok(stream) => stream,
        Err(why) if matches!(why.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            tracing::info!("{ARGUMENT}: no daemon runs on this data directory; starting without one before");
            return Ok(());
        }
        Err(why) => {
            return Err(why).with_context(|| format!("cannot connect to {}", socket.display()));
        }
    };
    patient(&stream)?;
    let before = rustix::net::sockopt::socket_peercred(&stream)?.pid;
    let process = match pidfd_open(before, PidfdFlags::empty()) {
        Ok(process) => Some(process),
        Err(rustix::io::Errno::SRCH) => None,
        Err(why) => return Err(why).context("the daemon that runs cannot be watched"),
    };
    let pid = before.as_raw_nonzero();
    let ends_within = match ask(&stream) {
        Ok((sockets, ends_within)) => {
            tracing::info!(
                pid,
                sockets = sockets.len(),
                "the daemon that runs hands its listening sockets over"
            );
            listeners.inherit(sockets);
            // One that ends before it hears this has ended all the same.
            let _ = (&stream).write_all(END);
            ends_within
        }
        Err(why) if has_ended(process.as_ref(), DYING)? => {
            tracing::warn!(pid, %why, "the daemon that ran has died; starting without its listening sockets");
            return Ok(());
        }
        Err(why) => {
            return Err(why).with_context(|| {
                format!("daemon {pid} does not hand its listening sockets over; it keeps running")
            });
        }
    };
    if !has_ended(process.as_ref(), ends_within)? {
        bail!("daemon {pid} has not ended within {ends_within:?}; stop it, then start again");
    }
    Ok(())
}

fn ask(mut stream: &UnixStream) -> io::Result<(Vec<OwnedFd>, Duration)> {
    stream.write_all(REQUEST)?;
    let mut head = [0; 8];
    stream.read_exact(&mut head)?;
    let [count, seconds] =
        [0, 4].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let mut sockets = Vec::new();
    for _ in 0..count.min(SOCKETS_MAX) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let read = recvmsg(stream, &mut [IoSliceMut::new(&mut byte)], &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if read.bytes == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(fds) = message {
                sockets.extend(fds);
            }
        }
    }
    Ok((sockets, Duration::from_secs(seconds.into())))
}

/// Whether the process ends within that time.
fn has_ended(process: Option<&OwnedFd>, within: Duration) -> anyhow::Result<bool> {
    let Some(process) = process else { return Ok(true) };
    let timeout = Timespec { tv_sec: i64::try_from(within.as_secs()).unwrap_or(i64::MAX), tv_nsec: 0 };
    loop {
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(rustix::io::Errno::INTR) => {}
            Err(why) => return Err(why).context("the daemon that runs cannot be watched"),
        }
    }
}

/// Whether the daemon that has taken the sockets has gone before this one did.
fn is_gone(mut successor: &UnixStream) -> bool {
    // It says no more: what can be read is the end.
    successor.set_nonblocking(true).is_ok() && successor.read(&mut [0]).is_ok()
}

/// Has another daemon follow when the one that took over has died, as long as the sockets are still held here.
pub(crate) async fn follow_up(
    mut successor: UnixStream,
    successors: &mut mpsc::Receiver<UnixStream>,
) -> anyhow::Result<()> {
    if !is_gone(&successor) {
        return Ok(());
    }
    tracing::error!("the daemon that took over has died; starting another");
    let arguments = std::env::args_os().skip(1).filter(|argument| argument != ARGUMENT);
    let mut child = Command::new(program()?).args(arguments).arg(ARGUMENT).spawn()?;
    match tokio::time::timeout(LAST_STEPS, successors.recv()).await {
        Ok(Some(next)) => successor = next,
        Ok(None) | Err(_) => bail!("the daemon that was started does not take over: {:?}", child.try_wait()?),
    }
    if is_gone(&successor) {
        bail!("the daemon that was started has died, too");
    }
    Ok(())
}

/// This very program, unless its file was replaced since it was started.
fn program() -> io::Result<PathBuf> {
    match std::env::current_exe() {
        Ok(path) if path.exists() => Ok(path),
        _ => Ok("/proc/self/exe".into()),
    }
}
