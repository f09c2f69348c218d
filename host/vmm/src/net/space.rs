//! Network namespaces, and threads that work in them.
//!
//! A namespace belongs to a thread. Whoever changes it must not be a thread of a runtime's pool, which would serve others afterwards.

use std::fs::File;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::NetworkError;
use crate::sys;

/// A network namespace. It lives as long as this, or a process, or a socket in it.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(Arc<File>);

impl Namespace {
    /// That of the calling thread.
    ///
    /// # Errors
    /// `/proc` is not there.
    pub(crate) fn current() -> io::Result<Self> {
        File::open("/proc/thread-self/ns/net").map(|file| Self(Arc::new(file)))
    }

    /// A new, empty one, into which the calling thread moves.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub(crate) fn enter_new() -> io::Result<Self> {
        sys::unshare_network()?;
        Self::current()
    }

    /// Moves the calling thread into it. Without effect, and without a need for permission, when it is there already.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub(crate) fn enter(&self) -> io::Result<()> {
        let id = |file: &File| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
        if id(&self.0)? == id(&Self::current()?.0)? {
            return Ok(());
        }
        Ok(move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network))?)
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Runs `work` in a thread of its own that is in this namespace, and waits for it. Processes that it starts are in the namespace too.
    ///
    /// # Errors
    /// There is no thread, or the namespace cannot be entered; `work` was not run then.
    pub(crate) fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("regatta-net".to_owned());
            let thread = thread.spawn_scoped(scope, || {
                self.enter()?;
                Ok(work())
            })?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Like [`Namespace::run`], for asynchronous work, which gets a small runtime of its own: netlink sockets and children stay in the
    /// namespace in which they were made.
    pub(super) fn run_async<T, F>(&self, work: impl FnOnce() -> F + Send) -> Result<T, NetworkError>
    where
        T: Send,
        F: Future<Output = Result<T, NetworkError>>,
    {
        let done = self.run(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            Ok::<_, io::Error>(runtime.block_on(work()))
        });
        done.and_then(|done| done)
            .map_err(|source| NetworkError::from_io("work in a network namespace", source))?
    }
}
