//! The golden snapshot of a set: made of an instance that is booted for it alone, and found again after a restart.
//!
//! ```text
//!              no snapshot with the key           made
//!   Off ──────────────────────────────► Making ─────────► Ready ──► (gone or damaged: Making)
//!    │  └── one with the key is there ────│──────────────►
//!    └─ none wanted                       └─ failed ─────► Failed ─ after RETRY_AFTER ─► Making
//! ```
//! Looked at once a tick.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use regatta_core::agent::{Identity, Key, Watch};
use regatta_core::machine::SnapshotStatus;
use regatta_core::manifest::{ScaleSet, StartMode};
use regatta_core::phase::Phase;
use regatta_traffic::ProbeEvent;
use regatta_vmm::{GoldenSnapshot, InstanceDir, LaunchSpec, SnapshotKey, StartFrom, Vmm};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Ears, LocalInstances, Node, watch};
use regatta_util::chain;

/// Name of the template's directory among those of the set's instances, which are numbers.
pub(crate) const TEMPLATE: &str = "template";
/// The template's id in its name and its seed: instances count from 1.
const TEMPLATE_ID: u32 = 0;
/// What it takes of the node is kept under an id that no instance gets.
const LEDGER_ID: u32 = u32::MAX;
/// Making one costs a boot: what failed is tried again rarely. Another manifest is tried at once.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// Between two tries to remove a template that resists.
const REMOVE_PAUSE: Duration = Duration::from_secs(1);

/// The golden snapshot of a set, as far as there is one.
#[derive(Debug, Default)]
pub(super) struct GoldenSnapshots {
    state: State,
    /// Old ones are being removed; none is made before that is done.
    pruning: Option<JoinHandle<()>>,
    /// What was kept when old ones were last removed; none before the first time.
    kept: Option<Option<SnapshotKey>>,
}

#[derive(Debug, Default)]
enum State {
    /// None is wanted, or none was looked for yet.
    #[default]
    Off,
    Making(Making),
    Ready(GoldenSnapshot),
    Failed {
        /// Of what; none when that is not even known.
        key: Option<SnapshotKey>,
        why: String,
        at: Instant,
    },
}

/// The task that makes a snapshot. It removes the template before it ends, also when it is cancelled.
#[derive(Debug)]
struct Making {
    key: SnapshotKey,
    task: JoinHandle<Result<GoldenSnapshot, String>>,
    cancel: CancellationToken,
    /// Why it failed before.
    failed: Option<String>,
}

impl GoldenSnapshots {
    /// How an instance that is launched now comes to run.
    pub(super) fn start(&self, mode: StartMode) -> StartFrom {
        match (mode, &self.state) {
            (StartMode::Cold, _) => StartFrom::Boot,
            (_, State::Ready(snapshot)) => StartFrom::Snapshot(snapshot.clone()),
            (_, State::Making(Making { failed: None, .. }) | State::Off) => {
                StartFrom::BootInstead("the snapshot is not made yet".to_owned())
            }
            (_, State::Making(Making { failed: Some(why), .. }) | State::Failed { why, .. }) => {
                StartFrom::BootInstead(format!("there is no snapshot: {why}"))
            }
        }
    }

    fn status(&self) -> SnapshotStatus {
        match &self.state {
            State::Off => SnapshotStatus::Off,
            State::Making(making) => SnapshotStatus::Making { failed: making.failed.clone() },
            State::Ready(snapshot) => SnapshotStatus::Ready { disk_bytes: snapshot.disk_bytes() },
            State::Failed { why, .. } => SnapshotStatus::Failed { why: why.clone() },
        }
    }
}

impl LocalInstances {
    /// Sees to the set's snapshot: there shall be one of this manifest, or none.
    pub(crate) fn look_after_snapshot(
        &mut self,
        manifest: Option<&Arc<ScaleSet>>,
        generation: u64,
    ) -> SnapshotStatus {
        let wanted = manifest.map(|manifest| self.snapshot_of(manifest, generation)).transpose();
        self.snapshot.state = match wanted {
            Ok(wanted) => self.next_state(manifest, generation, wanted),
            Err(why) => State::Failed { key: None, why, at: Instant::now() },
        };
        self.snapshot.status()
    }

    fn next_state(
        &mut self,
        manifest: Option<&Arc<ScaleSet>>,
        generation: u64,
        wanted: Option<(SnapshotKey, LaunchSpec)>,
    ) -> State {
        let key = wanted.as_ref().map(|(key, _)| key.clone());
        let state = match std::mem::take(&mut self.snapshot.state) {
            State::Making(mut making) => match (&mut making.task).now_or_never() {
                None => {
                    if key.as_ref() != Some(&making.key) {
                        making.cancel.cancel();
                    }
                    return State::Making(making);
                }
                Some(made) => match made.unwrap_or_else(|_| Err("its task broke off".to_owned())) {
                    Ok(snapshot) if key.as_ref() == Some(&making.key) => State::Ready(snapshot),
                    Err(why) if key.as_ref() == Some(&making.key) => {
                        tracing::warn!(set = %self.set, why, "no snapshot");
                        return State::Failed { key, why, at: Instant::now() };
                    }
                    Ok(_) | Err(_) => State::Off,
                },
            },
            other => other,
        };
        if self.snapshot.kept.as_ref() != Some(&key) {
            self.prune_snapshots(key.clone());
        }
        let (Some((key, spec)), Some(manifest)) = (wanted, manifest) else { return State::Off };
        let failed = match state {
            // It may have been removed or damaged behind our back.
            State::Ready(snapshot) if *snapshot.key() == key && self.find_snapshot(&key).is_some() => {
                return State::Ready(snapshot);
            }
            State::Failed { key: of, why, at } if of.as_ref() == Some(&key) => {
                if at.elapsed() < RETRY_AFTER {
                    return State::Failed { key: of, why, at };
                }
                Some(why)
            }
            _ => None,
        };
        if let Some(snapshot) = self.find_snapshot(&key) {
            return State::Ready(snapshot);
        }
        match self.make_snapshot(manifest, generation, key.clone(), spec, failed) {
            Ok(making) => State::Making(making),
            Err(why) => State::Failed { key: Some(key), why, at: Instant::now() },
        }
    }

    /// What a snapshot of this manifest is made of, and its key.
    fn snapshot_of(&self, manifest: &ScaleSet, generation: u64) -> Result<(SnapshotKey, LaunchSpec), String> {
        let dir =
            InstanceDir::new(&self.node.instances, &self.set, TEMPLATE).map_err(|error| chain(&error))?;
        let identity = self.template(generation, Ipv4Addr::UNSPECIFIED);
        let mut spec = self.images.launch_spec(manifest, &identity, dir)?;
        spec.start = StartFrom::BootForSnapshot;
        let key = self.node.vmms.snapshot_key(&spec).map_err(|error| chain(&error))?;
        Ok((key, spec))
    }

    /// The template as if it were an instance. The same whenever it is asked for, but for its address on the host.
    fn template(&self, generation: u64, address: Ipv4Addr) -> Identity {
        Identity {
            set: self.set.to_string(),
            id: TEMPLATE_ID,
            uid: TEMPLATE.to_owned(),
            epoch: 0,
            generation,
            created_ms: 0,
            address,
        }
    }

    fn find_snapshot(&self, key: &SnapshotKey) -> Option<GoldenSnapshot> {
        self.node.snapshots.find(&self.set, key)
    }

    fn prune_snapshots(&mut self, keep: Option<SnapshotKey>) {
        self.snapshot.kept = Some(keep.clone());
        let (store, set, before) =
            (self.node.snapshots.clone(), Arc::clone(&self.set), self.snapshot.pruning.take());
        self.snapshot.pruning = Some(tokio::spawn(async move {
            if let Some(before) = before {
                // A panic was logged.
                let _ = before.await;
            }
            let prune = move || {
                if let Err(why) = store.prune(&set, keep.as_ref()) {
                    tracing::warn!(%set, why = chain(&why), "old snapshots stay");
                }
            };
            let _ = tokio::task::spawn_blocking(prune).await;
        }));
    }

    /// Removes what a set that is gone leaves of snapshots.
    pub(crate) async fn forget_snapshots(&mut self) {
        self.prune_snapshots(None);
        if let Some(pruning) = self.snapshot.pruning.take() {
            // A panic was logged.
            let _ = pruning.await;
        }
    }

    fn make_snapshot(
        &mut self,
        manifest: &Arc<ScaleSet>,
        generation: u64,
        key: SnapshotKey,
        mut spec: LaunchSpec,
        failed: Option<String>,
    ) -> Result<Making, String> {
        let (demand, disk_left) = (self.demand(manifest), self.node.disk.left_bytes());
        let ledger_key = self.key(LEDGER_ID);
        let address =
            self.node.agent().take_apart(ledger_key.clone(), &manifest.network, demand, disk_left)?;
        let template = self.template(generation, address);
        match self.images.launch_spec(manifest, &template, spec.dir.clone()) {
            Ok(real) => (spec.network, spec.identity) = (real.network, real.identity),
            Err(why) => {
                self.node.agent().give_back(&ledger_key);
                return Err(why);
            }
        }
        let cancel = CancellationToken::new();
        let work = Work {
            node: Arc::clone(&self.node),
            manifest: Arc::clone(manifest),
            address,
            ledger_key,
            spec,
            key: key.clone(),
            pruning: self.snapshot.pruning.take(),
        };
        let task = tokio::spawn(work.run(cancel.clone()));
        Ok(Making { key, task, cancel, failed })
    }
}

/// What it takes to make a snapshot.
struct Work {
    node: Arc<Node>,
    manifest: Arc<ScaleSet>,
    address: Ipv4Addr,
    ledger_key: Key,
    spec: LaunchSpec,
    key: SnapshotKey,
    /// Old snapshots are being removed; that comes first.
    pruning: Option<JoinHandle<()>>,
}

impl Work {
    async fn run(mut self, cancel: CancellationToken) -> Result<GoldenSnapshot, String> {
        if let Some(pruning) = self.pruning.take() {
            // A panic was logged.
            let _ = pruning.await;
        }
        let set = &self.manifest.name;
        tracing::info!(set, key = %self.key, "a template is booted for a snapshot");
        let launched = tokio::select! {
            biased;
            () = cancel.cancelled() => Err("it is no longer wanted".to_owned()),
            launched = self.node.vmms.launch(&self.spec) => launched.map_err(|error| chain(&error)),
        };
        let made = match launched {
            Ok(vmm) => {
                let made = tokio::select! {
                    biased;
                    () = cancel.cancelled() => Err("it is no longer wanted".to_owned()),
                    made = self.make(&vmm) => made,
                };
                self.remove(&vmm).await;
                made
            }
            Err(why) => Err(why),
        };
        self.node.agent().give_back(&self.ledger_key);
        made
    }

    async fn make(&self, vmm: &Vmm) -> Result<GoldenSnapshot, String> {
        let timeout = Duration::from_millis(self.manifest.instance.boot_timeout_ms);
        tokio::select! {
            biased;
            exit = vmm.exited() => return Err(format!("the template's VMM ended with {exit}")),
            ready = self.ready(timeout) => ready?,
        }
        let made = self.node.vmms.snapshot(vmm, &self.spec, &self.key, &self.node.snapshots, timeout).await;
        made.map_err(|error| chain(&error))
    }

    /// Waits until the template is healthy by the set's own probe.
    async fn ready(&self, timeout: Duration) -> Result<(), String> {
        let (probes, mut reports) = mpsc::channel(16);
        // Nobody reads its metrics or its news: it takes no part in the set.
        let ears = Ears { probes, scrapes: mpsc::channel(1).0, news: mpsc::channel(1).0 };
        let asked = Watch { metrics: Vec::new(), ..Watch::of(&self.manifest) };
        let network = &self.manifest.network;
        let watching = watch::start(
            &self.node.watching,
            TEMPLATE_ID,
            self.address,
            Phase::Booting,
            &asked,
            network,
            &ears,
        );
        let watching = watching.ok_or("the template cannot be probed")?;
        let healthy = async {
            while let Some(report) = reports.recv().await {
                if report.event == ProbeEvent::BecameHealthy {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::time::timeout(timeout, healthy).await.map_err(|_| {
            let last = watching.last_probe().map(|last| format!(", last probe: {last}")).unwrap_or_default();
            format!("the template was not healthy after {} ms{last}", timeout.as_millis())
        })
    }

    async fn remove(&self, vmm: &Vmm) {
        while let Err(why) = vmm.stop(Duration::ZERO).await {
            tracing::warn!(set = self.manifest.name, why = chain(&why), "a template cannot be removed yet");
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
    }
}
