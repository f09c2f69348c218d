//! Bringing the stored sets back after a restart of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regatta_core::batch::{Batch, StateChange};
use regatta_core::digest::Digest;
use regatta_core::orphan::{FoundDir, Owner, Why, displaced, first_free_id, owner_of};
use regatta_core::state::SetState;
use regatta_policy_host::CompiledPolicy;
use regatta_store::StoredSet;
use regatta_vmm::{Adoption, FoundVmm, InstanceDir, VmmIdentity};
use tokio::task::JoinHandle;

use super::Fleet;
use super::policies::Unready;
use crate::clock;
use crate::images::SetImages;
use crate::node::{TEMPLATE, birth_in};
use crate::set::{self, Modules, Setup};
use crate::stored;
use regatta_util::chain;

/// A set waits so long for its policies to be compiled. Then it is brought back without: its instances matter more, and a policy
/// that is not ready scales nothing in.
const COMPILE_WAIT: Duration = Duration::from_secs(5);
/// Pauses between tries to compile a policy that was accepted once.
const RETRY: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(300));

/// A stored module that is being made ready.
type Reload = JoinHandle<Result<Arc<CompiledPolicy>, Unready>>;

/// VMMs that were found running, by set and instance.
type Found = BTreeMap<String, BTreeMap<u32, VmmIdentity>>;

impl Fleet {
    /// Starts every stored set again and adopts what runs.
    ///
    /// # Errors
    /// The store, `/proc` or the directories of instances cannot be read; nothing was touched then.
    pub(crate) async fn restart(self: &Arc<Self>) -> anyhow::Result<()> {
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
        for vmm in self.discover(stored).await?.into_iter().filter(|vmm| vmm.identity.is_running()) {
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

    /// The VMMs that run: those that the store has recorded first.
    async fn discover(&self, stored: &[StoredSet]) -> anyhow::Result<Vec<FoundVmm>> {
        let recorded: BTreeMap<(String, String), (i32, u64)> = stored
            .iter()
            .flat_map(|set| set.instances.iter().map(|it| (&set.state.set.name, it)))
            .filter_map(|(set, it)| {
                let process = it.vmm?;
                let pid = i32::try_from(process.pid).ok()?;
                Some(((set.clone(), it.id.to_string()), (pid, process.start_time_ticks)))
            })
            .collect();
        let (vmms, root) = (Arc::clone(&self.shared.node.vmms), self.shared.dirs.instances.clone());
        let recorded =
            move |dir: &InstanceDir| recorded.get(&(dir.set().to_owned(), dir.id().to_owned())).copied();
        Ok(tokio::task::spawn_blocking(move || vmms.discover(&root, recorded)).await??)
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
        match self.shared.commit(batch).await {
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

    async fn bring_back(self: &Arc<Self>, stored: StoredSet, found: BTreeMap<u32, VmmIdentity>) {
        let state = &stored.state;
        let images = SetImages::load(&self.shared.node.images, &state.image).await;
        let (modules, late) = self.reload(state).await;
        let set = state.set.name.clone();
        let load_balancer = state.set.load_balancer.as_ref().and_then(|spec| {
            set::bind(spec, &self.shared.listeners)
                .inspect_err(|why| {
                    tracing::error!(set = state.set.name, why = chain(why), "no load balancer yet")
                })
                .ok()
        });
        let image_problem = images.problem().map(ToOwned::to_owned);
        let mut start = stored::start(&*self.shared.store, stored, load_balancer.is_some(), image_problem);
        modules.complete(&mut start.state);
        self.start(start, Setup { images, modules, load_balancer, found });
        for (digest, reload) in late {
            tokio::spawn(Arc::clone(self).provide_later(set.clone(), digest, reload));
        }
    }

    /// The modules of a set, those that are ready soon; and those that are not.
    async fn reload(self: &Arc<Self>, state: &SetState) -> (Modules, Vec<(Digest, Option<Reload>)>) {
        let digests: BTreeSet<Digest> = state.activations_kept().map(|it| it.digest.clone()).collect();
        let reloads: Vec<(Digest, Reload)> = digests
            .into_iter()
            .map(|digest| {
                let (fleet, of) = (Arc::clone(self), digest.clone());
                (digest, tokio::spawn(async move { fleet.reload_policy(&of).await }))
            })
            .collect();
        let deadline = tokio::time::Instant::now() + COMPILE_WAIT;
        let (mut modules, mut late) = (Modules::default(), Vec::new());
        for (digest, mut reload) in reloads {
            let compiled = match tokio::time::timeout_at(deadline, &mut reload).await {
                Ok(reloaded) => match reloaded.unwrap_or_else(|why| Err(panicked(&why))) {
                    Ok(compiled) => Ok(compiled),
                    Err(Unready { why, may_pass }) => {
                        tracing::error!(set = state.set.name, module = %digest, why, "a policy cannot run");
                        if may_pass {
                            late.push((digest.clone(), None));
                        }
                        Err(why)
                    }
                },
                Err(_) => {
                    late.push((digest.clone(), Some(reload)));
                    Err("its module is being compiled".to_owned())
                }
            };
            modules.insert(&digest, compiled);
        }
        (modules, late)
    }

    /// Makes a module ready that a set runs without until then. It was accepted once, so a host that is too busy for it now is
    /// no reason to lose it.
    async fn provide_later(self: Arc<Self>, set: String, digest: Digest, mut reload: Option<Reload>) {
        let (mut pause, longest) = RETRY;
        loop {
            let reloaded = match reload.take() {
                Some(reload) => reload.await.unwrap_or_else(|why| Err(panicked(&why))),
                None => self.reload_policy(&digest).await,
            };
            let Some(handle) = self.sets_now().get(&set).cloned() else { return };
            match reloaded {
                Ok(compiled) => {
                    tracing::info!(set, module = %digest, "a policy runs again");
                    return handle.provide(digest, Ok(compiled)).await;
                }
                Err(Unready { why, may_pass }) => {
                    tracing::error!(set, module = %digest, why, may_pass, "a policy cannot run");
                    handle.provide(digest.clone(), Err(why)).await;
                    if !may_pass {
                        return;
                    }
                }
            }
            tokio::select! {
                () = self.shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }
}

fn panicked(why: &tokio::task::JoinError) -> Unready {
    Unready { why: why.to_string(), may_pass: false }
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
