//! A cgroup per VMM, where the host lets us: exact CPU time of the VMM with all its helpers, and one place to set limits later.
//!
//! Only the unified hierarchy (v2) is used. No controller is enabled, because a cgroup that still holds the daemon itself must not
//! do so; `cpu.stat` works without any.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The name of the cgroup that holds those of all VMMs, beside the daemon's own processes.
const PARENT: &str = "regatta-vmms";
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// The cgroup under which every VMM gets its own.
#[derive(Clone, Debug)]
pub struct CgroupRoot {
    dir: PathBuf,
}

impl CgroupRoot {
    /// Finds the place below our own cgroup where VMM cgroups go, and makes it.
    ///
    /// # Errors
    /// In words for people, why VMMs go without a cgroup: a v1 or hybrid hierarchy, a read-only mount, no permission.
    pub fn detect() -> Result<Self, String> {
        Self::detect_at(Path::new("/sys/fs/cgroup"), "/proc/self/cgroup")
    }

    fn detect_at(mount: &Path, self_cgroup: &str) -> Result<Self, String> {
        let kind = rustix::fs::statfs(mount)
            .map_err(|error| format!("{} cannot be read: {error}", mount.display()))?;
        if kind.f_type as i64 != CGROUP2_MAGIC {
            return Err(format!("{} is not a cgroup v2 hierarchy (v1 or hybrid)", mount.display()));
        }
        let text = fs::read_to_string(self_cgroup).map_err(|error| format!("{self_cgroup}: {error}"))?;
        let own = own_v2_path(&text).ok_or_else(|| format!("{self_cgroup} names no v2 cgroup"))?;
        Self::at(&mount.join(own.trim_start_matches('/')))
    }

    /// Uses the given cgroup directory as the parent.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub fn at(parent: &Path) -> Result<Self, String> {
        let dir = parent.join(PARENT);
        match fs::create_dir(&dir) {
            Ok(()) => Ok(Self { dir }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(Self { dir }),
            Err(error) => Err(format!("{} cannot be made: {error}", dir.display())),
        }
    }

    /// Makes the cgroup `name` and moves process `pid` into it.
    ///
    /// # Errors
    /// The directory cannot be made or the process cannot be moved; nothing is left then.
    pub(crate) fn adopt(&self, name: &str, pid: Pid) -> io::Result<Cgroup> {
        let cgroup = Cgroup { dir: self.dir.join(name) };
        match fs::create_dir(&cgroup.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        if let Err(error) = fs::write(cgroup.dir.join("cgroup.procs"), pid.as_raw_nonzero().to_string()) {
            cgroup.remove();
            return Err(error);
        }
        Ok(cgroup)
    }

    /// Removes the cgroup `name` if it is there, with whatever still runs in it.
    pub(crate) fn forget(&self, name: &str) {
        let cgroup = Cgroup { dir: self.dir.join(name) };
        if cgroup.dir.exists() {
            cgroup.remove();
        }
    }

    /// The cgroup `name` if the process is in it, as it is for one that an earlier daemon started.
    pub(crate) fn find(&self, name: &str, pid: Pid) -> Option<Cgroup> {
        let cgroup = Cgroup { dir: self.dir.join(name) };
        let members = fs::read_to_string(cgroup.dir.join("cgroup.procs")).ok()?;
        let pid = pid.as_raw_nonzero().to_string();
        members.lines().any(|line| line == pid).then_some(cgroup)
    }
}

/// The cgroup of one VMM.
#[derive(Clone, Debug)]
pub(crate) struct Cgroup {
    dir: PathBuf,
}

impl Cgroup {
    /// CPU time used by every process that ever was in it, in nanoseconds.
    pub(crate) fn cpu_time_ns(&self) -> Option<u64> {
        parse_cpu_stat(&fs::read_to_string(self.dir.join("cpu.stat")).ok()?)
    }

    /// Kills what is left in it and removes it. A cgroup that cannot be removed is harmless and only mentioned.
    pub(crate) fn remove(&self) {
        let _ = fs::write(self.dir.join("cgroup.kill"), "1");
        if let Err(error) = fs::remove_dir(&self.dir) {
            tracing::debug!(cgroup = %self.dir.display(), %error, "cgroup stays behind");
        }
    }
}

fn own_v2_path(proc_self_cgroup: &str) -> Option<&str> {
    let path = proc_self_cgroup.lines().find_map(|line| line.strip_prefix("0::"))?;
    // A daemon restarted by a VMM's own shell must not nest its cgroups ever deeper.
    Some(path.split(&format!("/{PARENT}")[..]).next().unwrap_or(path))
}

fn parse_cpu_stat(text: &str) -> Option<u64> {
    let usec: u64 = text.lines().find_map(|line| line.strip_prefix("usage_usec "))?.trim().parse().ok()?;
    usec.checked_mul(1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_the_kernel_are_parsed() {
        assert_eq!(parse_cpu_stat("usage_usec 1234\nuser_usec 1000\n"), Some(1_234_000));
        assert_eq!(parse_cpu_stat("user_usec 1000\n"), None);
        assert_eq!(
            own_v2_path("4:memory:/x\n0::/system.slice/regatta.service\n"),
            Some("/system.slice/regatta.service")
        );
        assert_eq!(own_v2_path("0::/a/regatta-vmms/web.0\n"), Some("/a"));
        assert_eq!(own_v2_path("4:memory:/x\n"), None);
    }

    #[test]
    fn a_hierarchy_that_is_not_v2_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().expect("temp dir");
        let why = CgroupRoot::detect_at(dir.path(), "/proc/self/cgroup").expect_err("no cgroup file system");
        assert!(why.contains("not a cgroup v2"), "{why}");
    }
}
