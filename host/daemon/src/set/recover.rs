//! After a restart of the daemon: find every VMM again, and finish what was begun.
//!
//! What runs goes on running. A launch that was cut off is begun again; a
//! removal that was cut off is finished.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_core::instance_state::{InstanceEvent, InstanceState};
use regatta_core::manifest::StartMode;
use regatta_core::plan::RemovalCause;
use regatta_vmm::{
    Adopted, AdoptedState, Adoption, Digest, GoldenImage, InstanceDir, VmState, Vmm, VmmHost, VmmIdentity,
};

use super::SetTask;
use super::driver::Job;
use crate::chain::chain;

/// Tries to find out about a VMM, and the time between them.
const FIND_TRIES: u32 = 20;
const FIND_PAUSE: Duration = Duration::from_millis(250);

/// What is left of an instance.
enum Found {
    /// Its guest runs.
    Running(Arc<Vmm>),
    /// A VMM whose guest never came to run, or has ended.
    HalfMade(Arc<Vmm>),
    /// A process that cannot be asked: it is just starting, or its socket is gone.
    Unreachable(Arc<Vmm>),
    /// No process.
    Nothing,
}

impl SetTask {
    /// Adopts all instances. Bounded in time: a VMM that does not answer is adopted by its process alone.
    pub(super) async fn recover(&mut self, found: BTreeMap<u32, VmmIdentity>) {
        if self.state.set.instance.start == StartMode::Cold {
            self.forget_snapshots().await;
        }
        let ids: Vec<u32> = self.instances.keys().copied().collect();
        for &id in &ids {
            if let Some(instance) = self.instances.get(&id) {
                self.shared.addresses.claim(instance.record.address);
                self.shared.ledger.claim(&self.state.set.name, id, self.demand());
            }
        }
        let bases = self.open_bases(&ids).await;
        let finds = ids.iter().map(|&id| {
            let dir = self.dir_of(id);
            let known = found.get(&id);
            let vmms = Arc::clone(&self.shared.vmms);
            async move {
                match dir {
                    Ok(dir) => find(&vmms, &dir, known).await,
                    Err(_) => Found::Nothing,
                }
            }
        });
        let found = futures::future::join_all(finds).await;
        for (id, found) in ids.into_iter().zip(found) {
            if let (Found::Running(vmm) | Found::Unreachable(vmm), Some(base)) = (&found, bases.get(&id)) {
                vmm.hold_image(base.clone());
            }
            self.take_up(id, found);
        }
    }

    /// Opens, and so locks, the golden images under the overlays of these instances; their set may
    /// have others by now. Each is looked at once, however many instances stand on it.
    async fn open_bases(&self, ids: &[u32]) -> BTreeMap<u32, GoldenImage> {
        let mut bases: BTreeMap<Digest, Vec<u32>> = BTreeMap::new();
        for &id in ids {
            match self.dir_of(id).and_then(|dir| dir.images_in_use()) {
                Ok(used) => drop(used.disk.map(|disk| bases.entry(disk).or_default().push(id))),
                Err(why) => tracing::warn!(instance = id, why = chain(&why), "its image stays unlocked"),
            }
        }
        let mut opened = BTreeMap::new();
        for (digest, ids) in bases {
            match self.shared.images.get(digest).await {
                Ok(image) => opened.extend(ids.into_iter().map(|id| (id, image.clone()))),
                Err(why) => {
                    let set = &self.state.set.name;
                    tracing::error!(
                        set,
                        why = chain(&why),
                        "the image under running instances is not what it was"
                    );
                }
            }
        }
        opened
    }

    fn take_up(&mut self, id: u32, found: Found) {
        let Some(state) = self.instances.get(&id).map(|instance| instance.record.state) else { return };
        match (state, found) {
            (InstanceState::Terminating, found) => {
                // A guest may be in the middle of its shutdown: it gets its time again.
                let cause = match found {
                    Found::Running(vmm) => {
                        self.drive(id, Job::Watch(vmm));
                        RemovalCause::Drained
                    }
                    Found::HalfMade(vmm) | Found::Unreachable(vmm) => {
                        self.drive(id, Job::Watch(vmm));
                        RemovalCause::Failed
                    }
                    Found::Nothing => RemovalCause::Failed,
                };
                self.terminate(id, cause);
            }
            // Boot had returned, but the daemon died before it could write that down.
            (InstanceState::Pending, Found::Running(vmm)) => {
                self.meet(id, InstanceEvent::LaunchStarted, None);
                self.adopt_booted(id, vmm);
            }
            (InstanceState::Creating, Found::Running(vmm)) => self.adopt_booted(id, vmm),
            (
                InstanceState::Pending | InstanceState::Creating,
                Found::HalfMade(vmm) | Found::Unreachable(vmm),
            ) => {
                self.meet_launch_cut_off(id);
                self.drive(id, Job::Watch(vmm));
            }
            (InstanceState::Pending | InstanceState::Creating, Found::Nothing) => {
                self.meet_launch_cut_off(id)
            }
            (
                InstanceState::Failed | InstanceState::Gone,
                Found::Running(vmm) | Found::HalfMade(vmm) | Found::Unreachable(vmm),
            ) => {
                self.drive(id, Job::Watch(vmm));
            }
            (InstanceState::Failed | InstanceState::Gone, Found::Nothing) => {}
            (_, Found::Running(vmm) | Found::Unreachable(vmm)) => {
                self.drive(id, Job::Watch(Arc::clone(&vmm)));
                // It may have recovered while nobody probed it: its grace begins anew.
                if state == InstanceState::Unhealthy
                    && let Some(instance) = self.instances.get_mut(&id)
                {
                    instance.record.state_since_ms = crate::clock::now_ms();
                }
                self.attach(id, vmm);
            }
            (_, Found::HalfMade(vmm)) => {
                self.drive(id, Job::Watch(vmm));
                self.meet(
                    id,
                    InstanceEvent::VmmExited,
                    Some("its guest was gone when the daemon came back".into()),
                );
            }
            (_, Found::Nothing) => {
                self.meet(
                    id,
                    InstanceEvent::VmmExited,
                    Some("its VMM was gone when the daemon came back".into()),
                );
            }
        }
    }

    fn adopt_booted(&mut self, id: u32, vmm: Arc<Vmm>) {
        self.drive(id, Job::Watch(Arc::clone(&vmm)));
        self.meet(id, InstanceEvent::Booted, None);
        self.attach(id, vmm);
    }

    /// Not the image's fault, so not a failed launch: the next one need not wait.
    fn meet_launch_cut_off(&mut self, id: u32) {
        self.meet(id, InstanceEvent::LaunchStarted, None);
        self.meet(id, InstanceEvent::VmmExited, Some("the daemon ended during its launch".into()));
    }
}

/// Looks for the VMM of an instance. What cannot be decided is looked at again:
/// calling a VMM gone that runs would cost a guest.
async fn find(vmms: &VmmHost, dir: &InstanceDir, known: Option<&VmmIdentity>) -> Found {
    let mut tries = 0;
    let adoption = loop {
        match vmms.adopt(dir, known).await {
            Err(error) if tries < FIND_TRIES => {
                tracing::warn!(instance = dir.id(), error = chain(&error), "cannot be adopted yet");
                tries += 1;
                tokio::time::sleep(FIND_PAUSE).await;
            }
            other => break other,
        }
    };
    match adoption {
        Ok(Adoption::Adopted(adopted)) => {
            let Adopted { vmm, state } = *adopted;
            let vmm = Arc::new(vmm);
            match state {
                AdoptedState::Known(VmState::NotCreated | VmState::Created | VmState::HalfMade) => {
                    Found::HalfMade(vmm)
                }
                AdoptedState::Known(VmState::Running | VmState::Paused | VmState::Unknown)
                | AdoptedState::Unresponsive => Found::Running(vmm),
                AdoptedState::Unreachable => Found::Unreachable(vmm),
            }
        }
        Ok(Adoption::Gone) => Found::Nothing,
        Ok(Adoption::Stranger { pid, why }) => {
            tracing::warn!(instance = dir.id(), pid, why, "not adopted");
            Found::Nothing
        }
        Err(error) => {
            tracing::error!(instance = dir.id(), error = chain(&error), "cannot be adopted");
            Found::Nothing
        }
    }
}
