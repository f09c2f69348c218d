//! Bringing the stored sets back after a restart of the daemon.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use regatta_core::agent::Identity;
use regatta_core::state::{SetState, instance_uid};
use regatta_policy_host::CompiledPolicy;
use regatta_store::StoredSet;
use regatta_vmm::{Adoption, FoundVmm, InstanceDir, VmmIdentity, discover};
use tokio::task::JoinHandle;

use super::Fleet;
use super::policies::Unready;
use crate::images::SetImages;
use crate::node::TEMPLATE;
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
    /// The store or `/proc` cannot be read; nothing was touched then.
    pub(crate) async fn restart(self: &Arc<Self>) -> anyhow::Result<()> {
        let stored = self.shared.store.load()?;
        let (mut found, orphans) = sort(discover(&self.shared.dirs.instances)?, &stored);
        // What nobody knows is never stopped: the store may be the one that has lost something.
        for orphan in &orphans {
            // The template of a snapshot takes no part in its set: the daemon that booted it was the only one to want it.
            if orphan.dir.id() == TEMPLATE && stored.iter().any(|it| it.state.set.name == orphan.dir.set()) {
                self.remove_template(orphan).await;
                continue;
            }
            self.shared.node.keep_address_of(&orphan.dir);
            let (set, instance) = (orphan.dir.set(), orphan.dir.id());
            let path = orphan.dir.path().display();
            tracing::error!(
                set, instance, pid = orphan.identity.pid, %path,
                "a VMM runs that the store does not know; it is left alone: stop it by its API socket if it is not wanted"
            );
        }
        self.sweep(&stored).await;
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

    /// Removes directories of instances that their stored set has removed: the daemon was killed between
    /// the end of an instance and the end of a launch that it had cut off. What the store does not know stays.
    async fn sweep(&self, stored: &[StoredSet]) {
        let dirs = match InstanceDir::list(&self.shared.dirs.instances) {
            Ok(dirs) => dirs,
            Err(why) => return tracing::warn!(why = chain(&why), "leftovers are not looked for"),
        };
        for dir in dirs.iter().filter(|dir| !is_known(dir, stored)) {
            let path = dir.path().display();
            if !is_removed(dir, stored) {
                tracing::warn!(%path, "a directory of an instance that the store does not know; it is left alone");
                continue;
            }
            match self.shared.node.vmms.discard(dir, None).await {
                Ok(()) => tracing::info!(%path, "a leftover was removed"),
                Err(why) => tracing::warn!(%path, why = chain(&why), "a leftover stays"),
            }
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
        for (digest, reload) in late {
            tokio::spawn(Arc::clone(self).provide_later(set.clone(), digest, reload));
        }
    }

    /// The modules of a set, those that are ready soon; and those that are not.
    async fn reload(self: &Arc<Self>, state: &SetState) -> (Modules, Vec<(String, Option<Reload>)>) {
        let digests: BTreeSet<String> = state.activations_kept().map(|it| it.digest.clone()).collect();
        let reloads: Vec<(String, Reload)> = digests
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
                        tracing::error!(set = state.set.name, module = digest, why, "a policy cannot run");
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
    async fn provide_later(self: Arc<Self>, set: String, digest: String, mut reload: Option<Reload>) {
        let (mut pause, longest) = RETRY;
        loop {
            let reloaded = match reload.take() {
                Some(reload) => reload.await.unwrap_or_else(|why| Err(panicked(&why))),
                None => self.reload_policy(&digest).await,
            };
            let Some(handle) = self.sets_now().get(&set).cloned() else { return };
            match reloaded {
                Ok(compiled) => {
                    tracing::info!(set, module = digest, "a policy runs again");
                    return handle.provide(digest, Ok(compiled)).await;
                }
                Err(Unready { why, may_pass }) => {
                    tracing::error!(set, module = digest, why, may_pass, "a policy cannot run");
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
    async fn remove_template(&self, template: &FoundVmm) {
        let set = template.dir.set();
        let stopped = match self.shared.node.vmms.adopt(&template.dir, Some(&template.identity)).await {
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

/// Assigns what was found to the stored instances; the rest are orphans.
fn sort(all: Vec<FoundVmm>, stored: &[StoredSet]) -> (Found, Vec<FoundVmm>) {
    let mut found = Found::new();
    let mut orphans = Vec::new();
    for vmm in all {
        let id: Option<u32> = vmm.dir.id().parse().ok();
        match id.filter(|_| is_known(&vmm.dir, stored)) {
            Some(id) => drop(found.entry(vmm.dir.set().to_owned()).or_default().insert(id, vmm.identity)),
            None => orphans.push(vmm),
        }
    }
    (found, orphans)
}

/// Whether a stored instance has this directory.
fn is_known(dir: &InstanceDir, stored: &[StoredSet]) -> bool {
    let of_set = stored.iter().find(|stored| stored.state.set.name == dir.set());
    let id: Option<u32> = dir.id().parse().ok();
    of_set.is_some_and(|stored| stored.instances.iter().any(|instance| Some(instance.id) == id))
}

/// Whether the stored set says that this was an instance of its own which it has removed, or the template of its snapshot.
fn is_removed(dir: &InstanceDir, stored: &[StoredSet]) -> bool {
    let Some(of_set) = stored.iter().find(|stored| stored.state.set.name == dir.set()) else { return false };
    let Ok(id) = dir.id().parse::<u32>() else { return true };
    let identity: Option<Identity> =
        dir.identity().ok().flatten().and_then(|identity| serde_json::from_str(&identity).ok());
    // One of an earlier set of the same name is not this set's to remove.
    let of_this_set =
        identity.is_none_or(|identity| identity.uid == instance_uid(of_set.state.incarnation, id));
    of_this_set && id < of_set.state.next_instance_id
}
