//! Threads that stay on one CPU.

use anyhow::{Context, Result};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// This thread on one CPU, until it is dropped.
pub(crate) struct Pinned(CpuSet);

impl Pinned {
    pub(crate) fn to_one_cpu() -> Result<Self> {
        // The last one: interrupts and other programs prefer the first.
        Self::to(*allowed()?.last().context("no CPU is allowed")?)
    }

    pub(crate) fn to(cpu: usize) -> Result<Self> {
        let before = sched_getaffinity(None).context("cannot read the CPU affinity")?;
        let mut one = CpuSet::new();
        one.set(cpu);
        sched_setaffinity(None, &one).with_context(|| format!("cannot run on CPU {cpu} only"))?;
        Ok(Self(before))
    }
}

/// The CPUs that this thread may run on, in order.
pub(crate) fn allowed() -> Result<Vec<usize>> {
    let allowed = sched_getaffinity(None).context("cannot read the CPU affinity")?;
    Ok((0..CpuSet::MAX_CPU).filter(|&cpu| allowed.is_set(cpu)).collect())
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // It was allowed before; if it no longer is, the rest runs on one CPU.
        let _ = sched_setaffinity(None, &self.0);
    }
}
