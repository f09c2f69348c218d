//! Which guest has which address, over all sets of the host.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

use regatta_core::manifest::Network;

/// The addresses in use.
#[derive(Debug, Default)]
pub(crate) struct AddressBook {
    used: Mutex<BTreeSet<Ipv4Addr>>,
}

impl AddressBook {
    /// Takes the first free address of the network's pool; none when all are in
    /// use. Without a network, it is always 0.0.0.0.
    pub(crate) fn take(&self, network: &Network) -> Option<Ipv4Addr> {
        if *network == Network::None {
            return Some(Ipv4Addr::UNSPECIFIED);
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let free = network.free_address(|address| used.contains(&address))?;
        used.insert(free);
        Some(free)
    }

    /// Marks an address that an adopted instance has.
    pub(crate) fn claim(&self, address: Ipv4Addr) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(address);
    }

    /// Gives an address back.
    pub(crate) fn release(&self, address: Ipv4Addr) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(&address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(prefix: u8) -> Network {
        Network::Loopback { base: Ipv4Addr::new(127, 9, 0, 0), prefix, port: 8080 }
    }

    #[test]
    fn hands_out_each_address_once_and_again_when_it_is_back() {
        let book = AddressBook::default();
        let first = book.take(&pool(30)).unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 9, 0, 1));
        assert_eq!(book.take(&pool(30)), Some(Ipv4Addr::new(127, 9, 0, 2)));
        assert_eq!(book.take(&pool(30)), None, "network and broadcast are left out");
        book.release(first);
        assert_eq!(book.take(&pool(30)), Some(first));
    }

    #[test]
    fn two_sets_on_one_pool_do_not_collide() {
        let book = AddressBook::default();
        book.claim(Ipv4Addr::new(127, 9, 0, 1));
        assert_eq!(book.take(&pool(24)), Some(Ipv4Addr::new(127, 9, 0, 2)));
    }
}
