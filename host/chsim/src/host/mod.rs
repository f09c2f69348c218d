//! The machine under the VMM: files, sockets, locks, and the thread that plays the guest.

mod console;
mod disk;
mod events;
mod lock;
mod platform;
mod snapshot;

pub(crate) use console::Sink;
pub(crate) use events::EventMonitor;
pub(crate) use lock::{LockError, LockKind, Range, adopt, lock};
pub(crate) use platform::HostPlatform;
