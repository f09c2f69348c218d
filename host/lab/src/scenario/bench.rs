//! The world of a scenario: one set, its machine, and models that do as they are told.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::sync::Arc;

use regatta_core::agent::{Found, Order, Report, Running};
use regatta_core::decision::{Decision, FailureKind, PolicyFailure};
use regatta_core::digest::Digest;
use regatta_core::event::{Actor, Event, EventKind};
use regatta_core::explain::explain;
use regatta_core::machine::{
    Answer, Ask, Command, CommandError, Effect, Input, NewPolicy, NewSet, Scrape, SetMachine, SnapshotStatus,
    Start, TickFacts, TrafficReading, Update, create,
};
use regatta_core::manifest::{PolicySpec, ScaleSet, read_manifest};
use regatta_core::metrics::{MetricWish, NoValue, NoValueKind};
use regatta_core::node::Placement;
use regatta_core::observation::Observation;
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::plan::Action;
use regatta_core::record::{NodeCapacity, TickRecord};
use regatta_core::state::{ImageDigests, InstanceRecord, PolicyActivation};
use regatta_core::time::Time;

use super::step::Step;
use crate::policy;
use crate::store::Store;

/// What a manifest has when the scenario does not say otherwise.
const DEFAULTS: [&str; 8] = [
    "version: regatta/v1",
    "name: web",
    "tick: 1s",
    "capacity: { min: 0, max: 10 }",
    "image: { kernel: vmlinux }",
    "network: { mode: loopback, pool: 127.40.0.0/24, port: 8080 }",
    "policy: { module: fixed }",
    "guards: { warm_up: 0s, scale_in_stabilization: 0s }",
];

/// Ticks of one scenario, over all its steps.
const TICKS_MAX: u32 = 100_000;

/// What the one node has room for.
const NODE_LAUNCHES: u32 = 10_000;

pub(super) struct Bench {
    now: Time,
    /// When it all began.
    began_ms: u64,
    store: Store,
    name: String,
    machine: Option<SetMachine>,
    image: ImageDigests,
    /// What every policy wants; none lets it decide, an error lets it fail.
    wish: Result<Option<u32>, ()>,
    metrics: BTreeMap<String, f64>,
    open: BTreeMap<u32, u32>,
    /// Generations whose launches fail.
    fails: BTreeSet<u64>,
    /// Ticks so far.
    ticks: u32,
    /// The last restart of each guest.
    restarts: BTreeMap<u32, u32>,
    /// What nodes report before the next tick.
    reports: Vec<Input>,
    refusal: Option<String>,
    said: String,
}

impl Bench {
    pub(super) fn new() -> Self {
        // A round number of seconds, so that times read well.
        let began_ms = 1_800_000_000_000;
        Self {
            now: Time { wall_ms: began_ms, mono_ms: 1_000 },
            began_ms,
            store: Store::default(),
            name: String::new(),
            machine: None,
            image: ImageDigests::default(),
            wish: Ok(None),
            metrics: BTreeMap::new(),
            open: BTreeMap::new(),
            fails: BTreeSet::new(),
            ticks: 0,
            restarts: BTreeMap::new(),
            reports: Vec::new(),
            refusal: None,
            said: String::new(),
        }
    }

    /// What was said since the last time.
    pub(super) fn said(&mut self) -> String {
        std::mem::take(&mut self.said)
    }

    fn say(&mut self, line: &str) {
        let seconds = (self.now.wall_ms - self.began_ms) / 1_000;
        let _ = writeln!(self.said, "{}:{:02}  {line}", seconds / 60, seconds % 60);
    }

    pub(super) fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Apply(text) => return self.apply(&text),
            Step::Image(name) => {
                self.image = ImageDigests { kernel: Some(name.into()), ..ImageDigests::default() };
            }
            Step::Wants(wish) => self.wish = Ok(wish),
            Step::Fails => self.wish = Err(()),
            Step::Metric(name, value) => {
                self.metrics.insert(name, value);
            }
            Step::Connections(id, open) => {
                self.open.insert(id, open);
            }
            Step::Generation(generation, true) => {
                self.fails.insert(generation);
            }
            Step::Generation(generation, false) => {
                self.fails.remove(&generation);
            }
            _ if self.machine.is_none() => return Err("there is no set yet: `apply` makes one".to_owned()),
            Step::Instance(id, event) => self.event(id, event)?,
            Step::Scale(capacity) => self.command(Command::Scale { capacity }),
            Step::Hold(capacity, for_ms) => {
                self.command(Command::Hold { capacity, for_ms, reason: String::new() });
            }
            Step::Resume => self.command(Command::Resume),
            Step::Limits(min, max, ms) => {
                let (min, max, for_ms) = (Some(min), Some(max), Some(ms));
                self.command(Command::Limits { min, max, for_ms, reason: String::new() });
            }
            Step::ClearLimits => self.command(Command::ClearLimits),
            Step::Freeze(ms) => self.command(Command::Freeze { for_ms: Some(ms), reason: String::new() }),
            Step::Thaw => self.command(Command::Thaw),
            Step::Protect(id, protection) => self.command(Command::Protect { id, protection }),
            Step::Action(id, action) => self.command(Command::Instance { id, action }),
            Step::Process(process, suspend) => {
                let (this, none) = (BTreeSet::from([process]), BTreeSet::new());
                let (suspend, resume) = if suspend { (this, none) } else { (none, this) };
                self.command(Command::Processes { suspend, resume });
            }
            Step::Upgrade(action) => self.command(Command::Upgrade(action)),
            Step::Restart => self.restart(),
            Step::Wait(ms) => self.wait(ms)?,
            Step::Show => self.show(),
            Step::Why => self.why(),
        }
        Ok(())
    }

    fn apply(&mut self, text: &str) -> Result<(), String> {
        let set = self.read(text)?;
        let image = self.image.clone();
        if self.machine.is_some() {
            let before =
                self.store.sets.get(&self.name).map_or(&[][..], |it| it.state.set.policies.as_slice());
            let new = |spec: &PolicySpec| (!before.contains(spec)).then(|| new_policy(activation(spec)));
            let policies = set.policies.iter().map(new).collect();
            let update = Update { set, image, policies, rolls_back: false };
            self.command(Command::Update(Box::new(update)));
            return Ok(());
        }
        self.name.clone_from(&set.name);
        let policies = set.policies.iter().map(activation).collect();
        let new = NewSet { set, image, policies, incarnation: 1 };
        let (_, batch) = create(new, self.now, Actor::User("ops".to_owned()));
        self.tell(&batch.history.events);
        self.store.apply(&batch);
        self.begin();
        Ok(())
    }

    fn read(&self, text: &str) -> Result<ScaleSet, String> {
        let key = |line: &str| line.split(':').next().unwrap_or_default().replace("policies", "policy");
        let given: Vec<String> = text.lines().map(key).collect();
        let kept = DEFAULTS.iter().filter(|line| !given.contains(&key(line)));
        let text: String = kept.map(|line| format!("{line}\n")).chain([text.to_owned()]).collect();
        let read = read_manifest(text.as_bytes(), "the manifest", "/");
        let set = read.map_err(|problems| problems.render())?.set;
        match self.name.is_empty() || set.name == self.name {
            true => Ok(set),
            false => Err(format!("a scenario has one set, here {}", self.name)),
        }
    }

    /// A machine begins with what is stored, and its node has what it had.
    fn begin(&mut self) {
        let Some(stored) = self.store.sets.get(&self.name) else { return };
        let manifests = stored.state.manifests.iter();
        let manifests =
            manifests.filter_map(|(&of, digest)| Some((of, Arc::clone(self.store.manifests.get(digest)?))));
        let records: Vec<InstanceRecord> = stored.instances.values().cloned().collect();
        let start = Start {
            state: stored.state.clone(),
            revision: stored.revision,
            instances: records.clone(),
            manifests: manifests.collect(),
            last: stored.last.clone(),
            listening: true,
            image_problem: None,
        };
        self.machine = Some(SetMachine::new(start, self.now));
        for record in records {
            let found = match record.phase {
                Phase::Pending => Found::Nothing,
                _ => Found::Running(Running::default()),
            };
            self.feed(Input::Report { id: record.id, report: Report::Found(found) });
        }
        self.feed(Input::InventoryComplete);
    }

    fn restart(&mut self) {
        self.say("the daemon was killed and is back");
        self.machine = None;
        self.begin();
    }

    fn command(&mut self, command: Command) {
        self.refusal = None;
        self.feed(Input::Command { token: 0, actor: Actor::User("ops".to_owned()), command });
        if let Some(refusal) = self.refusal.take() {
            self.say(&format!("refused: {refusal}"));
        }
    }

    fn event(&mut self, id: u32, event: InstanceEvent) -> Result<(), String> {
        let known = self.machine.iter().flat_map(SetMachine::instances).any(|record| record.id == id);
        if !known {
            return Err(format!("there is no instance {id}"));
        }
        self.feed(match event {
            InstanceEvent::VmmExited => {
                Input::Report { id, report: Report::Exited { why: "killed".to_owned() } }
            }
            event => Input::Probed { id, event, detail: None },
        });
        Ok(())
    }

    fn wait(&mut self, ms: u64) -> Result<(), String> {
        let until_ms = self.now.mono_ms + ms;
        while let Some(machine) = &self.machine {
            let tick_ms = machine.manifest().tick_ms;
            if self.now.mono_ms + tick_ms > until_ms {
                break;
            }
            self.ticks += 1;
            if self.ticks > TICKS_MAX {
                return Err(format!(
                    "a scenario has at most {TICKS_MAX} ticks: wait less, or give the set a longer `tick`"
                ));
            }
            self.now = Time { wall_ms: self.now.wall_ms + tick_ms, mono_ms: self.now.mono_ms + tick_ms };
            for report in std::mem::take(&mut self.reports) {
                self.feed(report);
            }
            self.scrape();
            self.feed(Input::Tick(Box::new(self.facts())));
        }
        let rest_ms = until_ms - self.now.mono_ms;
        self.now = Time { wall_ms: self.now.wall_ms + rest_ms, mono_ms: until_ms };
        Ok(())
    }

    fn facts(&self) -> TickFacts {
        let open = self.open.clone();
        let active = open.values().sum();
        TickFacts {
            traffic: Some(TrafficReading { open, active, ..TrafficReading::default() }),
            nodes: vec![NodeCapacity { placement: Placement::default(), launches: NODE_LAUNCHES, why: None }],
            ..TickFacts::default()
        }
    }

    fn scrape(&mut self) {
        let Some(machine) = &self.machine else { return };
        let text = "the scenario gives none".into();
        let missing = Arc::new(NoValue { kind: NoValueKind::NoSeries, text });
        let value = |name: &String| self.metrics.get(name).copied().ok_or_else(|| Arc::clone(&missing));
        let values: Vec<_> = machine.manifest().metrics.iter().map(|metric| value(&metric.name)).collect();
        let answers = machine.instances().filter(|record| record.phase.may_answer());
        let at_mono_ms = self.now.mono_ms;
        let scrapes = answers.map(|record| Scrape { id: record.id, at_mono_ms, values: values.clone() });
        let scrapes = scrapes.collect();
        self.feed(Input::Scraped(scrapes));
    }

    /// Gives the machine an input, and carries out what it wants.
    fn feed(&mut self, input: Input) {
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let Some(machine) = &mut self.machine else { return };
            for effect in machine.on(self.now, input) {
                inputs.extend(self.perform(effect));
            }
        }
    }

    fn perform(&mut self, effect: Effect) -> Option<Input> {
        match effect {
            Effect::Ask { observation, asks } => {
                let answers = asks.iter().map(|ask| self.decide(&observation, ask)).collect();
                return Some(Input::Decided { tick: observation.tick, answers });
            }
            Effect::AskShadow { observation, ask } => {
                let answer = Box::new(self.decide(&observation, &ask));
                return Some(Input::Shadow { tick: observation.tick, answer });
            }
            Effect::Migrate(migrations) => {
                return Some(Input::Migrated(migrations.into_iter().map(|it| Ok(it.state)).collect()));
            }
            Effect::Listen(_) => return Some(Input::Listening(Ok(()))),
            Effect::Snapshot(_) => return Some(Input::Snapshot(SnapshotStatus::Off)),
            Effect::Commit(batch) => {
                self.tell(&batch.history.events);
                let stored = self.store.check(&batch).map(|()| self.store.apply(&batch));
                return Some(Input::Committed(stored));
            }
            Effect::Want(want) => {
                if let Some(number) = want.restart {
                    self.restart_guest(want.id, number);
                }
                self.node(want.id, want.generation, &want.order);
            }
            Effect::Reply { result: Err(error), .. } => {
                let (CommandError::Conflict(why) | CommandError::NotFound(why) | CommandError::Store(why)) =
                    error;
                self.refusal = Some(why);
            }
            Effect::Ticked(record) => self.planned(&record),
            Effect::RollBack(back) => {
                let policies = vec![None; back.set.policies.len()];
                let update = Update { set: back.set, image: back.image, policies, rolls_back: true };
                let command = Command::Update(Box::new(update));
                return Some(Input::Command { token: 0, actor: Actor::Daemon, command });
            }
            Effect::Ended => self.machine = None,
            Effect::Reload(_) | Effect::Reply { .. } | Effect::Forget { .. } | Effect::Updated => {}
        }
        None
    }

    /// What becomes of an instance before the next tick.
    fn node(&mut self, id: u32, generation: u64, order: &Order) {
        let report = |report| Input::Report { id, report };
        match order {
            Order::Run { phase: Phase::Pending, .. } if self.fails.contains(&generation) => {
                self.reports.push(report(Report::LaunchFailed { why: "the guest does not boot".to_owned() }));
            }
            Order::Run { phase: Phase::Pending, .. } => {
                let [_, _, high, low] = id.to_be_bytes();
                let address = Ipv4Addr::new(127, 40, high, low);
                self.reports.extend([
                    report(Report::Admitted { address }),
                    report(Report::LaunchStarted),
                    report(Report::Booted(Running::default())),
                    Input::Probed { id, event: InstanceEvent::FirstProbeAnswered, detail: None },
                    Input::Probed { id, event: InstanceEvent::BecameHealthy, detail: None },
                ]);
            }
            Order::Run { .. } => {}
            Order::Stop(_) => {
                self.open.remove(&id);
                self.reports.push(report(Report::Cleaned { note: None }));
            }
        }
    }

    /// Each restart is wanted until it was told of.
    fn restart_guest(&mut self, id: u32, number: u32) {
        if self.restarts.insert(id, number) != Some(number) {
            self.reports.extend([
                Input::Report { id, report: Report::GuestRebooted },
                Input::Probed { id, event: InstanceEvent::FirstProbeAnswered, detail: None },
                Input::Probed { id, event: InstanceEvent::BecameHealthy, detail: None },
            ]);
        }
    }

    fn decide(&self, observation: &Observation, ask: &Ask) -> Answer {
        let fixed = |capacity| {
            Ok(Decision {
                capacity,
                standby: None,
                victims: Vec::new(),
                wake_after_ms: None,
                reasons: Vec::new(),
            })
        };
        let result = match self.wish {
            Ok(None) if ask.activation.name.as_str() == "fixed" => fixed(observation.desired),
            Ok(None) => return policy::decide(observation, ask),
            Ok(Some(capacity)) => fixed(capacity),
            Err(()) => {
                Err(PolicyFailure { kind: FailureKind::Trap, message: "the scenario lets it fail".into() })
            }
        };
        policy::answered(ask, result, None)
    }

    fn tell(&mut self, events: &[Event]) {
        let of_kind = events.iter().filter(|event| event.kind == EventKind::InService);
        let serve: Vec<u32> = of_kind.filter_map(|event| event.instance).collect();
        if !serve.is_empty() {
            let names = self.names(&serve);
            self.say(&format!("in-service: {names}"));
        }
        for event in events.iter().filter(|event| event.kind != EventKind::InService) {
            self.say(&format!("{}: {}", event.kind.as_str(), event.text));
        }
    }

    /// What a tick plans, in few words.
    fn planned(&mut self, record: &TickRecord) {
        let mut lines: Vec<(&str, &str, Vec<u32>)> = Vec::new();
        for action in &record.plan.actions {
            let (what, cause, id) = match action {
                Action::Create { id, cause, .. } => ("created", cause.as_str(), *id),
                Action::Restart { id } => ("restarting", "asked for", *id),
                Action::Drain { id, cause } => ("draining", cause.as_str(), *id),
                Action::Terminate { id, cause } => ("removed", cause.as_str(), *id),
            };
            match lines.iter_mut().find(|line| (line.0, line.1) == (what, cause)) {
                Some((_, _, ids)) => ids.push(id),
                None => lines.push((what, cause, vec![id])),
            }
        }
        for (what, cause, ids) in lines {
            let names = self.names(&ids);
            self.say(&format!("{what} {names} ({cause})"));
        }
    }

    /// All names, or the first and last of many.
    fn names(&self, ids: &[u32]) -> String {
        let set = &self.name;
        match ids {
            [first, .., last] if ids.len() > 8 => {
                format!("{} instances, {set}-{first} to {set}-{last}", ids.len())
            }
            _ => ids.iter().map(|id| format!("{set}-{id}")).collect::<Vec<_>>().join(", "),
        }
    }

    fn show(&mut self) {
        let Some(machine) = &self.machine else { return };
        let state = machine.state();
        let mut lines = vec![format!("generation {}, {} wanted", state.generation, state.desired)];
        let mut by: BTreeMap<(String, u64), Vec<u32>> = BTreeMap::new();
        for record in machine.instances() {
            by.entry((record.phase.to_string(), record.generation)).or_default().push(record.id);
        }
        for ((phase, generation), ids) in by {
            lines.push(format!("  {phase}, generation {generation}: {}", self.names(&ids)));
        }
        if let Some(upgrade) = &state.upgrade {
            lines.push(format!(
                "  upgrade from {} to {}: {}",
                upgrade.from,
                upgrade.to,
                upgrade.status.as_str()
            ));
        }
        lines.extend(machine.problems().into_iter().map(|problem| format!("  problem: {problem}")));
        lines.into_iter().for_each(|line| self.say(&line));
    }

    fn why(&mut self) {
        let Some(record) = self.machine.as_ref().and_then(SetMachine::last) else { return };
        let seconds = (record.at_ms() - self.began_ms) / 1_000;
        let text = explain(record, &format!("{}:{:02}", seconds / 60, seconds % 60));
        self.said.push_str(&text);
    }
}

fn new_policy(activation: PolicyActivation) -> NewPolicy {
    NewPolicy { activation, state_origin: "empty".to_owned() }
}

fn activation(spec: &PolicySpec) -> PolicyActivation {
    let metric = spec.params.get("metric").and_then(|metric| metric.as_str());
    let wish = |name: &str| MetricWish { name: name.to_owned(), window_ms: 60_000 };
    PolicyActivation {
        number: 0,
        digest: Digest::of(spec.module.as_bytes()),
        name: spec.module.clone().into(),
        version: "1.0".into(),
        source: spec.module.clone().into(),
        params: spec.params.to_string(),
        state_version: 1,
        state: String::new(),
        since_ms: 0,
        wishes: metric.into_iter().map(wish).collect(),
    }
}
