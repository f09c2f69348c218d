//! The way to a VMM: to the process that it is, whatever its socket's name leads to.
//!
//! The VMM's user can rename its socket and put a link to a neighbor's in its place. So the socket itself is opened, never a link, the
//! kernel says who listens on it, and it is held: later connections lead to this very socket, too.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;

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

/// Opens a socket itself, and says which process listens on it. Never waits.
fn open(socket: &Path) -> io::Result<(OwnedFd, Pid)> {
    let missing = || io::Error::from_raw_os_error(libc::ENOENT);
    let name = socket.file_name().and_then(std::ffi::OsStr::to_str).ok_or_else(missing)?;
    let itself = GuardedDir::open(socket.parent().ok_or_else(missing)?)?.socket(name)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let connection = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    let address = SocketAddrUnix::new(path_of(&itself))?;
    rustix::net::connect(&connection, &address)?;
    // Of the process that called `listen` on this socket: it is the same for every connection to it.
    let pid = sockopt::socket_peercred(&connection)?.pid;
    Ok((itself, pid))
}

/// Why there is no way to a VMM.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    /// Another process listens.
    #[error("process {found} listens on its socket, not the VMM (process {expected})")]
    Stranger { expected: i32, found: i32 },
    /// Nobody does, or something went wrong.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The HTTP library cannot be set up.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
}

/// A VMM's socket, held open by itself.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) http: reqwest::Client,
    // Its number is in the path that `http` connects to.
    _socket: OwnedFd,
}

impl Held {
    /// Holds `socket`, on which the process `expected` must listen.
    ///
    /// # Errors
    /// Another process does, or nobody.
    pub(super) fn open(socket: &Path, expected: i32) -> Result<Self, ConnectError> {
        let (socket, found) = open(socket)?;
        let found = found.as_raw_nonzero().get();
        if found != expected {
            return Err(ConnectError::Stranger { expected, found });
        }
        let http = reqwest::Client::builder()
            .unix_socket(path_of(&socket))
            .http1_only()
            .pool_max_idle_per_host(1)
            .pool_idle_timeout(None)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self { http, _socket: socket })
    }
}

/// Leads to a file that is open, not to what its name is now.
fn path_of(file: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", file.as_raw_fd())
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
