//! Taps, as upstream opens them. Only a guest with a real network card needs one. Source: `net_util/src/tap.rs` and
//! `open_tap.rs` of v53.0.

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::sys;
use crate::config::{MacAddr, NetConfig};
use crate::vmm::VmError;

const TUN: &str = "/dev/net/tun";
/// Longest name of a network interface.
pub(super) const MAX_NAME_BYTES: usize = 15;
/// What a tap is called that is made for the VM.
const NEW: &str = "vmtap%d";

/// An open tap: one descriptor for each pair of queues. A tap that is not persistent goes with them.
#[derive(Debug)]
pub(crate) struct Tap {
    pub(crate) name: String,
    pub(crate) queues: Vec<File>,
}

/// The failure to have a tap.
fn failed(messages: &[&str]) -> VmError {
    let above = ["Cannot create virtio-net device", "Failed to open taps", "Open tap device failed"];
    VmError::device(above.iter().chain(messages).copied())
}

/// Refuses a name that no interface can have.
pub(super) fn check_name(name: &str) -> Result<(), VmError> {
    if name.len() > MAX_NAME_BYTES {
        let text = format!("Interface name too long (max length is {MAX_NAME_BYTES}): {name}");
        return Err(failed(&[&text]));
    }
    Ok(())
}

impl Tap {
    /// Opens the tap that the configuration names, or a new one, and switches it on.
    pub(super) fn open(net: &NetConfig) -> Result<Self, VmError> {
        let wanted = net.tap.as_deref().unwrap_or(NEW);
        check_name(wanted)?;
        // Whoever made a tap has given it its address, too.
        let new = sys::interface_mac(wanted).is_err();
        let pairs = (net.num_queues / 2).max(1);
        let mut tap = Self { name: wanted.to_owned(), queues: Vec::new() };
        for _ in 0..pairs {
            let tun =
                open_tun().map_err(|error| failed(&["Couldn't open /dev/net/tun", &error.to_string()]))?;
            tap.name = sys::attach_tap(&tun, &tap.name, pairs > 1)
                .map_err(|error| failed(&["Unable to configure tap interface", &error.to_string()]))?;
            tap.queues.push(tun);
        }
        tap.settle(net, new).map_err(|(what, error)| {
            VmError::device([
                "Cannot create virtio-net device",
                "Failed to open taps",
                what,
                &error.to_string(),
            ])
        })?;
        Ok(tap)
    }

    fn settle(&self, net: &NetConfig, new: bool) -> Result<(), (&'static str, io::Error)> {
        if let (true, Some(IpAddr::V4(address))) = (new, net.ip) {
            let mask = match net.mask {
                Some(IpAddr::V4(mask)) => mask,
                _ => Ipv4Addr::new(255, 255, 255, 0),
            };
            sys::set_interface_address(&self.name, address, mask)
                .map_err(|error| ("Error setting tap address", error))?;
        }
        if let Some(mac) = net.host_mac {
            sys::set_interface_mac(&self.name, mac.0)
                .map_err(|error| ("Setting MAC address failed", error))?;
        }
        if let Some(mtu) = net.mtu {
            sys::set_interface_mtu(&self.name, mtu).map_err(|error| ("Setting MTU failed", error))?;
        }
        sys::interface_up(&self.name).map_err(|error| ("Enabling tap interface failed", error))
    }

    /// The hardware address of the host's side.
    pub(super) fn host_mac(&self) -> Option<MacAddr> {
        sys::interface_mac(&self.name).map(MacAddr).ok()
    }
}

fn open_tun() -> io::Result<File> {
    let tun = File::options().read(true).write(true).open(TUN)?;
    let flags = fcntl_getfl(&tun)?;
    fcntl_setfl(&tun, flags | OFlags::NONBLOCK)?;
    Ok(tun)
}
