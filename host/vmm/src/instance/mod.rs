//! Instances: their directories, launching, the running VMM, stopping.

mod attempt;
mod boot;
mod check;
mod dir;
pub(crate) mod disks;
mod error;
mod failed;
mod launch;
mod notes;
mod prepare;
mod remains;
mod spec;
mod stop;
mod uses;
mod vmm;

pub(crate) use check::body;
pub use dir::{DirError, InstanceDir};
pub use disks::DiskError;
pub use error::{DiscardError, LaunchError};
pub use failed::{FailedLogs, KeptLogs, read_tail};
pub use launch::{StartLimiter, VmmHost};
pub(crate) use prepare::{blocking, planned_root, root_size_bytes};
pub use spec::{
    BootSource, BridgedNetwork, DataDisk, IsolatedNetwork, LaunchSpec, NetworkSpec, RootDisk, Seed,
    SharedDisk, Smbios, StartFrom,
};
pub use stop::{StopError, StopHow, Stopped};
pub use uses::ImagesInUse;
pub use vmm::Vmm;
