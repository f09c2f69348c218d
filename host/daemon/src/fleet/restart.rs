//! Bringing the stored sets back after a restart of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use regatta_core::batch::{Batch, StateChange};
use regatta_core::orphan::{FoundDir, Owner, Why, displaced, first_free_id, owner_of};
use regatta_store::StoredSet;
use regatta_vmm::{Adoption, InstanceDir, VmmIdentity, discover};

use super::Fleet;
use crate::clock;
use crate::images::SetImages;
use crate::node::{TEMPLATE, birth_in};
use crate::set::{self, Modules, Setup};
use crate::stored;
use regatta_util::chain;

/// VMMs that were found running, by set and instance.
type Found = BTreeMap<String, BTreeMap<u32, VmmIdentity>>;

impl Fleet {
    /// Starts every stored set again and adopts what runs.
    ///
    /// # Errors
    /// The store, `/proc` or the directories of instances cannot be read; nothing was touched then.
    pub(crate) async fn restart(&self) -> anyhow::Result<()> {
        let mut stored = self.shared.store.load()?;
        let mut found = self.sort(&stored).await?;
        for set in &mut stored {
            self.make_room_for_orphans(set).await;
        }
        self.sweep_network().await;
        let sets: Vec<&str> = stored.iter().map(|stored| stored.state.set.name.as_str()).collect();
        if let Err(why) = self.shared.node.snapshots.sweep(&sets) {
            tracing::warn!(why = chain(&why), "leftovers of snapshots stay");
        }
        // Side by side: compiling a policy takes its time, and no set waits for another's.
        let returns = stored.into_iter().map(|stored| {
            let set = &stored.state.set.name;
            let found = found.remove(set).unwrap_or_default();
            tracing::info!(set, instances = stored.instances.len(), running = found.len(), "brought back");
            self.bring_back(stored, found)
        });
        futures::future::join_all(returns.collect::<Vec<_>>()).await;
        Ok(())
    }

    /// Assigns what was found to the stored instances, removes what the stored sets have removed, and keeps the rest: what
    /// nobody knows is never stopped, for the store may be the one that has lost something.
    async fn sort(&self, stored: &[StoredSet]) -> anyhow::Result<Found> {
        let root = &self.shared.dirs.instances;
        let mut dirs: BTreeMap<_, _> =
            InstanceDir::list(root)?.into_iter().map(|dir| (dir.path().to_owned(), (dir, None))).collect();
        for vmm in discover(root)?.into_iter().filter(|vmm| vmm.identity.is_running()) {
            dirs.insert(vmm.dir.path().to_owned(), (vmm.dir, Some(vmm.identity)));
        }
        let (mut found, mut orphans, mut used) = (Found::new(), Vec::new(), BTreeSet::new());
        for (dir, process) in dirs.into_values() {
            let birth = birth_in(&dir);
            used.extend(birth.iter().map(|birth| birth.origin.clone()));
            let looks = FoundDir {
                set: dir.set().to_owned(),
                id: dir.id().to_owned(),
                identity: birth.as_ref().map(|birth| birth.identity.clone()),
                runs: process.is_some(),
                noted: dir.orphan().is_ok_and(|note| note.is_some()),
            };
            let of_set = stored.iter().find(|stored| stored.state.set.name == dir.set());
            let of_set = of_set.map(|stored| (&stored.state, stored.instances.as_slice()));
            let owner = owner_of(&looks, of_set, TEMPLATE);
            if looks.noted && matches!(owner, Owner::Instance(_)) {
                // It was adopted, and the daemon did not live to say so here.
                drop(dir.forget_orphan());
            }
            match (owner, process) {
                (Owner::Instance(id), Some(process)) => {
                    found.entry(dir.set().to_owned()).or_default().insert(id, process);
                }
                (Owner::Instance(_), None) => {}
                // It takes no part in its set: the daemon that booted it was the only one to want it.
                (Owner::Template, Some(process)) => self.remove_template(&dir, &process).await,
                (Owner::Template | Owner::Removed, None) => self.remove_leftover(&dir).await,
                (Owner::Removed, Some(process)) => {
                    orphans.push((dir, birth, Some(process), Why::InstanceNotStored));
                }
                (Owner::Nobody(why), process) => orphans.push((dir, birth, process, why)),
            }
        }
        self.shared.node.origins.sweep(&used);
        let now_ms = clock::now_ms();
        let kept = orphans
            .into_iter()
            .map(|(dir, birth, process, why)| self.shared.node.keep_orphan(dir, birth, process, why, now_ms));
        let kept = futures::future::join_all(kept.collect::<Vec<_>>()).await;
        self.adopt_orphans(kept).await;
        Ok(found)
    }

    /// New instances of a set must not meet the directories of orphans of its name.
    async fn make_room_for_orphans(&self, stored: &mut StoredSet) {
        let name = stored.state.set.name.clone();
        let ids: Vec<String> =
            self.orphans_now().keys().filter(|(set, _)| *set == name).map(|(_, id)| id.clone()).collect();
        let ids = || ids.iter().map(String::as_str);
        let next = first_free_id(stored.state.next_instance_id, ids());
        let lost = displaced(&stored.instances, ids());
        if next == stored.state.next_instance_id && lost.is_empty() {
            return;
        }
        stored.state.next_instance_id = next;
        stored.instances.retain(|instance| !lost.contains(&instance.id));
        let batch = Batch {
            expect: vec![(name.clone(), stored.revision)],
            state: StateChange {
                sets: vec![stored.state.clone()],
                removed_instances: lost.into_iter().map(|id| (name.clone(), id)).collect(),
                ..StateChange::default()
            },
            ..Batch::default()
        };
        match self.shared.writer.commit(batch).await {
            Ok(revision) => stored.revision = revision,
            // The set's next commit has it; until then it launches nothing.
            Err(why) => tracing::warn!(set = name, why = chain(&why), "not stored yet"),
        }
    }

    /// Removes the directory of an instance that its stored set has removed: the daemon was killed between
    /// the end of an instance and the end of a launch that it had cut off.
    async fn remove_leftover(&self, dir: &InstanceDir) {
        let path = dir.path().display();
        match self.shared.node.vmms.discard(dir, None).await {
            Ok(()) => tracing::info!(%path, "a leftover was removed"),
            Err(why) => tracing::warn!(%path, why = chain(&why), "a leftover stays"),
        }
    }

    /// Removes what instances without a directory left in the host's network:
    /// the daemon was killed in the middle of making or removing it.
    async fn sweep_network(&self) {
        let dirs = match InstanceDir::list(&self.shared.dirs.instances) {
            Ok(dirs) => dirs,
            Err(why) => return tracing::warn!(why = chain(&why), "leftovers are not looked for"),
        };
        match self.shared.node.vmms.sweep_network(&dirs).await {
            Ok(removed) => {
                removed.iter().for_each(|what| tracing::info!(what, "a leftover was removed"));
            }
            Err(why) => tracing::warn!(why = chain(&why), "leftovers in the network may stay"),
        }
    }

    async fn bring_back(&self, stored: StoredSet, found: BTreeMap<u32, VmmIdentity>) {
        let state = &stored.state;
        let images = SetImages::load(&self.shared.node.images, &state.image).await;
        let reloads =
            state.activations_kept().map(|it| async move { (it, self.reload_policy(&it.digest).await) });
        let mut modules = Modules::default();
        for (activation, compiled) in futures::future::join_all(reloads.collect::<Vec<_>>()).await {
            if let Err(why) = &compiled {
                let number = activation.number;
                tracing::error!(set = state.set.name, activation = number, why, "a policy cannot run");
            }
            modules.insert(&activation.digest, compiled);
        }
        let load_balancer = state.set.load_balancer.as_ref().and_then(|spec| {
            set::bind(spec)
                .inspect_err(|why| {
                    tracing::error!(set = state.set.name, why = chain(why), "no load balancer yet")
                })
                .ok()
        });
        let image_problem = images.problem().map(ToOwned::to_owned);
        let mut start = stored::start(&*self.shared.store, stored, load_balancer.is_some(), image_problem);
        modules.complete(&mut start.state);
        self.start(start, Setup { images, modules, load_balancer, found });
    }
}

impl Fleet {
    async fn remove_template(&self, dir: &InstanceDir, process: &VmmIdentity) {
        let set = dir.set();
        let stopped = match self.shared.node.vmms.adopt(dir, Some(process)).await {
            Ok(Adoption::Adopted(adopted)) => {
                adopted.vmm.stop(Duration::ZERO).await.map(drop).map_err(|why| chain(&why))
            }
            Ok(_) => Ok(()),
            Err(why) => Err(chain(&why)),
        };
        match stopped {
            Ok(()) => tracing::info!(set, "the template of a snapshot was removed"),
            Err(why) => tracing::error!(set, why, "the template of a snapshot stays"),
        }
    }
}
