//! Which guest has which address, over all sets of a node.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use crate::manifest::Network;
use crate::mutant::{self, Mutant};

/// The addresses in use.
#[derive(Debug, Clone, Default)]
pub struct AddressBook {
    used: BTreeSet<Ipv4Addr>,
}

impl AddressBook {
    /// Takes the first free address of the network's pool; none when all are in
    /// use. Without a network, it is always 0.0.0.0.
    pub fn take(&mut self, network: &Network) -> Option<Ipv4Addr> {
        if *network == Network::None {
            return Some(Ipv4Addr::UNSPECIFIED);
        }
        let free = network.free_address(|address| self.used.contains(&address))?;
        if !mutant::is(Mutant::DoubleAddress) {
            self.used.insert(free);
        }
        Some(free)
    }

    /// How many addresses of the network's pool are free.
    #[must_use]
    pub fn left(&self, network: &Network) -> u32 {
        let Some((first, last)) = network.pool_bounds() else { return u32::MAX };
        let used = self.used.range(first..=last).filter(|address| network.gives(**address)).count();
        network.room().saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// Marks an address that a found instance has.
    pub fn claim(&mut self, address: Ipv4Addr) {
        if address != Ipv4Addr::UNSPECIFIED {
            self.used.insert(address);
        }
    }

    /// Gives an address back.
    pub fn release(&mut self, address: Ipv4Addr) {
        self.used.remove(&address);
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
        let mut book = AddressBook::default();
        assert_eq!(book.left(&pool(30)), 2);
        let first = book.take(&pool(30)).unwrap();
        assert_eq!(first, Ipv4Addr::new(127, 9, 0, 1));
        assert_eq!(book.left(&pool(30)), 1);
        assert_eq!(book.take(&pool(30)), Some(Ipv4Addr::new(127, 9, 0, 2)));
        assert_eq!(book.take(&pool(30)), None, "network and broadcast are left out");
        book.release(first);
        assert_eq!(book.take(&pool(30)), Some(first));
        assert_eq!((book.left(&pool(30)), book.left(&Network::None)), (0, u32::MAX));
    }

    #[test]
    fn two_sets_on_one_pool_do_not_collide() {
        let mut book = AddressBook::default();
        book.claim(Ipv4Addr::new(127, 9, 0, 1));
        assert_eq!(book.take(&pool(24)), Some(Ipv4Addr::new(127, 9, 0, 2)));
    }
}
