//! What the instances of all sets take of the host, and whether there is room for more.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use regatta_core::admission::{Demand, HostRoom, Shortage, room_for};

/// Files that the daemon has open for an instance: pidfd, API connection, event file, probe, scrape, and connections of the load balancer.
pub(crate) const OPEN_FILES_PER_INSTANCE: u64 = 8;
/// Files for everything else that the daemon does.
const OPEN_FILES_RESERVE: u64 = 256;

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
}

/// Sums up what instances take.
#[derive(Debug)]
pub(crate) struct HostLedger {
    /// What there is; disk space is looked at anew.
    host: HostRoom,
    disk_reserve_bytes: Option<u64>,
    disks_in: PathBuf,
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    sum: Demand,
    by_instance: BTreeMap<(String, u32), Demand>,
}

impl HostLedger {
    /// Looks at the host. `disks_in` is where instances' disks are made.
    pub(crate) fn new(limits: HostLimits, disks_in: &Path) -> Self {
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as f64;
        // What cannot be read does not limit.
        let memory = memory_total_bytes().unwrap_or(u64::MAX) as f64;
        let host = HostRoom {
            memory_bytes: ((memory * limits.memory_overcommit) as u64)
                .saturating_sub(limits.memory_reserve_bytes),
            vcpus: (cpus * limits.cpu_overcommit) as u64,
            disk_bytes: 0,
            open_files: open_files_limit().saturating_sub(OPEN_FILES_RESERVE),
        };
        Self {
            host,
            disk_reserve_bytes: limits.disk_reserve_bytes,
            disks_in: disks_in.to_owned(),
            taken: Mutex::default(),
        }
    }

    /// How many more instances there is room for, up to `wanted`, and why no more.
    pub(crate) fn room(&self, demand: Demand, wanted: u32) -> (u32, Option<Shortage>) {
        let host = self.now();
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        room_for(&host, taken.sum, demand, wanted)
    }

    /// Takes what an instance needs, if there is room: sets that tick at the same time share the host.
    pub(crate) fn take(&self, set: &str, instance: u32, demand: Demand) -> Result<(), Shortage> {
        let host = self.now();
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let (_, Some(shortage)) = room_for(&host, taken.sum, demand, 1) {
            return Err(shortage);
        }
        taken.put(set, instance, demand);
        Ok(())
    }

    /// Counts an instance that is there, whatever room there is.
    pub(crate) fn claim(&self, set: &str, instance: u32, demand: Demand) {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).put(set, instance, demand);
    }

    /// Gives back what an instance took.
    pub(crate) fn release(&self, set: &str, instance: u32) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(demand) = taken.by_instance.remove(&(set.to_owned(), instance)) {
            taken.sum = taken.sum.less(demand);
        }
    }

    fn now(&self) -> HostRoom {
        HostRoom { disk_bytes: self.disk_left().unwrap_or(u64::MAX), ..self.host }
    }

    /// Free space beside the reserve.
    fn disk_left(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(&self.disks_in).ok()?;
        let reserve = self.disk_reserve_bytes.unwrap_or_else(|| {
            let size = stat.f_blocks.saturating_mul(stat.f_frsize);
            (size / 20).min(1 << 30)
        });
        Some(stat.f_bavail.saturating_mul(stat.f_frsize).saturating_sub(reserve))
    }
}

impl Taken {
    fn put(&mut self, set: &str, instance: u32, demand: Demand) {
        if let Some(before) = self.by_instance.insert((set.to_owned(), instance), demand) {
            self.sum = self.sum.less(before);
        }
        self.sum = self.sum.plus(demand);
    }
}

fn memory_total_bytes() -> Option<u64> {
    parse_memory_total(&fs::read_to_string("/proc/meminfo").ok()?)
}

fn parse_memory_total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

fn open_files_limit() -> u64 {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use regatta_core::admission::Resource;

    use super::*;

    const LIMITS: HostLimits = HostLimits {
        memory_overcommit: 1.0,
        memory_reserve_bytes: 0,
        cpu_overcommit: 1.0,
        disk_reserve_bytes: None,
    };

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:       24617032 kB\nMemFree:        22000000 kB\n";
        assert_eq!(parse_memory_total(text), Some(24_617_032 << 10));
        assert_eq!(parse_memory_total("MemFree: 1 kB\n"), None);
        assert!(memory_total_bytes().is_some_and(|bytes| bytes > 64 << 20));
    }

    #[test]
    fn what_is_taken_is_not_given_again_until_it_is_back() {
        let ledger = HostLedger::new(LIMITS, Path::new("/"));
        let half = Demand { memory_bytes: ledger.host.memory_bytes / 2, ..Demand::default() };
        ledger.take("web", 1, half).expect("room for one");
        ledger.take("web", 2, half).expect("room for another");
        let shortage = ledger.take("api", 1, half).expect_err("two halves are all");
        assert_eq!(shortage.resource, Resource::Memory);
        assert_eq!(ledger.room(half, 3).0, 0);
        ledger.release("web", 1);
        assert_eq!(ledger.room(half, 3).0, 1);
        ledger.claim("web", 2, Demand::default());
        assert_eq!(ledger.room(half, 3).0, 2, "claimed again, it is counted once");
    }

    #[test]
    fn a_reserve_larger_than_the_disk_leaves_nothing() {
        let ledger =
            HostLedger::new(HostLimits { disk_reserve_bytes: Some(u64::MAX), ..LIMITS }, Path::new("/"));
        let shortage =
            ledger.take("web", 1, Demand { disk_bytes: 1, ..Demand::default() }).expect_err("full");
        assert_eq!((shortage.resource, shortage.left), (Resource::Disk, 0));
    }
}
