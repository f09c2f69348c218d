//! The machine under the VMM: files, sockets, locks, and the thread that plays the guest.

mod console;
mod disk;
mod events;
mod lock;
mod network;
mod platform;
mod real_guest;
mod snapshot;
mod sys;
mod tap;

pub(crate) use console::Sink;
pub(crate) use disk::Layer;
pub(crate) use events::EventMonitor;
pub(crate) use lock::{LockError, LockKind, Range, lock};
pub(crate) use platform::HostPlatform;
pub(crate) use sys::{adopt, spawn_companion};
pub(crate) use tap::{Tap, Taps};
