//! `regatta-chsim`: a stand-in for the `cloud-hypervisor` binary (v53) that needs no KVM and no privilege.
//!
//! Same command line, same HTTP API over a Unix socket with the same error bodies, same event file, same files, sockets
//! locks and taps; its guest is an HTTP service with a capacity model, or a real machine under QEMU. Nothing that talks to
//! it can tell the difference by the API, so that a daemon tested with it needs no code that knows of it.
//!
//! ```text
//!   main thread   VMM loop: calls, guest news, signals, one at a time      vmm/  host/
//!   http-server   API socket: blocks on each call, as upstream's does      http/ api.rs
//!   guest         one per running VM: the service and its modelled time    guest/
//!   sim-control   only with --sim-control: clock, faults, misdeeds         sim.rs
//! ```
//! An idle process has no thread that wakes up by itself.
//!
//! What can be set, besides the command line: the guest's behaviour by `sim.*` on the kernel command line, and by the
//! environment `REGATTA_CHSIM_FAULTS` (faults of the VMM), `REGATTA_CHSIM_PROFILE` (`v52`, `v53`, `next`),
//! `REGATTA_CHSIM_CLOCK` (`auto`, `auto:<factor>`, `explicit`) and `REGATTA_CHSIM_CONTROL=1` (the control socket);
//! `REGATTA_CHSIM_TAPS` is `open`, or `record` to take note of taps without opening them;
//! `REGATTA_CHSIM_GUEST` chooses the guest engine (`model`, `qemu`), and `REGATTA_CHSIM_QEMU_ACCEL` (`tcg`, `kvm`) and
//! `REGATTA_CHSIM_QEMU` (the program) say how the second one runs.

mod api;
mod app;
mod cli;
mod clock;
mod config;
mod faults;
mod guest;
mod host;
mod http;
mod knobs;
mod log;
mod options;
mod random;
mod sim;
mod vmm;

use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the stand-in with these arguments (the first is the program's name) until it ends; returns its exit code.
///
/// The process's signal handling and file mode mask are changed; it is meant to be all that the process does.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    app::run(arguments)
}
