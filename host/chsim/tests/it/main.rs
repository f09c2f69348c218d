//! Integration tests: the stand-in as a process, and its conformance to the recorded `cloud-hypervisor`.

#![expect(clippy::unwrap_used, reason = "a helper of tests fails like a test")]

mod client;
mod guest;
mod host;
mod process;
mod qemu;
mod replay;
mod space;
mod support;
mod tap;
mod transport;
