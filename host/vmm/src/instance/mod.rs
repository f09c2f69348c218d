//! Instances: their directories, launching, the running VMM, stopping.

mod attempt;
mod boot;
mod check;
mod dir;
pub(crate) mod disks;
mod error;
mod failed;
mod launch;
mod prepare;
mod remains;
mod spec;
mod stop;
mod uses;
mod vmm;

pub use dir::{DirError, InstanceDir};
pub use disks::DiskError;
pub(crate) use error::chain_text;
pub use error::{DiscardError, LaunchError};
pub use failed::FailedLogs;
pub use launch::{StartLimiter, VmmHost};
pub use spec::{
    BootSource, BridgedNetwork, DataDisk, IsolatedNetwork, LaunchSpec, NetworkSpec, RootDisk, Seed,
    SharedDisk, Smbios,
};
pub use stop::{StopError, StopHow, Stopped};
pub use uses::ImagesInUse;
pub use vmm::Vmm;
