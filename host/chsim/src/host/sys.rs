//! The system calls that no safe library offers: open-file-description locks, taps, inherited descriptors.
//!
//! This is the only module of the crate with `unsafe`; every function here is a thin, safe wrapper.
#![expect(
    unsafe_code,
    reason = "F_OFD_SETLK, tap and interface ioctls, and work between fork and exec have no safe wrapper"
)]

use std::fs::File;
use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
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

/// Attaches an open `/dev/net/tun` to a tap: to the one of this name, which is made if it is not there, or to a new one
/// if `name` is a pattern with `%d`. Returns the tap's name. Flags are upstream's: no packet information, virtio headers.
pub(crate) fn attach_tap(tun: &File, name: &str, multi_queue: bool) -> io::Result<String> {
    let mut request = request(name)?;
    let mut flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
    if multi_queue {
        flags |= libc::IFF_MULTI_QUEUE;
    }
    request.ifr_ifru.ifru_flags = flags as libc::c_short;
    // SAFETY: the descriptor is open and the structure is the one that the call is defined for.
    check(unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
    let name = request.ifr_name.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0).collect();
    String::from_utf8(name).map_err(|_| io::Error::other("the tap's name is no text"))
}

/// Switches an interface of this network namespace on, unless it is: looking needs no privilege.
pub(crate) fn interface_up(name: &str) -> io::Result<()> {
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFFLAGS, &mut request)?;
    // SAFETY: the call before filled in this member.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    if flags & libc::IFF_UP as libc::c_short != 0 {
        return Ok(());
    }
    request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
    interface_call(libc::SIOCSIFFLAGS, &mut request)
}

/// Sets the largest packet of an interface, bytes, unless it is that.
pub(crate) fn set_interface_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFMTU, &mut request)?;
    // SAFETY: the call before filled in this member.
    if unsafe { request.ifr_ifru.ifru_mtu } == libc::c_int::from(mtu) {
        return Ok(());
    }
    request.ifr_ifru.ifru_mtu = libc::c_int::from(mtu);
    interface_call(libc::SIOCSIFMTU, &mut request)
}

/// The hardware address of an interface.
pub(crate) fn interface_mac(name: &str) -> io::Result<[u8; 6]> {
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the call before filled in this member.
    let data = unsafe { request.ifr_ifru.ifru_hwaddr }.sa_data;
    let mut mac = [0; 6];
    for (to, from) in mac.iter_mut().zip(data) {
        *to = from as u8;
    }
    Ok(mac)
}

/// Sets the hardware address of an Ethernet interface, unless it is that.
pub(crate) fn set_interface_mac(name: &str, mac: [u8; 6]) -> io::Result<()> {
    if interface_mac(name)? == mac {
        return Ok(());
    }
    let mut request = request(name)?;
    interface_call(libc::SIOCGIFHWADDR, &mut request)?;
    // SAFETY: the call before filled in this member.
    let mut address = unsafe { request.ifr_ifru.ifru_hwaddr };
    for (to, from) in address.sa_data.iter_mut().zip(mac) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_hwaddr = address;
    interface_call(libc::SIOCSIFHWADDR, &mut request)
}

/// Sets the one IPv4 address of an interface, and its mask.
pub(crate) fn set_interface_address(name: &str, address: Ipv4Addr, mask: Ipv4Addr) -> io::Result<()> {
    let mut request = request(name)?;
    request.ifr_ifru.ifru_addr = socket_address(address);
    interface_call(libc::SIOCSIFADDR, &mut request)?;
    request.ifr_ifru.ifru_addr = socket_address(mask);
    interface_call(libc::SIOCSIFNETMASK, &mut request)
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

fn socket_address(address: Ipv4Addr) -> libc::sockaddr {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: 0,
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(address.octets()) },
        sin_zero: [0; 8],
    };
    // SAFETY: both are 16 bytes of plain data; a `sockaddr` is what a `sockaddr_in` stands in for.
    unsafe { mem::transmute(address) }
}

fn request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: a structure of integers and byte arrays, for which zero is valid.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    if name.is_empty() || name.len() >= request.ifr_name.len() || name.contains('\0') {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} names no interface")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

fn interface_call(call: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    // Any socket does: the call concerns the interface.
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    // SAFETY: the socket is open and the structure is the one that interface calls are defined for.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), call as _, request) })
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
