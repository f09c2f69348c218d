//! How many connections each client address holds.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Below this nobody is held back, whatever the share.
const FLOOR: u32 = 16;

/// Open connections by client.
#[derive(Debug, Default)]
pub(super) struct Clients(Mutex<HashMap<IpAddr, u32>>);

impl Clients {
    /// Whether a client may have one more connection: it may hold half of `max`.
    pub(super) fn allow(&self, client: IpAddr, max: u32) -> bool {
        self.open().get(&who(client)).is_none_or(|&held| held < (max / 2).max(FLOOR))
    }

    /// Counts one more connection of a client.
    pub(super) fn enter(&self, client: IpAddr) {
        *self.open().entry(who(client)).or_default() += 1;
    }

    /// A connection of a client that entered has ended.
    pub(super) fn leave(&self, client: IpAddr) {
        let client = who(client);
        let mut open = self.open();
        if let Some(held) = open.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                open.remove(&client);
            }
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<IpAddr, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client: who has an IPv6 address has the 2⁶⁴ of its network.
fn who(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(addr) => Ipv6Addr::from_bits(addr.to_bits() >> 64 << 64).into(),
        addr @ IpAddr::V4(_) => addr,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn one_client_holds_half_and_leaves_the_rest_to_others() {
        let clients = Clients::default();
        for _ in 0..50 {
            assert!(clients.allow(ip("10.0.0.1"), 100));
            clients.enter(ip("10.0.0.1"));
        }
        assert!(!clients.allow(ip("10.0.0.1"), 100));
        assert!(!clients.allow(ip("::ffff:10.0.0.1"), 100), "the same client");
        assert!(clients.allow(ip("10.0.0.2"), 100));
        clients.enter(ip("10.0.0.2"));
        clients.leave(ip("10.0.0.2"));
        clients.leave(ip("10.0.0.1"));
        assert!(clients.allow(ip("10.0.0.1"), 100));
        assert_eq!(clients.open().len(), 1, "who holds nothing takes no memory");
    }

    #[test]
    fn an_ipv6_network_is_one_client_and_small_limits_hold_nobody_back() {
        let clients = Clients::default();
        for i in 0..FLOOR {
            assert!(clients.allow(ip(&format!("2001:db8::{i:x}")), 2));
            clients.enter(ip(&format!("2001:db8::{i:x}")));
        }
        assert!(!clients.allow(ip("2001:db8::ffff"), 2));
        assert!(clients.allow(ip("2001:db8:0:1::1"), 2));
    }
}
