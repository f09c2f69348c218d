//! Orphans that become instances of a set that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use regatta_core::event::Actor;
use regatta_core::machine::Input;
use regatta_core::recovery::{self, Adoption, Candidate};
use regatta_core::state::InstanceRecord;
use regatta_vmm::VmmIdentity;
use tokio::sync::oneshot;

use super::Shell;
use crate::clock;
use regatta_util::chain;

/// Orphans of a set, and where the answer goes.
pub(crate) struct Adopting {
    pub(crate) candidates: Vec<Candidate>,
    /// Addresses of what else runs on the host.
    pub(crate) taken: BTreeSet<Ipv4Addr>,
    /// Their VMMs.
    pub(crate) found: BTreeMap<u32, VmmIdentity>,
    pub(crate) actor: Actor,
    pub(crate) reply: oneshot::Sender<Result<Adoption, String>>,
}

impl Shell {
    /// The machine waits for nothing now: no tick rests on what it knew before.
    pub(super) async fn adopt(&mut self, adopting: Adopting) {
        let Adopting { candidates, taken, found, actor, reply } = adopting;
        // A caller that has gone away does not want its answer.
        let _ = reply.send(self.adopt_stored(&candidates, &taken, &found, &actor).await);
    }

    async fn adopt_stored(
        &mut self,
        candidates: &[Candidate],
        taken: &BTreeSet<Ipv4Addr>,
        found: &BTreeMap<u32, VmmIdentity>,
        actor: &Actor,
    ) -> Result<Adoption, String> {
        let instances: Vec<InstanceRecord> = self.machine.instances().cloned().collect();
        let adoption = recovery::adopt(self.machine.state(), &instances, candidates, taken)?;
        let batch = adoption.batch(&instances, self.machine.revision(), clock::now(), actor);
        self.shared
            .commit(batch)
            .await
            .map_err(|why| format!("nothing was changed; the store cannot be written: {}", chain(&why)))?;
        self.shared.events.notify_waiters();
        if self.read_again() {
            let ids: BTreeSet<u32> = adoption.adopted.iter().map(|identity| identity.id).collect();
            let told = self.local.adopt(&self.machine, found, |id| ids.contains(&id)).await;
            self.told(told);
            self.inputs.push_back(Input::InventoryComplete);
        }
        Ok(adoption)
    }
}
