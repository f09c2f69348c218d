//! The shell of one set: it receives, lets the set's machine decide ([`regatta_core::machine`]), and performs what the machine
//! wants done. The only place of a set with tokio in it.

mod adopting;
mod balancer;
mod beat;
mod pace;
mod policies;
mod size;
mod view;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use regatta_core::agent::Order;
use regatta_core::batch::Batch;
use regatta_core::digest::Digest;
use regatta_core::event::Actor;
use regatta_core::machine::{
    Command, CommandError, CommitError, Done, Effect, Input, RollBack, Scrape, SetMachine, Start, TickFacts,
    Token, Update, UpgradeAction,
};
use regatta_core::record::TickRecord;
use regatta_policy_host::CompiledPolicy;
use regatta_store::StoreError;
use regatta_traffic::{LoadBalancer, ProbeEvent, ProbeReport, ScrapeReport};
use regatta_vmm::VmmIdentity;
use tokio::sync::{mpsc, oneshot, watch as tokio_watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub(crate) use self::adopting::Adopting;
use self::balancer::Balancer;
pub(crate) use self::balancer::bind;
use self::beat::Beat;
pub(crate) use self::beat::Watchdog;
use self::pace::Pace;
pub(crate) use self::policies::Modules;
pub(crate) use self::view::{SetView, Traffic, policy_info};

use crate::clock;
use crate::images::SetImages;
use crate::node::{Ears, LocalInstances, News, Told, describe};
use crate::shared::Shared;
use crate::stored;
use regatta_util::chain;

/// Messages that may wait for a set.
const QUEUE: usize = 4_096;

/// A stop shorter than that is the jitter of a busy host.
const STOP_MS_MIN: u64 = 1_000;

/// A command with what it takes to carry it out, and where its answer goes.
pub(crate) struct Call {
    pub(crate) command: Command,
    pub(crate) actor: Actor,
    /// Modules of the policies that it names.
    pub(crate) modules: Vec<Arc<CompiledPolicy>>,
    /// What instances of its manifest start from.
    pub(crate) images: Option<SetImages>,
    pub(crate) reply: oneshot::Sender<Answered>,
}

/// What came of a command, and how long the set was held by it.
pub(crate) struct Answered {
    pub(crate) result: Result<Done, CommandError>,
    pub(crate) held: Duration,
}

/// What a set begins with, beside its machine.
pub(crate) struct Setup {
    /// What its instances start from.
    pub images: SetImages,
    /// Its policies, ready to run.
    pub modules: Modules,
    /// Its load balancer, already listening.
    pub load_balancer: Option<LoadBalancer>,
    /// VMMs that were found running, by instance.
    pub found: BTreeMap<u32, VmmIdentity>,
}

/// A handle on a running set.
#[derive(Debug, Clone)]
pub(crate) struct SetHandle {
    calls: mpsc::Sender<Call>,
    modules: mpsc::Sender<(Digest, Result<Arc<CompiledPolicy>, String>)>,
    adoptions: mpsc::Sender<Adopting>,
    view: tokio_watch::Receiver<Arc<SetView>>,
}

impl SetHandle {
    /// The set as it was last published.
    #[must_use]
    pub(crate) fn view(&self) -> Arc<SetView> {
        Arc::clone(&self.view.borrow())
    }

    /// Sends a command; none if the set has ended.
    pub(crate) async fn send(&self, call: Call) -> Option<()> {
        self.calls.send(call).await.ok()
    }

    /// Gives it a module that was not ready when it began, or says why it still is not; one that has ended needs none.
    pub(crate) async fn provide(&self, digest: Digest, compiled: Result<Arc<CompiledPolicy>, String>) {
        let _ = self.modules.send((digest, compiled)).await;
    }

    /// Has it adopt orphans; none if the set has ended.
    pub(crate) async fn adopt(&self, adopting: Adopting) -> Option<()> {
        self.adoptions.send(adopting).await.ok()
    }

    /// Resolves when the set has ended.
    pub(crate) async fn ended(&self) {
        self.calls.closed().await;
    }
}

/// The shell of a set.
struct Shell {
    shared: Arc<Shared>,
    machine: SetMachine,
    local: LocalInstances,
    modules: Modules,
    balancer: Balancer,
    /// What the manifest of the update under way starts from.
    next_images: Option<SetImages>,
    callers: HashMap<Token, (oneshot::Sender<Answered>, Instant)>,
    last_token: Token,
    /// Effects that are being performed.
    under_way: FuturesUnordered<BoxFuture<'static, Input>>,
    /// Inputs that wait for the machine.
    inputs: VecDeque<Input>,
    pace: Pace,
    /// Its own door for commands.
    calls: mpsc::WeakSender<Call>,
    /// Looks for what a rollback needs.
    rolling_back: Option<JoinHandle<()>>,
    /// What it is at, for those who watch whether it hangs.
    beat: Arc<Beat>,
    /// For how long this process has been stopped, as far as the machine was told.
    stopped_ms: u64,
    view: tokio_watch::Sender<Arc<SetView>>,
}

/// Where messages arrive.
struct Inbox {
    calls: mpsc::Receiver<Call>,
    modules: mpsc::Receiver<(Digest, Result<Arc<CompiledPolicy>, String>)>,
    adoptions: mpsc::Receiver<Adopting>,
    news: mpsc::Receiver<(u32, News)>,
    probes: mpsc::Receiver<ProbeReport>,
    scrapes: mpsc::Receiver<ScrapeReport>,
}

/// Starts a set. It ends when the set is deleted and gone, or on `shutdown`.
pub(crate) fn start(
    shared: Arc<Shared>,
    start: Start,
    setup: Setup,
    shutdown: CancellationToken,
) -> SetHandle {
    let (call_sender, calls) = mpsc::channel(64);
    let (module_sender, late_modules) = mpsc::channel(64);
    let (adoption_sender, adoptions) = mpsc::channel(1);
    let (news_sender, news) = mpsc::channel(QUEUE);
    let (probe_sender, probes) = mpsc::channel(QUEUE);
    let (scrape_sender, scrapes) = mpsc::channel(QUEUE);
    let inbox = Inbox { calls, modules: late_modules, adoptions, news, probes, scrapes };
    let ears = Ears { news: news_sender, probes: probe_sender, scrapes: scrape_sender };

    let Setup { images, modules, load_balancer, found } = setup;
    let local = LocalInstances::new(Arc::clone(&shared.node), &start.state.set.name, images, ears);
    let machine = SetMachine::new(start, clock::now());
    let beat = Arc::new(Beat::new(&machine.state().set.name, machine.manifest().tick_ms));
    shared.watchdog.watch(&beat);
    let (view_sender, view) = tokio_watch::channel(Arc::new(SetView::of(&machine, None, Arc::clone(&beat))));
    let shell = Shell {
        shared,
        beat,
        pace: Pace::new(machine.manifest().tick_ms),
        machine,
        local,
        modules,
        balancer: Balancer(load_balancer),
        next_images: None,
        callers: HashMap::new(),
        last_token: 0,
        under_way: FuturesUnordered::new(),
        inputs: VecDeque::new(),
        calls: call_sender.downgrade(),
        rolling_back: None,
        stopped_ms: clock::stopped_ms(),
        view: view_sender,
    };
    tokio::spawn(shell.run(found, inbox, shutdown));
    SetHandle { calls: call_sender, modules: module_sender, adoptions: adoption_sender, view }
}

impl Shell {
    async fn run(mut self, found: BTreeMap<u32, VmmIdentity>, mut inbox: Inbox, shutdown: CancellationToken) {
        let told = self.local.adopt(&self.machine, &found, |_| true).await;
        self.told(told);
        self.inputs.push_back(Input::InventoryComplete);
        self.work();
        while !self.machine.has_ended() {
            let idle = !self.machine.is_busy();
            let may_command = idle && self.pace.may_command(tokio::time::Instant::now());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                Some(input) = self.under_way.next() => self.inputs.push_back(input),
                Some((id, news)) = inbox.news.recv() => {
                    let told = self.local.on_news(id, news);
                    self.told(told);
                }
                Some((digest, compiled)) = inbox.modules.recv() => self.modules.insert(&digest, compiled),
                Some(report) = inbox.probes.recv() => self.inputs.push_back(probed(report)),
                Some(call) = inbox.calls.recv(), if may_command => self.call(call),
                Some(adopting) = inbox.adoptions.recv(), if may_command => self.adopt(adopting).await,
                late = self.pace.due(), if idle => {
                    self.beat.ticks(self.machine.manifest().tick_ms);
                    self.beat.at("looking at instances");
                    self.shared.exposition.tick_started(&self.machine.state().set.name, late);
                    self.begin_tick(&mut inbox.scrapes);
                }
            }
            self.work();
            if !self.machine.is_busy()
                && let Some(took) = self.pace.tick_ended()
            {
                self.shared.exposition.tick_took(&self.machine.state().set.name, took);
                self.pace.hurry(Duration::from_millis(self.machine.next_tick_in_ms()));
            }
            self.pace.follow(self.machine.manifest().tick_ms);
        }
        if self.machine.has_ended() {
            self.local.forget_snapshots().await;
            self.balancer.shut_down().await;
        } else {
            self.balancer.hand_over(self.shared.shutdown_grace).await;
        }
    }

    /// Lets the machine take in what has come, performs what it wants, and shows what the set is now.
    fn work(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            self.beat.at("deciding");
            for effect in self.machine.on(clock::now(), input) {
                self.beat.at(doing(&effect));
                self.perform(effect);
            }
        }
        if !self.machine.is_busy() {
            self.beat.at("waiting for its next tick");
        }
        self.publish();
    }

    fn told(&mut self, told: Vec<Told>) {
        self.inputs.extend(told.into_iter().map(|(id, report)| Input::Report { id, report }));
    }

    fn call(&mut self, call: Call) {
        self.pace.command_begins();
        let Call { command, actor, modules, images, reply } = call;
        for compiled in modules {
            let sha256 = compiled.digest().to_owned();
            self.modules.insert(&sha256, Ok(compiled));
        }
        self.next_images = images.or_else(|| self.next_images.take());
        self.last_token += 1;
        self.callers.insert(self.last_token, (reply, Instant::now()));
        self.inputs.push_back(Input::Command { token: self.last_token, actor, command });
    }

    fn begin_tick(&mut self, scrapes: &mut mpsc::Receiver<ScrapeReport>) {
        let stopped_ms = clock::stopped_ms();
        if stopped_ms >= self.stopped_ms + STOP_MS_MIN {
            self.stopped_ms = stopped_ms;
            self.inputs.push_back(Input::Resumed);
        }
        let told = self.local.follow_events();
        self.told(told);
        // Fetched in one go: waking up for each report costs more than the report.
        let mut scraped = Vec::new();
        let manifest = Arc::clone(self.machine.manifest());
        while let Ok(report) = scrapes.try_recv() {
            self.shared.exposition.scraped(&manifest, &report.readings);
            let at_mono_ms = clock::mono_ms_at(report.at);
            scraped.push(Scrape { id: report.id, at_mono_ms, values: report.readings });
        }
        self.inputs.push_back(Input::Scraped(scraped));
        let facts = TickFacts {
            processes: self.local.readings(),
            traffic: self.balancer.reading(&self.machine),
            last_probes: self.local.last_probes(),
            not_probed: self.local.not_probed().into_keys().collect(),
            nodes: vec![self.local.capacity(&manifest, self.machine.launches_max())],
        };
        self.inputs.push_back(Input::Tick(Box::new(facts)));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Ask { observation, asks } => {
                let (shared, tick) = (Arc::clone(&self.shared), observation.tick);
                let set = observation.set.clone();
                let asks: Vec<_> = asks.into_iter().map(|ask| self.modules.ask(&observation, ask)).collect();
                let decided = join_all(asks).map(move |answers| {
                    answers.iter().for_each(|answer| shared.exposition.policy_ran(&set, &answer.run));
                    Input::Decided { tick, answers }
                });
                self.under_way.push(decided.boxed());
            }
            Effect::AskShadow { observation, ask } => {
                let tick = observation.tick;
                let shadow = self.modules.ask(&observation, ask);
                self.under_way
                    .push(shadow.map(move |answer| Input::Shadow { tick, answer: Box::new(answer) }).boxed());
            }
            Effect::Migrate(migrations) => {
                self.under_way.push(self.modules.migrate(migrations).map(Input::Migrated).boxed());
            }
            Effect::Listen(spec) => {
                let listening = self
                    .balancer
                    .listen(spec.as_ref(), &self.shared.listeners)
                    .map_err(|error| chain(&error));
                if let Err(why) = &listening {
                    let set = &self.machine.state().set.name;
                    tracing::error!(set, why, "the load balancer cannot listen");
                }
                self.inputs.push_back(Input::Listening(listening));
            }
            Effect::Commit(batch) => self.under_way.push(commit(Arc::clone(&self.shared), *batch).boxed()),
            Effect::Want(want) => {
                if let Order::Stop(_) = &want.order {
                    self.balancer.cut(want.id);
                }
                let told = self.local.want(want);
                self.told(told);
            }
            Effect::Forget { id } => self.local.forget(id),
            Effect::Snapshot(manifest) => {
                let generation = self.machine.state().generation;
                let status = self.local.look_after_snapshot(manifest.as_ref(), generation);
                self.inputs.push_back(Input::Snapshot(status));
            }
            Effect::Reply { token, result } => self.reply(token, result),
            Effect::Ticked(record) => self.ticked(&record),
            Effect::RollBack(back) => self.roll_back(*back),
            Effect::Updated => {
                if let Some(images) = self.next_images.take() {
                    self.local.set_images(images);
                }
                self.balancer.limit(self.machine.manifest().load_balancer.as_ref());
            }
            Effect::Reload(why) => self.reload(&why),
            Effect::Ended => {}
        }
    }

    /// Finds the image from before an upgrade, then applies what the machine asked for. It asks again until that is done.
    fn roll_back(&mut self, back: RollBack) {
        if self.rolling_back.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let (shared, calls) = (Arc::clone(&self.shared), self.calls.clone());
        self.rolling_back = Some(tokio::spawn(async move {
            let images = SetImages::load(&shared.node.images, &back.image).await;
            let policies = vec![None; back.set.policies.len()];
            let update = Update { set: back.set, image: back.image, policies, rolls_back: true };
            let (command, images) = match images.problem() {
                Some(why) => (Command::Upgrade(UpgradeAction::GiveUp { why: why.to_owned() }), None),
                None => (Command::Update(Box::new(update)), Some(images)),
            };
            let (reply, answered) = oneshot::channel();
            let call = Call { command, actor: Actor::Daemon, modules: Vec::new(), images, reply };
            if let Some(calls) = calls.upgrade()
                && calls.send(call).await.is_ok()
            {
                // A refusal shows: the rollback is still due.
                let _ = answered.await;
            }
        }));
    }

    fn ticked(&mut self, record: &TickRecord) {
        self.modules.retain_of(self.machine.state());
        self.shared.exposition.ticked(record);
        self.shared.events.notify_waiters();
    }

    fn reply(&mut self, token: Token, result: Result<Done, CommandError>) {
        self.next_images = None;
        self.modules.retain_of(self.machine.state());
        self.shared.events.notify_waiters();
        let Some((reply, begun)) = self.callers.remove(&token) else { return };
        let held = begun.elapsed();
        self.pace.command_took(held);
        // A caller that has gone away does not want its answer.
        let _ = reply.send(Answered { result, held });
    }

    /// The store knows better: begins again from what is stored, with the instances that are there.
    fn reload(&mut self, why: &str) {
        let set = self.machine.state().set.name.clone();
        tracing::warn!(set, why, "the stored set is not what it was believed to be: it is read again");
        if self.read_again() {
            self.inputs.push_back(Input::InventoryComplete);
        }
        // Those whose answer was lost.
        let lost = || CommandError::Store("the answer of the store was lost; look at the set".to_owned());
        for token in self.callers.keys().copied().collect::<Vec<_>>() {
            self.reply(token, Err(lost()));
        }
    }

    /// A machine that begins with what is stored, and knows the instances that are there. Returns whether there is one.
    fn read_again(&mut self) -> bool {
        let set = self.machine.state().set.name.clone();
        let listening = self.balancer.0.is_some();
        let usable = self.local.image_problem();
        match stored::start_of(&*self.shared.store, &set, listening, usable) {
            Ok(Some(start)) => {
                self.machine = SetMachine::new(start, clock::now());
                let told = self.local.found_again(&self.machine);
                self.told(told);
                return true;
            }
            Ok(None) => tracing::error!(set, "the set is not stored anymore"),
            Err(why) => tracing::error!(set, why = chain(&why), "the stored set cannot be read"),
        }
        false
    }

    /// Tells the load balancer and everyone who looks what the set is now.
    fn publish(&self) {
        let traffic = self.balancer.follow(&self.machine);
        let not_probed = self.local.not_probed();
        self.view.send_replace(Arc::new(SetView {
            not_probed,
            ..SetView::of(&self.machine, traffic, Arc::clone(&self.beat))
        }));
    }
}

/// What a loop hangs in when nothing comes after this effect.
fn doing(effect: &Effect) -> &'static str {
    match effect {
        Effect::Ask { .. } | Effect::AskShadow { .. } => "asking its policies",
        Effect::Migrate(_) => "migrating the state of a policy",
        Effect::Commit(_) => "storing what it decided",
        Effect::Listen(_) => "opening its load balancer",
        Effect::Want(_) | Effect::Forget { .. } => "telling the node what is wanted",
        Effect::Snapshot(_) => "looking after its golden snapshot",
        Effect::Reload(_) => "reading its state again",
        Effect::RollBack(_) => "rolling an upgrade back",
        Effect::Reply { .. } | Effect::Ticked(_) | Effect::Updated | Effect::Ended => "ending its tick",
    }
}

async fn commit(shared: Arc<Shared>, batch: Batch) -> Input {
    let committed = shared.commit(batch).await;
    Input::Committed(committed.map_err(|error| match &error {
        StoreError::Conflict { .. } => CommitError::Conflict(chain(&error)),
        _ => CommitError::Failed(chain(&error)),
    }))
}

fn probed(report: ProbeReport) -> Input {
    let detail = matches!(report.event, ProbeEvent::BecameUnhealthy).then(|| describe(&report.outcome));
    Input::Probed { id: report.id, event: report.event.into(), detail }
}
