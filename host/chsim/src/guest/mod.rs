//! The guest. Two engines can play it:
//!
//! * `model` (this folder): an HTTP service with a capacity model instead of a kernel. One thread per running VM, asleep
//!   unless something happens: it owns the service's sockets, the TCP/IP stack behind a tap, the serial port's output,
//!   and the queue of modelled events (boot, faults, hot-unplug). Commands come in by a channel, news go out to the VMM's
//!   thread.
//! * [`qemu`]: a real machine under `qemu-system-x86_64`.

mod bridge;
mod capacity;
mod card;
mod engine;
mod handle;
mod metrics;
mod net;
mod network;
pub(crate) mod qemu;
mod service;
mod stack;
mod timers;

use std::path::PathBuf;

pub(crate) use card::{HEADER_BYTES, NetCard};
pub(crate) use handle::{Command, Guest, Misdeed, News, Spec};

/// Which engine plays the guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum EngineChoice {
    #[default]
    Model,
    Qemu(qemu::Settings),
}

impl EngineChoice {
    /// Reads `model` or `qemu`; empty is the default.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "" | "model" => Ok(Self::Model),
            "qemu" => Ok(Self::Qemu(qemu::Settings {
                program: PathBuf::from("qemu-system-x86_64"),
                accelerator: qemu::Accelerator::default(),
            })),
            _ => Err(format!("unknown guest engine {name:?}: expected `model` or `qemu`")),
        }
    }
}
