//! VMM processes: starting one that outlives us, knowing it again, knowing that it died, and what it uses.

mod cgroup;
pub(crate) mod procfs;
mod watch;

pub(crate) use cgroup::CgroupLimits;
pub use cgroup::CgroupRoot;
pub(crate) use watch::{Among, Place, Spawned, VmmProcess, open_files, spawn};
pub use watch::{SpawnError, VmmExit, VmmIdentity};
