//! What may be done: launches, stops, ends of drains, replies.

use regatta_core::agent::{Identity, Key};
use regatta_core::digest::Digest;
use regatta_core::machine::{Command, CommandError, Done, SetMachine, Token};
use regatta_core::phase::Phase;
use regatta_core::plan::{Action, RemovalCause};
use regatta_core::protection::Protection;
use regatta_core::record::TickRecord;

use super::Checks;
use crate::lb::Lb;
use crate::node::Node;
use crate::store::Store;

/// What was asked of a set: what has to be stored when the answer is yes.
#[derive(Debug)]
pub(super) enum Asked {
    Capacity(u32),
    Protected(u32, Protection),
    Deleted,
    Manifest(Digest),
    Other,
}

impl Checks {
    /// An agent launches.
    pub(crate) fn on_launch(&mut self, store: &Store, node: &Node, key: &Key, identity: &Identity) {
        let stored = store.instance(&key.set, key.id);
        // A want that is late may meet an end that is stored and not ordered yet.
        let wanted = stored.is_some_and(|it| {
            it.uid == identity.uid && matches!(it.phase, Phase::Pending | Phase::Terminating)
        });
        self.hold(wanted, "launch", || {
            let found = stored.map_or("nothing of it".to_owned(), |it| format!("{} ({})", it.phase, it.uid));
            format!("{}-{} ({}) is launched, the store has {found}", key.set, key.id, identity.uid)
        });
        self.hold(!node.vms.contains_key(key), "unique", || {
            format!("{}-{} is launched into the directory of another", key.set, key.id)
        });
        let anew = self.launched.insert(identity.uid.clone());
        self.hold(anew, "unique", || format!("{} was launched before", identity.uid));
        let address = identity.address;
        let other = node.vms.values().find(|vm| vm.identity.address == address && !address.is_unspecified());
        if let Some(other) = other {
            let other = &other.identity;
            self.fail("unique", || {
                format!("{}-{} gets {address}, which {}-{} has", key.set, key.id, other.set, other.id)
            });
        }
    }

    /// An agent restarts a guest: that restart is stored, and of one that has no connections any more or is not in traffic.
    pub(crate) fn on_restart(&mut self, store: &Store, key: &Key, number: u32) {
        let stored = store.instance(&key.set, key.id).map(|it| (it.restarts, it.phase));
        let wanted = stored.is_some_and(|(restarts, _)| restarts == number);
        self.hold(wanted, "restart", || {
            format!("{}-{} is restarted ({number}), the store has {stored:?}", key.set, key.id)
        });
    }

    /// An agent stops.
    pub(crate) fn on_stop(&mut self, store: &Store, node: &Node, key: &Key) {
        let stored = store.instance(&key.set, key.id);
        let uid = node.vms.get(key).map(|vm| &vm.identity.uid);
        let wanted =
            stored.is_some_and(|it| it.phase == Phase::Terminating && uid.is_none_or(|uid| *uid == it.uid));
        // Nothing of it exists, and the store has forgotten it: nothing is stopped.
        self.hold(wanted || uid.is_none(), "stop", || {
            let found = stored.map_or("nothing of it".to_owned(), |it| it.phase.to_string());
            format!("{}-{} is stopped, the store has {found}", key.set, key.id)
        });
    }

    /// A tick is stored and its machine acts.
    pub(crate) fn on_ticked(&mut self, machine: &SetMachine, lb: &Lb, record: &TickRecord) {
        let set = &record.observation.set;
        for action in &record.plan.actions {
            let (Action::Drain { id, .. } | Action::Terminate { id, .. }) = action else { continue };
            let listed = machine.endpoints().any(|endpoint| endpoint.id == *id);
            self.hold(!listed, "drained", || format!("{set}-{id} goes and still gets connections"));
            if matches!(action, Action::Terminate { cause: RemovalCause::Drained, .. }) {
                let open = lb.open.get(id).copied().unwrap_or(0);
                self.hold(open == 0, "drained", || {
                    format!("{set}-{id} ends as drained with {open} open connections")
                });
            }
        }
    }

    /// An operator asks.
    pub(crate) fn on_command(&mut self, token: Token, command: &Command) {
        let asked = match command {
            Command::Scale { capacity } | Command::Hold { capacity: Some(capacity), .. } => {
                Asked::Capacity(*capacity)
            }
            Command::Protect { id, protection } => Asked::Protected(*id, *protection),
            Command::Delete => Asked::Deleted,
            Command::Update(update) => Asked::Manifest(regatta_core::machine::manifest_blob(&update.set).0),
            _ => Asked::Other,
        };
        self.asked.insert(token, asked);
    }

    /// An operator is answered.
    pub(crate) fn on_reply(
        &mut self,
        store: &Store,
        set: &str,
        token: Token,
        result: &Result<Done, CommandError>,
    ) {
        let Some(asked) = self.asked.remove(&token) else {
            return self.fail("replies", || format!("set {set} answers command {token} twice"));
        };
        let Some(stored) = store.sets.get(set) else { return };
        let Ok(done) = result else { return };
        let state = &stored.state;
        let stored_so = match &asked {
            Asked::Capacity(capacity) => state.desired == *capacity,
            Asked::Protected(id, protection) => {
                stored.instances.get(id).is_none_or(|it| it.protection == *protection)
            }
            Asked::Deleted => state.deleting,
            Asked::Manifest(digest) => state.manifests.get(&state.generation) == Some(digest),
            Asked::Other => match done {
                Done::Switched(switched) => {
                    state.slot(&switched.slot).is_some_and(|slot| slot.active == switched.to)
                }
                _ => true,
            },
        };
        self.hold(stored_so, "replies", || {
            format!("set {set} says yes to command {token} ({asked:?}), which is not stored")
        });
    }

    /// Commands that go with their daemon.
    pub(crate) fn forget_commands(&mut self) {
        self.asked.clear();
    }

    /// The set has gone and took its commands along.
    pub(crate) fn has_open_commands(&self) -> bool {
        !self.asked.is_empty()
    }
}
