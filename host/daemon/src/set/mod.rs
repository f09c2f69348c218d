//! The loop of one scale set. It alone holds the set's state; everyone else
//! sends it messages and reads the view that it publishes.
//!
//! Messages change what the set *knows* (an instance has booted, a probe fails,
//! an operator wants another policy). Only a tick *acts*, and only after what it
//! is about to do has been written down.

mod commands;
mod driver;
mod guest_events;
mod instance;
mod observe;
mod policy;
mod policy_commands;
mod recover;
mod shadows;
mod tick;
mod view;
mod warm;
mod watch;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::instance_state::{InstanceEvent, InstanceState};
use regatta_core::observation::LastDecision;
use regatta_core::record::{InstanceChange, TickRecord};
use regatta_core::state::{Event, InstanceRecord, SetState, VmmProcessId};
use regatta_metrics::{CounterRate, SetWindows};
use regatta_traffic::{Endpoint, LbConfig, LbError, LoadBalancer, ProbeReport, ScrapeReport};
use regatta_vmm::{EventTail, InstanceDir, Vmm, VmmIdentity};
use tokio::sync::{mpsc, watch as tokio_watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::commands::{Command, CommandError, Manifest};
pub(crate) use self::policy::{NewPolicy, ReadyPolicies};
pub(crate) use self::policy_commands::{Placed, PolicyCommand, Switched};
pub(crate) use self::view::{SetView, Traffic, policy_entries, policy_info};

use self::driver::News;
use self::instance::Instance;
use self::shadows::Shadows;
use self::warm::Warm;
use crate::clock::now_ms;
use crate::images::SetImages;
use crate::shared::Shared;

/// Messages that may wait for a set's loop.
const QUEUE: usize = 4_096;

/// Changes that may wait for a record.
const CHANGES_MAX: usize = 10_000;

/// What a set begins with.
pub(crate) struct Start {
    /// Its state, as stored.
    pub state: SetState,
    /// What its instances start from.
    pub images: SetImages,
    /// Its policies, ready to run.
    pub ready: ReadyPolicies,
    /// Its load balancer, already listening.
    pub load_balancer: Option<LoadBalancer>,
    /// Instances that are stored.
    pub instances: Vec<InstanceRecord>,
    /// VMMs that were found running, by instance.
    pub found: BTreeMap<u32, VmmIdentity>,
    /// What the last tick before a restart decided.
    pub last: Option<Arc<TickRecord>>,
}

/// A handle on a running set.
#[derive(Debug, Clone)]
pub(crate) struct SetHandle {
    commands: mpsc::Sender<Command>,
    view: tokio_watch::Receiver<Arc<SetView>>,
}

impl SetHandle {
    /// The set as it was last published.
    #[must_use]
    pub(crate) fn view(&self) -> Arc<SetView> {
        Arc::clone(&self.view.borrow())
    }

    /// Sends a command; none if the set has ended.
    pub(crate) async fn send(&self, command: Command) -> Option<()> {
        self.commands.send(command).await.ok()
    }

    /// Resolves when the set has ended.
    pub(crate) async fn ended(&self) {
        self.commands.closed().await;
    }
}

/// The state of the loop.
pub(crate) struct SetTask {
    shared: Arc<Shared>,
    state: SetState,
    images: SetImages,
    ready: ReadyPolicies,
    shadows: Shadows,
    load_balancer: Option<LoadBalancer>,
    instances: BTreeMap<u32, Instance>,
    windows: SetWindows,
    connection_rate: CounterRate,
    /// Since the last record.
    changes: Vec<InstanceChange>,
    operator: Vec<String>,
    last: Option<Arc<TickRecord>>,
    last_decision: Option<LastDecision>,
    /// The snapshot that instances go on from.
    warm: Warm,
    /// Events that wait for a tick to write them down.
    told: Vec<Event>,
    /// Why the last tick could not be written down.
    store_error: Option<String>,
    /// Why the load balancer does not listen, if it should.
    listen_error: Option<String>,
    /// When this loop began, Unix milliseconds.
    since_ms: u64,
    /// How long a command holds the loop, at most, as far as is known.
    command_takes: Duration,
    logs_limited: Instant,
    news: mpsc::Sender<(u32, News)>,
    probes: mpsc::Sender<ProbeReport>,
    scrapes: mpsc::Sender<ScrapeReport>,
    view: tokio_watch::Sender<Arc<SetView>>,
}

/// Where the loop's messages arrive.
struct Inbox {
    commands: mpsc::Receiver<Command>,
    news: mpsc::Receiver<(u32, News)>,
    probes: mpsc::Receiver<ProbeReport>,
    scrapes: mpsc::Receiver<ScrapeReport>,
    shadows: mpsc::Receiver<(u64, policy::Answer)>,
}

/// Starts the loop of a set. It ends when the set is deleted and gone, or on `shutdown`.
pub(crate) fn start(shared: Arc<Shared>, start: Start, shutdown: CancellationToken) -> SetHandle {
    let (command_sender, commands) = mpsc::channel(64);
    let (news_sender, news) = mpsc::channel(QUEUE);
    let (probe_sender, probes) = mpsc::channel(QUEUE);
    let (scrape_sender, scrapes) = mpsc::channel(QUEUE);
    let (shadow_sender, shadows) = mpsc::channel(64);
    let inbox = Inbox { commands, news, probes, scrapes, shadows };

    let records = start.instances.clone();
    let instances =
        start.instances.into_iter().map(|record| (record.id, Instance::new(record, false))).collect();
    let first_view = SetView {
        state: Arc::new(start.state.clone()),
        instances: Arc::new(records),
        last: start.last.clone(),
        problems: Vec::new(),
        image_usable: start.images.problem().is_none(),
        traffic: None,
    };
    let (view_sender, view) = tokio_watch::channel(Arc::new(first_view));
    let windows = SetWindows::new(observe::specs_of(&start.state.set));
    let task = SetTask {
        shared,
        windows,
        connection_rate: CounterRate::default(),
        state: start.state,
        images: start.images,
        ready: start.ready,
        shadows: Shadows::new(shadow_sender),
        load_balancer: start.load_balancer,
        instances,
        changes: Vec::new(),
        operator: Vec::new(),
        last_decision: start.last.as_deref().map(regatta_core::tick::last_decision),
        last: start.last,
        warm: Warm::default(),
        told: Vec::new(),
        store_error: None,
        listen_error: None,
        since_ms: now_ms(),
        command_takes: Duration::ZERO,
        logs_limited: Instant::now(),
        news: news_sender,
        probes: probe_sender,
        scrapes: scrape_sender,
        view: view_sender,
    };
    tokio::spawn(task.run(start.found, inbox, shutdown));
    SetHandle { commands: command_sender, view }
}

impl SetTask {
    async fn run(mut self, found: BTreeMap<u32, VmmIdentity>, mut inbox: Inbox, shutdown: CancellationToken) {
        self.recover(found).await;
        self.publish();
        let mut ticks = interval(self.state.set.tick_ms);
        let mut next_due = tokio::time::Instant::now();
        let mut waiting: Option<Command> = None;
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some((id, news)) = inbox.news.recv() => self.on_news(id, news),
                Some(report) = inbox.probes.recv() => self.on_probe(report),
                Some((tick, answer)) = inbox.shadows.recv() => {
                    self.on_shadow(tick, answer);
                    // Nothing that others see has changed.
                    continue;
                }
                command = inbox.commands.recv(), if waiting.is_none() => {
                    let Some(command) = command else { break };
                    if tokio::time::Instant::now() + self.command_takes > next_due {
                        waiting = Some(command);
                        continue;
                    }
                    if self.carry_out(command).await {
                        ticks = interval(self.state.set.tick_ms);
                    }
                }
                due = ticks.tick() => {
                    next_due = due + ticks.period();
                    self.shared.exposition.tick_started(&self.state.set.name, due.elapsed());
                    let begun = Instant::now();
                    // Fetched in one go: waking up for each report costs more than the report.
                    while let Ok(report) = inbox.scrapes.try_recv() {
                        self.on_scrape(&report);
                    }
                    self.tick().await;
                    self.shared.exposition.tick_took(&self.state.set.name, begun.elapsed());
                    if self.is_gone() {
                        self.forget_snapshots().await;
                        break;
                    }
                    // A policy's wish for an earlier tick.
                    if let Some(wake_after_ms) = self.last.as_ref().and_then(|last| last.combined.wake_after_ms) {
                        let earliest = Duration::from_millis(wake_after_ms.max(crate::shared::TICK_MIN_MS));
                        if earliest < ticks.period() {
                            ticks.reset_after(earliest);
                            next_due = tokio::time::Instant::now() + earliest;
                        }
                    }
                    if let Some(command) = waiting.take() && self.carry_out(command).await {
                        ticks = interval(self.state.set.tick_ms);
                    }
                }
            }
            self.publish();
        }
        if let Some(load_balancer) = &self.load_balancer {
            load_balancer.shutdown(Duration::ZERO).await;
        }
    }

    /// Carries out a command. One waits for the disk, so none is begun when a tick
    /// would have to wait for it. True when the ticks have another length now.
    async fn carry_out(&mut self, command: Command) -> bool {
        let (begun, tick_ms) = (Instant::now(), self.state.set.tick_ms);
        self.on_command(command).await;
        // The longest of late, forgotten by and by; half a tick is left to commands in any case.
        self.command_takes = (self.command_takes * 9 / 10)
            .max(begun.elapsed())
            .min(Duration::from_millis(self.state.set.tick_ms) / 2);
        self.state.set.tick_ms != tick_ms
    }

    /// Deleted, and nothing is left.
    fn is_gone(&self) -> bool {
        self.state.deleting && self.instances.is_empty() && self.store_error.is_none() && self.warm.is_idle()
    }

    /// Lets an event meet an instance and remembers what came of it.
    fn meet(&mut self, id: u32, event: InstanceEvent, detail: Option<String>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let Some(change) = instance.meet(event, now_ms(), detail) else { return };
        if change.to == InstanceState::InService {
            self.state.launch_failures_in_a_row = 0;
            self.state.launches_resume_ms = 0;
        }
        // They wait for a record; while the store cannot be written none is made.
        if self.changes.len() < CHANGES_MAX {
            self.changes.push(change);
        }
    }

    fn on_news(&mut self, id: u32, news: News) {
        match news {
            News::LaunchStarted => self.meet(id, InstanceEvent::LaunchStarted, None),
            News::Booted(vmm) => self.on_booted(id, vmm),
            News::LaunchFailed(why) => self.meet(id, InstanceEvent::LaunchFailed, Some(why)),
            News::Exited(how) => {
                let why = self.why_ended(id, how);
                self.meet(id, InstanceEvent::VmmExited, Some(why));
            }
            News::Stuck(why) => {
                tracing::warn!(set = self.state.set.name, instance = id, why, "cannot be removed yet");
                if let Some(instance) = self.instances.get_mut(&id) {
                    instance.record.detail = Some(why);
                    instance.dirty = true;
                }
            }
            News::Cleaned(note) => self.meet(id, InstanceEvent::Cleaned, note),
        }
    }

    fn on_booted(&mut self, id: u32, vmm: Arc<Vmm>) {
        self.meet(id, InstanceEvent::Booted, None);
        self.attach(id, vmm);
    }

    /// Makes a running VMM the instance's own, and begins to watch it.
    fn attach(&mut self, id: u32, vmm: Arc<Vmm>) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        let identity = vmm.identity();
        instance.record.vmm = u32::try_from(identity.pid)
            .ok()
            .map(|pid| VmmProcessId { pid, start_time_ticks: identity.start_time_ticks });
        instance.record.start = vmm.started().map(ToString::to_string);
        instance.events = Some(EventTail::from(&vmm.dir().events(), instance.record.events_read_bytes));
        instance.record.not_contained =
            vmm.containment().missing().map(|(measure, _)| measure.as_str().to_owned()).collect();
        instance.vmm = Some(vmm);
        instance.dirty = true;
        self.watch(id);
    }

    /// Begins to probe and scrape an instance, from its present state.
    fn watch(&mut self, id: u32) {
        let Some(instance) = self.instances.get_mut(&id) else { return };
        if instance::may_answer(instance.record.state) {
            instance.watch = watch::start(
                &self.shared.watching,
                &self.state.set,
                &instance.record,
                &self.probes,
                &self.scrapes,
            );
        }
    }

    fn on_probe(&mut self, report: ProbeReport) {
        let detail = match report.event {
            regatta_traffic::ProbeEvent::BecameUnhealthy => Some(watch::describe(&report.outcome)),
            _ => None,
        };
        self.meet(report.id, report.event.into(), detail);
    }

    /// Tells the load balancer and everyone who looks what the set is now.
    fn publish(&self) {
        let traffic = self.load_balancer.as_ref().map(|load_balancer| {
            load_balancer.set_endpoints(self.endpoints());
            Arc::new(Traffic { listen: load_balancer.local_addr(), stats: load_balancer.stats() })
        });
        let view = SetView {
            state: Arc::new(self.state.clone()),
            instances: Arc::new(self.instances.values().map(|instance| instance.record.clone()).collect()),
            last: self.last.clone(),
            problems: self.problems(),
            image_usable: self.images.problem().is_none(),
            traffic,
        };
        self.view.send_replace(Arc::new(view));
    }

    fn endpoints(&self) -> impl Iterator<Item = Endpoint> + '_ {
        let port = self.state.set.network.port();
        let in_service = |instance: &&Instance| instance.record.state == InstanceState::InService;
        self.instances.values().filter(in_service).filter_map(move |instance| {
            Some(Endpoint { id: instance.record.id, addr: (instance.record.address, port?).into() })
        })
    }

    /// What keeps the set from being as wanted.
    fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> = self.store_error.iter().cloned().collect();
        problems.extend(self.listen_error.iter().cloned());
        problems.extend(self.images.problem().map(ToOwned::to_owned));
        problems.extend(self.warm.problem());
        if let Some(last) = &self.last {
            let failed =
                last.runs.iter().filter_map(|run| run.result.as_ref().err().map(|failure| (run, failure)));
            problems.extend(failed.map(|(run, failure)| {
                format!("policy {} failed ({}): {}", run.name, failure.kind.as_str(), failure.message)
            }));
            problems.extend(last.plan.notes.iter().cloned());
        }
        problems
    }

    fn dir_of(&self, id: u32) -> Result<InstanceDir, regatta_vmm::DirError> {
        InstanceDir::new(&self.shared.dirs.instances, &self.state.set.name, &id.to_string())
    }
}

/// Listens for a set's traffic.
///
/// # Errors
/// The address is taken, not ours, or not permitted.
pub(crate) fn bind(spec: &regatta_core::manifest::LoadBalancer) -> Result<LoadBalancer, LbError> {
    let config = LbConfig { max_connections: spec.max_connections, ..LbConfig::default() };
    LoadBalancer::bind(spec.listen, config)
}

fn interval(tick_ms: u64) -> tokio::time::Interval {
    let mut interval = tokio::time::interval(Duration::from_millis(tick_ms));
    // A tick that comes late is not made up for: the next one sees everything anyway.
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    interval
}
