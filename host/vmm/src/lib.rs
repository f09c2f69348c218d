//! Cloud Hypervisor client, VMM processes, golden images and overlays.
//!
//! The only crate of the host that knows Cloud Hypervisor's JSON (its stand-in apart). The daemon sees neutral types:
//!
//! * [`VmmBinary`] — which VMM program to run, and why;
//! * [`ImageStore`] → [`GoldenImage`], [`StoredFile`] — what instances start from, kept by digest;
//! * [`VmmHost::launch`] — from a [`LaunchSpec`] to a booted [`Vmm`]; dropping the future cleans up;
//! * [`GoldenSnapshot`] — a booted guest, kept for others to go on from;
//! * [`HostNetwork`] — the networks of this host's instances;
//! * [`Vmm`] — one owned VMM: state, death, stop. Dropping it never ends the process;
//! * [`VmmHost::discover`] and [`VmmHost::adopt`] — finding running VMMs again after a restart of the daemon;
//! * [`Isolation`] and [`Containment`] — what keeps a VMM from the rest of the host, and what of it is in force;
//! * [`doctor`] — whether this host can do all that;
//! * [`EventTail`] — what a VMM reports by itself.
//!
//! Spans of level debug (`overlay`, `seed`, `network`, `spawn`, `boot`, `end`, `remove network`, `remove files`) tell a subscriber how long
//! each step of a launch and of a stop takes.
#![cfg_attr(
    test,
    allow(clippy::disallowed_methods, reason = "tests play the part of a VMM, and of earlier versions")
)]

mod adopt;
mod api;
mod containment;
#[allow(clippy::disallowed_methods, reason = "/proc and devices")]
pub mod doctor;
mod events;
mod guarded;
#[allow(clippy::disallowed_methods, reason = "/dev/kvm")]
mod host;
mod identity;
#[allow(
    clippy::disallowed_methods,
    reason = "only we can write in the image store; files that an operator names are checked in image::content"
)]
mod image;
mod instance;
mod net;
#[allow(
    clippy::disallowed_methods,
    reason = "disks are made before a VMM runs, in a directory that only we can use until then"
)]
mod overlay;
#[allow(clippy::disallowed_methods, reason = "/proc, /dev/null and cgroups")]
mod process;
mod seed;
mod snapshot;
mod sys;

pub use adopt::{AdoptError, Adopted, AdoptedState, Adoption, FoundVmm};
pub use api::response::VmState;
pub use api::{ApiError, ApiErrorKind};
pub use containment::{Containment, Isolation, IsolationOptions, Measure, MeasureState};
pub use events::{EventParser, EventTail, VmmEvent, VmmEventKind};
pub use host::{BinaryError, BinaryRequest, VmmBinary};
pub use image::{
    Digest, DigestError, FileContent, GoldenImage, ImageError, ImageFormat, ImageStore, KernelKind,
    StoredFile, UnusedFile, look_at, look_at_any, look_at_kernel, one_line,
};
pub use instance::{
    BootSource, BridgedNetwork, DataDisk, DirError, DiscardError, DiskError, FailedLogs, ImagesInUse,
    InstanceDir, IsolatedNetwork, KeptLogs, LaunchError, LaunchSpec, NetworkSpec, Outbound, RootDisk,
    SERIAL_LOG, Seed, SharedDisk, Smbios, StartFrom, StartLimiter, StopError, StopHow, Stopped, VMM_LOG, Vmm,
    VmmHost,
};
pub use net::{HostNetwork, NetworkError};
pub use overlay::{OverlayError, OverlayKind, reflink};
pub use process::{CgroupRoot, SpawnError, VmmExit, VmmIdentity};
pub use seed::SeedError;
pub use snapshot::{GoldenSnapshot, SnapshotError, SnapshotKey, SnapshotStore, Started};
