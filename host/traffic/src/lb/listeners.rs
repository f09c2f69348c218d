//! What the load balancers of a daemon share.
//!
//! Room for connections: what they may hold together, so that descriptors are left for everything else.
//!
//! Listening sockets that outlive the daemon: the service manager keeps a copy of each (systemd's file descriptor store)
//! and hands them to the next daemon, or the next daemon asks this one for them. Meanwhile clients wait in the kernel's queue;
//! none is refused.

use std::collections::BTreeMap;
use std::env;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::sys::inherited_fds;

/// The listening sockets of the daemon before, those that the next one may have, and the room for connections.
#[derive(Debug)]
pub struct Listeners {
    connections_max: u32,
    room: Arc<Semaphore>,
    inherited: Mutex<Vec<TcpListener>>,
    /// Another descriptor of each that is in use, for the next daemon.
    kept: Mutex<BTreeMap<SocketAddr, OwnedFd>>,
    /// Where the service manager hears us.
    manager: Option<SocketAddrUnix>,
}

impl Default for Listeners {
    /// Nobody keeps sockets, and there is room for any number of connections.
    fn default() -> Self {
        Self {
            connections_max: u32::MAX,
            room: room(u32::MAX),
            inherited: Mutex::default(),
            kept: Mutex::default(),
            manager: None,
        }
    }
}

fn room(connections_max: u32) -> Arc<Semaphore> {
    let permits = usize::try_from(connections_max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
    Arc::new(Semaphore::new(permits))
}

impl Listeners {
    /// What the environment says: `LISTEN_FDS` and `NOTIFY_SOCKET`. To be called once, when the process starts.
    /// `connections_max` is how many connections all load balancers together may hold.
    #[must_use]
    pub fn from_environment(connections_max: u32) -> Self {
        let manager = env::var_os("NOTIFY_SOCKET").and_then(|path| match path.as_bytes() {
            [b'@', name @ ..] => SocketAddrUnix::new_abstract_name(name).ok(),
            path => SocketAddrUnix::new(path).ok(),
        });
        let listeners = Self { connections_max, room: room(connections_max), manager, ..Self::default() };
        listeners.inherit(inherited_fds());
        listeners
    }

    /// Takes what another process has handed over.
    pub fn inherit(&self, sockets: Vec<OwnedFd>) {
        // Anything but a listening socket with an address has another purpose.
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

    /// How many connections all load balancers together may hold.
    #[must_use]
    pub fn connections_max(&self) -> u32 {
        self.connections_max
    }

    /// Whether they hold as many.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room.available_permits() == 0
    }

    /// Waits for room for one more connection. None never comes: the room is not closed.
    pub(super) async fn room(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.room).acquire_owned().await.ok()
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
