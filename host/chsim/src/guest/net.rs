//! Connections to the guest: TCP through its address or its network card, streams through its vsock.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::Instant;

use regatta_util::guest_http::{MAX_HEAD_BYTES, Parsed, Request, parse};

/// Largest request body; it is read and dropped.
const MAX_BODY_BYTES: usize = 1 << 20;

/// A connection's socket.
#[derive(Debug)]
pub(crate) enum Stream {
    Tcp(TcpStream),
    /// The client first has to say which port it wants.
    Vsock(UnixStream),
    /// The near end of a TCP connection that the guest's own network stack has.
    Bridged(UnixStream),
}

impl Stream {
    /// Whether its data is network traffic that nothing else counts.
    pub(crate) fn is_counted(&self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Vsock(stream) | Self::Bridged(stream) => stream.as_fd(),
        }
    }
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Waiting for `CONNECT <port>`.
    Handshake,
    Reading,
    /// Reading the rest of a body; bytes left.
    Skipping(usize),
    /// Its request is with a worker, or waits for one.
    Working,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stream: Stream,
    pub(crate) doing: Doing,
    input: Vec<u8>,
    output: Vec<u8>,
    written: usize,
    pub(crate) close: bool,
    pub(crate) dead: bool,
    /// For the time-out of idle connections; real time, because the other end lives in it.
    pub(crate) active: Instant,
    /// The request being worked on.
    pub(crate) request: Option<Request>,
}

/// Bytes that moved.
pub(crate) type Moved = usize;

impl Connection {
    pub(crate) fn new(stream: Stream, now: Instant) -> io::Result<Self> {
        let doing = match &stream {
            Stream::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                // Small answers must not wait for the acknowledgement of earlier ones.
                stream.set_nodelay(true)?;
                Doing::Reading
            }
            Stream::Vsock(stream) => {
                stream.set_nonblocking(true)?;
                Doing::Handshake
            }
            Stream::Bridged(stream) => {
                stream.set_nonblocking(true)?;
                Doing::Reading
            }
        };
        Ok(Self {
            stream,
            doing,
            input: Vec::new(),
            output: Vec::new(),
            written: 0,
            close: false,
            dead: false,
            active: now,
            request: None,
        })
    }

    /// Whether it waits for a request that has not begun.
    pub(crate) fn is_idle(&self) -> bool {
        self.doing == Doing::Reading && self.input.is_empty() && self.output.is_empty()
    }

    /// Whether bytes wait to be sent.
    pub(crate) fn wants_write(&self) -> bool {
        !self.output.is_empty()
    }

    /// Reads what is there, up to a request head at a time.
    pub(crate) fn read(&mut self) -> Moved {
        let mut chunk = [0; 4096];
        let mut moved = 0;
        while self.input.len() < MAX_HEAD_BYTES {
            let read = match &mut self.stream {
                Stream::Tcp(stream) => stream.read(&mut chunk),
                Stream::Vsock(stream) | Stream::Bridged(stream) => stream.read(&mut chunk),
            };
            match read {
                Ok(0) => {
                    self.dead = true;
                    break;
                }
                Ok(read) => {
                    moved += read;
                    self.input.extend_from_slice(&chunk[..read]);
                    if read < chunk.len() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.dead = true;
                    break;
                }
            }
        }
        moved
    }

    /// Takes the next request out of what was read.
    pub(crate) fn next_request(&mut self) -> Option<Parsed> {
        if let Doing::Skipping(left) = self.doing {
            let skip = left.min(self.input.len());
            self.input.drain(..skip);
            if skip < left {
                self.doing = Doing::Skipping(left - skip);
                return None;
            }
            self.doing = Doing::Reading;
            return self.request.clone().map(Parsed::Request);
        }
        if self.doing != Doing::Reading || self.input.is_empty() || self.close {
            return None;
        }
        match parse(&self.input, MAX_BODY_BYTES) {
            Parsed::Partial => None,
            Parsed::Request(request) => {
                self.input.drain(..request.head_bytes);
                if request.body_bytes == 0 {
                    return Some(Parsed::Request(request));
                }
                self.doing = Doing::Skipping(request.body_bytes);
                self.request = Some(request);
                self.next_request()
            }
            bad => Some(bad),
        }
    }

    /// Takes the line of a vsock handshake: the port asked for, `Err` for anything else.
    pub(crate) fn handshake(&mut self) -> Option<Result<u32, ()>> {
        let end = self.input.iter().position(|byte| *byte == b'\n');
        let Some(end) = end else {
            return (self.input.len() > 32).then_some(Err(()));
        };
        let line: Vec<u8> = self.input.drain(..=end).collect();
        let port = std::str::from_utf8(&line)
            .ok()
            .and_then(|line| line.trim_end().strip_prefix("CONNECT ")?.parse().ok());
        Some(port.ok_or(()))
    }

    /// Queues bytes and sends what the socket takes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
        self.write();
    }

    /// Sends what is queued.
    pub(crate) fn write(&mut self) {
        while self.written < self.output.len() {
            let written = match &mut self.stream {
                Stream::Tcp(stream) => stream.write(&self.output[self.written..]),
                Stream::Vsock(stream) | Stream::Bridged(stream) => stream.write(&self.output[self.written..]),
            };
            match written {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    self.dead = true;
                    return;
                }
            }
        }
        self.output.clear();
        self.written = 0;
        self.dead |= self.close;
    }
}
