//! Responses, read leniently: fields that we do not use may come, go or change.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

/// `vmm.ping`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Ping {
    /// Process id as the VMM sees it.
    pub(crate) pid: i64,
}

/// `vm.info`.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct VmInfo {
    /// What the VMM kept of what `vm.create` sent, with defaults.
    #[serde(default)]
    pub(crate) config: Value,
    pub(crate) state: RawState,
    /// Present once the VMM owns a VM, even one whose boot failed half-way.
    #[serde(default)]
    pub(crate) device_tree: Option<Value>,
    #[serde(default)]
    pub(crate) memory_actual_size: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub(crate) enum RawState {
    Created,
    Running,
    Shutdown,
    Paused,
    BreakPoint,
    #[serde(other)]
    Unknown,
}

/// State of the VM inside a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmState {
    /// The VMM runs, no VM was described to it yet.
    NotCreated,
    /// Described, not booted; also what a VM that was shut down looks like.
    Created,
    /// A boot failed half-way; the VM must be deleted before anything else works.
    HalfMade,
    /// The guest runs (or is stopped by a debugger).
    Running,
    /// The guest's processors are stopped.
    Paused,
    /// The VMM reported a state that this version of Regatta does not know.
    Unknown,
}

impl VmInfo {
    pub(crate) fn vm_state(&self) -> VmState {
        match self.state {
            RawState::Created | RawState::Shutdown if self.device_tree.is_some() => VmState::HalfMade,
            RawState::Created | RawState::Shutdown => VmState::Created,
            RawState::Running | RawState::BreakPoint => VmState::Running,
            RawState::Paused => VmState::Paused,
            RawState::Unknown => VmState::Unknown,
        }
    }
}

/// Counters of one VM's devices, by device id. They count from boot and **wrap**: take differences with `wrapping_sub`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmCounters {
    /// Disks, by id (`root`, …).
    pub disks: BTreeMap<String, DiskCounters>,
    /// Network devices, by id (`net0`, …).
    pub nets: BTreeMap<String, NetCounters>,
}

/// Counters of one disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Bytes read by the guest.
    pub read_bytes: u64,
    /// Bytes written by the guest.
    pub write_bytes: u64,
    /// Read requests.
    pub read_ops: u64,
    /// Write requests.
    pub write_ops: u64,
}

/// Counters of one network device, as the guest sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetCounters {
    /// Bytes received by the guest.
    pub rx_bytes: u64,
    /// Bytes sent by the guest.
    pub tx_bytes: u64,
    /// Frames received.
    pub rx_frames: u64,
    /// Frames sent.
    pub tx_frames: u64,
}

/// `vm.counters` as sent: device id → counter name → value.
pub(crate) type RawCounters = BTreeMap<String, BTreeMap<String, u64>>;

/// Sorts the raw counters into disks and network devices by the names that each has; other devices are left out.
pub(crate) fn counters(raw: &RawCounters) -> VmCounters {
    let mut sorted = VmCounters::default();
    for (id, values) in raw {
        let get = |name: &str| values.get(name).copied();
        if let (Some(read_bytes), Some(write_bytes)) = (get("read_bytes"), get("write_bytes")) {
            let disk = DiskCounters {
                read_bytes,
                write_bytes,
                read_ops: get("read_ops").unwrap_or(0),
                write_ops: get("write_ops").unwrap_or(0),
            };
            sorted.disks.insert(id.clone(), disk);
        } else if let (Some(rx_bytes), Some(tx_bytes)) = (get("rx_bytes"), get("tx_bytes")) {
            let net = NetCounters {
                rx_bytes,
                tx_bytes,
                rx_frames: get("rx_frames").unwrap_or(0),
                tx_frames: get("tx_frames").unwrap_or(0),
            };
            sorted.nets.insert(id.clone(), net);
        }
    }
    sorted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn info_tells_a_half_made_vm_from_a_described_one() {
        let state = |text: &str| serde_json::from_str::<VmInfo>(text).expect("info").vm_state();
        assert_eq!(state(r#"{"config":{},"state":"Created","memory_actual_size":1}"#), VmState::Created);
        assert_eq!(state(r#"{"config":{},"state":"Created","device_tree":{}}"#), VmState::HalfMade);
        assert_eq!(state(r#"{"config":{},"state":"Running","device_tree":{},"new":1}"#), VmState::Running);
        assert_eq!(state(r#"{"state":"Paused"}"#), VmState::Paused);
        assert_eq!(state(r#"{"state":"Levitating"}"#), VmState::Unknown);
    }

    #[test]
    fn counters_of_the_capture_are_sorted_by_kind() {
        let raw = r#"{"_disk0":{"read_bytes":1,"write_bytes":2,"read_ops":3,"write_ops":4,"read_latency_min":18446744073709551615},
            "_net1":{"rx_bytes":5,"tx_bytes":6,"rx_frames":7,"tx_frames":8},"_odd":{"x":1}}"#;
        let sorted = counters(&serde_json::from_str(raw).expect("counters"));
        assert_eq!(
            sorted.disks["_disk0"],
            DiskCounters { read_bytes: 1, write_bytes: 2, read_ops: 3, write_ops: 4 }
        );
        assert_eq!(
            sorted.nets["_net1"],
            NetCounters { rx_bytes: 5, tx_bytes: 6, rx_frames: 7, tx_frames: 8 }
        );
        assert_eq!(sorted.disks.len() + sorted.nets.len(), 2);
    }
}
