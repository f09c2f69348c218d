//! The shell of one set, as the daemon's: receive, `on`, perform effects.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use regatta_core::agent::Key;
use regatta_core::batch::Batch;
use regatta_core::machine::{
    Command, CommandError, CommitError, Effect, Input, ProcessReading, SetMachine, SnapshotStatus, Start,
    TickFacts, Update, UpgradeAction,
};
use regatta_core::phase::Phase;

use crate::daemon::demand_of;
use crate::event::{DaemonEvent, ToAgent};
use crate::lb::Lb;
use crate::node::Stage;
use crate::policy;
use crate::world::{DISK_LEFT_BYTES, World};

/// A machine and what the daemon keeps beside it.
#[derive(Debug)]
pub(crate) struct SetShell {
    pub(crate) name: Arc<str>,
    pub(crate) machine: SetMachine,
    pub(crate) lb: Lb,
    /// Generation of which a golden snapshot is looked after.
    snapshot_of: Option<u64>,
    /// For how long the process had been stopped when the machine last heard of it.
    asleep_ms: u64,
}

impl World {
    /// Runs a set that is stored: its machine begins, and the agent tells what it finds.
    pub(crate) fn open_set(&mut self, name: &str) {
        let stored = self.store.sets.get(name);
        if let Some(daemon) = &mut self.daemon {
            daemon.agent.forget_ended(name, |id| stored.is_some_and(|set| set.instances.contains_key(&id)));
        }
        let Some(stored) = stored else { return };
        self.shells += 1;
        let number = self.shells;
        let manifests = stored.state.manifests.iter().filter_map(|(generation, digest)| {
            Some((*generation, Arc::clone(self.store.manifests.get(digest)?)))
        });
        let start = Start {
            state: stored.state.clone(),
            revision: stored.revision,
            instances: stored.instances.values().cloned().collect(),
            manifests: manifests.collect(),
            last: stored.last.clone(),
            listening: false,
            image_problem: None,
        };
        let name: Arc<str> = name.into();
        let found: Vec<_> = stored
            .instances
            .values()
            .map(|it| {
                let demand = demand_of(&self.manifest_of(stored, it.generation));
                let read = usize::try_from(it.events_read_bytes / crate::node::EVENT_BYTES).unwrap_or(0);
                (Key { set: name.clone(), id: it.id }, demand, read)
            })
            .collect();
        let tick_ms = stored.state.set.tick_ms;
        let machine = SetMachine::new(start, self.clock.time());
        let Some(daemon) = &mut self.daemon else { return };
        let asleep_ms = self.clock.asleep_ms();
        let shell = SetShell { name, machine, lb: Lb::default(), snapshot_of: None, asleep_ms };
        daemon.shells.insert(number, shell);
        for (key, demand, read) in found {
            self.inventory(&key, demand, read);
        }
        self.later(300, DaemonEvent::Input(number, Box::new(Input::InventoryComplete)));
        let first_ms = self.dice.within(0..=tick_ms);
        self.later(301 + first_ms, DaemonEvent::Tick(number));
        self.later(302, DaemonEvent::Scrape(number));
    }

    /// Something reaches a machine.
    pub(crate) fn feed(&mut self, number: u64, input: Input) {
        let time = self.clock.time();
        let Some(shell) = self.daemon.as_mut().and_then(|daemon| daemon.shells.get_mut(&number)) else {
            // Whoever waits at a set that is no longer there is told so by the shell.
            if let Input::Command { token, .. } = input {
                let gone = Err(CommandError::NotFound("the set is no longer there".to_owned()));
                self.checks.on_reply(&self.store, "", token, &gone);
            }
            return;
        };
        let name = Arc::clone(&shell.name);
        match &input {
            Input::Scraped(scrapes) => {
                for scrape in scrapes.iter().filter(|scrape| scrape.values.iter().any(Result::is_ok)) {
                    let uid = shell.machine.instances().find(|it| it.id == scrape.id).map(|it| &it.uid);
                    if let Some(uid) = uid {
                        self.checks.on_sample(uid);
                    }
                }
            }
            Input::Tick(_) if !shell.machine.is_busy() => self.checks.on_tick(&name, self.clock.awake_ms()),
            Input::Tick(_) => {}
            other => {
                self.checks.on_input(&name, other, self.clock.awake_ms());
                self.story.tell(|| format!("{name}: {}", shown(other)));
            }
        }
        let effects = shell.machine.on(time, input);
        self.checks.on_effects(shell.machine.state(), &effects);
        for effect in effects {
            if self.blow_fuse() {
                return;
            }
            self.perform(number, &name, effect);
        }
        let Some(shell) = self.daemon.as_mut().and_then(|daemon| daemon.shells.get_mut(&number)) else {
            return;
        };
        shell.lb.endpoints = shell.machine.endpoints().map(|endpoint| endpoint.id).collect();
    }

    fn perform(&mut self, number: u64, name: &Arc<str>, effect: Effect) {
        match effect {
            Effect::Ask { observation, asks } => {
                let (calm, mood) = (self.calm, self.mood());
                let answers =
                    asks.iter().map(|ask| policy::answer(&mut self.dice, &observation, ask, mood)).collect();
                let tick = observation.tick;
                let delay_ms =
                    if !calm && self.dice.per_mille(10) { 60_000 } else { self.dice.within(1..=60) };
                let input = Input::Decided { tick, answers };
                if !calm && self.dice.per_mille(30) {
                    let late_ms = delay_ms + self.dice.within(0..=6_000);
                    self.later(late_ms, DaemonEvent::Input(number, Box::new(input.clone())));
                }
                self.later(delay_ms, DaemonEvent::Input(number, Box::new(input)));
            }
            Effect::AskShadow { observation, ask } => {
                let mood = self.mood();
                let answer = policy::answer(&mut self.dice, &observation, &ask, mood);
                let delay_ms = self.delay_ms(300, 20_000);
                let input = Input::Shadow { tick: observation.tick, answer: Box::new(answer) };
                self.later(delay_ms, DaemonEvent::Input(number, Box::new(input)));
            }
            Effect::Migrate(migrations) => {
                let migrated = migrations.into_iter().map(|it| {
                    if self.dice.per_mille(300) {
                        Err("the version is too old".to_owned())
                    } else {
                        Ok(it.state)
                    }
                });
                let migrated = migrated.collect();
                let delay_ms = self.delay_ms(100, 5_000);
                self.later(delay_ms, DaemonEvent::Input(number, Box::new(Input::Migrated(migrated))));
            }
            Effect::Listen(wanted) => {
                if wanted.is_none()
                    && let Some(shell) =
                        self.daemon.as_mut().and_then(|daemon| daemon.shells.get_mut(&number))
                {
                    shell.lb.open.clear();
                }
                let fails = wanted.is_some() && !self.calm && self.dice.per_mille(60);
                let result = if fails { Err("address already in use".to_owned()) } else { Ok(()) };
                let delay_ms = self.delay_ms(10, 3_000);
                self.later(delay_ms, DaemonEvent::Input(number, Box::new(Input::Listening(result))));
            }
            Effect::Commit(batch) => {
                let delay_ms = self.delay_ms(5, 4_000);
                self.later(delay_ms, DaemonEvent::Commit(number, batch));
            }
            Effect::Want(want) => {
                let key = Key { set: Arc::clone(name), id: want.id };
                self.keys_ever.insert(key.clone());
                self.story.tell(|| format!("{name}-{}: wanted is {}", want.id, shown_order(&want.order)));
                self.want(&key, want);
            }
            Effect::Forget { id } => {
                let key = Key { set: Arc::clone(name), id };
                self.order(&key, &ToAgent::Input(regatta_core::agent::Input::Forget));
            }
            Effect::Snapshot(wanted) => self.snapshot(number, wanted.is_some()),
            Effect::Reply { token, result } => {
                self.story.tell(|| match &result {
                    Ok(_) => format!("{name}: command {token} is done"),
                    Err(error) => format!("{name}: command {token} is refused: {error:?}"),
                });
                self.checks.on_reply(&self.store, name, token, &result);
            }
            Effect::Ticked(record) => {
                let Some(daemon) = &self.daemon else { return };
                let Some(shell) = daemon.shells.get(&number) else { return };
                self.checks.on_ticked(&shell.machine, &shell.lb, &record);
            }
            Effect::Updated => {}
            Effect::RollBack(back) => {
                let policies = vec![None; back.set.policies.len()];
                let update = Update { set: back.set, image: back.image, policies, rolls_back: true };
                let command = match self.dice.per_mille(100) && !self.calm {
                    true => Command::Upgrade(UpgradeAction::GiveUp { why: "the image is gone".to_owned() }),
                    false => Command::Update(Box::new(update)),
                };
                self.command(number, command);
            }
            Effect::Reload(why) => {
                self.story.tell(|| format!("{name}: starts over: {why}"));
                self.checks.on_reload(name, &why);
                self.close(number);
                self.later(50, DaemonEvent::Reload(name.to_string()));
            }
            Effect::Ended => {
                self.story.tell(|| format!("{name}: is gone"));
                self.close(number);
            }
        }
    }

    fn close(&mut self, number: u64) {
        if let Some(daemon) = &mut self.daemon {
            daemon.shells.remove(&number);
        }
    }

    /// There shall be a golden snapshot, or none.
    fn snapshot(&mut self, number: u64, wanted: bool) {
        let Some(shell) = self.daemon.as_mut().and_then(|daemon| daemon.shells.get_mut(&number)) else {
            return;
        };
        let wanted = wanted.then(|| shell.machine.state().generation);
        if shell.snapshot_of == wanted {
            return;
        }
        shell.snapshot_of = wanted;
        let tell = |world: &mut Self, delay_ms, status| {
            world.later(delay_ms, DaemonEvent::Input(number, Box::new(Input::Snapshot(status))));
        };
        if wanted.is_none() {
            return tell(self, 1, SnapshotStatus::Off);
        }
        tell(self, 1, SnapshotStatus::Making { failed: None });
        let status = match self.dice.per_mille(300) {
            true => SnapshotStatus::Failed { why: "the guest did not boot".to_owned() },
            false => SnapshotStatus::Ready { disk_bytes: 64 << 20 },
        };
        let made_ms = self.dice.within(2_000..=20_000);
        tell(self, made_ms, status);
    }

    /// A batch reaches the store.
    pub(crate) fn commit(&mut self, number: u64, batch: &Batch) {
        let Some(shell) = self.daemon.as_ref().and_then(|daemon| daemon.shells.get(&number)) else { return };
        let name = Arc::clone(&shell.name);
        let fails = self.store_down || (!self.calm && self.dice.per_mille(self.temper.store_fails));
        let result = if fails {
            self.story.tell(|| format!("{name}: the store fails"));
            Err(CommitError::Failed("no space left on device".to_owned()))
        } else if let Err(conflict) = self.store.check(batch) {
            Err(conflict)
        } else {
            self.checks.on_commit(&self.store, &self.node, &name, batch);
            let revision = self.store.apply(batch);
            self.story.tell(|| format!("{name}: stored{}", shown_batch(batch)));
            if !self.calm && self.dice.per_mille(self.temper.answers_lost) {
                self.story.tell(|| format!("{name}: the answer of the store is lost"));
                self.checks.on_answer_lost(&name);
                Err(CommitError::Failed("input/output error".to_owned()))
            } else {
                Ok(revision)
            }
        };
        let delay_ms = self.delay_ms(3, 3_000);
        self.later(delay_ms, DaemonEvent::Input(number, Box::new(Input::Committed(result))));
    }

    /// A tick is due.
    pub(crate) fn tick(&mut self, number: u64) {
        let real_ms = self.clock.real_ms;
        let Some(daemon) = &mut self.daemon else { return };
        let Some(shell) = daemon.shells.get_mut(&number) else { return };
        let set = Arc::clone(shell.machine.manifest());
        if set.load_balancer.is_some() {
            shell.lb.run(&mut self.dice, self.temper.sticky, self.calm);
        }
        let wanted = shell.machine.launches_max();
        let nodes = vec![daemon.agent.capacity(demand_of(&set), &set.network, wanted, DISK_LEFT_BYTES)];
        let running =
            self.node.vms.iter().filter(|(key, vm)| key.set == shell.name && vm.stage == Stage::Running);
        let processes = running.map(|(key, _)| ProcessReading {
            id: key.id,
            cpu_time_ns: Some(real_ms * 300_000),
            rss_bytes: Some(32 << 20),
        });
        let facts = TickFacts {
            processes: processes.collect(),
            traffic: set.load_balancer.is_some().then(|| shell.lb.reading()),
            last_probes: BTreeMap::new(),
            not_probed: BTreeSet::new(),
            nodes,
        };
        let resumed = self.clock.asleep_ms() >= shell.asleep_ms + 1_000;
        shell.asleep_ms = self.clock.asleep_ms();
        self.later(set.tick_ms, DaemonEvent::Tick(number));
        if resumed {
            self.feed(number, Input::Resumed);
        }
        self.feed(number, Input::Tick(Box::new(facts)));
    }
}

fn shown(input: &Input) -> String {
    match input {
        Input::Decided { tick, answers } => {
            let wanted: Vec<_> = answers
                .iter()
                .map(|it| {
                    it.run
                        .result
                        .as_ref()
                        .map_or_else(|error| error.kind.as_str().to_owned(), |it| it.capacity.to_string())
                })
                .collect();
            format!("tick {tick}: the policies want {}", wanted.join(", "))
        }
        Input::Report { id, report } => format!("report of {id}: {report:?}"),
        Input::Probed { id, event, .. } => format!("probe of {id}: {event:?}"),
        Input::Committed(Ok(revision)) => format!("revision {} is known to be stored", revision.0),
        Input::Scraped(scrapes) => format!("{} guests are scraped", scrapes.len()),
        Input::Command { token, .. } => format!("command {token} arrives"),
        Input::Shadow { tick, .. } => format!("a shadow answers tick {tick}"),
        other => format!("{other:?}"),
    }
}

fn shown_order(order: &regatta_core::agent::Order) -> String {
    match order {
        regatta_core::agent::Order::Run { phase, .. } => format!("run ({phase})"),
        regatta_core::agent::Order::Stop(stop) => format!("stop, grace {} ms", stop.grace_ms),
    }
}

fn shown_batch(batch: &Batch) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for record in &batch.history.records {
        // Writing to a String cannot fail.
        for note in &record.plan.notes {
            let _ = write!(text, " [{note}]");
        }
        let _ = write!(
            text,
            " tick {} ({} → {}, plan {:?})",
            record.observation.tick, record.observation.desired, record.guards.granted, record.plan.actions
        );
    }
    let phases: Vec<(u32, Phase)> = batch.state.instances.iter().map(|(_, it)| (it.id, it.phase)).collect();
    let _ = write!(
        text,
        " {}",
        phases.iter().map(|(id, phase)| format!("{id} {phase}")).collect::<Vec<_>>().join(", ")
    );
    if !batch.state.removed_instances.is_empty() {
        let _ = write!(
            text,
            " without {:?}",
            batch.state.removed_instances.iter().map(|(_, id)| id).collect::<Vec<_>>()
        );
    }
    text
}
