//! Where a program lies.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A service's PATH may be as short as it likes, and a user's often lacks the `sbin`s.
const SYSTEM: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";

/// The program of this name on PATH.
#[must_use]
pub fn on_path(name: &str) -> Option<PathBuf> {
    find(&env::var_os("PATH").unwrap_or_default(), name)
}

/// The program of this name on PATH or, failing that, in one of the system's directories.
#[must_use]
pub fn installed(name: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| find(SYSTEM.as_ref(), name))
}

/// The program of this name in one of the directories of `path`, which is written as PATH is. Relative directories are
/// passed over: what they mean depends on where we were started.
#[must_use]
pub fn find(path: &OsStr, name: &str) -> Option<PathBuf> {
    let absolute = env::split_paths(path).filter(|directory| directory.is_absolute());
    absolute.map(|directory| directory.join(name)).find(|program| is_program(program))
}

/// Whether this is a file that somebody may execute.
#[must_use]
pub fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|data| data.is_file() && data.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_can_be_executed_in_an_absolute_directory_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        for (folder, mode) in [(&first, 0o644), (&second, 0o755)] {
            fs::create_dir(folder).expect("made");
            fs::write(folder.join("tool"), "").expect("written");
            fs::set_permissions(folder.join("tool"), fs::Permissions::from_mode(mode)).expect("set");
        }
        let path = env::join_paths([&first, &second]).expect("a path");
        assert_eq!(find(&path, "tool"), Some(second.join("tool")));
        assert_eq!(find(&path, "other"), None);
        assert_eq!(find("bin:.:".as_ref(), "sh"), None);
        assert!(installed("sh").is_some());
    }
}
