//! Where a daemon is found on its host.

use std::path::{Path, PathBuf};

use thiserror::Error;

/// A user without a home, and no data directory was named. Nothing is guessed: in a directory for all users, somebody else could
/// have made it first.
#[derive(Debug, Error)]
#[error("no data directory: HOME is not set; name one with --data or REGATTA_DATA")]
pub struct NoDataDir;

/// The data directory when none is named: `/var/lib/regatta` for root, else
/// `regatta` under the XDG state directory.
///
/// # Errors
/// The environment names neither that nor a home.
pub fn default_data_dir() -> Result<PathBuf, NoDataDir> {
    if rustix::process::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/regatta"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .map(|state| state.join("regatta"))
        .ok_or(NoDataDir)
}

/// The daemon's socket in a data directory.
#[must_use]
pub fn socket_in(data: &Path) -> PathBuf {
    data.join("api.sock")
}
