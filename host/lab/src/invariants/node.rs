//! What is on the node.

use super::Checks;
use crate::node::Node;
use crate::store::Store;

impl Checks {
    /// Everything on the node has its record in the store. Looked at after every step.
    pub(crate) fn on_step(&mut self, store: &Store, node: &Node) {
        for (key, vm) in &node.vms {
            let stored = store.instance(&key.set, key.id);
            let known = stored.is_some_and(|it| it.uid == vm.identity.uid);
            self.hold(known, "accounted", || {
                format!(
                    "{}-{} ({}) is on the node, the store knows nothing of it",
                    key.set, key.id, vm.identity.uid
                )
            });
        }
    }
}
