//! A cgroup per VMM, where the host lets us: exact CPU time of the VMM with all its helpers, and limits.
//!
//! Only the unified hierarchy (v2) is used. Limits need controllers, and a cgroup that holds processes itself cannot pass any on
//! (unless it is the root). So the daemon must be in a leaf of what was delegated to it; `cpu.stat` works in any case.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

/// The name of the cgroup that holds those of all VMMs, beside the daemon's own processes.
const PARENT: &str = "regatta-vmms";
const CGROUP2_MAGIC: i64 = 0x6367_7270;

/// What limits need.
const CONTROLLERS: [&str; 3] = ["cpu", "memory", "pids"];
/// Threads of one VMM: a few per virtual processor and device, so this only stops a fork bomb.
const PIDS_LIMIT: u32 = 1024;
/// What a VMM needs beside its guest's memory: at least this, …
const OVERHEAD_BYTES: u64 = 64 << 20;
/// … or this part of it, mostly for page tables.
const OVERHEAD_PER_MILLE: u64 = 50;
/// The kernel's default share of CPU time, here for each virtual processor.
const CPU_WEIGHT: u32 = 100;
const CPU_WEIGHT_LIMIT: u32 = 10_000;

/// The cgroup under which every VMM gets its own.
#[derive(Clone, Debug)]
pub struct CgroupRoot {
    dir: PathBuf,
    limits: Result<(), String>,
}

/// What a VMM may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct CgroupLimits {
    memory_bytes: u64,
    cpu_weight: u32,
}

impl CgroupLimits {
    /// For a guest of this size.
    pub(crate) fn of(guest_memory_bytes: u64, vcpus: u32) -> Self {
        let overhead = OVERHEAD_BYTES.max(guest_memory_bytes / 1000 * OVERHEAD_PER_MILLE);
        Self {
            memory_bytes: guest_memory_bytes.saturating_add(overhead),
            cpu_weight: CPU_WEIGHT.saturating_mul(vcpus).clamp(1, CPU_WEIGHT_LIMIT),
        }
    }
}

impl CgroupRoot {
    /// Finds the place below our own cgroup where VMM cgroups go, and makes it.
    ///
    /// # Errors
    /// In words for people, why VMMs go without a cgroup: a v1 or hybrid hierarchy, a read-only mount, no permission.
    pub fn detect() -> Result<Self, String> {
        Self::detect_at(Path::new("/sys/fs/cgroup"), "/proc/self/cgroup")
    }

    /// What [`CgroupRoot::detect`] would find, without making anything: limits are told from the controllers that are there.
    pub(crate) fn look() -> Result<Self, String> {
        let base = Self::base(Path::new("/sys/fs/cgroup"), "/proc/self/cgroup")?;
        let limits = missing_controller(&base).and_then(|_| can_pass_on(&base));
        Ok(Self { dir: base.join(PARENT), limits })
    }

    fn detect_at(mount: &Path, self_cgroup: &str) -> Result<Self, String> {
        Self::at(&Self::base(mount, self_cgroup)?)
    }

    /// The cgroup below which ours goes.
    fn base(mount: &Path, self_cgroup: &str) -> Result<PathBuf, String> {
        let kind = rustix::fs::statfs(mount)
            .map_err(|error| format!("{} cannot be read: {error}", mount.display()))?;
        if kind.f_type as i64 != CGROUP2_MAGIC {
            return Err(format!(
                "{} is not a cgroup v2 hierarchy (v1 or hybrid): boot with systemd.unified_cgroup_hierarchy=1",
                mount.display()
            ));
        }
        let text = fs::read_to_string(self_cgroup).map_err(|error| format!("{self_cgroup}: {error}"))?;
        let own = own_v2_path(&text).ok_or_else(|| format!("{self_cgroup} names no v2 cgroup"))?;
        let own = mount.join(own.trim_start_matches('/'));
        match own.parent() {
            // systemd put us into a leaf (DelegateSubgroup=), so that there is room for others beside us.
            Some(parent) if is_delegated(parent) => Ok(parent.to_path_buf()),
            _ => Ok(own),
        }
    }

    /// Uses the given cgroup directory as the parent.
    ///
    /// # Errors
    /// In words, why it cannot be used.
    pub fn at(parent: &Path) -> Result<Self, String> {
        let dir = parent.join(PARENT);
        match fs::create_dir(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("{} cannot be made: {error}", dir.display()));
            }
            _ => {}
        }
        let limits = pass_on(parent).and_then(|()| pass_on(&dir));
        Ok(Self { dir, limits })
    }

    /// Whether VMMs get limits here, not only a count of their CPU time.
    ///
    /// # Errors
    /// In words for people, why not and what to do.
    pub fn limits(&self) -> Result<(), &str> {
        self.limits.as_ref().copied().map_err(String::as_str)
    }

    /// Makes the cgroup `name` with its limits, and moves process `pid` into it. With the cgroup comes whether the limits are in force.
    ///
    /// # Errors
    /// The directory cannot be made or the process cannot be moved; nothing is left then.
    pub(crate) fn adopt(
        &self,
        name: &str,
        pid: Pid,
        limits: CgroupLimits,
    ) -> io::Result<(Cgroup, Result<(), String>)> {
        let cgroup = Cgroup { dir: self.dir.join(name) };
        match fs::create_dir(&cgroup.dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        // Before the process comes, so that there is no moment without them.
        let limited = self.limits.clone().and_then(|()| cgroup.limit(limits));
        if let Err(error) = fs::write(cgroup.dir.join("cgroup.procs"), pid.as_raw_nonzero().to_string()) {
            cgroup.remove();
            return Err(error);
        }
        Ok((cgroup, limited))
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
    fn limit(&self, limits: CgroupLimits) -> Result<(), String> {
        for (file, value) in [
            ("memory.max", limits.memory_bytes.to_string()),
            // A VMM without one of its threads is worth nothing.
            ("memory.oom.group", "1".to_owned()),
            ("cpu.weight", limits.cpu_weight.to_string()),
            ("pids.max", PIDS_LIMIT.to_string()),
        ] {
            let path = self.dir.join(file);
            fs::write(&path, value).map_err(|error| format!("{} cannot be set: {error}", path.display()))?;
        }
        Ok(())
    }

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

/// Has a cgroup pass the controllers that limits need on to its children.
fn pass_on(dir: &Path) -> Result<(), String> {
    let wanted = missing_controller(dir)?;
    if wanted.is_empty() {
        return Ok(());
    }
    let control: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
    fs::write(dir.join("cgroup.subtree_control"), control.join(" "))
        .map_err(|error| holds_processes(dir, &error.to_string()))
}

/// The controllers that a cgroup could pass on, but does not yet.
fn missing_controller(dir: &Path) -> Result<Vec<&'static str>, String> {
    let words = |file: &str| {
        let path = dir.join(file);
        fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let has = |text: &str, controller: &str| text.split_whitespace().any(|word| word == controller);
    let (there, passed) = (words("cgroup.controllers")?, words("cgroup.subtree_control")?);
    let wanted: Vec<&str> = CONTROLLERS.into_iter().filter(|name| !has(&passed, name)).collect();
    match wanted.iter().find(|name| !has(&there, name)) {
        None => Ok(wanted),
        Some(missing) => Err(format!(
            "the cgroup {} has no {missing} controller: it is bound to a v1 hierarchy, or not delegated \
             (systemd: Delegate=yes)",
            dir.display()
        )),
    }
}

/// Whether a cgroup could pass on what it does not yet: it must hold no processes, unless it is the root (which has no type).
fn can_pass_on(dir: &Path) -> Result<(), String> {
    let held = fs::read_to_string(dir.join("cgroup.procs")).unwrap_or_default();
    let root = !dir.join("cgroup.type").exists();
    if root || held.trim().is_empty() || missing_controller(dir)?.is_empty() {
        return Ok(());
    }
    Err(holds_processes(dir, "device or resource busy"))
}

fn holds_processes(dir: &Path, error: &str) -> String {
    format!(
        "the cgroup {} holds processes itself and cannot pass on controllers ({error}): run the daemon as a service \
         with Delegate=yes and DelegateSubgroup=daemon (systemd 254 or later)",
        dir.display()
    )
}

/// Whether systemd has left this cgroup to its unit.
fn is_delegated(dir: &Path) -> bool {
    ["trusted.delegate", "user.delegate"].into_iter().any(|name| {
        let mut value = [0; 4];
        let read: Result<usize, _> = rustix::fs::getxattr(dir, name, &mut value);
        matches!(read, Ok(1) if value[0] == b'1')
    })
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

    /// A hierarchy of plain files, which take what the kernel's would.
    fn hand_made(controllers: &str) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("temp dir");
        for cgroup in [dir.path().to_path_buf(), dir.path().join(PARENT)] {
            fs::create_dir_all(&cgroup).expect("dir");
            fs::write(cgroup.join("cgroup.controllers"), controllers).expect("write");
            fs::write(cgroup.join("cgroup.subtree_control"), "memory\n").expect("write");
        }
        dir
    }

    #[test]
    fn limits_follow_the_size_of_the_guest() {
        let limits = CgroupLimits::of(128 << 20, 2);
        assert_eq!(limits, CgroupLimits { memory_bytes: (128 + 64) << 20, cpu_weight: 200 });
        let large = CgroupLimits::of(100_000_000_000, 1024);
        assert_eq!(large, CgroupLimits { memory_bytes: 105_000_000_000, cpu_weight: 10_000 });
    }

    #[test]
    fn a_vmm_gets_its_limits_where_controllers_are_passed_on() {
        let dir = hand_made("cpuset cpu io memory pids\n");
        let root = CgroupRoot::at(dir.path()).expect("usable");
        root.limits().expect("all controllers are there");
        for cgroup in [dir.path().to_path_buf(), dir.path().join(PARENT)] {
            let asked = fs::read_to_string(cgroup.join("cgroup.subtree_control")).expect("read");
            assert_eq!(asked, "+cpu +pids", "memory was passed on before");
        }
        let limits = CgroupLimits::of(128 << 20, 1);
        let (cgroup, limited) = root.adopt("web+1", rustix::process::getpid(), limits).expect("adopted");
        assert_eq!(limited, Ok(()));
        let value = |file: &str| fs::read_to_string(cgroup.dir.join(file)).expect("set");
        assert_eq!(value("memory.max"), (192u64 << 20).to_string());
        assert_eq!((value("cpu.weight"), value("pids.max")), ("100".to_owned(), "1024".to_owned()));
        assert_eq!(value("cgroup.procs"), std::process::id().to_string());
    }

    #[test]
    fn a_controller_that_is_not_there_is_named_and_the_vmm_still_counted() {
        let dir = hand_made("memory hugetlb\n");
        let root = CgroupRoot::at(dir.path()).expect("usable");
        let why = root.limits().expect_err("no cpu controller");
        assert!(why.contains("has no cpu controller") && why.contains("Delegate=yes"), "{why}");
        let limits = CgroupLimits::of(1 << 30, 1);
        let (cgroup, limited) = root.adopt("web+1", rustix::process::getpid(), limits).expect("adopted");
        assert_eq!(limited.expect_err("told again"), why);
        assert!(!cgroup.dir.join("memory.max").exists());
    }

    #[test]
    fn a_hierarchy_that_is_not_v2_is_refused_with_a_reason() {
        let dir = tempfile::tempdir().expect("temp dir");
        let why = CgroupRoot::detect_at(dir.path(), "/proc/self/cgroup").expect_err("no cgroup file system");
        assert!(why.contains("not a cgroup v2"), "{why}");
    }
}
