//! VMM processes: starting one that outlives us, knowing it again, knowing that it died, and what it uses.

mod cgroup;
pub(crate) mod procfs;
mod watch;

pub use cgroup::CgroupRoot;
pub use watch::{SpawnError, VmmExit, VmmIdentity};
pub(crate) use watch::{VmmProcess, spawn};
