//! What really exists on the node: directories, processes, guests. It outlives the daemon.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use regatta_core::agent::{Found, Identity, Key, Report, Running};
use regatta_core::state::VmmProcessId;

use crate::guest::Guest;

/// The node.
#[derive(Debug, Default)]
pub(crate) struct Node {
    pub(crate) vms: BTreeMap<Key, Vm>,
    pids: u32,
}

/// An instance's directory, and what there is of its VM.
#[derive(Debug)]
pub(crate) struct Vm {
    pub(crate) identity: Identity,
    pub(crate) stage: Stage,
    pub(crate) guest: Guest,
    /// Its socket does not answer: a daemon that comes back cannot ask it.
    pub(crate) silent: bool,
    /// A stop was ordered: a launch under way is given up.
    pub(crate) stopping: bool,
    /// What its VMM wrote into the file of events: how its guest fared, oldest first.
    pub(crate) events: Vec<Report>,
    process: Option<VmmProcessId>,
}

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    /// A directory.
    Directory,
    /// A process whose guest does not run yet.
    HalfMade,
    /// A guest.
    Running,
    /// The process has ended.
    Ended,
}

/// Bytes of one event in the file of events.
pub(crate) const EVENT_BYTES: u64 = 100;

impl Vm {
    pub(crate) fn is_alive(&self) -> bool {
        matches!(self.stage, Stage::HalfMade | Stage::Running)
    }

    /// Its guest runs, as far as a VMM can tell.
    pub(crate) fn running(&self) -> Running {
        Running { process: self.process, start: Some("cold".to_owned()), not_contained: Vec::new() }
    }
}

impl Node {
    pub(crate) fn make(&mut self, identity: Identity) {
        let key = Key { set: identity.set.as_str().into(), id: identity.id };
        let vm = Vm {
            identity,
            stage: Stage::Directory,
            guest: Guest::default(),
            silent: false,
            stopping: false,
            events: Vec::new(),
            process: None,
        };
        self.vms.insert(key, vm);
    }

    /// Its process is started.
    pub(crate) fn start(&mut self, key: &Key) {
        self.pids += 1;
        let process = VmmProcessId { pid: self.pids, start_time_ticks: u64::from(self.pids) };
        if let Some(vm) = self.vms.get_mut(key) {
            (vm.stage, vm.process) = (Stage::HalfMade, Some(process));
        }
    }

    /// What a daemon that comes back finds of an instance, and its address.
    pub(crate) fn find(&self, key: &Key) -> (Found, Option<Ipv4Addr>) {
        let Some(vm) = self.vms.get(key) else { return (Found::Nothing, None) };
        let found = match vm.stage {
            Stage::Directory | Stage::Ended => Found::Nothing,
            _ if vm.silent => Found::Unreachable(vm.running()),
            Stage::HalfMade => Found::HalfMade,
            Stage::Running => Found::Running(vm.running()),
        };
        (found, Some(vm.identity.address))
    }

    /// Keys of VMs like that.
    pub(crate) fn keys(&self, like: impl Fn(&Vm) -> bool) -> Vec<Key> {
        self.vms.iter().filter(|(_, vm)| like(vm)).map(|(key, _)| key.clone()).collect()
    }
}
