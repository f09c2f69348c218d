//! The PCI bus: device names, slots, BAR addresses and the device tree of `vm.info`.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

/// One device of the tree: a virtio device, the PCI function in front of it, or a legacy device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DeviceNode {
    id: String,
    resources: Vec<Resource>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent: Option<String>,
    children: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pci_bdf: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
enum Resource {
    PciBar { index: usize, base: u64, size: u64, type_: BarType, prefetchable: bool },
}

/// Width of a BAR. Disks present at boot get narrow ones, so that firmware can reach them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub(crate) enum BarType {
    Mmio32,
    Mmio64,
}

/// What kind of device a virtio node is; decides whether it can be removed and what it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Disk,
    Net,
    /// Any other device that can be removed.
    Other,
    /// A device that stays, by the name that the refusal prints.
    Fixed(&'static str),
}

const BAR_BYTES: u64 = 512 << 10;
/// 32-bit BARs grow down from here.
const TOP_32: u64 = 0xe800_0000;
/// 64-bit BARs grow down from the end of a 46-bit address space, 8 MiB apart.
const TOP_64: u64 = 1 << 46;
const STEP_64: u64 = 8 << 20;
const SLOTS: u8 = 32;

/// The devices of one VM.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Bus {
    nodes: BTreeMap<String, DeviceNode>,
    /// In the order in which the devices came.
    kinds: Vec<(String, Kind)>,
    slots: BTreeSet<u8>,
    next_name: u32,
    bars_32: u64,
    bars_64: u64,
}

/// The bus has no such slot to give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BusFull {
    /// This one is taken.
    Taken(u8),
    /// All are taken.
    All,
}

impl Bus {
    /// All nodes by id.
    pub(crate) fn nodes(&self) -> &BTreeMap<String, DeviceNode> {
        &self.nodes
    }

    /// The next unused name with this prefix. One counter serves all prefixes, and a device that then fails has used
    /// its number up.
    pub(crate) fn next_name(&mut self, prefix: &str, taken: &BTreeSet<String>) -> String {
        loop {
            let name = format!("{prefix}{}", self.next_name);
            self.next_name = self.next_name.wrapping_add(1);
            if !taken.contains(&name) && !self.nodes.contains_key(&name) {
                return name;
            }
        }
    }

    /// Adds a device that is on no bus.
    pub(crate) fn add_legacy(&mut self, id: &str) {
        self.nodes.insert(
            id.to_owned(),
            DeviceNode {
                id: id.to_owned(),
                resources: Vec::new(),
                parent: None,
                children: Vec::new(),
                pci_bdf: None,
            },
        );
    }

    /// Takes a slot: this one, or the first that is free.
    pub(crate) fn take_slot(&mut self, slot: Option<u8>) -> Result<u8, BusFull> {
        let slot = match slot {
            Some(slot) if self.slots.contains(&slot) => return Err(BusFull::Taken(slot)),
            Some(slot) => slot,
            None => (1..SLOTS).find(|slot| !self.slots.contains(slot)).ok_or(BusFull::All)?,
        };
        self.slots.insert(slot);
        Ok(slot)
    }

    /// Gives a slot back.
    pub(crate) fn give_slot(&mut self, slot: u8) {
        self.slots.remove(&slot);
    }

    /// Adds the panic notifier, a PCI device that is not a virtio device.
    pub(crate) fn add_pvpanic(&mut self) -> Result<(), BusFull> {
        let slot = self.take_slot(None)?;
        let id = "__pvpanic".to_owned();
        let base = TOP_32.saturating_sub((self.bars_32 + 1) * BAR_BYTES);
        let bar = Resource::PciBar { index: 0, base, size: 2, type_: BarType::Mmio32, prefetchable: false };
        let node = DeviceNode {
            id: id.clone(),
            resources: vec![bar],
            parent: None,
            children: Vec::new(),
            pci_bdf: Some(format!("0000:00:{slot:02x}.0")),
        };
        self.nodes.insert(id, node);
        Ok(())
    }

    /// Adds a virtio device and its PCI function; returns the function's address.
    pub(crate) fn add_virtio(
        &mut self,
        id: &str,
        kind: Kind,
        bar: BarType,
        segment: u16,
        slot: Option<u8>,
    ) -> Result<String, BusFull> {
        let slot = self.take_slot(slot)?;
        let bdf = format!("{segment:04x}:00:{slot:02x}.0");
        let base = match bar {
            BarType::Mmio32 => {
                self.bars_32 += 1;
                TOP_32.saturating_sub(self.bars_32 * BAR_BYTES)
            }
            BarType::Mmio64 => {
                self.bars_64 += 1;
                TOP_64.saturating_sub(self.bars_64 * STEP_64)
            }
        };
        let function = format!("_virtio-pci-{id}");
        let resource = Resource::PciBar { index: 0, base, size: BAR_BYTES, type_: bar, prefetchable: false };
        self.nodes.insert(
            function.clone(),
            DeviceNode {
                id: function.clone(),
                resources: vec![resource],
                parent: None,
                children: vec![id.to_owned()],
                pci_bdf: Some(bdf.clone()),
            },
        );
        self.nodes.insert(
            id.to_owned(),
            DeviceNode {
                id: id.to_owned(),
                resources: Vec::new(),
                parent: Some(function),
                children: Vec::new(),
                pci_bdf: None,
            },
        );
        self.kinds.push((id.to_owned(), kind));
        Ok(bdf)
    }

    /// What kind of device an id names: of a PCI function, the device behind it. `None` for a legacy device.
    pub(crate) fn kind(&self, id: &str) -> Option<Kind> {
        let find = |id: &str| self.kinds.iter().find(|(known, _)| known == id).map(|(_, kind)| *kind);
        find(id).or_else(|| find(self.nodes.get(id)?.children.first()?))
    }

    /// The virtio devices in the order in which they came.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (&str, Kind)> {
        self.kinds.iter().map(|(id, kind)| (id.as_str(), *kind))
    }

    /// Whether the tree has a node with this id.
    pub(crate) fn contains(&self, id: &str) -> bool {
        self.nodes.contains_key(id)
    }

    /// Removes a device and its PCI function; returns the function's id and address.
    pub(crate) fn remove(&mut self, id: &str) -> Option<(String, String)> {
        let function = self.nodes.get(id)?.parent.clone()?;
        self.nodes.remove(id);
        self.kinds.retain(|(known, _)| known != id);
        let bdf = self.nodes.remove(&function)?.pci_bdf?;
        if let Some(slot) = bdf.get(8..10).and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            self.give_slot(slot);
        }
        Some((function, bdf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_upstreams() {
        let mut bus = Bus::default();
        let disk = bus.add_virtio("_disk0", Kind::Other, BarType::Mmio32, 0, None).unwrap();
        let net = bus.add_virtio("_net1", Kind::Other, BarType::Mmio64, 0, None).unwrap();
        assert_eq!((disk.as_str(), net.as_str()), ("0000:00:01.0", "0000:00:02.0"));
        let json = serde_json::to_value(bus.nodes()).unwrap();
        assert_eq!(json["_virtio-pci-_disk0"]["resources"][0]["PciBar"]["base"], 3_891_789_824u64);
        assert_eq!(json["_virtio-pci-_net1"]["resources"][0]["PciBar"]["base"], 70_368_735_789_056u64);
    }

    #[test]
    fn names_come_from_one_counter_and_slots_are_reused() {
        let mut bus = Bus::default();
        let taken = BTreeSet::from(["_net1".to_owned()]);
        assert_eq!(bus.next_name("_disk", &taken), "_disk0");
        assert_eq!(bus.next_name("_net", &taken), "_net2");
        bus.add_virtio("a", Kind::Other, BarType::Mmio64, 0, None).unwrap();
        bus.add_virtio("b", Kind::Other, BarType::Mmio64, 0, None).unwrap();
        assert_eq!(bus.remove("a"), Some(("_virtio-pci-a".into(), "0000:00:01.0".into())));
        assert_eq!(bus.add_virtio("c", Kind::Other, BarType::Mmio64, 0, None).as_deref(), Ok("0000:00:01.0"));
    }

    #[test]
    fn a_full_bus_refuses() {
        let mut bus = Bus::default();
        for index in 0..31 {
            bus.add_virtio(&index.to_string(), Kind::Other, BarType::Mmio64, 0, None).unwrap();
        }
        assert_eq!(bus.add_virtio("x", Kind::Other, BarType::Mmio64, 0, None), Err(BusFull::All));
    }
}
