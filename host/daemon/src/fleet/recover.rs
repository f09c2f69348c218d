//! Having sets again that the store has lost: their orphans say what they are.

use std::collections::{BTreeMap, BTreeSet};

use regatta_core::machine::Start;
use regatta_core::recovery::{self, Candidate, Recovery};

use super::apply::Prepared;
use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::recovery_types::{FailedRecovery, RecoverOutcome, RecoverRequest, RecoveredSet};
use crate::api::types::ErrorCode;
use crate::clock;
use crate::images::SetImages;
use crate::node::Orphan;
use crate::set::{self, Modules, Setup};
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
        if self.sets_now().contains_key(set) {
            return Err(format!(
                "the store knows this set, but not these orphans of its name: they keep running until \
                 `regatta orphans delete {set}`; to adopt them instead, start the daemon without its state file \
                 and recover all sets"
            ));
        }
        let orphans: Vec<Orphan> =
            self.orphans_now().values().filter(|orphan| orphan.dir.set() == set).cloned().collect();
        let node = std::sync::Arc::clone(&self.shared.node);
        let read = move || orphans.iter().map(|it| node.candidate(it)).collect::<Vec<Candidate>>();
        let candidates = tokio::task::spawn_blocking(read).await.map_err(|why| why.to_string())?;
        let recovery = recovery::plan(set, &candidates)?;
        let policies = self.prepare_again(&recovery).await?;
        let mut report = report(set, &recovery);
        let images = SetImages::load(&self.shared.node.images, &recovery.origin.image).await;
        report.notes.extend(images.problem().map(ToOwned::to_owned));
        if !dry_run {
            self.bring_into_store(&recovery, policies, images, &mut report, actor).await?;
        }
        Ok(report)
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

    /// Those that were adopted are not orphans any more. Returns their VMMs.
    fn take_orphans(&self, set: &str, adopted: &[u32]) -> BTreeMap<u32, regatta_vmm::VmmIdentity> {
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

fn report(set: &str, recovery: &Recovery) -> RecoveredSet {
    let mut notes: Vec<String> =
        recovery.left.iter().map(|(id, why)| format!("{set}/{id} stays an orphan: {why}")).collect();
    if recovery.protect {
        let max = recovery.origin.manifest.capacity.max;
        notes.push(format!(
            "{} instances, more than the maximum of {max}: all are protected from scale-in (`regatta protect {set} ID --off`)",
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
