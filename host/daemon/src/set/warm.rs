//! The golden snapshot of a set: made of an instance that is booted for it alone, and found again after a restart.
//!
//! ```text
//!              no snapshot with the key           made
//!   Off ──────────────────────────────► Making ─────────► Ready ──► (gone or damaged: Making)
//!    │  └── one with the key is there ────│──────────────►
//!    └─ start: cold                       └─ failed ─────► Failed ─ after RETRY_AFTER ─► Making
//! ```
//! Looked at when a tick begins, and only then: launches and their hold see one state throughout a tick.

use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::manifest::{ScaleSet, StartMode};
use regatta_core::state::{Event, InstanceRecord};
use regatta_traffic::ProbeEvent;
use regatta_vmm::{GoldenSnapshot, InstanceDir, LaunchSpec, SnapshotKey, StartFrom, Vmm};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{SetTask, watch};
use crate::chain::chain;
use crate::clock::now_ms;
use crate::shared::Shared;

/// Name of the template's directory among those of the set's instances, which are numbers.
const TEMPLATE: &str = "template";
/// The template's id in its name and its seed: instances count from 1.
const TEMPLATE_ID: u32 = 0;
/// Its share of the host is kept under an id that no instance gets.
const LEDGER_ID: u32 = u32::MAX;
/// Making one costs a boot: what failed is tried again rarely. Another manifest is tried at once.
const RETRY_AFTER: Duration = Duration::from_secs(600);
/// Between two tries to remove a template that resists.
const REMOVE_PAUSE: Duration = Duration::from_secs(1);

/// What there is of the set's snapshot.
#[derive(Debug, Default)]
pub(super) enum Warm {
    /// None is wanted, or none was looked for yet.
    #[default]
    Off,
    /// It is being made.
    Making(Making),
    /// It is there.
    Ready(GoldenSnapshot),
    /// It could not be made.
    Failed {
        /// Of what; none when that is not even known.
        key: Option<SnapshotKey>,
        /// Why not.
        why: String,
        /// When.
        at: Instant,
    },
}

/// The task that makes a snapshot. It removes the template before it ends, also when it is cancelled.
#[derive(Debug)]
pub(super) struct Making {
    key: SnapshotKey,
    task: JoinHandle<Result<GoldenSnapshot, String>>,
    cancel: CancellationToken,
    /// Why it failed before.
    failed: Option<String>,
}

impl Warm {
    /// Whether there is nothing of it that must end before the set may.
    pub(super) fn is_idle(&self) -> bool {
        !matches!(self, Self::Making(_))
    }

    /// Why launches wait, if they do.
    pub(super) fn hold(&self, mode: StartMode) -> Option<String> {
        match (mode, self) {
            (StartMode::Snapshot, Self::Making(Making { failed: None, .. })) => {
                Some("the snapshot that instances go on from is being made".to_owned())
            }
            _ => None,
        }
    }

    /// What keeps instances from being restored, for people, when that will last.
    pub(super) fn problem(&self) -> Option<String> {
        let why = match self {
            Self::Failed { why, .. } => why,
            Self::Making(Making { failed: Some(why), .. }) => why,
            Self::Off | Self::Making(_) | Self::Ready(_) => return None,
        };
        Some(lasting(why))
    }

    /// How an instance that is launched now comes to run.
    pub(super) fn start(&self, mode: StartMode) -> StartFrom {
        match (mode, self) {
            (StartMode::Cold, _) => StartFrom::Boot,
            (_, Self::Ready(snapshot)) => StartFrom::Snapshot(snapshot.clone()),
            (_, Self::Making(Making { failed: None, .. }) | Self::Off) => {
                StartFrom::BootInstead("the snapshot is not made yet".to_owned())
            }
            (_, Self::Making(Making { failed: Some(why), .. }) | Self::Failed { why, .. }) => {
                StartFrom::BootInstead(format!("there is no snapshot: {why}"))
            }
        }
    }
}

/// The problem of a set without the snapshot that it wants.
fn lasting(why: &str) -> String {
    format!("instances boot, there is no snapshot that they could go on from: {why}")
}

impl SetTask {
    /// Sees to the set's snapshot.
    pub(super) async fn look_after_snapshot(&mut self) {
        let wanted = match self.wanted_snapshot() {
            Ok(wanted) => wanted,
            Err(why) => {
                let before = self.warm.problem();
                return self.fail_snapshot(None, why, before);
            }
        };
        let key = wanted.as_ref().map(|(key, _)| key.clone());
        self.warm = match std::mem::take(&mut self.warm) {
            Warm::Making(making) if !making.task.is_finished() => {
                if key.as_ref() != Some(&making.key) {
                    making.cancel.cancel();
                }
                Warm::Making(making)
            }
            Warm::Making(making) => {
                let made = making.task.await.unwrap_or_else(|_| Err("its task broke off".to_owned()));
                let current = key.as_ref() == Some(&making.key);
                match made {
                    Ok(snapshot) if current => {
                        let mib = snapshot.disk_bytes() >> 20;
                        self.tell("snapshot-ready", format!("instances go on from a snapshot of {mib} MiB"));
                        Warm::Ready(snapshot)
                    }
                    Err(why) if current => {
                        return self.fail_snapshot(
                            Some(making.key),
                            why,
                            making.failed.as_deref().map(lasting),
                        );
                    }
                    Ok(_) | Err(_) => Warm::Off,
                }
            }
            other => other,
        };
        let Some((key, spec)) = wanted else {
            if matches!(self.warm, Warm::Ready(_) | Warm::Failed { .. }) {
                self.warm = Warm::Off;
                self.prune_snapshots(None).await;
            }
            return;
        };
        let failed = match &self.warm {
            Warm::Making(_) => return,
            // It may have been removed or damaged behind our back.
            Warm::Ready(snapshot) if *snapshot.key() == key && self.found(&key).is_some() => return,
            Warm::Failed { key: of, why, at } if of.as_ref() == Some(&key) => {
                if at.elapsed() < RETRY_AFTER {
                    return;
                }
                Some(why.clone())
            }
            Warm::Off | Warm::Ready(_) | Warm::Failed { .. } => None,
        };
        self.prune_snapshots(Some(&key)).await;
        self.warm = match self.found(&key) {
            Some(snapshot) => Warm::Ready(snapshot),
            None => match self.make_snapshot(key.clone(), spec, failed.clone()) {
                Ok(making) => Warm::Making(making),
                Err(why) => {
                    return self.fail_snapshot(Some(key), why, failed.as_deref().map(lasting));
                }
            },
        };
    }

    /// What the snapshot should be of, if there should be one.
    fn wanted_snapshot(&self) -> Result<Option<(SnapshotKey, LaunchSpec)>, String> {
        let set = &self.state.set;
        if set.instance.start == StartMode::Cold || self.state.deleting || self.images.problem().is_some() {
            return Ok(None);
        }
        let dir = InstanceDir::new(&self.shared.dirs.instances, &set.name, TEMPLATE)
            .map_err(|error| chain(&error))?;
        let mut spec = self.images.launch_spec(set, &self.template(std::net::Ipv4Addr::UNSPECIFIED), dir)?;
        spec.start = StartFrom::BootForSnapshot;
        let key = self.shared.vmms.snapshot_key(&spec).map_err(|error| chain(&error))?;
        Ok(Some((key, spec)))
    }

    /// The template as if it were an instance. The same whenever it is asked for, but for its address on the host.
    fn template(&self, address: std::net::Ipv4Addr) -> InstanceRecord {
        InstanceRecord {
            state: regatta_core::instance_state::InstanceState::Booting,
            ..InstanceRecord::pending(TEMPLATE_ID, 0, self.state.generation, address)
        }
    }

    fn found(&self, key: &SnapshotKey) -> Option<GoldenSnapshot> {
        self.shared.snapshots.find(&self.state.set.name, key)
    }

    async fn prune_snapshots(&self, keep: Option<&SnapshotKey>) {
        let (store, set, keep) = (self.shared.snapshots.clone(), self.state.set.name.clone(), keep.cloned());
        let pruned = tokio::task::spawn_blocking(move || store.prune(&set, keep.as_ref())).await;
        if let Ok(Err(why)) = pruned {
            tracing::warn!(set = self.state.set.name, why = chain(&why), "old snapshots stay");
        }
    }

    /// Removes what a set that is gone, or that no longer wants any, leaves of snapshots.
    pub(super) async fn forget_snapshots(&self) {
        self.prune_snapshots(None).await;
    }

    fn make_snapshot(
        &mut self,
        key: SnapshotKey,
        mut spec: LaunchSpec,
        failed: Option<String>,
    ) -> Result<Making, String> {
        let set = self.state.set.clone();
        let taken = self.shared.ledger.take(&set.name, LEDGER_ID, self.demand());
        taken.map_err(|shortage| shortage.to_string())?;
        let Some(address) = self.shared.addresses.take(&set.network) else {
            self.shared.ledger.release(&set.name, LEDGER_ID);
            return Err("the address pool is used up".to_owned());
        };
        let template = self.template(address);
        match self.images.launch_spec(&set, &template, spec.dir.clone()) {
            Ok(real) => spec.network = real.network,
            Err(why) => {
                self.shared.addresses.release(address);
                self.shared.ledger.release(&set.name, LEDGER_ID);
                return Err(why);
            }
        }
        let cancel = CancellationToken::new();
        let work = Work { shared: Arc::clone(&self.shared), set, template, spec, key: key.clone() };
        let task = tokio::spawn(work.run(cancel.clone()));
        Ok(Making { key, task, cancel, failed })
    }

    /// `before` is the problem that was told before, if one was.
    fn fail_snapshot(&mut self, key: Option<SnapshotKey>, why: String, before: Option<String>) {
        if before.as_deref() != Some(&*lasting(&why)) {
            tracing::warn!(set = self.state.set.name, why, "no snapshot");
            self.tell("snapshot-failed", format!("instances boot instead of being restored: {why}"));
        }
        self.warm = Warm::Failed { key, why, at: Instant::now() };
    }

    fn tell(&mut self, kind: &str, text: String) {
        self.told.push(Event {
            policy: None,
            at_ms: now_ms(),
            set: self.state.set.name.clone(),
            kind: kind.to_owned(),
            instance: None,
            text,
            actor: "daemon".to_owned(),
        });
    }
}

/// What it takes to make a snapshot.
struct Work {
    shared: Arc<Shared>,
    set: ScaleSet,
    template: InstanceRecord,
    spec: LaunchSpec,
    key: SnapshotKey,
}

impl Work {
    async fn run(self, cancel: CancellationToken) -> Result<GoldenSnapshot, String> {
        let set = &self.set.name;
        tracing::info!(set, key = %self.key, "a template is booted for a snapshot");
        let launched = tokio::select! {
            biased;
            () = cancel.cancelled() => Err("it is no longer wanted".to_owned()),
            launched = self.shared.vmms.launch(&self.spec) => launched.map_err(|error| chain(&error)),
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
        self.shared.addresses.release(self.template.address);
        self.shared.ledger.release(set, LEDGER_ID);
        made
    }

    async fn make(&self, vmm: &Vmm) -> Result<GoldenSnapshot, String> {
        let timeout = Duration::from_millis(self.set.instance.boot_timeout_ms);
        tokio::select! {
            biased;
            exit = vmm.exited() => return Err(format!("the template's VMM ended with {exit}")),
            ready = self.ready(timeout) => ready?,
        }
        let vmms = &self.shared.vmms;
        let made = vmms.snapshot(vmm, &self.spec, &self.key, &self.shared.snapshots, timeout).await;
        made.map_err(|error| chain(&error))
    }

    /// Waits until the template is healthy by the set's own probe.
    async fn ready(&self, timeout: Duration) -> Result<(), String> {
        let (probes, mut reports) = mpsc::channel(16);
        // Nobody reads its metrics: it takes no part in the set.
        let (scrapes, _) = mpsc::channel(1);
        let mut set = self.set.clone();
        set.metrics.clear();
        let watch = watch::start(&self.shared.watching, &set, &self.template, &probes, &scrapes);
        let watch = watch.ok_or("the template cannot be probed")?;
        let healthy = async {
            while let Some(report) = reports.recv().await {
                if report.event == ProbeEvent::BecameHealthy {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::time::timeout(timeout, healthy).await.map_err(|_| {
            let last = watch.last_probe().map(|last| format!(", last probe: {last}")).unwrap_or_default();
            format!("the template was not healthy after {} ms{last}", timeout.as_millis())
        })
    }

    async fn remove(&self, vmm: &Vmm) {
        while let Err(why) = vmm.stop(Duration::ZERO).await {
            tracing::warn!(set = self.set.name, why = chain(&why), "a template cannot be removed yet");
            tokio::time::sleep(REMOVE_PAUSE).await;
        }
    }
}
