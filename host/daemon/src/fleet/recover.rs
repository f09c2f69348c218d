//! Having sets again that the store has lost: their orphans say what they are.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use regatta_core::agent::Identity;
use regatta_core::machine::Start;
use regatta_core::recovery::{self, Adoption, Candidate, Origin, Recovery};
use regatta_vmm::VmmIdentity;
use tokio::sync::oneshot;

use super::apply::Prepared;
use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::recovery_types::{FailedRecovery, RecoverOutcome, RecoverRequest, RecoveredSet};
use crate::api::types::ErrorCode;
use crate::clock;
use crate::images::SetImages;
use crate::node::Orphan;
use crate::set::{self, Adopting, Modules, SetHandle, Setup};
use crate::stored;
use regatta_util::chain;

impl Fleet {
    /// Recovers sets, each for itself. Every one that cannot be recovered is told with its reason.
    pub(super) async fn recover_sets(&self, request: RecoverRequest, actor: &str) -> Answer<RecoverOutcome> {
        // No orphan may be removed while it is decided whose these are.
        let _one_at_a_time = self.orphan_work.lock().await;
        self.look_after_orphans();
        let with_orphans: BTreeSet<String> = self.orphans_now().keys().map(|(set, _)| set.clone()).collect();
        let sets = match request.sets.is_empty() {
            true => with_orphans.clone(),
            false => request.sets.iter().cloned().collect(),
        };
        if sets.is_empty() {
            return Err(error(ErrorCode::NotFound, "nothing to recover: there are no orphans"));
        }
        let mut outcome = RecoverOutcome { dry_run: request.dry_run, ..RecoverOutcome::default() };
        for set in sets {
            // Nor may a set of that name be created.
            let _no_apply = self.names.lock(set.clone()).await;
            let recovered = match with_orphans.contains(&set) {
                true => self.recover_set(&set, request.dry_run, actor).await,
                false => Err("it has no orphans (`regatta orphans` lists all)".to_owned()),
            };
            match recovered {
                Ok(recovered) => outcome.recovered.push(recovered),
                Err(why) => outcome.failed.push(FailedRecovery { set, why }),
            }
        }
        Ok(outcome)
    }

    async fn recover_set(&self, set: &str, dry_run: bool, actor: &str) -> Result<RecoveredSet, String> {
        let orphans: Vec<Orphan> =
            self.orphans_now().values().filter(|orphan| orphan.dir.set() == set).cloned().collect();
        let node = std::sync::Arc::clone(&self.shared.node);
        let read = move || orphans.iter().map(|it| node.candidate(it)).collect::<Vec<Candidate>>();
        let candidates = tokio::task::spawn_blocking(read).await.map_err(|why| why.to_string())?;
        let stored = self.sets_now().get(set).cloned();
        if let Some(handle) = stored {
            return self.adopt_into(set, &handle, candidates, dry_run, actor).await;
        }
        let recovery = recovery::plan(set, &candidates)?;
        let policies = self.prepare_again(&recovery).await?;
        let mut report = report(set, &recovery);
        let images = SetImages::load(&self.shared.node.images, &recovery.origin.image).await;
        report.notes.extend(images.problem().map(ToOwned::to_owned));
        self.name_images(set, std::slice::from_ref(&recovery.origin), dry_run, &mut report.notes).await;
        if !dry_run {
            self.bring_into_store(&recovery, policies, images, &mut report, actor).await?;
        }
        Ok(report)
    }

    /// Gives a set that is stored those of its orphans back which an older copy of the state does not know.
    async fn adopt_into(
        &self,
        set: &str,
        handle: &SetHandle,
        candidates: Vec<Candidate>,
        dry_run: bool,
        actor: &str,
    ) -> Result<RecoveredSet, String> {
        let view = handle.view();
        let taken = self.addresses_beside(set);
        let planned = recovery::adopt(&view.state, &view.instances, &candidates, &taken)?;
        let mut notes = Vec::new();
        let origins = origins_of(&planned.adopted, &candidates);
        self.name_images(set, &origins, dry_run, &mut notes).await;
        let adoption = if dry_run {
            planned
        } else {
            let (reply, answer) = oneshot::channel();
            let found = self.processes_of(set);
            let adopting = Adopting { candidates, taken, found, actor: actor.into(), reply };
            let ended = || "the set was deleted".to_owned();
            handle.adopt(adopting).await.ok_or_else(ended)?;
            let adoption = answer.await.map_err(|_| ended())??;
            let ids: Vec<u32> = adoption.adopted.iter().map(|identity| identity.id).collect();
            self.take_orphans(set, &ids);
            tracing::info!(set, adopted = ids.len(), actor, "orphans adopted");
            adoption
        };
        notes.splice(0..0, notes_on(set, &adoption));
        Ok(RecoveredSet {
            set: set.to_owned(),
            generation: adoption.state.generation,
            capacity: adoption.state.desired,
            adopted: adoption.adopted.iter().map(|identity| identity.id).collect(),
            notes,
        })
    }

    /// Addresses of all that runs on the host but for this set and its orphans.
    fn addresses_beside(&self, set: &str) -> BTreeSet<Ipv4Addr> {
        let sets = self.sets_now();
        let others = sets.iter().filter(|(name, _)| *name != set).map(|(_, handle)| handle.view());
        let mut taken: BTreeSet<Ipv4Addr> = others
            .flat_map(|view| view.instances.iter().filter_map(|it| it.address).collect::<Vec<_>>())
            .collect();
        let orphans = self.orphans_now();
        let orphans = orphans.values().filter(|it| it.dir.set() != set && it.process.is_some());
        taken.extend(orphans.filter_map(|orphan| Some(orphan.birth.as_ref()?.identity.address)));
        taken
    }

    /// The VMMs of a set's orphans.
    fn processes_of(&self, set: &str) -> BTreeMap<u32, VmmIdentity> {
        let orphans = self.orphans_now();
        let of_set = orphans.values().filter(|orphan| orphan.dir.set() == set);
        of_set.filter_map(|it| Some((it.dir.id().parse().ok()?, it.process.clone()?))).collect()
    }

    /// The policies of a manifest, as if it were applied now.
    async fn prepare_again(&self, recovery: &Recovery) -> Result<Vec<Prepared>, String> {
        let mut prepared = Vec::new();
        let mut problems = Vec::new();
        for spec in &recovery.origin.manifest.policies {
            let prepare =
                async { self.prepare_policy(spec, self.read_policy(spec).await?, None, None).await };
            match prepare.await {
                Ok(policy) => prepared.push(policy),
                Err(why) => {
                    problems
                        .extend(why.into_iter().map(|it| format!("policy {}: {}", spec.name, it.message)));
                }
            }
        }
        if problems.is_empty() { Ok(prepared) } else { Err(problems.join("; ")) }
    }

    async fn bring_into_store(
        &self,
        recovery: &Recovery,
        policies: Vec<Prepared>,
        images: SetImages,
        report: &mut RecoveredSet,
        actor: &str,
    ) -> Result<(), String> {
        let (mut activations, mut blobs, mut modules) = (Vec::new(), Vec::new(), Modules::default());
        for Prepared { policy, compiled, module, .. } in policies {
            modules.insert(&policy.activation.digest, Ok(compiled));
            blobs.push((policy.activation.digest.clone(), module));
            activations.push(policy.activation);
        }
        let (state, instances, mut batch) =
            recovery::recovered(recovery, activations, clock::now(), &actor.into());
        batch.blobs.extend(blobs);
        let set = state.set.name.clone();
        let revision =
            self.shared.commit(batch).await.map_err(|why| {
                format!("nothing was changed; the store cannot be written: {}", chain(&why))
            })?;
        self.shared.events.notify_waiters();
        let found = self.take_orphans(&set, &report.adopted);
        // As after a restart: the set is there without it, and tries again.
        let load_balancer = state.set.load_balancer.as_ref().and_then(|spec| {
            set::bind(spec, &self.shared.listeners)
                .inspect_err(|why| report.notes.push(format!("no load balancer yet: {}", chain(why))))
                .ok()
        });
        let start = Start {
            manifests: stored::manifests(&*self.shared.store, &state),
            state,
            revision,
            instances,
            last: None,
            listening: load_balancer.is_some(),
            image_problem: images.problem().map(ToOwned::to_owned),
        };
        tracing::info!(set, adopted = report.adopted.len(), actor, "recovered");
        self.start(start, Setup { images, modules, load_balancer, found });
        Ok(())
    }

    /// Those that were adopted are not orphans anymore. Returns their VMMs.
    fn take_orphans(&self, set: &str, adopted: &[u32]) -> BTreeMap<u32, VmmIdentity> {
        let mut orphans = self.orphans_now();
        let mut found = BTreeMap::new();
        for id in adopted {
            let Some(orphan) = orphans.remove(&(set.to_owned(), id.to_string())) else { continue };
            if let Err(why) = orphan.dir.forget_orphan() {
                tracing::warn!(
                    orphan = orphan.name(),
                    why = chain(&why),
                    "its directory still says that it is one"
                );
            }
            found.extend(orphan.process.map(|process| (*id, process)));
        }
        found
    }
}

/// What instances were made of, those of the newest generation first, each once.
fn origins_of(adopted: &[Identity], candidates: &[Candidate]) -> Vec<Origin> {
    let mut origins: BTreeMap<u64, &Origin> = BTreeMap::new();
    for candidate in candidates {
        if let (Some(identity), Ok(origin)) = (&candidate.identity, &candidate.origin)
            && adopted.contains(identity)
        {
            origins.insert(identity.generation, origin);
        }
    }
    origins.into_values().rev().cloned().collect()
}

fn notes_on(set: &str, adoption: &Adoption) -> Vec<String> {
    let mut notes: Vec<String> =
        adoption.left.iter().map(|(id, why)| format!("{set}/{id} stays an orphan: {why}")).collect();
    notes.extend(adoption.newer.map(|newer| {
        format!(
            "the stored manifest stays in force; instances of up to generation {newer} keep the newer ones that they were \
             made from: apply the newest manifest again"
        )
    }));
    if adoption.protect {
        let max = adoption.state.set.capacity.max;
        notes.push(format!(
            "more instances than the maximum of {max}: the adopted ones are protected from scale-in (`regatta unprotect {set} ID`)"
        ));
    }
    notes
}

fn report(set: &str, recovery: &Recovery) -> RecoveredSet {
    let mut notes: Vec<String> =
        recovery.left.iter().map(|(id, why)| format!("{set}/{id} stays an orphan: {why}")).collect();
    if recovery.protect {
        let max = recovery.origin.manifest.capacity.max;
        notes.push(format!(
            "{} instances, more than the maximum of {max}: all are protected from scale-in (`regatta unprotect {set} ID`)",
            recovery.adopted.len()
        ));
    }
    RecoveredSet {
        set: set.to_owned(),
        generation: recovery.generation,
        capacity: recovery.capacity,
        adopted: recovery.adopted.iter().map(|identity| identity.id).collect(),
        notes,
    }
}
