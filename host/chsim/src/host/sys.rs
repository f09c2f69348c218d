//! The system calls that no safe library offers: open-file-description locks, taps, inherited descriptors.
//!
//! This is the only module of the crate with `unsafe`; every function here is a thin, safe wrapper.
#![expect(
    unsafe_code,
    reason = "F_OFD_SETLK, tap and interface ioctls, and work between fork and exec have no safe wrapper"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Takes an open-file-description lock on the first `length` bytes (0: all) without waiting.
pub(crate) fn set_lock(file: &File, write: bool, length: i64) -> io::Result<()> {
    let l_type = if write { libc::F_WRLCK } else { libc::F_RDLCK };
    let request = libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: length,
        l_pid: 0,
    };
    // SAFETY: the descriptor is open for as long as `file` is borrowed, and the kernel only reads `request`.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &request) })
}

/// Takes over a descriptor that was inherited and is named on the command line (`fd=<n>`).
pub(crate) fn adopt(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: F_GETFD only asks whether the number names an open descriptor.
    if fd < 0 || unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is open, and nothing else in this process knows its number.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Starts a program that does not outlive the calling thread's process, and that inherits the descriptors `keep` under
/// their numbers. Call it on a thread that lasts as long as the process: the kernel takes the thread's end for it.
pub(crate) fn spawn_companion(command: &mut Command, keep: &[BorrowedFd<'_>]) -> io::Result<Child> {
    let parent = getpid();
    let keep: Vec<RawFd> = keep.iter().map(AsRawFd::as_raw_fd).collect();
    let prepare = move || {
        for fd in &keep {
            // SAFETY: only changes a flag of the child's own copy of the descriptor.
            check(unsafe { libc::fcntl(*fd, libc::F_SETFD, 0) })?;
        }
        set_parent_process_death_signal(Some(Signal::KILL))?;
        // A parent that is gone already sends no signal any more.
        if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::BrokenPipe.into()) }
    };
    // SAFETY: the closure makes system calls only, which is allowed between fork and exec.
    unsafe { command.pre_exec(prepare) };
    command.spawn()
}

/// The features of an open `/dev/net/tun`, as `IFF_*` flags.
pub(super) fn tun_features(tun: &File) -> io::Result<libc::c_int> {
    let mut features: libc::c_uint = 0;
    // SAFETY: the descriptor is open, and the kernel writes an unsigned integer.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNGETFEATURES, &mut features) })?;
    Ok(features as libc::c_int)
}

/// Attaches an open `/dev/net/tun` to a queue of the interface `name`, which is made if there is none. Returns its name,
/// which is another one if `name` has a `%d` in it or is empty.
pub(super) fn attach_tap(tun: &File, name: &str, flags: libc::c_int) -> io::Result<String> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open, and `request` is a valid ifreq that outlives the call.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF, &mut request) })?;
    // SAFETY: the kernel ends the name with NUL, as `request` did before.
    let name = unsafe { CStr::from_ptr(request.ifr_name.as_ptr()) };
    Ok(name.to_string_lossy().into_owned())
}

/// Sets the size of the header before each frame.
pub(super) fn set_header_bytes(tap: &File, bytes: libc::c_int) -> io::Result<()> {
    // SAFETY: the descriptor is open, and the kernel reads an integer.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETVNETHDRSZ, &bytes) })
}

/// Has the kernel finish checksums and segments itself before it hands out a frame.
pub(super) fn clear_offloads(tap: &File) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the descriptor is open; the argument is passed by value.
    check(unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOFFLOAD, none) })
}

/// An interface by its name, reached through any socket of its namespace.
pub(super) struct Interface<'a> {
    pub(super) socket: BorrowedFd<'a>,
    pub(super) name: &'a str,
}

impl Interface<'_> {
    pub(super) fn mac(&self) -> io::Result<[u8; 6]> {
        let request = self.call(libc::SIOCGIFHWADDR, |_| {})?;
        // SAFETY: the kernel filled this field in.
        let address = unsafe { request.ifr_ifru.ifru_hwaddr };
        let mut mac = [0; 6];
        for (to, from) in mac.iter_mut().zip(address.sa_data) {
            *to = from as u8;
        }
        Ok(mac)
    }

    pub(super) fn set_mac(&self, mac: [u8; 6]) -> io::Result<()> {
        let set = |request: &mut libc::ifreq| {
            let mut address = libc::sockaddr { sa_family: libc::ARPHRD_ETHER, sa_data: [0; 14] };
            for (to, from) in address.sa_data.iter_mut().zip(mac) {
                *to = from as libc::c_char;
            }
            request.ifr_ifru.ifru_hwaddr = address;
        };
        self.call(libc::SIOCSIFHWADDR, set).map(drop)
    }

    /// Bytes of IP that a frame holds.
    pub(super) fn mtu(&self) -> io::Result<libc::c_int> {
        let request = self.call(libc::SIOCGIFMTU, |_| {})?;
        // SAFETY: the kernel filled this field in.
        Ok(unsafe { request.ifr_ifru.ifru_mtu })
    }

    pub(super) fn set_mtu(&self, mtu: libc::c_int) -> io::Result<()> {
        self.call(libc::SIOCSIFMTU, |request| request.ifr_ifru.ifru_mtu = mtu).map(drop)
    }

    pub(super) fn is_up(&self) -> io::Result<bool> {
        let request = self.call(libc::SIOCGIFFLAGS, |_| {})?;
        // SAFETY: the kernel filled this field in.
        Ok(libc::c_int::from(unsafe { request.ifr_ifru.ifru_flags }) & libc::IFF_UP != 0)
    }

    pub(super) fn set_up(&self) -> io::Result<()> {
        let up = libc::IFF_UP as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, |request| request.ifr_ifru.ifru_flags = up).map(drop)
    }

    pub(super) fn set_address(&self, address: Ipv4Addr) -> io::Result<()> {
        self.call(libc::SIOCSIFADDR, |request| request.ifr_ifru.ifru_addr = socket_address(address)).map(drop)
    }

    pub(super) fn set_netmask(&self, mask: Ipv4Addr) -> io::Result<()> {
        self.call(libc::SIOCSIFNETMASK, |request| request.ifr_ifru.ifru_netmask = socket_address(mask))
            .map(drop)
    }

    fn call(&self, code: libc::c_ulong, fill: impl FnOnce(&mut libc::ifreq)) -> io::Result<libc::ifreq> {
        let mut request = request(self.name)?;
        fill(&mut request);
        // SAFETY: the descriptor is open, and `request` is a valid ifreq that outlives the call.
        check(unsafe { libc::ioctl(self.socket.as_raw_fd(), code as libc::Ioctl, &mut request) })?;
        Ok(request)
    }
}

/// Asks for a userfaultfd as v53.0 does (`vmm/src/uffd.rs`): through the device if it can be opened, else by the
/// system call. It is closed at once: a stand-in has no memory to fault in.
pub(crate) fn userfaultfd() -> io::Result<()> {
    /// `USERFAULTFD_IOC_NEW` of `linux/userfaultfd.h`: `_IO(0xAA, 0)`.
    const NEW: libc::c_ulong = 0xAA00;
    let flags = libc::O_CLOEXEC | libc::O_NONBLOCK;
    let device = File::options().read(true).write(true).open("/dev/userfaultfd").and_then(|device| {
        // SAFETY: the device is open, and the call takes its flags by value.
        let fd = unsafe { libc::ioctl(device.as_raw_fd(), NEW as _, flags) };
        check(fd).map(|()| fd)
    });
    let fd = match device {
        Ok(fd) => fd,
        Err(_) => {
            // SAFETY: the call takes its flags by value, and returns a new descriptor or -1.
            let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, flags) } as libc::c_int;
            check(fd)?;
            fd
        }
    };
    // SAFETY: the descriptor is new, and nothing else knows its number.
    drop(unsafe { OwnedFd::from_raw_fd(fd) });
    Ok(())
}

/// A request about the interface of this name; `EINVAL` when no interface can have it.
fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain data, for which zero is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    // The last byte stays NUL.
    if name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

/// The address as the start of a `sockaddr_in`: two bytes of port, four of address.
fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let mut data = [0; 14];
    for (to, from) in data[2..].iter_mut().zip(address.octets()) {
        *to = from as libc::c_char;
    }
    libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
