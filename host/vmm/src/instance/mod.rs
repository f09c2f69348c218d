//! Instances: their directories, launching, the running VMM, stopping.

mod boot;
mod dir;
mod failed;
mod launch;
mod spec;
mod stop;
mod vmm;

pub use dir::{DirError, InstanceDir};
pub use failed::FailedLogs;
pub use launch::{LaunchError, StartLimiter, VmmHost};
pub use spec::{BootSource, LaunchSpec, RootDisk, SharedDisk, TapSpec};
pub use stop::{StopError, StopHow, Stopped};
pub use vmm::Vmm;
