//! Tap interfaces, opened as upstream opens them. Source: `net_util/src/{open_tap,tap}.rs` of v53.0; the texts are its.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::num::ParseIntError;
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use thiserror::Error;

use super::sys::{self, Interface};
use crate::config::{MacAddr, NetConfig};
use crate::guest::HEADER_BYTES;
use crate::log::warn;

/// Longest name of a network interface.
const MAX_NAME_BYTES: usize = libc::IFNAMSIZ - 1;

/// Whether the taps that a configuration names are opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Taps {
    /// As upstream does; the modelled guest answers over the first of them.
    #[default]
    Open,
    /// They are only taken note of. For recordings and tests that are to run where no tap can be made; a real guest
    /// needs them.
    Record,
}

impl Taps {
    /// Reads `open` or `record`.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        match text {
            "" | "open" => Ok(Self::Open),
            "record" => Ok(Self::Record),
            _ => Err(format!("unknown way to treat taps {text:?}: expected `open` or `record`")),
        }
    }
}

/// A tap that is open.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) name: String,
    /// One descriptor per pair of queues.
    pub(crate) queues: Vec<File>,
    pub(super) host_mac: MacAddr,
    /// Bytes of IP that a frame holds.
    pub(super) mtu: usize,
}

/// Why a device has no tap.
#[derive(Debug, Error)]
pub(crate) enum OpenTapError {
    #[error("Failed to convert an hexadecimal string into an integer")]
    Hexadecimal(#[source] ParseIntError),
    #[error("Error related to the multiqueue support (no support TAP side)")]
    OneQueue,
    #[error("Error related to the multiqueue support (no support device side)")]
    ManyQueues,
    #[error("Failed to read the TAP flags from sysfs")]
    ReadFlags(#[source] io::Error),
    #[error("Open tap device failed")]
    Open(#[source] TapError),
    #[error("Setting tap IP and/or netmask failed")]
    SetAddress(#[source] TapError),
    #[error("Setting MAC address failed")]
    SetMac(#[source] TapError),
    #[error("Getting MAC address failed")]
    GetMac(#[source] TapError),
    #[error("Setting vnet header size failed")]
    SetHeaderBytes(#[source] TapError),
    #[error("Setting MTU failed")]
    SetMtu(#[source] TapError),
    #[error("Enabling tap interface failed")]
    Enable(#[source] TapError),
}

/// What went wrong with the interface itself.
#[derive(Debug, Error)]
pub(crate) enum TapError {
    #[error("Couldn't open /dev/net/tun")]
    OpenTun(#[source] io::Error),
    #[error("Unable to configure tap interface")]
    Configure(#[source] io::Error),
    #[error("Unable to retrieve features")]
    GetFeatures(#[source] io::Error),
    #[error("Missing multiqueue support in the kernel")]
    NoMultiQueue,
    #[error("Ioctl failed ({0})")]
    Ioctl(libc::c_ulong, #[source] io::Error),
    #[error("Failed to create a socket")]
    Socket(#[source] io::Error),
    #[error("Interface name too long (max length is {MAX_NAME_BYTES}): {0}")]
    NameTooLong(String),
    #[error("Interface name contains interior NUL byte: {0:?}")]
    NameWithNul(String),
}

fn ioctl<T>(code: libc::c_ulong, result: io::Result<T>) -> Result<T, TapError> {
    result.map_err(|error| TapError::Ioctl(code, error))
}

/// Refuses what no interface can be called.
pub(crate) fn check_name(name: &str) -> Result<(), OpenTapError> {
    let problem = if name.len() > MAX_NAME_BYTES {
        TapError::NameTooLong(name.to_owned())
    } else if name.contains('\0') {
        TapError::NameWithNul(name.to_owned())
    } else {
        return Ok(());
    };
    Err(OpenTapError::Open(problem))
}

/// What a tap is called that is made for a device which names none.
pub(crate) const NEW: &str = "vmtap%d";

/// Opens the tap `name` of a device, and makes it if there is none: then it is gone with its last descriptor.
///
/// Opening one that exists takes no privilege but to own it, if it is up and has the MAC address and MTU that are asked
/// for, if any.
pub(crate) fn open(name: &str, net: &NetConfig) -> Result<Tap, OpenTapError> {
    check_name(name)?;
    let pairs = (net.num_queues / 2).max(1);
    check_queues(name, pairs)?;
    let existed = Path::new("/sys/class/net").join(name).exists();
    let (queue, name) = open_queue(name, pairs).map_err(OpenTapError::Open)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| OpenTapError::GetMac(TapError::Socket(error.into())))?;
    let interface = Interface { socket: socket.as_fd(), name: &name };
    match net.ip {
        Some(_) if existed => warn!("Tap {name} already exists. IP configuration will not be overwritten."),
        Some(IpAddr::V4(address)) => {
            set_address(&name, address, net.mask).map_err(OpenTapError::SetAddress)?;
        }
        Some(IpAddr::V6(address)) => warn!("{address} is not set on {name}: only IPv4 is modelled"),
        None => {}
    }
    let found = ioctl(libc::SIOCGIFHWADDR, interface.mac().map(MacAddr));
    let host_mac = match net.host_mac {
        None => found.map_err(OpenTapError::GetMac)?,
        Some(wanted) => {
            if found.map_err(OpenTapError::SetMac)? != wanted {
                let set = ioctl(libc::SIOCSIFHWADDR, interface.set_mac(wanted.0));
                set.map_err(OpenTapError::SetMac)?;
            }
            wanted
        }
    };
    if let Some(mtu) = net.mtu {
        ioctl(libc::SIOCSIFMTU, interface.set_mtu(mtu.into())).map_err(OpenTapError::SetMtu)?;
    }
    if !ioctl(libc::SIOCGIFFLAGS, interface.is_up()).map_err(OpenTapError::Enable)? {
        ioctl(libc::SIOCSIFFLAGS, interface.set_up()).map_err(OpenTapError::Enable)?;
    }
    let mtu = ioctl(libc::SIOCGIFMTU, interface.mtu()).map_err(OpenTapError::SetMtu)?;
    let mut queues = vec![queue];
    while queues.len() < pairs {
        queues.push(open_queue(&name, pairs).map_err(OpenTapError::Open)?.0);
    }
    for queue in &queues {
        let set = ioctl(libc::TUNSETVNETHDRSZ, sys::set_header_bytes(queue, HEADER_BYTES as libc::c_int));
        set.map_err(OpenTapError::SetHeaderBytes)?;
    }
    // Upstream leaves this to the guest's driver. The one before may have left a persistent tap with offloads.
    ioctl(libc::TUNSETOFFLOAD, sys::clear_offloads(&queues[0])).map_err(OpenTapError::Open)?;
    Ok(Tap { name, queues, host_mac, mtu: usize::try_from(mtu).unwrap_or_default() })
}

/// An interface that exists must have as many queues as the device.
fn check_queues(name: &str, pairs: usize) -> Result<(), OpenTapError> {
    let path = Path::new("/sys/class/net").join(name).join("tun_flags");
    if name.is_empty() || !path.exists() {
        return Ok(());
    }
    let text = std::fs::read_to_string(path).map_err(OpenTapError::ReadFlags)?;
    let flags = libc::c_int::from_str_radix(text.trim().trim_start_matches("0x"), 16);
    let many = flags.map_err(OpenTapError::Hexadecimal)? & libc::IFF_MULTI_QUEUE != 0;
    match (many, pairs > 1) {
        (true, false) => Err(OpenTapError::ManyQueues),
        (false, true) => Err(OpenTapError::OneQueue),
        _ => Ok(()),
    }
}

fn open_queue(name: &str, pairs: usize) -> Result<(File, String), TapError> {
    let flags = libc::O_NONBLOCK | libc::O_CLOEXEC;
    let tun = File::options().read(true).write(true).custom_flags(flags).open("/dev/net/tun");
    let tun = tun.map_err(TapError::OpenTun)?;
    let many = if pairs > 1 { libc::IFF_MULTI_QUEUE } else { 0 };
    let features = sys::tun_features(&tun).map_err(TapError::GetFeatures)?;
    if features & many != many {
        return Err(TapError::NoMultiQueue);
    }
    let flags = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | many;
    let name = sys::attach_tap(&tun, name, flags).map_err(TapError::Configure)?;
    Ok((tun, name))
}

fn set_address(name: &str, address: Ipv4Addr, mask: Option<IpAddr>) -> Result<(), TapError> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .map_err(|error| TapError::Socket(error.into()))?;
    let interface = Interface { socket: socket.as_fd(), name };
    ioctl(libc::SIOCSIFADDR, interface.set_address(address))?;
    if let Some(IpAddr::V4(mask)) = mask {
        ioctl(libc::SIOCSIFNETMASK, interface.set_netmask(mask))?;
    }
    Ok(())
}
