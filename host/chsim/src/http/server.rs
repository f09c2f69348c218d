//! The server thread: ten connections, one request at a time over all of them.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};

use rustix::event::{PollFd, PollFlags, poll};

use super::parser::{Parser, Request, Step};
use super::response::{Response, TOO_MANY_CONNECTIONS};

/// Upstream's limit; the next connection is told so and closed.
const MAX_CONNECTIONS: usize = 10;

/// What the handler wants done with a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Send the response.
    Send(Response),
    /// Send this many of its bytes, then cut the connection (a fault).
    Cut(Response, usize),
}

/// A listening socket and its connections.
#[derive(Debug)]
pub(crate) struct Server {
    listener: UnixListener,
    stop: OwnedFd,
    connections: Vec<Connection>,
    body_limit: usize,
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    parser: Parser,
    out: VecDeque<Vec<u8>>,
    written: usize,
    cut: bool,
    closed: bool,
}

impl Server {
    /// A server on `listener` that ends once `stop` becomes readable.
    pub(crate) fn new(listener: UnixListener, stop: OwnedFd, body_limit: usize) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { listener, stop, connections: Vec::new(), body_limit })
    }

    fn accept(&mut self) {
        let Ok((mut stream, _)) = self.listener.accept() else {
            return;
        };
        if self.connections.len() >= MAX_CONNECTIONS {
            // The refusal fits any socket buffer; a client that is gone already needs none.
            let _ = stream.write(TOO_MANY_CONNECTIONS);
            return;
        }
        if stream.set_nonblocking(true).is_ok() {
            self.connections.push(Connection {
                stream,
                parser: Parser::new(self.body_limit),
                out: VecDeque::new(),
                written: 0,
                cut: false,
                closed: false,
            });
        }
    }
}

impl Connection {
    fn read(&mut self, handle: &mut dyn FnMut(&Request) -> Answer) {
        match self.stream.read(self.parser.space()) {
            Ok(0) => self.closed = true,
            Ok(read) => {
                for step in self.parser.advance(read) {
                    let answer = match step {
                        Step::Continue => Answer::Send(Response::proceed()),
                        Step::Error(error) => Answer::Send(Response::unparsable(&error)),
                        Step::Request(request) => handle(&request),
                    };
                    match answer {
                        Answer::Send(response) => self.out.push_back(response.to_bytes()),
                        Answer::Cut(response, bytes) => {
                            let mut start = response.to_bytes();
                            start.truncate(bytes);
                            self.out.push_back(start);
                            self.cut = true;
                        }
                    }
                }
            }
            Err(error) if would_block(&error) => {}
            Err(_) => self.closed = true,
        }
    }

    /// Writes what the socket takes; what remains waits for the next `POLLOUT`.
    fn write(&mut self) {
        while let Some(bytes) = self.out.front() {
            match self.stream.write(&bytes[self.written..]) {
                Ok(written) => {
                    self.written += written;
                    if self.written >= bytes.len() {
                        self.out.pop_front();
                        self.written = 0;
                    }
                }
                Err(error) if would_block(&error) => return,
                Err(_) => {
                    self.closed = true;
                    return;
                }
            }
        }
        if self.cut {
            self.closed = true;
        }
    }
}

fn would_block(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Serves until `stop` is readable, then sends what is still queued. `handle` blocks the whole server while it works:
/// that is upstream's behaviour, and why a ping that times out says nothing about the process.
pub(crate) fn serve(mut server: Server, mut handle: impl FnMut(&Request) -> Answer) -> io::Result<()> {
    loop {
        let ready = server.wait()?;
        if ready.stop {
            for connection in &mut server.connections {
                connection.stream.set_nonblocking(false)?;
                connection.stream.set_write_timeout(Some(std::time::Duration::from_secs(1)))?;
                connection.write();
            }
            return Ok(());
        }
        for (connection, flags) in server.connections.iter_mut().zip(ready.connections) {
            // Upstream drops a connection on a half-close too, even with a request waiting in it.
            if flags.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR) {
                connection.closed = true;
            } else if flags.contains(PollFlags::IN) {
                connection.read(&mut handle);
                connection.write();
            } else if flags.contains(PollFlags::OUT) {
                connection.write();
            }
        }
        server.connections.retain(|connection| !connection.closed);
        if ready.listener {
            server.accept();
        }
    }
}

struct Ready {
    stop: bool,
    listener: bool,
    connections: Vec<PollFlags>,
}

impl Server {
    fn wait(&self) -> io::Result<Ready> {
        let mut fds = vec![
            PollFd::from_borrowed_fd(self.stop.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
        ];
        fds.extend(self.connections.iter().map(|connection| {
            let want = if connection.out.is_empty() { PollFlags::IN } else { PollFlags::OUT };
            PollFd::from_borrowed_fd(connection.stream.as_fd(), want | PollFlags::RDHUP)
        }));
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Ready {
            stop: !fds[0].revents().is_empty(),
            listener: !fds[1].revents().is_empty(),
            connections: fds[2..].iter().map(PollFd::revents).collect(),
        })
    }
}
