//! The system calls that no safe library offers: detached spawn, open-file-description locks, another process's CPU clock, network
//! namespaces, tap devices, Landlock's version.
//!
//! This is the only module of the crate with `unsafe`; every function here is a thin, safe wrapper.
#![expect(
    unsafe_code,
    reason = "posix_spawn with SETSID, F_OFD_SETLK, process CPU clocks, unshare, tap ioctls and landlock_create_ruleset have no safe wrapper in rustix or std"
)]

use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;
use std::sync::Arc;

use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Starts `program` in a session of its own and returns its process id.
///
/// Its environment is `env` and nothing of ours: a daemon's may hold secrets. The child has `stdin` as descriptor 0, `output` as 1 and 2, and nothing else; `/` as working
/// directory; no signal blocked or ignored (Rust ignores SIGPIPE, which would be inherited). It does
/// not die with us. `posix_spawn` shares memory with the child until `exec`, so the cost does not grow
/// with our own size, and a failing `exec` is reported here.
///
/// # Errors
/// What `posix_spawn` reports: program missing or not executable, no more processes or memory.
pub(crate) fn spawn_detached(
    program: &Path,
    args: &[OsString],
    env: &[(OsString, OsString)],
    stdin: BorrowedFd<'_>,
    output: BorrowedFd<'_>,
) -> io::Result<Pid> {
    let program_c = c_string(program.as_os_str())?;
    let mut argv_owned = vec![program_c.clone()];
    for arg in args {
        argv_owned.push(c_string(arg)?);
    }
    let mut env_owned = Vec::new();
    for (key, value) in env {
        let mut line = key.clone();
        line.push("=");
        line.push(value);
        env_owned.push(c_string(&line)?);
    }
    let argv = pointers(&argv_owned);
    let envp = pointers(&env_owned);

    let mut attributes = Attributes::new()?;
    let mut actions = FileActions::new()?;
    // SAFETY: both objects are initialised, the descriptors are open for the whole call, the path is a
    // C string literal.
    unsafe {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        let mut none = MaybeUninit::<libc::sigset_t>::uninit();
        libc::sigfillset(all.as_mut_ptr());
        libc::sigemptyset(none.as_mut_ptr());
        check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, all.as_ptr()))?;
        check(libc::posix_spawnattr_setsigmask(&mut attributes.0, none.as_ptr()))?;
        let flags =
            i32::from(libc::POSIX_SPAWN_SETSID) | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSIGMASK;
        check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short))?;
        let actions = &mut actions.0;
        check(libc::posix_spawn_file_actions_adddup2(actions, stdin.as_raw_fd(), 0))?;
        check(libc::posix_spawn_file_actions_adddup2(actions, output.as_raw_fd(), 1))?;
        check(libc::posix_spawn_file_actions_adddup2(actions, output.as_raw_fd(), 2))?;
        check(libc::posix_spawn_file_actions_addclosefrom_np(actions, 3))?;
        check(libc::posix_spawn_file_actions_addchdir_np(actions, c"/".as_ptr()))?;
    }
    let mut pid: libc::pid_t = 0;
    // SAFETY: every pointer outlives the call; argv and envp end with a null pointer.
    check(unsafe {
        libc::posix_spawn(
            &mut pid,
            program_c.as_ptr(),
            &actions.0,
            &attributes.0,
            argv.as_ptr(),
            envp.as_ptr(),
        )
    })?;
    Pid::from_raw(pid).ok_or_else(|| io::Error::other("posix_spawn returned process id 0"))
}

/// Has the runtime watch a descriptor for becoming readable. Call it inside a tokio runtime.
///
/// # Errors
/// The descriptor cannot be polled, or there is no more memory for it.
pub(crate) fn watch_readable(fd: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // SAFETY: an `Arc<OwnedFd>` names one descriptor and keeps it open as long as the `AsyncFd` holds it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Takes a shared open-file-description lock on the whole of `file` without waiting.
///
/// It lasts until the last descriptor of this open file is closed, and it conflicts with the write
/// locks that a VMM takes on a disk it opens for writing (they are of the same kind).
///
/// # Errors
/// `WouldBlock` when another open file holds a write lock.
pub(crate) fn lock_shared(file: &File) -> io::Result<()> {
    let lock = whole_file_lock(libc::F_RDLCK);
    // SAFETY: the descriptor is open and `lock` is a valid flock that outlives the call.
    if unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &lock) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        Some(libc::EACCES | libc::EAGAIN) => Err(io::Error::new(io::ErrorKind::WouldBlock, error)),
        _ => Err(error),
    }
}

/// CPU time that the live threads and the ended threads of process `pid` have used, in nanoseconds.
///
/// # Errors
/// `EINVAL` when there is no such process.
pub(crate) fn process_cpu_time_ns(pid: Pid) -> io::Result<u64> {
    // The encoding that clock_getcpuclockid(3) uses: the inverted id, then "scheduler clock, whole process".
    const CPUCLOCK_SCHED: libc::clockid_t = 2;
    let clock = (!pid.as_raw_nonzero().get() << 3) | CPUCLOCK_SCHED;
    let mut time = MaybeUninit::<libc::timespec>::uninit();
    // SAFETY: `time` is writable and only read after success.
    let time = unsafe {
        if libc::clock_gettime(clock, time.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        time.assume_init()
    };
    Ok((time.tv_sec as u64).saturating_mul(1_000_000_000).saturating_add(time.tv_nsec as u64))
}

/// Moves the calling thread, and no other, into a network namespace that is new and empty.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub(crate) fn unshare_network() -> io::Result<()> {
    unshare(UnshareFlags::NEWNET)
}

/// Gives the calling thread, and no other, an IPC namespace that is new and empty, and the next process that it starts a PID
/// namespace of which it is the first. A thread that has done this can start no other thread before [`forget_processes`].
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub(crate) fn unshare_processes() -> io::Result<()> {
    unshare(UnshareFlags::NEWPID | UnshareFlags::NEWIPC)
}

/// Has the calling thread start processes and threads again where itself is, after [`unshare_processes`].
///
/// # Errors
/// `/proc` is not there, or `EPERM`.
#[expect(clippy::disallowed_methods, reason = "the kernel's own link")]
pub(crate) fn forget_processes() -> io::Result<()> {
    let own = File::open("/proc/thread-self/ns/pid")?;
    Ok(move_into_link_name_space(own.as_fd(), Some(LinkNameSpaceType::ProcessID))?)
}

fn unshare(namespaces: UnshareFlags) -> io::Result<()> {
    // SAFETY: descriptors and all else that threads share stay shared.
    Ok(unsafe { rustix::thread::unshare_unsafe(namespaces) }?)
}

/// Attaches `tun` (an open `/dev/net/tun`) to the tap `name` in the calling thread's network namespace, which is made if it is not there.
/// The flags are those that Cloud Hypervisor uses for one queue pair; with others it could not open the tap.
///
/// # Errors
/// `EBUSY` when it is in use; `EINVAL` when the name is taken by another kind of interface, or too long; `EPERM`.
pub(crate) fn attach_tap(tun: &File, name: &str) -> io::Result<()> {
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays NUL.
    if name.is_empty() || name.len() >= request.ifr_name.len() {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open and `request` is a valid ifreq that outlives the call.
    check_errno(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) })
}

/// Makes the tap that `tun` is attached to outlive the descriptor, and lets user `owner` open it too.
///
/// # Errors
/// `EPERM`.
pub(crate) fn keep_tap(tun: &File, owner: Option<u32>) -> io::Result<()> {
    if let Some(owner) = owner {
        // SAFETY: the descriptor is open; the argument is passed by value.
        check_errno(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETOWNER, libc::c_ulong::from(owner)) })?;
    }
    let keep: libc::c_ulong = 1;
    // SAFETY: as above.
    check_errno(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETPERSIST, keep) })
}

fn check_errno(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// The version of the kernel's Landlock interface.
///
/// # Errors
/// `ENOSYS` when the kernel was built without it, `EOPNOTSUPP` when it is not switched on (`lsm=` on the kernel's command line).
pub(crate) fn landlock_abi() -> io::Result<u32> {
    const CREATE_RULESET_VERSION: libc::c_uint = 1;
    // SAFETY: with this flag the kernel takes no attributes (null, size 0) and makes nothing.
    let version = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<libc::c_void>(),
            0usize,
            CREATE_RULESET_VERSION,
        )
    };
    u32::try_from(version).map_err(|_| io::Error::last_os_error())
}

fn whole_file_lock(kind: libc::c_int) -> libc::flock {
    // SAFETY: flock is plain integers, for which zero is valid; the fields that matter are set below.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: `raw` is initialised by the call, and only used when the call succeeded.
        unsafe {
            check(libc::posix_spawnattr_init(raw.as_mut_ptr()))?;
            Ok(Self(raw.assume_init()))
        }
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

struct FileActions(libc::posix_spawn_file_actions_t);

impl FileActions {
    fn new() -> io::Result<Self> {
        let mut raw = MaybeUninit::uninit();
        // SAFETY: `raw` is initialised by the call, and only used when the call succeeded.
        unsafe {
            check(libc::posix_spawn_file_actions_init(raw.as_mut_ptr()))?;
            Ok(Self(raw.assume_init()))
        }
    }
}

impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed once.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

fn c_string(text: &OsStr) -> io::Result<CString> {
    CString::new(text.as_bytes().to_vec()).map_err(|error| {
        let text = OsString::from_vec(error.into_vec());
        io::Error::new(io::ErrorKind::InvalidInput, format!("NUL byte in {text:?}"))
    })
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings
        .iter()
        .map(|string| string.as_ptr().cast_mut())
        .chain(std::iter::once(std::ptr::null_mut()))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn own_cpu_clock_advances_and_a_missing_process_is_an_error() {
        let me = rustix::process::getpid();
        let before = process_cpu_time_ns(me).expect("own clock");
        let mut sum = 0u64;
        while process_cpu_time_ns(me).expect("own clock") == before {
            sum = sum.wrapping_add(1);
        }
        assert!(process_cpu_time_ns(Pid::from_raw(i32::MAX / 16).expect("pid")).is_err());
    }

    #[test]
    fn a_child_has_the_environment_that_it_is_given_and_nothing_of_ours() {
        let null = File::open("/dev/null").expect("null");
        let mut output = tempfile::tempfile().expect("temp file");
        assert!(std::env::vars_os().count() > 0, "there is something to be handed on");
        let env = [("HOME".into(), "/over/there".into()), ("NEW_ONE".into(), "a=b".into())];
        let script = "tr '\\0' '|' </proc/$$/environ";
        let args = ["-c".into(), script.into()];
        let pid =
            spawn_detached(Path::new("/bin/sh"), &args, &env, null.as_fd(), output.as_fd()).expect("sh");
        rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty()).expect("its end");
        let mut said = String::new();
        output.rewind().and_then(|()| output.read_to_string(&mut said)).expect("output");
        assert_eq!(said, "HOME=/over/there|NEW_ONE=a=b|");
    }

    #[test]
    fn shared_lock_keeps_a_writer_out_until_dropped() {
        let path = tempfile::NamedTempFile::new().expect("temp file");
        let holder = File::open(path.path()).expect("open");
        lock_shared(&holder).expect("first shared lock");
        lock_shared(&File::open(path.path()).expect("open")).expect("second shared lock");

        let writer = File::options().write(true).open(path.path()).expect("open");
        let lock = whole_file_lock(libc::F_WRLCK);
        // SAFETY: as in `lock_shared`.
        let denied = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
        assert_eq!(denied, -1, "a writer got in");
        drop(holder);
        // SAFETY: as in `lock_shared`.
        let granted = unsafe { libc::fcntl(writer.as_raw_fd(), libc::F_OFD_SETLK, &lock) };
        assert_eq!(granted, 0, "{}", io::Error::last_os_error());
        let refused = lock_shared(&File::open(path.path()).expect("open")).expect_err("locked");
        assert_eq!(refused.kind(), io::ErrorKind::WouldBlock);
    }
}
