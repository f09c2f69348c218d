//! Instances: their directories, launching, the running VMM, stopping.

mod attempt;
mod boot;
mod check;
mod dir;
#[allow(
    clippy::disallowed_methods,
    reason = "disks are made before a VMM runs, in a directory that only we can use until then"
)]
pub(crate) mod disks;
mod error;
#[allow(clippy::disallowed_methods, reason = "only we can write in the directory of failures")]
mod failed;
mod launch;
mod notes;
mod prepare;
mod remains;
mod removal;
mod spec;
mod stop;
mod uses;
mod vmm;

pub(crate) use check::body;
pub(crate) use dir::LOGS;
pub use dir::{DirError, InstanceDir, SERIAL_LOG, VMM_LOG};
pub use disks::DiskError;
pub use error::{DiscardError, LaunchError};
pub use failed::{FailedLogs, KeptLogs};
pub use launch::{StartLimiter, VmmHost};
pub(crate) use notes::{CONTAINMENT, NETWORK, PROCESS};
pub(crate) use prepare::{blocking, planned_root, root_size_bytes};
pub use spec::{
    BootSource, BridgedNetwork, DataDisk, IsolatedNetwork, LaunchSpec, NetworkSpec, Outbound, RootDisk, Seed,
    SharedDisk, Smbios, StartFrom,
};
pub use stop::{StopError, StopHow, Stopped};
pub use uses::ImagesInUse;
pub use vmm::Vmm;
