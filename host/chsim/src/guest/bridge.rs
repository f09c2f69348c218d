//! One TCP connection of the guest, carried over to a socket that the service understands.

use std::io::{self, ErrorKind, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use rustix::event::epoll::{self, EventFlags};
use smoltcp::iface::SocketHandle;
use smoltcp::socket::tcp::{Socket, State};
use smoltcp::time::{Duration, Instant};

/// How long a connection that the service has closed waits for its peer to close it, too.
const LINGER: Duration = Duration::from_secs(10);

/// Both ends of a connection inside the guest.
#[derive(Debug)]
pub(super) struct Bridge {
    pub(super) socket: SocketHandle,
    /// Our end of the pair; gone once the service has closed its own, or the connection was reset.
    stream: Option<UnixStream>,
    /// Whether reading, writing may get somewhere. Set by edge-triggered events, cleared by trying.
    readable: bool,
    writable: bool,
    /// The service has been told that the peer says nothing more.
    ended: bool,
    /// Since when only the peer has to close the connection that the service has closed.
    lingering: Option<Instant>,
}

impl Bridge {
    /// A bridge from `socket`, and its far end, which is the service's.
    pub(super) fn new(socket: SocketHandle, epoll: &OwnedFd, token: u64) -> io::Result<(Self, UnixStream)> {
        let (stream, far) = UnixStream::pair()?;
        stream.set_nonblocking(true)?;
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        epoll::add(epoll, &stream, epoll::EventData::new_u64(token), flags)?;
        Ok((Self { stream: Some(stream), readable: true, writable: true, ..Self::none(socket) }, far))
    }

    /// A bridge that leads nowhere, for a socket that is only waited for to be closed.
    pub(super) fn none(socket: SocketHandle) -> Self {
        Self { socket, stream: None, readable: false, writable: false, ended: false, lingering: None }
    }

    /// Takes note of what `epoll` says.
    pub(super) fn ready(&mut self, flags: EventFlags) {
        let over = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
        self.readable |= flags.intersects(EventFlags::IN | over);
        self.writable |= flags.intersects(EventFlags::OUT | over);
    }

    /// When its waiting for the peer ends.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.lingering.map(|since| since + LINGER)
    }

    /// Carries what there is in both directions.
    pub(super) fn carry(&mut self, socket: &mut Socket<'_>, now: Instant) {
        if socket.state() == State::Closed {
            // Reset, or the peer is gone: the service sees its connection break.
            self.stream = None;
        } else if let Some(stream) = &self.stream {
            let hung_up =
                carry_in(socket, stream, &mut self.writable) | carry_out(socket, stream, &mut self.readable);
            if !self.ended && !socket.may_recv() {
                self.ended = true;
                // It fails when the service has hung up, which is found out by reading.
                let _ = stream.shutdown(Shutdown::Write);
            }
            if hung_up {
                self.stream = None;
                socket.close();
            }
        }
        if self.stream.is_none() {
            // Nobody reads any more, but a full window would keep the peer from closing.
            while socket.recv(|bytes| (bytes.len(), bytes.len())).is_ok_and(|dropped| dropped > 0) {}
            if matches!(socket.state(), State::FinWait2 | State::Closing) {
                self.lingering.get_or_insert(now);
                if self.deadline().is_some_and(|deadline| deadline <= now) {
                    socket.abort();
                }
            }
        }
    }
}

/// From the peer to the service; whether the service has hung up.
fn carry_in(socket: &mut Socket<'_>, mut stream: &UnixStream, writable: &mut bool) -> bool {
    while *writable && socket.can_recv() {
        let written = socket.recv(|bytes| match stream.write(bytes) {
            Ok(written) => (written, Ok(written)),
            Err(error) => (0, Err(error)),
        });
        match written {
            Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => *writable = false,
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}

/// From the service to the peer; whether the service has hung up.
fn carry_out(socket: &mut Socket<'_>, mut stream: &UnixStream, readable: &mut bool) -> bool {
    while *readable && socket.can_send() {
        let read = socket.send(|room| match stream.read(room) {
            Ok(read) => (read, Ok(read)),
            Err(error) => (0, Err(error)),
        });
        match read {
            Ok(Err(error)) if error.kind() == ErrorKind::WouldBlock => *readable = false,
            Ok(Err(error)) if error.kind() == ErrorKind::Interrupted => {}
            Ok(Ok(0) | Err(_)) => return true,
            Ok(Ok(_)) => {}
            Err(_) => return false,
        }
    }
    false
}
