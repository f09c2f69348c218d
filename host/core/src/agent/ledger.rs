//! What instances take of a node.

use std::collections::BTreeMap;

use super::Key;
use crate::admission::{Demand, HostRoom, Shortage, room_for};

/// Sums up what instances take, and says whether there is room for more.
#[derive(Debug, Clone)]
pub struct Ledger {
    /// What there is; its disk space is looked at anew each time.
    host: HostRoom,
    sum: Demand,
    by_instance: BTreeMap<Key, Demand>,
}

impl Ledger {
    /// A ledger of a host without instances.
    #[must_use]
    pub fn new(host: HostRoom) -> Self {
        Self { host, sum: Demand::default(), by_instance: BTreeMap::new() }
    }

    /// How many more instances there is room for, up to `wanted`, and why no more.
    #[must_use]
    pub fn room(&self, demand: Demand, wanted: u32, disk_left_bytes: u64) -> (u32, Option<Shortage>) {
        let host = HostRoom { disk_bytes: disk_left_bytes, ..self.host };
        room_for(&host, self.sum, demand, wanted)
    }

    /// Takes what an instance needs.
    ///
    /// # Errors
    /// What there is too little of; nothing is taken then.
    pub fn take(&mut self, key: &Key, demand: Demand, disk_left_bytes: u64) -> Result<(), Shortage> {
        if let (_, Some(shortage)) = self.room(demand, 1, disk_left_bytes) {
            return Err(shortage);
        }
        self.claim(key, demand);
        Ok(())
    }

    /// Counts an instance that is there, whatever room there is.
    pub fn claim(&mut self, key: &Key, demand: Demand) {
        self.release(key);
        self.by_instance.insert(key.clone(), demand);
        self.sum = self.sum.plus(demand);
    }

    /// Gives back what an instance took.
    pub fn release(&mut self, key: &Key) {
        if let Some(demand) = self.by_instance.remove(key) {
            self.sum = self.sum.less(demand);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admission::Resource;

    fn key(set: &str, id: u32) -> Key {
        Key { set: set.into(), id }
    }

    #[test]
    fn what_is_taken_is_not_given_again_until_it_is_back() {
        let host = HostRoom { memory_bytes: 100, vcpus: 100, disk_bytes: 0, open_files: 100 };
        let mut ledger = Ledger::new(host);
        let half = Demand { memory_bytes: 50, ..Demand::default() };
        ledger.take(&key("web", 1), half, 0).expect("room for one");
        ledger.take(&key("web", 2), half, 0).expect("room for another");
        let shortage = ledger.take(&key("api", 1), half, 0).expect_err("two halves are all");
        assert_eq!(shortage.resource, Resource::Memory);
        assert_eq!(ledger.room(half, 3, 0).0, 0);
        ledger.release(&key("web", 1));
        assert_eq!(ledger.room(half, 3, 0).0, 1);
        ledger.claim(&key("web", 2), Demand::default());
        assert_eq!(ledger.room(half, 3, 0).0, 2, "claimed again, it is counted once");
    }

    #[test]
    fn a_full_disk_leaves_nothing() {
        let host = HostRoom { memory_bytes: 100, vcpus: 100, disk_bytes: u64::MAX, open_files: 100 };
        let mut ledger = Ledger::new(host);
        let demand = Demand { disk_bytes: 1, ..Demand::default() };
        let shortage = ledger.take(&key("web", 1), demand, 0).expect_err("full");
        assert_eq!((shortage.resource, shortage.left), (Resource::Disk, 0));
    }
}
