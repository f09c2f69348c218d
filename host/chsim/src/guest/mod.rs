//! The guest engine `model`: an HTTP service with a capacity model instead of a kernel.
//!
//! One thread per running VM, asleep unless something happens: it owns the service's sockets, the serial port's
//! output, and the queue of modelled events (boot, faults, hot-unplug). Commands come in by a channel, news go out to
//! the VMM's thread.

mod capacity;
mod engine;
mod handle;
mod http;
mod metrics;
mod net;
mod service;
mod timers;

pub(crate) use handle::{Command, Guest, Misdeed, Spec};
