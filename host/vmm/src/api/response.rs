//! Responses, read leniently: fields that we do not use may come, go or change.

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
}
