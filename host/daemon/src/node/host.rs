//! What there is of this host for instances.

use std::fs;
use std::path::{Path, PathBuf};

use regatta_core::admission::HostRoom;

/// How far the host may be filled.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HostLimits {
    /// Guest memory per byte of the host's.
    pub memory_overcommit: f64,
    /// Memory that is kept for the host itself, bytes.
    pub memory_reserve_bytes: u64,
    /// Virtual CPUs per CPU of the host.
    pub cpu_overcommit: f64,
    /// Disk space that is kept free, bytes; none for a twentieth of the file system, 1 GiB at most.
    pub disk_reserve_bytes: Option<u64>,
    /// Descriptors for instances.
    pub open_files: u64,
}

impl HostLimits {
    /// Looks at the host.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "ratios of sizes, saturating"
    )]
    #[expect(clippy::cast_precision_loss, reason = "a few bytes of many gigabytes")]
    pub(super) fn host(&self) -> HostRoom {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        // What cannot be read does not limit.
        let memory = memory_total_bytes().unwrap_or(u64::MAX) as f64;
        HostRoom {
            memory_bytes: ((memory * self.memory_overcommit) as u64)
                .saturating_sub(self.memory_reserve_bytes),
            vcpus: (cpus * self.cpu_overcommit) as u64,
            disk_bytes: 0,
            open_files: self.open_files,
        }
    }
}

/// The file system that instances' disks are on.
#[derive(Debug)]
pub(super) struct Disk {
    reserve_bytes: Option<u64>,
    path: PathBuf,
}

impl Disk {
    pub(super) fn new(reserve_bytes: Option<u64>, path: &Path) -> Self {
        Self { reserve_bytes, path: path.to_owned() }
    }

    /// Free space beside the reserve; without limit when it cannot be told.
    pub(super) fn left_bytes(&self) -> u64 {
        let Ok(stat) = rustix::fs::statvfs(&self.path) else { return u64::MAX };
        let reserve = self.reserve_bytes.unwrap_or_else(|| {
            let size = stat.f_blocks.saturating_mul(stat.f_frsize);
            (size / 20).min(1 << 30)
        });
        stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(reserve)
    }
}

#[expect(clippy::disallowed_methods, reason = "/proc")]
fn memory_total_bytes() -> Option<u64> {
    parse_memory_total(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24617032 kB\nMemFree:        22000000 kB\n";
        assert_eq!(parse_memory_total(text), Some(24_617_032 << 10));
        assert_eq!(parse_memory_total("MemFree: 1 kB\n"), None);
        assert!(memory_total_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn a_reserve_larger_than_the_disk_leaves_nothing() {
        assert_eq!(Disk::new(Some(u64::MAX), Path::new("/")).left_bytes(), 0);
        assert!(Disk::new(Some(0), Path::new("/")).left_bytes() > 0);
    }
}
