//! Where things lie on the host.

use std::path::{Path, PathBuf};

pub use regatta_api::paths::{default_data_dir, socket_in};

/// What lies where in the data directory.
#[derive(Debug, Clone)]
pub struct DataDirs {
    /// The directory itself.
    pub root: PathBuf,
    /// Golden images, kernels and firmware, by digest.
    pub images: PathBuf,
    /// One directory per set and instance.
    pub instances: PathBuf,
    /// Manifests that instances were made from, by digest.
    pub manifests: PathBuf,
    /// Snapshots that instances go on from, by set.
    pub snapshots: PathBuf,
    /// Logs of instances that failed or were replaced.
    pub failed: PathBuf,
    /// What was offered to policies that follow their file.
    pub followed: PathBuf,
    /// Imported recordings, by name.
    pub recordings: PathBuf,
    /// Copies of the state, made by the daemon.
    pub copies: PathBuf,
    /// Compiled policies; may be removed at any time.
    pub compiled: PathBuf,
    /// Socket on which the next daemon asks this one for its listening sockets.
    pub hot_restart: PathBuf,
}

impl DataDirs {
    /// The layout under `root`.
    #[must_use]
    pub fn under(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            images: root.join("images"),
            instances: root.join("instances"),
            manifests: root.join("manifests"),
            snapshots: root.join("snapshots"),
            failed: root.join("failed"),
            followed: root.join("followed.json"),
            recordings: root.join("recordings"),
            copies: root.join("copies"),
            compiled: root.join("compiled"),
            hot_restart: root.join("hot-restart.sock"),
        }
    }
}
