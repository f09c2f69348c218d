//! Where things lie on the host.

use std::path::{Path, PathBuf};

/// The data directory when none is named: `/var/lib/regatta` for root, else
/// `regatta` under the XDG state directory.
#[must_use]
pub fn default_data_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/regatta");
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .unwrap_or_else(|| PathBuf::from("/var/tmp"))
        .join("regatta")
}

/// The daemon's socket in a data directory.
#[must_use]
pub fn socket_in(data: &Path) -> PathBuf {
    data.join("api.sock")
}

/// What lies where in the data directory.
#[derive(Debug, Clone)]
pub struct DataDirs {
    /// The directory itself.
    pub root: PathBuf,
    /// Golden images, kernels and firmware, by digest.
    pub images: PathBuf,
    /// One directory per set and instance.
    pub instances: PathBuf,
    /// Snapshots that instances go on from, by set.
    pub snapshots: PathBuf,
    /// Logs of launches that failed.
    pub failed: PathBuf,
    /// Compiled policies; may be removed at any time.
    pub compiled: PathBuf,
}

impl DataDirs {
    /// The layout under `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            images: root.join("images"),
            instances: root.join("instances"),
            snapshots: root.join("snapshots"),
            failed: root.join("failed"),
            compiled: root.join("compiled"),
        }
    }
}
