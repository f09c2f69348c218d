//! Giving an interface its address.

use std::fs;

use anyhow::{Context, Result};

use crate::cmdline::Address;
use crate::sys::Interface;

/// Where the kernel lists interfaces.
const INTERFACES: &str = "/sys/class/net";

/// Sets address, mask and default route of the interface that is meant, and switches it on.
pub(crate) fn configure(address: &Address) -> Result<()> {
    let name = find(address.mac.as_deref())?;
    let interface = Interface::open(&name)?;
    interface
        .set_address(address.address, address.prefix)
        .with_context(|| format!("{name}: cannot set {}/{}", address.address, address.prefix))?;
    interface.up().with_context(|| format!("{name}: cannot be switched on"))?;
    if let Some(gateway) = address.gateway {
        interface.set_default_route(gateway).with_context(|| format!("{name}: cannot route by {gateway}"))?;
    }
    Ok(())
}

/// Switches an interface on.
pub(crate) fn up(name: &str) -> Result<()> {
    Interface::open(name)?.up().with_context(|| format!("{name}: cannot be switched on"))
}

/// The interface with this hardware address, else the first that is not the loopback.
fn find(mac: Option<&str>) -> Result<String> {
    let entries = fs::read_dir(INTERFACES).with_context(|| format!("cannot read {INTERFACES}"))?;
    let mut names: Vec<String> =
        entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort();
    let hardware =
        |name: &str| fs::read_to_string(format!("{INTERFACES}/{name}/address")).unwrap_or_default();
    names
        .into_iter()
        .filter(|name| name != "lo")
        .find(|name| mac.is_none_or(|mac| hardware(name).trim() == mac))
        .with_context(|| match mac {
            Some(mac) => format!("no interface has the hardware address {mac}"),
            None => "there is no interface".to_owned(),
        })
}
