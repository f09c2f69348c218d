//! Whether the host has room for another instance.
//!
//! A VMM accepts a VM of any size (memory is only promised), so the host does the sums before one is made.

use std::fmt;

use crate::manifest::units::format_size_bytes;

/// What instances may use of the host together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostRoom {
    /// Memory for guests, bytes: the host's, times the overcommit ratio, less the reserve.
    pub memory_bytes: u64,
    /// Virtual CPUs: the host's CPUs times the overcommit ratio.
    pub vcpus: u64,
    /// Free space where disks are kept, less the reserve, bytes; instances that exist have theirs already.
    pub disk_bytes: u64,
    /// Files that the daemon may have open for instances.
    pub open_files: u64,
}

/// What one instance takes, or several together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Demand {
    /// Guest memory, bytes.
    pub memory_bytes: u64,
    /// Virtual CPUs.
    pub vcpus: u64,
    /// Disk space that it takes from the start, bytes.
    pub disk_bytes: u64,
    /// Files that the daemon keeps open for it.
    pub open_files: u64,
}

impl Demand {
    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_add(other.memory_bytes),
            vcpus: self.vcpus.saturating_add(other.vcpus),
            disk_bytes: self.disk_bytes.saturating_add(other.disk_bytes),
            open_files: self.open_files.saturating_add(other.open_files),
        }
    }

    /// Without that part.
    #[must_use]
    pub fn less(self, other: Self) -> Self {
        Self {
            memory_bytes: self.memory_bytes.saturating_sub(other.memory_bytes),
            vcpus: self.vcpus.saturating_sub(other.vcpus),
            disk_bytes: self.disk_bytes.saturating_sub(other.disk_bytes),
            open_files: self.open_files.saturating_sub(other.open_files),
        }
    }
}

/// What an instance needs and the host does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shortage {
    /// Of what.
    pub resource: Resource,
    /// How much an instance needs.
    pub needed: u64,
    /// How much is left.
    pub left: u64,
    /// How much there is for all instances.
    pub total: u64,
}

/// A resource of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Memory.
    Memory,
    /// Virtual CPUs.
    Vcpus,
    /// Disk space.
    Disk,
    /// Open files of the daemon.
    OpenFiles,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { resource, needed, left, total } = *self;
        let size = |bytes: u64| {
            // Exact to the mebibyte is exact enough for people.
            if bytes >= 1 << 20 { format_size_bytes(bytes >> 20 << 20) } else { format_size_bytes(bytes) }
        };
        let enough_for = left.checked_div(needed).unwrap_or(0);
        match resource {
            Resource::Memory => write!(
                f,
                "not enough memory on the host: an instance needs {}, {} of {} is free, enough for {enough_for} \
                 (--memory-overcommit, --memory-reserve)",
                size(needed),
                size(left),
                size(total)
            ),
            Resource::Vcpus => write!(
                f,
                "not enough CPUs on the host: an instance needs {needed} virtual CPUs, {left} of {total} are free, enough for \
                 {enough_for} (--cpu-overcommit)"
            ),
            Resource::Disk => write!(
                f,
                "not enough disk space on the host: an instance needs {}, {} is free beside the reserve, enough for {enough_for} \
                 (--disk-reserve)",
                size(needed),
                size(left)
            ),
            Resource::OpenFiles => write!(
                f,
                "not enough open files for the daemon: an instance needs {needed}, {left} of {total} are free, enough for \
                 {enough_for} (ulimit -n)"
            ),
        }
    }
}

/// How many more instances of this `demand` there is room for, up to `wanted`, and why no more.
///
/// `committed` is what all instances that exist take. Disk space is counted as it is now.
#[must_use]
pub fn room_for(host: &HostRoom, committed: Demand, demand: Demand, wanted: u32) -> (u32, Option<Shortage>) {
    let left = [
        (
            Resource::Memory,
            demand.memory_bytes,
            host.memory_bytes.saturating_sub(committed.memory_bytes),
            host.memory_bytes,
        ),
        (Resource::Vcpus, demand.vcpus, host.vcpus.saturating_sub(committed.vcpus), host.vcpus),
        (Resource::Disk, demand.disk_bytes, host.disk_bytes, host.disk_bytes),
        (
            Resource::OpenFiles,
            demand.open_files,
            host.open_files.saturating_sub(committed.open_files),
            host.open_files,
        ),
    ];
    let scarcest = left
        .into_iter()
        .filter_map(|(resource, needed, left, total)| {
            Some((left.checked_div(needed)?, Shortage { resource, needed, left, total }))
        })
        .min_by_key(|(fits, _)| *fits);
    match scarcest {
        Some((fits, shortage)) if fits < u64::from(wanted) => {
            (u32::try_from(fits).unwrap_or(u32::MAX), Some(shortage))
        }
        _ => (wanted, None),
    }
}

/// Why `host` can never hold `max` instances of this `demand`, even if nothing else runs on it; none when it can. Disk space
/// comes and goes, and does not count.
#[must_use]
pub fn never_fits(host: &HostRoom, demand: Demand, max: u32) -> Option<String> {
    let max = u64::from(max);
    let vcpus = max.saturating_mul(demand.vcpus);
    let memory = max.saturating_mul(demand.memory_bytes);
    let mebibytes = |bytes: u64| format_size_bytes(bytes >> 20 << 20);
    if vcpus > host.vcpus {
        return Some(format!(
            "the host has {} virtual CPUs for instances, capacity.max {max} would need {vcpus} (--cpu-overcommit)",
            host.vcpus
        ));
    }
    (memory > host.memory_bytes).then(|| {
        format!(
            "the host has {} of memory for instances, capacity.max {max} would need {} (--memory-overcommit, --memory-reserve)",
            mebibytes(host.memory_bytes),
            mebibytes(memory)
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GIB: u64 = 1 << 30;
    const HOST: HostRoom =
        HostRoom { memory_bytes: 8 * GIB, vcpus: 32, disk_bytes: 100 * GIB, open_files: 1_000 };
    const SMALL: Demand = Demand { memory_bytes: GIB, vcpus: 1, disk_bytes: 1 << 20, open_files: 8 };

    #[test]
    fn the_scarcest_resource_decides_and_is_named() {
        assert_eq!(room_for(&HOST, Demand::default(), SMALL, 8), (8, None));
        let (fits, shortage) = room_for(&HOST, SMALL.plus(SMALL), SMALL, 8);
        assert_eq!((fits, shortage.map(|s| s.resource)), (6, Some(Resource::Memory)));
        let (fits, shortage) = room_for(&HOST, Demand::default(), Demand { vcpus: 20, ..SMALL }, 8);
        assert_eq!((fits, shortage.map(|s| s.resource)), (1, Some(Resource::Vcpus)));
        let full = HostRoom { disk_bytes: 10, ..HOST };
        let (fits, shortage) = room_for(&full, Demand::default(), SMALL, 1);
        assert_eq!((fits, shortage.map(|s| s.resource)), (0, Some(Resource::Disk)));
    }

    #[test]
    fn a_vm_larger_than_the_host_is_refused_in_words() {
        let huge = Demand { memory_bytes: 1 << 40, ..SMALL };
        let (fits, shortage) = room_for(&HOST, SMALL, huge, 3);
        assert_eq!(fits, 0);
        assert_eq!(
            shortage.expect("a shortage").to_string(),
            "not enough memory on the host: an instance needs 1TiB, 7GiB of 8GiB is free, enough for 0 (--memory-overcommit, \
             --memory-reserve)"
        );
    }

    #[test]
    fn a_maximum_that_no_empty_host_can_hold_is_told() {
        assert_eq!(never_fits(&HOST, SMALL, 8), None);
        let roomy = HostRoom { memory_bytes: u64::MAX, ..HOST };
        assert_eq!(
            never_fits(&roomy, SMALL, 33).as_deref(),
            Some(
                "the host has 32 virtual CPUs for instances, capacity.max 33 would need 33 (--cpu-overcommit)"
            )
        );
        let told = never_fits(&HOST, SMALL, 9).expect("too little memory");
        assert!(
            told.starts_with("the host has 8GiB of memory for instances, capacity.max 9 would need 9GiB"),
            "{told}"
        );
    }

    proptest! {
        /// What is admitted always fits, and one more would not.
        #[test]
        fn admitted_instances_fit(memory in 1..10_u64, vcpus in 0..5_u64, files in 0..20_u64, used in 0..10_u32, wanted in 0..50_u32) {
            let demand = Demand { memory_bytes: memory << 28, vcpus, disk_bytes: 0, open_files: files };
            let committed = (0..used).fold(Demand::default(), |sum, _| sum.plus(demand));
            let fits = |count: u32| {
                let all = (0..count).fold(committed, |sum, _| sum.plus(demand));
                all.memory_bytes <= HOST.memory_bytes && all.vcpus <= HOST.vcpus && all.open_files <= HOST.open_files
            };
            let (count, shortage) = room_for(&HOST, committed, demand, wanted);
            prop_assert!(count <= wanted);
            prop_assert_eq!(shortage.is_some(), count < wanted);
            prop_assert!(count == 0 || fits(count));
            prop_assert!(count == wanted || !fits(count + 1));
        }
    }
}
