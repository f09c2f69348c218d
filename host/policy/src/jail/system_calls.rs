//! The calls to the kernel that computing takes.

use std::collections::BTreeMap;
use std::io;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    apply_filter_all_threads,
};

/// Whether threads may still be started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Threads {
    /// No more than there are.
    AsTheyAre,
    /// More of this process; never another process.
    More,
}

/// Memory, time, threads' waiting, and reading and writing what is open. Nothing here opens a file or a socket, starts
/// a process or reaches another.
const COMPUTING: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_ppoll,
    // Compiled code is mapped, and its memories come from anonymous files.
    libc::SYS_mmap,
    libc::SYS_mprotect,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_memfd_create,
    libc::SYS_ftruncate,
    libc::SYS_fcntl,
    libc::SYS_membarrier,
    // Traps are signals.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_futex,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_getrandom,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_exit,
    libc::SYS_exit_group,
];

/// `ioctl(PAGEMAP_SCAN)`: wasmtime asks which pages of a memory were touched.
const PAGEMAP_SCAN: u64 = 0xc060_6610;

/// Applies the filter to all threads of this process.
///
/// # Errors
/// When the kernel has no seccomp, or this is a CPU that the filter is not written for.
pub(super) fn restrict(threads: Threads) -> io::Result<()> {
    let mut allowed: BTreeMap<i64, Vec<SeccompRule>> =
        COMPUTING.iter().map(|&call| (call, Vec::new())).collect();
    allowed.insert(libc::SYS_ioctl, vec![only_if(1, SeccompCmpOp::Eq, PAGEMAP_SCAN)?]);
    // A process that aborts sends itself the signal.
    let own = u64::from(std::process::id());
    allowed.insert(libc::SYS_tgkill, vec![only_if(0, SeccompCmpOp::Eq, own)?]);
    if threads == Threads::More {
        // What clone3 is asked for lies in memory, where no filter looks: told that there is no such call, the C library
        // takes clone. The stricter of two filters decides, and the first must be there before the second forbids more.
        let clone3 = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
        apply(clone3, SeccompAction::Allow, SeccompAction::Errno(errno(libc::ENOSYS)))?;
        allowed.insert(libc::SYS_clone3, Vec::new());
        let thread = u64::try_from(libc::CLONE_THREAD).unwrap_or_default();
        allowed.insert(libc::SYS_clone, vec![only_if(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    }
    apply(allowed, SeccompAction::Errno(errno(libc::EPERM)), SeccompAction::Allow)
}

fn only_if(argument: u8, operator: SeccompCmpOp, value: u64) -> io::Result<SeccompRule> {
    let condition = SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    condition.and_then(|condition| SeccompRule::new(vec![condition])).map_err(io::Error::other)
}

fn apply(
    calls: BTreeMap<i64, Vec<SeccompRule>>,
    others: SeccompAction,
    these: SeccompAction,
) -> io::Result<()> {
    let cpu = std::env::consts::ARCH.try_into().map_err(io::Error::other)?;
    let filter = SeccompFilter::new(calls, others, these, cpu).map_err(io::Error::other)?;
    let program: BpfProgram = filter.try_into().map_err(io::Error::other)?;
    apply_filter_all_threads(&program).map_err(io::Error::other)
}

fn errno(code: i32) -> u32 {
    code.unsigned_abs()
}
