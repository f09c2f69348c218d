//! Names and decisions, without touching the host.
//!
//! What is ours is known by an interface's alias, never by its name alone: `regatta <data directory> <set>/<id>`, and for managed bridges
//! `regatta <data directory> bridge`.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::NetworkError;
use super::reach::Reach;
use crate::instance::{BridgedNetwork, InstanceDir, IsolatedNetwork};

/// The tap inside an instance's namespace. Not `tap0`: VMMs look up a tap's properties by name in `/sys`, which shows the host's
/// namespace, where such a name may well be in use.
pub(crate) const INNER_TAP: &str = "rg-tap";
/// The veth end inside an instance's namespace.
pub(crate) const UPLINK: &str = "uplink";
/// The host's end of every veth. Link-local, the same for all: no address of the operator's is used up.
pub(crate) const HOST_END: Ipv4Addr = Ipv4Addr::new(169, 254, 213, 1);

/// The kernel's limit on aliases, in bytes.
const ALIAS_LIMIT_BYTES: usize = 255;

/// How things of one data directory are called.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    data: String,
    hash: [u8; 32],
}

/// Whose an interface of ours is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// An instance's.
    Instance { set: String, id: String },
    /// A managed bridge.
    Bridge,
}

impl Names {
    pub(crate) fn new(data: &Path) -> Self {
        let hash = Sha256::digest(data.as_os_str().as_bytes()).into();
        Self { data: data.to_string_lossy().into_owned(), hash }
    }

    /// The interface of the instance with this address in the host's namespace: exactly the 15 bytes that a name may have. Only tells
    /// people whose it might be; the alias decides.
    pub(crate) fn link(&self, address: Ipv4Addr) -> String {
        format!("rg{}-{:08x}", hex::encode(&self.hash[..2]), address.to_bits())
    }

    /// The nftables table in the host's namespace. Table names may be long, so unlike those of links they need no second proof.
    pub(crate) fn table(&self) -> String {
        format!("regatta-{}", hex::encode(&self.hash[..8]))
    }

    /// The alias of an instance's interface.
    ///
    /// # Errors
    /// The data directory's path is too long.
    pub(crate) fn alias(&self, dir: &InstanceDir) -> Result<String, NetworkError> {
        self.checked(format!("regatta {} {}/{}", self.data, dir.set(), dir.id()))
    }

    /// The alias of managed bridges.
    ///
    /// # Errors
    /// The data directory's path is too long.
    pub(crate) fn bridge_alias(&self) -> Result<String, NetworkError> {
        self.checked(format!("regatta {} bridge", self.data))
    }

    fn checked(&self, alias: String) -> Result<String, NetworkError> {
        if alias.len() > ALIAS_LIMIT_BYTES {
            let why =
                format!("the data directory's path is too long for an interface's alias ({})", self.data);
            return Err(NetworkError::Spec { why });
        }
        Ok(alias)
    }

    /// The hardware address of a managed bridge. A bridge cannot be given its alias in the moment in which it is made, but its address:
    /// with it, a bridge whose making was cut off between the two is known as ours.
    pub(crate) fn bridge_mac(&self, bridge: &str) -> [u8; 6] {
        let hash = Sha256::new().chain_update(self.hash).chain_update(bridge.as_bytes()).finalize();
        // Locally administered, unicast.
        [0x0a, hash[0], hash[1], hash[2], hash[3], hash[4]]
    }

    /// Whose an interface with this alias is, if it is of this data directory.
    pub(crate) fn owner(&self, alias: &str) -> Option<Owner> {
        let rest = alias.strip_prefix("regatta ")?.strip_prefix(&self.data)?.strip_prefix(' ')?;
        if rest == "bridge" {
            return Some(Owner::Bridge);
        }
        let (set, id) = rest.split_once('/')?;
        let plain = |name: &str| !name.is_empty() && !name.contains([' ', '/']);
        (plain(set) && plain(id)).then(|| Owner::Instance { set: set.to_owned(), id: id.to_owned() })
    }

    /// Whether a bridge was made for this data directory.
    pub(crate) fn owns_bridge(&self, link: &Listed) -> bool {
        link.kind == Kind::Bridge
            && match &link.alias {
                Some(alias) => self.owner(alias) == Some(Owner::Bridge),
                None => link.mac == self.bridge_mac(&link.name),
            }
    }
}

/// What `network.json` in an instance's directory says: written before anything is made, enough to remove all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Record {
    /// Version of this layout.
    pub(crate) version: u32,
    /// The interface in the host's namespace.
    pub(crate) link: String,
    /// Whether its network is an isolated one (else it is a port of a bridge).
    pub(crate) isolated: bool,
    /// The managed bridge that it is a port of.
    pub(crate) managed_bridge: Option<String>,
    /// What its rules are made of again when they are lost; none in records of earlier versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rules: Option<LinkRules>,
}

/// What the rules in the host's namespace say about an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum LinkRules {
    Veth(VethRules),
    Port(PortRules),
}

/// What the instance behind a veth may do; by default nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VethRules {
    /// Open connections.
    pub(crate) outbound: bool,
    /// Also to special ranges, as its own rules say.
    pub(crate) special: bool,
    /// Be reached from beyond the host.
    pub(crate) published: bool,
}

/// Who the guest behind a port of a bridge is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct PortRules {
    pub(crate) mac: String,
    pub(crate) address: Ipv4Addr,
    /// Whether it may talk to other guests that may.
    pub(crate) peers: bool,
}

impl Record {
    pub(crate) const VERSION: u32 = 1;

    pub(crate) fn of_isolated(names: &Names, spec: &IsolatedNetwork) -> Self {
        let reach = spec.outbound.as_ref().map(Reach::of).unwrap_or_default();
        let rules = VethRules {
            outbound: spec.outbound.is_some(),
            special: reach.is_special(),
            published: spec.published,
        };
        Self {
            version: Self::VERSION,
            link: names.link(spec.address),
            isolated: true,
            managed_bridge: None,
            rules: Some(LinkRules::Veth(rules)),
        }
    }

    pub(crate) fn of_bridged(names: &Names, spec: &BridgedNetwork) -> Self {
        Self {
            version: Self::VERSION,
            link: names.link(spec.address),
            isolated: false,
            managed_bridge: spec.managed.map(|_| spec.bridge.clone()),
            rules: Some(LinkRules::Port(PortRules {
                mac: spec.mac.clone(),
                address: spec.address,
                peers: spec.peers,
            })),
        }
    }
}

/// What kind of interface one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Bridge,
    Veth,
    Other,
}

/// An interface as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) alias: Option<String>,
    pub(crate) mac: Vec<u8>,
    pub(crate) kind: Kind,
    /// Index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
}

impl Listed {
    /// Whether one of ours is a guest's port of a bridge: a veth on it, or a tap as earlier versions made them.
    pub(crate) fn is_port(&self) -> bool {
        self.kind == Kind::Other || self.kind == Kind::Veth && self.master.is_some()
    }
}

/// What a sweep must do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sweep {
    /// Interfaces to remove, ports before bridges.
    pub(crate) remove: Vec<Listed>,
    /// Names of the veths of isolated networks that stay, which are those that may be in the table.
    pub(crate) veths: BTreeSet<String>,
    /// Names of our ports of bridges that stay.
    pub(crate) ports: BTreeSet<String>,
}

/// Decides what goes: interfaces of this data directory whose instance is not in `live` (set and id), and managed bridges that are left
/// without a port. Those named in `busy` stay whatever their instance is.
pub(crate) fn sweep(
    names: &Names,
    links: &[Listed],
    live: &BTreeSet<(String, String)>,
    busy: &BTreeSet<String>,
) -> Sweep {
    let mut sweep = Sweep::default();
    let mut gone = BTreeSet::new();
    for link in links {
        match link.alias.as_deref().and_then(|alias| names.owner(alias)) {
            Some(Owner::Instance { set, id }) => {
                if !busy.contains(&link.name) && !live.contains(&(set, id)) {
                    gone.insert(link.index);
                    sweep.remove.push(link.clone());
                } else if link.is_port() {
                    sweep.ports.insert(link.name.clone());
                } else if link.kind == Kind::Veth {
                    sweep.veths.insert(link.name.clone());
                }
            }
            Some(Owner::Bridge) | None => {}
        }
    }
    for bridge in links.iter().filter(|link| names.owns_bridge(link)) {
        if !links.iter().any(|port| port.master == Some(bridge.index) && !gone.contains(&port.index)) {
            sweep.remove.push(bridge.clone());
        }
    }
    sweep
}

/// What speaks against an isolated network, if anything does.
pub(crate) fn check_isolated(spec: &IsolatedNetwork) -> Result<(), NetworkError> {
    let refuse = |why: String| Err(NetworkError::Spec { why });
    check_mac(&spec.mac)?;
    check_address(spec.address)?;
    if !(1..=30).contains(&spec.prefix) {
        return refuse(format!("prefix length {} leaves no room for a guest and its gateway", spec.prefix));
    }
    let mask = u32::MAX << (32 - u32::from(spec.prefix));
    let network = spec.gateway.to_bits() & mask;
    let inside = |address: Ipv4Addr| address.to_bits() & mask == network;
    for (what, address) in [("guest", spec.guest), ("gateway", spec.gateway)] {
        let host = address.to_bits() & !mask;
        if !inside(address) || host == 0 || host == !mask {
            return refuse(format!(
                "{what} {address} is not an address in the network of gateway {}/{}",
                spec.gateway, spec.prefix
            ));
        }
        check_address(address)?;
    }
    if spec.guest == spec.gateway {
        return refuse(format!("the guest and its gateway have the same address {}", spec.guest));
    }
    if inside(spec.address) || inside(HOST_END) {
        return refuse(format!("address {} is in the guest's own network", spec.address));
    }
    Ok(())
}

/// What speaks against a bridged network, if anything does.
pub(crate) fn check_bridged(spec: &BridgedNetwork) -> Result<(), NetworkError> {
    let refuse = |why: String| Err(NetworkError::Spec { why });
    check_mac(&spec.mac)?;
    check_address(spec.address)?;
    let name = &spec.bridge;
    let plain = |c: char| c.is_ascii_graphic() && !matches!(c, '/' | ':' | '%');
    if name.is_empty() || name.len() > 15 || name == "." || name == ".." || !name.chars().all(plain) {
        return refuse(format!("{name:?} cannot be the name of a bridge (1 to 15 characters)"));
    }
    match spec.managed {
        Some((_, prefix)) if !(1..=30).contains(&prefix) => {
            refuse(format!("prefix length {prefix} leaves no room for guests on the bridge"))
        }
        Some((address, _)) if address == spec.address => {
            refuse(format!("the guest and its bridge have the same address {address}"))
        }
        Some((address, _)) => check_address(address),
        None => Ok(()),
    }
}

fn check_address(address: Ipv4Addr) -> Result<(), NetworkError> {
    let special = address.octets()[0] == 0
        || address.octets()[0] >= 240
        || address.is_loopback()
        || address.is_link_local()
        || address.is_multicast();
    if special {
        return Err(NetworkError::Spec { why: format!("{address} cannot be the address of a machine") });
    }
    Ok(())
}

fn check_mac(mac: &str) -> Result<(), NetworkError> {
    let byte = |part: &str| {
        (part.len() == 2 && part.bytes().all(|c| c.is_ascii_hexdigit()))
            .then(|| u8::from_str_radix(part, 16).ok())
            .flatten()
    };
    let bytes: Option<Vec<u8>> = mac.split(':').map(byte).collect();
    match bytes.as_deref() {
        Some([first, _, _, _, _, _]) if first & 1 == 0 && bytes != Some(vec![0; 6]) => Ok(()),
        _ => Err(NetworkError::Spec {
            why: format!("\"{mac}\" is not the hardware address of a machine (as in 52:54:00:12:34:56)"),
        }),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
