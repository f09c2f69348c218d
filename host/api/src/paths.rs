//! Where a daemon is found on its host.

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
