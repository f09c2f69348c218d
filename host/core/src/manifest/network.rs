//! How instances are reached.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use super::outbound::Outbound;

/// The host's end of every link into an isolated network; no pool may contain it.
pub const LINK_ADDRESS: Ipv4Addr = Ipv4Addr::new(169, 254, 213, 1);

/// How instances are reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "mode", rename_all = "kebab-case")]
pub enum Network {
    /// Each instance has a network of its own with the same guest address in every one. The host reaches it at an address out of this
    /// pool, by network address translation.
    Isolated {
        /// First address of the pool.
        base: Ipv4Addr,
        /// Prefix length of the pool, 8 to 30.
        prefix: u8,
        /// The guest's own address.
        guest: Ipv4Addr,
        /// Prefix length of the guest's network.
        guest_prefix: u8,
        /// Where guests may open connections beyond the host.
        outbound: Outbound,
        /// Whether others than the host may open connections to guests.
        published: bool,
        /// Name servers that the guest is told.
        dns: Vec<Ipv4Addr>,
        /// Port of the guest's service.
        port: u16,
    },
    /// Each instance is a port of a bridge of the host.
    Bridge {
        /// Name of the bridge.
        bridge: String,
        /// The bridge's own address, when Regatta makes and removes the bridge.
        managed: Option<Ipv4Addr>,
        /// First address of the pool.
        base: Ipv4Addr,
        /// Prefix length of the pool, 8 to 30.
        prefix: u8,
        /// Prefix length of the network that the pool is part of.
        subnet_prefix: u8,
        /// The guests' gateway.
        gateway: Option<Ipv4Addr>,
        /// Whether guests may talk to each other, and to those of other sets that may.
        #[serde(default = "as_ever")]
        peers: bool,
        /// Name servers that the guest is told.
        dns: Vec<Ipv4Addr>,
        /// Port of the guest's service.
        port: u16,
    },
    /// Each instance answers on a loopback address of the host, out of this
    /// pool. For VMMs whose guests share the host's loopback.
    Loopback {
        /// First address of the pool, within 127.0.0.0/8.
        base: Ipv4Addr,
        /// Prefix length of the pool, 9 to 30.
        prefix: u8,
        /// Port of the guest's service; default 8080.
        port: u16,
    },
    /// No network device.
    None,
}

/// Sets that were stored before there was the field keep what they had.
const fn as_ever() -> bool {
    true
}

/// What a guest must know to use its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestAddress {
    /// Its own address.
    pub address: Ipv4Addr,
    /// Prefix length of its network.
    pub prefix: u8,
    /// Its gateway.
    pub gateway: Option<Ipv4Addr>,
    /// Its name servers.
    pub dns: Vec<Ipv4Addr>,
    /// The address of its network card.
    pub mac: String,
}

impl Network {
    /// Port of the guest's service; none without a network.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        match *self {
            Self::Isolated { port, .. } | Self::Bridge { port, .. } | Self::Loopback { port, .. } => {
                Some(port)
            }
            Self::None => None,
        }
    }

    /// The pool: its first address and prefix length.
    #[must_use]
    pub fn pool(&self) -> Option<(Ipv4Addr, u8)> {
        match *self {
            Self::Isolated { base, prefix, .. }
            | Self::Bridge { base, prefix, .. }
            | Self::Loopback { base, prefix, .. } => Some((base, prefix)),
            Self::None => None,
        }
    }

    /// First and last address of the pool; none without a network.
    #[must_use]
    pub fn pool_bounds(&self) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let (base, prefix) = self.pool()?;
        let (first, last) = bounds(base, prefix);
        Some((first.into(), last.into()))
    }

    /// How many instances the pool has room for.
    pub(crate) fn room(&self) -> u32 {
        let Some((_, prefix)) = self.pool() else { return u32::MAX };
        let mut reserved: Vec<Ipv4Addr> = match self {
            Self::Bridge { managed, gateway, .. } => managed.iter().chain(gateway).copied().collect(),
            _ => Vec::new(),
        };
        reserved.dedup();
        let inside = reserved.into_iter().filter(|address| self.is_inner(*address)).count();
        pool_room(prefix).saturating_sub(u32::try_from(inside).unwrap_or(u32::MAX))
    }

    /// Whether `address` is in the pool and not its first or last.
    fn is_inner(&self, address: Ipv4Addr) -> bool {
        let Some((base, prefix)) = self.pool() else { return false };
        let (first, last) = bounds(base, prefix);
        (first.saturating_add(1)..last).contains(&u32::from(address))
    }

    /// Whether `address` may be given to an instance: it is in the pool, not its first or last, and of nobody else.
    #[must_use]
    pub fn gives(&self, address: Ipv4Addr) -> bool {
        let reserved = match self {
            Self::Bridge { managed, gateway, .. } => *managed == Some(address) || *gateway == Some(address),
            _ => false,
        };
        self.is_inner(address) && !reserved
    }

    /// The first address for an instance that `used` does not have.
    #[must_use]
    pub fn free_address(&self, used: impl Fn(Ipv4Addr) -> bool) -> Option<Ipv4Addr> {
        let (base, prefix) = self.pool()?;
        let (first, last) = bounds(base, prefix);
        (first.saturating_add(1)..last)
            .map(Ipv4Addr::from)
            .find(|address| self.gives(*address) && !used(*address))
    }

    /// Whether a listener at `address` would take an address of an instance.
    #[must_use]
    pub fn covers(&self, address: SocketAddr) -> bool {
        let Self::Loopback { base, prefix, port } = *self else { return false };
        match address.ip() {
            _ if address.port() != port => false,
            // The unspecified IPv6 address takes the IPv4 ones as well.
            ip if ip.is_unspecified() => true,
            IpAddr::V4(ip) => same_network(ip, base, prefix),
            IpAddr::V6(_) => false,
        }
    }

    /// What the guest of the instance at `address` is told; none when it has no network device.
    #[must_use]
    pub fn guest_address(&self, address: Ipv4Addr) -> Option<GuestAddress> {
        match self {
            Self::Isolated { guest, guest_prefix, dns, .. } => Some(GuestAddress {
                address: *guest,
                prefix: *guest_prefix,
                gateway: Some(isolated_gateway(*guest, *guest_prefix)),
                dns: dns.clone(),
                // The same in every instance, as the address: a copy of a running guest need not change.
                mac: mac_of(*guest),
            }),
            Self::Bridge { subnet_prefix, gateway, managed, dns, .. } => Some(GuestAddress {
                address,
                prefix: *subnet_prefix,
                gateway: gateway.or(*managed),
                dns: dns.clone(),
                mac: mac_of(address),
            }),
            Self::Loopback { .. } | Self::None => None,
        }
    }
}

/// The gateway in a guest's own network: the first address that the guest does not have.
#[must_use]
pub fn isolated_gateway(guest: Ipv4Addr, prefix: u8) -> Ipv4Addr {
    let (first, _) = bounds(guest, prefix);
    let gateway = Ipv4Addr::from(first.saturating_add(1));
    if gateway == guest { Ipv4Addr::from(first.saturating_add(2)) } else { gateway }
}

/// A locally administered address out of the range that virtual machines use, told apart by the IPv4 address.
fn mac_of(address: Ipv4Addr) -> String {
    let [a, b, c, d] = address.octets();
    format!("52:54:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
}

/// First and last address of a network.
fn bounds(address: Ipv4Addr, prefix: u8) -> (u32, u32) {
    let host = u32::MAX.checked_shr(prefix.into()).unwrap_or(0);
    (u32::from(address) & !host, u32::from(address) | host)
}

/// Whether two addresses are in one network of that prefix length.
pub(crate) fn same_network(one: Ipv4Addr, other: Ipv4Addr, prefix: u8) -> bool {
    bounds(one, prefix) == bounds(other, prefix)
}

/// Whether two networks have an address in common.
pub(crate) fn overlap((one, one_prefix): (Ipv4Addr, u8), (other, other_prefix): (Ipv4Addr, u8)) -> bool {
    same_network(one, other, one_prefix.min(other_prefix))
}

/// Addresses of a pool that instances can have: all but the first and the last.
pub(crate) fn pool_room(prefix: u8) -> u32 {
    (1_u32 << (32 - u32::from(prefix).clamp(1, 30))) - 2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn isolated() -> Network {
        Network::Isolated {
            base: Ipv4Addr::new(10, 213, 0, 0),
            prefix: 29,
            guest: Ipv4Addr::new(10, 88, 0, 2),
            guest_prefix: 24,
            outbound: Outbound::Switch(false),
            published: false,
            dns: Vec::new(),
            port: 8080,
        }
    }

    #[test]
    fn a_pool_gives_all_but_its_ends_and_what_is_taken() {
        let network = isolated();
        assert_eq!(network.free_address(|_| false), Some(Ipv4Addr::new(10, 213, 0, 1)));
        assert_eq!(network.free_address(|a| a.octets()[3] < 6), Some(Ipv4Addr::new(10, 213, 0, 6)));
        assert_eq!(network.free_address(|a| a.octets()[3] < 7), None, "the last address is the broadcast");
        let bridge = Network::Bridge {
            bridge: "br0".into(),
            managed: Some(Ipv4Addr::new(10, 9, 0, 1)),
            base: Ipv4Addr::new(10, 9, 0, 0),
            prefix: 30,
            subnet_prefix: 24,
            gateway: None,
            peers: false,
            dns: Vec::new(),
            port: 80,
        };
        assert_eq!(
            bridge.free_address(|_| false),
            Some(Ipv4Addr::new(10, 9, 0, 2)),
            "the bridge has the first"
        );
        assert_eq!(Network::None.free_address(|_| false), None);
    }

    #[test]
    fn every_isolated_guest_is_told_the_same() {
        let network = isolated();
        let one = network.guest_address(Ipv4Addr::new(10, 213, 0, 1)).expect("a network");
        assert_eq!(Some(&one), network.guest_address(Ipv4Addr::new(10, 213, 0, 2)).as_ref());
        assert_eq!(one.gateway, Some(Ipv4Addr::new(10, 88, 0, 1)));
        assert_eq!(one.mac, "52:54:0a:58:00:02");
        assert_eq!(isolated_gateway(Ipv4Addr::new(10, 88, 0, 1), 24), Ipv4Addr::new(10, 88, 0, 2));
    }

    #[test]
    fn networks_overlap_when_one_is_within_the_other() {
        let net = |text: &str, prefix| (text.parse::<Ipv4Addr>().expect("an address"), prefix);
        assert!(overlap(net("10.0.0.0", 8), net("10.88.0.0", 24)));
        assert!(overlap(net("10.88.0.0", 24), net("10.0.0.0", 8)));
        assert!(!overlap(net("10.88.1.0", 24), net("10.88.0.0", 24)));
        assert!(overlap(net("0.0.0.0", 0), net("10.88.0.0", 24)));
    }
}
