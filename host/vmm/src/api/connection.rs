//! A connection to a VMM: to the process that it is, whatever its socket's name leads to.
//!
//! The VMM's user can rename its socket and put a link to a neighbor's in its place. So the socket itself is opened, never a link, and
//! the kernel says who listens on it.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;
use tokio::net::UnixStream;
use tokio::task::AbortHandle;

use crate::guarded::GuardedDir;

/// Who holds a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Listener {
    /// No one, or there is no socket of this name.
    Nobody,
    /// The process that called `listen`, as the kernel noted it.
    Process(Pid),
    /// Someone, with no room for another connection: who, cannot be told.
    Busy,
}

/// Asks the kernel who listens on a socket, without waiting and without asking the process itself.
pub(crate) fn listener(socket: &Path) -> io::Result<Listener> {
    match open(socket) {
        Ok((_, pid)) => Ok(Listener::Process(pid)),
        // A link, or a file that is no socket.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Listener::Nobody),
        Err(error) => match error.raw_os_error() {
            Some(libc::EAGAIN) => Ok(Listener::Busy),
            Some(libc::ENOENT | libc::ECONNREFUSED | libc::ENOTDIR | libc::ELOOP) => Ok(Listener::Nobody),
            _ => Err(error),
        },
    }
}

/// Connects to a socket, and says which process listens on it. Never waits.
fn open(socket: &Path) -> io::Result<(OwnedFd, Pid)> {
    let missing = || io::Error::from_raw_os_error(libc::ENOENT);
    let name = socket.file_name().and_then(std::ffi::OsStr::to_str).ok_or_else(missing)?;
    let itself = GuardedDir::open(socket.parent().ok_or_else(missing)?)?.socket(name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", itself.as_raw_fd()))?;
    rustix::net::connect(&connection, &address)?;
    let pid = sockopt::socket_peercred(&connection)?.pid;
    Ok((connection, pid))
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Another process listens.
    #[error("process {found} listens on its socket, not the VMM (process {expected})")]
    Stranger { expected: i32, found: i32 },
    /// Nobody does, or something went wrong.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// What was said is not HTTP.
    #[error(transparent)]
    Http(#[from] hyper::Error),
}

/// One connection. Closed when dropped, also in the middle of a call.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) sender: SendRequest<String>,
    driver: AbortHandle,
}

impl Connection {
    /// Connects to `socket`, on which the process `expected` must listen.
    ///
    /// # Errors
    /// Another process does, or nobody.
    pub(super) async fn open(socket: &Path, expected: i32) -> Result<Self, ConnectError> {
        let (connection, found) = open(socket)?;
        let found = found.as_raw_nonzero().get();
        if found != expected {
            return Err(ConnectError::Stranger { expected, found });
        }
        let stream = UnixStream::from_std(connection.into())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let driver = tokio::spawn(async move { drop(connection.await) }).abort_handle();
        Ok(Self { sender, driver })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_names_the_listener_of_the_socket_itself() {
        let dir = tempfile::tempdir().expect("temp dir");
        let socket = dir.path().join("s");
        assert_eq!(listener(&socket).expect("asked"), Listener::Nobody);
        let bound = std::os::unix::net::UnixListener::bind(&socket).expect("bind");
        assert_eq!(listener(&socket).expect("asked"), Listener::Process(rustix::process::getpid()));
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&socket, &link).expect("link");
        assert_eq!(listener(&link).expect("asked"), Listener::Nobody, "a link is nobody's socket");
        std::fs::write(dir.path().join("file"), "").expect("written");
        assert_eq!(listener(&dir.path().join("file")).expect("asked"), Listener::Nobody);
        drop(bound);
        assert_eq!(listener(&socket).expect("asked"), Listener::Nobody);
    }
}
