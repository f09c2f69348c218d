//! Listening sockets that outlive the daemon: the service manager keeps a copy of each (systemd's file descriptor store)
//! and hands them to the next daemon, or the next daemon asks this one for them. Meanwhile clients wait in the kernel's queue;
//! none is refused.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

use crate::sys::inherited_fds;

/// The listening sockets of the daemon before, and those that the next one may have.
#[derive(Debug, Default)]
pub struct Listeners {
    inherited: Mutex<Vec<TcpListener>>,
    /// Another descriptor of each that is in use, for the next daemon.
    kept: Mutex<BTreeMap<SocketAddr, OwnedFd>>,
    /// Where the service manager hears us.
    manager: Option<SocketAddrUnix>,
}

impl Listeners {
    /// What the environment says: `LISTEN_FDS` and `NOTIFY_SOCKET`. To be called once, when the process starts.
    #[must_use]
    pub fn from_environment() -> Self {
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok(),
            path => SocketAddrUnix::new(path).ok(),
        });
        let listeners = Self { manager, ..Self::default() };
        listeners.inherit(inherited_fds());
        listeners
    }

    /// Takes what another process has handed over.
    pub fn inherit(&self, sockets: Vec<OwnedFd>) {
        // What is no listening socket with an address has another purpose.
        let listening = |it: &TcpListener| it.local_addr().is_ok() && it.set_nonblocking(true).is_ok();
        let sockets = sockets.into_iter().map(TcpListener::from).filter(listening);
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner).extend(sockets);
    }

    /// Descriptors of the sockets that are in use, for the next daemon.
    ///
    /// # Errors
    /// There are no more descriptors.
    pub fn copies(&self) -> io::Result<Vec<OwnedFd>> {
        self.kept().values().map(OwnedFd::try_clone).collect()
    }

    /// There is no next daemon: the sockets close with their load balancers.
    pub fn let_go(&self) {
        self.kept().clear();
    }

    fn kept(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, OwnedFd>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The inherited socket that listens there.
    pub(super) fn take(&self, listen: SocketAddr) -> Option<TcpListener> {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        let at = inherited.iter().position(|it| it.local_addr().is_ok_and(|addr| addr == listen))?;
        Some(inherited.swap_remove(at))
    }

    /// Lets go of inherited sockets that nobody has asked for: what they were for is gone.
    pub fn close_unused(&self) {
        let unused = std::mem::take(&mut *self.inherited.lock().unwrap_or_else(PoisonError::into_inner));
        for listener in unused {
            if let Ok(addr) = listener.local_addr() {
                tracing::info!(%addr, "nothing listens here anymore");
                self.forget(addr);
            }
        }
    }

    /// Keeps the socket for the next daemon, here and with the service manager.
    pub(super) fn keep(&self, listener: BorrowedFd<'_>, addr: SocketAddr) {
        match listener.try_clone_to_owned() {
            Ok(copy) => drop(self.kept().insert(addr, copy)),
            Err(why) => tracing::warn!(%addr, %why, "this socket cannot be handed to another daemon"),
        }
        self.tell(&format!("FDSTORE=1\nFDNAME={}", name_of(addr)), &[listener]);
    }

    /// Closes the copy here: clients are refused once the socket itself is closed.
    pub(super) fn close(&self, addr: SocketAddr) {
        self.kept().remove(&addr);
    }

    /// Closes the copies, here and at the service manager: the address would stay taken.
    pub(super) fn forget(&self, addr: SocketAddr) {
        self.close(addr);
        self.tell(&format!("FDSTOREREMOVE=1\nFDNAME={}", name_of(addr)), &[]);
    }

    fn tell(&self, message: &str, fds: &[BorrowedFd<'_>]) {
        let Some(manager) = &self.manager else { return };
        let told = || -> io::Result<()> {
            let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
            let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            if !fds.is_empty() {
                control.push(SendAncillaryMessage::ScmRights(fds));
            }
            let text = [IoSlice::new(message.as_bytes())];
            sendmsg_addr(socket.as_fd(), manager, &text, &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        if let Err(why) = told() {
            tracing::warn!(%why, "the service manager cannot be told of a listening socket");
        }
    }
}

/// What the service manager calls the socket; a name may not have a colon.
fn name_of(addr: SocketAddr) -> String {
    addr.to_string().replace(':', "-")
}
