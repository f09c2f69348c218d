//! The shell of the node's agent: VMM processes, probes and scrapes, and the disk of this host.
//!
//! What is decided is decided by [`regatta_core::agent`]; here it is carried out. The agent is shared by all sets of the
//! daemon; each set has the handles of its own instances ([`LocalInstances`]), in its own task.

mod adopt;
mod driver;
mod guest_events;
mod host;
mod logs;
mod orphans;
mod snapshot;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use regatta_core::admission::{Demand, HostRoom, never_fits};
use regatta_core::agent::{Agent, Effect, Identity, Input, Key, Order, Report, Running, StopOrder, Want};
use regatta_core::machine::ProcessReading;
use regatta_core::manifest::{Network, ScaleSet};
use regatta_core::node::Placement;
use regatta_core::record::NodeCapacity;
use regatta_core::recovery::{Birth, Origin};
use regatta_core::state::VmmProcessId;
use regatta_traffic::{ProbeReport, ScrapeReport, WatchRuntime};
use regatta_vmm::{
    Containment, EventTail, ImageStore, InstanceDir, LaunchSpec, SnapshotStore, Vmm, VmmHost, doctor,
};
use tokio::sync::mpsc;

pub(crate) use self::adopt::birth_in;
pub(crate) use self::driver::News;
pub(crate) use self::host::HostLimits;
pub(crate) use self::orphans::Orphan;
pub(crate) use self::snapshot::TEMPLATE;
pub(crate) use self::watch::describe;

use self::driver::{Driver, Job};
use self::host::Disk;
pub(crate) use self::logs::keep_short as keep_logs_short;
use self::snapshot::GoldenSnapshots;
use self::watch::Watching;
use crate::images::SetImages;
use crate::origins::Origins;
use regatta_util::chain;

/// Files that the daemon has open for an instance: pidfd, API socket and connection, event file, and kept connections of probe
/// and scrape.
const OPEN_FILES_PER_INSTANCE: u64 = 9;

/// What the sets of this node share.
pub(crate) struct Node {
    agent: Mutex<Agent>,
    /// What there is for instances of all sets.
    room: HostRoom,
    disk: Disk,
    /// One directory per set and instance.
    pub(crate) instances: PathBuf,
    /// Launches and adopts VMMs.
    pub(crate) vmms: Arc<VmmHost>,
    /// Golden images by digest.
    pub(crate) images: ImageStore,
    /// Golden snapshots.
    pub(crate) snapshots: SnapshotStore,
    /// What instances are made of.
    pub(crate) origins: Origins,
    /// The thread that probes and scrapes all instances.
    watching: WatchRuntime,
}

impl Node {
    /// A node without instances.
    pub(crate) fn new(
        limits: HostLimits,
        instances: PathBuf,
        vmms: VmmHost,
        images: ImageStore,
        snapshots: SnapshotStore,
        origins: Origins,
        watching: WatchRuntime,
    ) -> Self {
        Self {
            agent: Mutex::new(Agent::new(Placement::default(), limits.host())),
            room: limits.host(),
            disk: Disk::new(limits.disk_reserve_bytes, &instances),
            instances,
            vmms: Arc::new(vmms),
            images,
            snapshots,
            origins,
            watching,
        }
    }

    /// What keeps instances of a manifest from running here, or as many of them as it may want. Blocking.
    pub(crate) fn shortcomings(&self, manifest: &ScaleSet, images: &SetImages) -> Vec<String> {
        let (mode, lacking) = match manifest.network {
            Network::Isolated { .. } => ("isolated", doctor::examine_network(true)),
            Network::Bridge { .. } => ("bridge", doctor::examine_network(false)),
            Network::Loopback { .. } | Network::None => ("", Vec::new()),
        };
        let told = |check: doctor::Check| {
            let fix = check.fix.map(|fix| format!("; {fix}")).unwrap_or_default();
            format!(
                "instances cannot be launched on this host with network.mode {mode}: {}{fix} (`regatta doctor` checks the host)",
                check.seen
            )
        };
        let lacking = lacking.into_iter().map(told);
        lacking.chain(never_fits(&self.room, demand_of(manifest, images), manifest.capacity.max)).collect()
    }

    fn agent(&self) -> MutexGuard<'_, Agent> {
        self.agent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What an instance takes of a node.
fn demand_of(manifest: &ScaleSet, images: &SetImages) -> Demand {
    Demand {
        memory_bytes: manifest.instance.memory_bytes,
        vcpus: manifest.instance.vcpus.into(),
        disk_bytes: images.disk_demand_bytes(manifest),
        open_files: OPEN_FILES_PER_INSTANCE,
    }
}

/// Ends the name of a measure that a VMM was asked to take, of which nobody can see whether it did.
pub(crate) const REQUESTED: &str = " (requested)";

/// What does not contain a VMM, and what nobody knows of.
fn not_contained(containment: &Containment) -> Vec<String> {
    let missing = containment.missing().map(|(measure, _)| measure.as_str().to_owned());
    missing.chain(containment.requested().map(|measure| format!("{measure}{REQUESTED}"))).collect()
}

/// Where what happens to the instances of a set is told.
#[derive(Debug, Clone)]
pub(crate) struct Ears {
    pub(crate) news: mpsc::Sender<(u32, News)>,
    pub(crate) probes: mpsc::Sender<ProbeReport>,
    pub(crate) scrapes: mpsc::Sender<ScrapeReport>,
}

/// The instances of one set on this node: their drivers, VMMs and watches.
pub(crate) struct LocalInstances {
    node: Arc<Node>,
    set: Arc<str>,
    /// What new instances start from.
    images: SetImages,
    live: BTreeMap<u32, Live>,
    snapshot: GoldenSnapshots,
    ears: Ears,
}

/// The handles of one instance.
#[derive(Debug, Default)]
struct Live {
    /// The task that owns its VMM; none before its launch.
    driver: Option<Driver>,
    /// Its VMM, once booted or adopted.
    vmm: Option<Arc<Vmm>>,
    /// Probes and scrapes.
    watch: Option<Watching>,
    /// What its VMM reports, once booted or adopted.
    events: Option<EventTail>,
    /// Its VMM has reported that the VM was shut down.
    shut_down: bool,
}

/// What became of an instance.
pub(crate) type Told = (u32, Report);

impl LocalInstances {
    pub(crate) fn new(node: Arc<Node>, set: &str, images: SetImages, ears: Ears) -> Self {
        Self {
            node,
            set: set.into(),
            images,
            live: BTreeMap::new(),
            snapshot: GoldenSnapshots::default(),
            ears,
        }
    }

    fn key(&self, id: u32) -> Key {
        Key { set: Arc::clone(&self.set), id }
    }

    fn dir_of(&self, id: u32) -> Result<InstanceDir, regatta_vmm::DirError> {
        InstanceDir::new(&self.node.instances, &self.set, &id.to_string())
    }

    /// What new instances start from, from now on.
    pub(crate) fn set_images(&mut self, images: SetImages) {
        self.images = images;
    }

    /// Why nothing can be launched, if so.
    pub(crate) fn image_problem(&self) -> Option<String> {
        self.images.problem().map(ToOwned::to_owned)
    }

    /// What this node has for more instances of the set, up to `wanted`.
    pub(crate) fn capacity(&self, manifest: &ScaleSet, wanted: u32) -> NodeCapacity {
        let (demand, disk_left) = (self.demand(manifest), self.node.disk.left_bytes());
        self.node.agent().capacity(demand, &manifest.network, wanted, disk_left)
    }

    /// What an instance takes of the node.
    fn demand(&self, manifest: &ScaleSet) -> Demand {
        demand_of(manifest, &self.images)
    }

    /// Something is wanted of an instance.
    pub(crate) fn want(&mut self, want: Want) -> Vec<Told> {
        let demand = match &want.order {
            Order::Run { manifest, .. } => self.demand(manifest),
            Order::Stop(_) => Demand::default(),
        };
        let disk_left_bytes = self.node.disk.left_bytes();
        let id = want.id;
        self.on(id, Input::Want { want, demand, disk_left_bytes })
    }

    /// The owner knows that nothing is left of an instance.
    pub(crate) fn forget(&mut self, id: u32) {
        self.on(id, Input::Forget);
        self.live.remove(&id);
    }

    /// A driver tells something.
    pub(crate) fn on_news(&mut self, id: u32, news: News) -> Vec<Told> {
        let mut told = Vec::new();
        let report = match news {
            News::LaunchStarted => Report::LaunchStarted,
            News::Booted(vmm) => Report::Booted(self.attach(id, vmm, 0)),
            News::LaunchFailed(why) => Report::LaunchFailed { why },
            News::Exited(how) => {
                told = self.follow_events_of(id);
                Report::Exited { why: self.why_ended(id, how) }
            }
            News::NotRestarted(why) => {
                tracing::warn!(set = %self.set, instance = id, why, "cannot be restarted yet");
                Report::NotRestarted { why }
            }
            News::Stuck(why) => {
                tracing::warn!(set = %self.set, instance = id, why, "cannot be removed yet");
                Report::Stuck { why }
            }
            News::Cleaned(note) => Report::Cleaned { note },
        };
        told.extend(self.on(id, Input::News(report)));
        told
    }

    fn on(&mut self, id: u32, input: Input) -> Vec<Told> {
        let effects = self.node.agent().on(&self.key(id), input);
        let mut told = Vec::new();
        for effect in effects {
            match effect {
                Effect::Report { report, .. } => told.push((id, report)),
                Effect::Launch { identity, manifest } => told.extend(self.launch(&identity, &manifest)),
                Effect::Stop { order, .. } => told.extend(self.stop(id, order)),
                Effect::Restart { .. } => self.restart(id),
                Effect::Watch { address, phase, watch, network, .. } => {
                    let watching =
                        watch::start(&self.node.watching, id, address, phase, &watch, &network, &self.ears);
                    self.live.entry(id).or_default().watch = watching;
                }
                Effect::Unwatch { .. } => {
                    self.live.entry(id).or_default().watch = None;
                }
            }
        }
        told
    }

    fn launch(&mut self, identity: &Identity, manifest: &ScaleSet) -> Vec<Told> {
        let spec = self
            .dir_of(identity.id)
            .map_err(|error| chain(&error))
            .and_then(|dir| self.images.launch_spec(manifest, identity, dir))
            .and_then(|spec| Ok(LaunchSpec { identity: Some(self.birth(manifest, identity)?), ..spec }));
        match spec {
            Ok(spec) => {
                let start = self.snapshot.start(manifest.instance.start);
                self.drive(identity.id, Job::Launch(Box::new(LaunchSpec { start, ..spec })));
                Vec::new()
            }
            Err(why) => self.on(identity.id, Input::News(Report::LaunchFailed { why })),
        }
    }

    /// Who an instance is and what it is made of, for its own directory; what it is made of is on disk then.
    fn birth(&self, manifest: &ScaleSet, identity: &Identity) -> Result<String, String> {
        let origin = Origin { manifest: manifest.clone(), image: self.images.digests() };
        let birth =
            Birth { identity: identity.clone(), origin: self.node.origins.keep(&origin)?.to_string() };
        serde_json::to_string(&birth).map_err(|why| why.to_string())
    }

    fn drive(&mut self, id: u32, job: Job) {
        let driver = Driver::start(id, job, Arc::clone(&self.node.vmms), self.ears.news.clone());
        self.live.entry(id).or_default().driver = Some(driver);
    }

    fn stop(&mut self, id: u32, order: StopOrder) -> Vec<Told> {
        if let Some(driver) = self.live.get(&id).and_then(|live| live.driver.as_ref()) {
            driver.stop(order);
            return Vec::new();
        }
        match self.dir_of(id) {
            Ok(dir) => {
                self.drive(id, Job::Remains { dir, failure: order.failure.clone() });
                self.stop(id, order)
            }
            // Without a directory there is nothing to remove.
            Err(_) => self.on(id, Input::News(Report::Cleaned { note: None })),
        }
    }

    /// Resets a VM, beside everything else that is done about it. Its VMM reports when that is done.
    fn restart(&self, id: u32) {
        let Some(vmm) = self.live.get(&id).and_then(|live| live.vmm.clone()) else { return };
        let news = self.ears.news.clone();
        tokio::spawn(async move {
            if let Err(error) = vmm.reboot().await {
                let why = format!("cannot be restarted: {}", chain(&error));
                // A set that no longer listens has ended with the daemon.
                let _ = news.send((id, News::NotRestarted(why))).await;
            }
        });
    }

    /// Makes a running VMM the instance's own.
    fn attach(&mut self, id: u32, vmm: Arc<Vmm>, events_read_bytes: u64) -> Running {
        let identity = vmm.identity();
        let live = self.live.entry(id).or_default();
        live.events = Some(EventTail::from(&vmm.dir().events(), events_read_bytes));
        let running = Running {
            process: u32::try_from(identity.pid)
                .ok()
                .map(|pid| VmmProcessId { pid, start_time_ticks: identity.start_time_ticks }),
            start: vmm.started().map(ToString::to_string),
            not_contained: not_contained(&vmm.containment()),
        };
        live.vmm = Some(vmm);
        running
    }

    /// Counters of all VMM processes.
    pub(crate) fn readings(&self) -> Vec<ProcessReading> {
        let reading = |(&id, live): (&u32, &Live)| {
            let vmm = live.vmm.as_ref()?;
            Some(ProcessReading { id, cpu_time_ns: vmm.cpu_time_ns(), rss_bytes: vmm.rss_bytes() })
        };
        self.live.iter().filter_map(reading).collect()
    }

    /// What the last probes came to.
    pub(crate) fn last_probes(&self) -> BTreeMap<u32, String> {
        let last = |(&id, live): (&u32, &Live)| Some((id, live.watch.as_ref()?.last_probe()?));
        self.live.iter().filter_map(last).collect()
    }

    /// Instances that this host could not probe the last time, and why.
    pub(crate) fn not_probed(&self) -> BTreeMap<u32, String> {
        let why = |(&id, live): (&u32, &Live)| Some((id, live.watch.as_ref()?.not_asked()?));
        self.live.iter().filter_map(why).collect()
    }
}
