//! After a restart of the daemon: finding every VMM again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_core::agent::{Found as FoundReport, Identity, Input, Running};
use regatta_core::machine::SetMachine;
use regatta_core::manifest::ScaleSet;
use regatta_core::phase::Phase;
use regatta_core::recovery::Birth;
use regatta_core::state::InstanceRecord;
use regatta_vmm::{
    Adopted, AdoptedState, Adoption, Digest, DirError, GoldenImage, InstanceDir, VmState, Vmm, VmmHost,
    VmmIdentity,
};

use super::driver::Job;
use super::{LocalInstances, Told};
use regatta_util::chain;

/// Tries to find out about a VMM, and the time between them.
const FIND_TRIES: u32 = 20;
/// Longer than any disk takes for the heads of a set's overlays.
const READ_WITHIN: Duration = Duration::from_secs(30);
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

impl LocalInstances {
    /// Looks for stored instances of the set: for those of these numbers. Bounded in time: a VMM that does not answer is adopted
    /// by its process alone.
    pub(crate) async fn adopt(
        &mut self,
        machine: &SetMachine,
        running: &BTreeMap<u32, VmmIdentity>,
        these: impl Fn(u32) -> bool,
    ) -> Vec<Told> {
        let records: Vec<&InstanceRecord> = machine.instances().filter(|it| these(it.id)).collect();
        let bases = self.open_bases(&records).await;
        let finds = records.iter().map(|record| {
            let dir = self.dir_of(record.id);
            let known = running.get(&record.id);
            let vmms = Arc::clone(&self.node.vmms);
            async move {
                match dir {
                    Ok(dir) => (find(&vmms, &dir, known).await, birth_in(&dir)),
                    Err(_) => (Found::Nothing, None),
                }
            }
        });
        let found = futures::future::join_all(finds.collect::<Vec<_>>()).await;
        let mut told = Vec::new();
        for (record, (found, birth)) in records.into_iter().zip(found) {
            let manifest = machine.manifest_of(record);
            if let (Found::Running(vmm) | Found::Unreachable(vmm), Some(base)) =
                (&found, bases.get(&record.id))
            {
                vmm.hold_image(base.clone());
            }
            if record.generation == machine.state().generation && matches!(found, Found::Running(_)) {
                self.complete_birth(manifest, record, birth.as_ref());
            }
            // What the daemon did not live to store stands in the instance's own directory.
            let address = record.address.or(birth.map(|birth| birth.identity.address));
            let found = self.take_up(record, found);
            let demand = self.demand(manifest);
            told.extend(self.on(record.id, Input::Found { found, address, demand }));
        }
        told
    }

    /// Earlier versions kept no manifest beside their instances, or did not even say who they are.
    fn complete_birth(&self, manifest: &ScaleSet, record: &InstanceRecord, birth: Option<&Birth>) {
        let known = birth.is_some_and(|birth| !birth.origin.is_empty());
        let Some(address) = record.address.filter(|_| !known && self.images.problem().is_none()) else {
            return;
        };
        let identity = Identity {
            set: self.set.to_string(),
            id: record.id,
            uid: record.uid.clone(),
            epoch: record.epoch,
            generation: record.generation,
            created_ms: record.created_ms,
            address,
        };
        let noted = self.birth(manifest, &identity).and_then(|birth| {
            let dir = self.dir_of(record.id).map_err(|why| chain(&why))?;
            dir.note_identity(&birth).map_err(|why| chain(&why))
        });
        if let Err(why) = noted {
            tracing::warn!(set = %self.set, instance = record.id, why, "its directory does not say who it is");
        }
    }

    /// What is known of the instances of a set whose machine begins anew while the daemon runs.
    pub(crate) fn found_again(&mut self, machine: &SetMachine) -> Vec<Told> {
        let stored = |id| machine.instances().any(|record| record.id == id);
        self.node.agent().forget_ended(&self.set, stored);
        let mut told = Vec::new();
        for record in machine.instances() {
            let Some(live) = self.live.get(&record.id) else { continue };
            // One that is still being launched, or is being stopped, is told of by its driver.
            let Some(vmm) = &live.vmm else { continue };
            let found = match vmm.exit_status() {
                None => FoundReport::Running(Running {
                    process: record.vmm,
                    start: record.start.clone(),
                    not_contained: record.not_contained.clone(),
                }),
                Some(_) => FoundReport::Nothing,
            };
            let (address, demand) = (record.address, self.demand(machine.manifest_of(record)));
            told.extend(self.on(record.id, Input::Found { found, address, demand }));
        }
        told
    }

    fn take_up(&mut self, record: &InstanceRecord, found: Found) -> FoundReport {
        let id = record.id;
        let ended = matches!(record.phase, Phase::Terminating | Phase::Failed | Phase::Refused | Phase::Gone);
        let mut drive = |vmm: &Arc<Vmm>| {
            self.drive(id, Job::Watch(Arc::clone(vmm)));
            if ended {
                Running::default()
            } else {
                self.attach(id, Arc::clone(vmm), record.events_read_bytes)
            }
        };
        match found {
            Found::Running(vmm) => FoundReport::Running(drive(&vmm)),
            Found::Unreachable(vmm) => FoundReport::Unreachable(drive(&vmm)),
            Found::HalfMade(vmm) => {
                self.drive(id, Job::Watch(vmm));
                FoundReport::HalfMade
            }
            Found::Nothing => FoundReport::Nothing,
        }
    }

    /// Opens, and so locks, the golden images under the overlays of these instances; their set may
    /// have others by now. Each is looked at once, however many instances stand on it.
    async fn open_bases(&self, records: &[&InstanceRecord]) -> BTreeMap<u32, GoldenImage> {
        let mut bases: BTreeMap<Digest, Vec<u32>> = BTreeMap::new();
        let dirs: Vec<_> = records.iter().map(|record| (record.id, self.dir_of(record.id))).collect();
        let read = move || {
            let used = |(id, dir): (u32, Result<InstanceDir, DirError>)| {
                (id, dir.and_then(|dir| dir.images_in_use()))
            };
            dirs.into_iter().map(used).collect::<Vec<_>>()
        };
        let used = match tokio::time::timeout(READ_WITHIN, tokio::task::spawn_blocking(read)).await {
            Ok(used) => used.unwrap_or_default(),
            Err(_) => {
                tracing::error!(set = %self.set, "which images its instances stand on was not read within {READ_WITHIN:?}; they stay unlocked");
                Vec::new()
            }
        };
        for (id, used) in used {
            match used {
                Ok(used) => drop(used.disk.map(|disk| bases.entry(disk).or_default().push(id))),
                Err(why) => tracing::warn!(instance = id, why = chain(&why), "its image stays unlocked"),
            }
        }
        let mut opened = BTreeMap::new();
        for (digest, ids) in bases {
            match self.node.images.get(digest).await {
                Ok(image) => opened.extend(ids.into_iter().map(|id| (id, image.clone()))),
                Err(why) => {
                    let set = &*self.set;
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
}

/// Who an instance is and what it is made of, as its directory says.
pub(crate) fn birth_in(dir: &InstanceDir) -> Option<Birth> {
    let text = dir.identity().unwrap_or_else(|why| {
        tracing::warn!(instance = dir.id(), why = chain(&why), "its identity cannot be read");
        None
    })?;
    let birth: Result<Birth, _> = serde_json::from_str(&text);
    birth.inspect_err(|why| tracing::warn!(instance = dir.id(), %why, "its identity cannot be read")).ok()
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
