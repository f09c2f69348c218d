//! The system calls that no safe library offers: the ioctls of network interfaces.
//!
//! This is the only module of the crate with `unsafe`.
#![expect(unsafe_code, reason = "interface ioctls have no safe wrapper in rustix or std")]

use std::io;
use std::mem;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;

use libc::c_ulong;

/// A network interface.
pub(crate) struct Interface {
    /// Any socket does: the calls concern the interface.
    socket: UdpSocket,
    request: libc::ifreq,
}

impl Interface {
    /// Prepares calls about the interface of this name.
    pub(crate) fn open(name: &str) -> io::Result<Self> {
        // SAFETY: a structure of integers and byte arrays, for which zero is valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        if name.is_empty() || name.len() >= request.ifr_name.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} names no interface")));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        Ok(Self { socket: UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?, request })
    }

    /// Sets its one IPv4 address.
    pub(crate) fn set_address(&self, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0));
        let mut request = self.request;
        request.ifr_ifru.ifru_addr = socket_address(address);
        self.call(libc::SIOCSIFADDR, &mut request)?;
        request.ifr_ifru.ifru_addr = socket_address(mask);
        self.call(libc::SIOCSIFNETMASK, &mut request)
    }

    /// Switches it on.
    pub(crate) fn up(&self) -> io::Result<()> {
        let mut request = self.request;
        self.call(libc::SIOCGIFFLAGS, &mut request)?;
        // SAFETY: the call before filled in this member.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = flags | libc::IFF_UP as libc::c_short;
        self.call(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sends what has no other way to `gateway`.
    pub(crate) fn set_default_route(&self, gateway: Ipv4Addr) -> io::Result<()> {
        // SAFETY: a structure of integers, addresses and one pointer, for all of which zero is valid.
        let mut route: libc::rtentry = unsafe { mem::zeroed() };
        route.rt_dst = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_genmask = socket_address(Ipv4Addr::UNSPECIFIED);
        route.rt_gateway = socket_address(gateway);
        route.rt_flags = libc::RTF_UP | libc::RTF_GATEWAY;
        self.call(libc::SIOCADDRT, &mut route)
    }

    /// `T` is what `call` takes: `ifreq`, or `rtentry` for routes.
    fn call<T>(&self, call: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: the socket is open, and the callers above pass the structure that their call is defined for.
        if unsafe { libc::ioctl(self.socket.as_raw_fd(), call as _, argument) } == 0 {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }
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
