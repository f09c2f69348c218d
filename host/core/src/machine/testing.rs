//! A set machine on a test bench: a store and policies that answer as they are told, and time that is stepped.
//!
//! Whatever a test is about, each effect is held to what is always true: nothing is acted on that is not stored, one batch is
//! under way at a time and expects the right revision, each command is answered once, and a record decides its tick again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::*;
use crate::agent::{Found, Order, Report, Running, StopOrder, Want};
use crate::batch::Batch;
use crate::decision::{Decision, FailureKind, PolicyFailure, PolicyRun};
use crate::digest::Digest;
use crate::event::{Actor, EventKind};
use crate::manifest::read_manifest;
use crate::node::Placement;
use crate::phase::{InstanceEvent, Phase};
use crate::record::NodeCapacity;
use crate::state::{ImageDigests, PolicyActivation};
use crate::tick::conclude;

const DEFAULTS: &[&str] = &[
    "version: regatta/v1",
    "name: web",
    "tick: 1s",
    "capacity: { min: 0, max: 10, initial: 2 }",
    "image: { kernel: k }",
    "network: { mode: loopback, pool: 127.40.0.0/24, port: 8080 }",
    "instance: { boot_timeout: 60s, shutdown_timeout: 7s }",
    "policy: { module: step }",
    "guards: { warm_up: 0s, scale_in_stabilization: 0s, scale_out_limit: none, scale_in_limit: none }",
    "repair: { max_unhealthy: 100, hold_after_apply: 0s }",
];

/// A manifest with these lines in the place of the defaults of the same keys.
pub(crate) fn manifest(more: &str) -> ScaleSet {
    let key = |line: &str| line.split(':').next().unwrap_or_default().replace("policies", "policy");
    let given: Vec<String> = more.lines().map(key).collect();
    let kept = DEFAULTS.iter().filter(|line| !given.contains(&key(line)));
    let text: String = kept.map(|line| format!("{line}\n")).chain([more.to_owned()]).collect();
    let read = read_manifest(text.as_bytes(), "set.yaml", "/");
    read.unwrap_or_else(|problems| panic!("{}", problems.render())).set
}

pub(crate) fn activation(name: &str, state_version: u32) -> PolicyActivation {
    PolicyActivation {
        number: 0,
        digest: format!("digest of {name} {state_version}").into(),
        name: name.to_owned().into(),
        version: format!("{state_version}.0").into(),
        source: "test".into(),
        params: "{}".to_owned(),
        state_version,
        state: format!("rehearsed {state_version}"),
        since_ms: 0,
        wishes: Vec::new(),
    }
}

pub(super) fn policy(name: &str, state_version: u32) -> NewPolicy {
    NewPolicy {
        activation: activation(name, state_version),
        state_origin: "built in the rehearsal".to_owned(),
    }
}

pub(super) fn update(set: ScaleSet) -> Command {
    let policies = vec![None; set.policies.len()];
    Command::Update(Box::new(Update { set, image: ImageDigests::default(), policies, rolls_back: false }))
}

/// How the store takes a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// Nothing is stored.
    Failed,
    /// Somebody else was there first.
    Conflict,
    /// It is stored, and the answer says that it is not.
    AnswerLost,
}

/// What is stored.
#[derive(Debug, Default)]
pub(super) struct Stored {
    pub(super) revision: u64,
    pub(super) state: Option<SetState>,
    pub(super) instances: BTreeMap<u32, InstanceRecord>,
    pub(super) records: Vec<TickRecord>,
    pub(super) events: Vec<Event>,
    pub(super) blobs: BTreeMap<Digest, Vec<u8>>,
    /// Every instance that was ever stored.
    uids: BTreeMap<String, u32>,
}

impl Stored {
    fn apply(&mut self, batch: Batch) {
        self.revision += 1;
        let Batch { state, history, blobs, .. } = batch;
        self.blobs.extend(blobs);
        if !state.removed_sets.is_empty() {
            assert!(state.sets.is_empty() && state.instances.is_empty(), "a set that is removed is not put");
            let ends = |record: &InstanceRecord| record.phase == Phase::Terminating;
            assert!(self.instances.values().all(ends), "a set is removed after its instances");
            self.state = None;
            self.instances.clear();
            self.records.clear();
        }
        self.state = state.sets.into_iter().next().or(self.state.take());
        for (_, id) in state.removed_instances {
            self.instances.remove(&id);
        }
        for (_, record) in state.instances {
            assert_ne!(record.phase, Phase::Gone, "one that is gone is not stored");
            assert_eq!(
                *self.uids.entry(record.uid.clone()).or_insert(record.id),
                record.id,
                "a uid is unique"
            );
            self.instances.insert(record.id, record);
        }
        for record in history.records {
            let last = self.records.last().map_or(0, |last| last.observation.tick);
            assert!(record.observation.tick > last, "ticks rise");
            let json = self.blobs.get(&record.manifest).expect("the manifest of a record is stored");
            let set: ScaleSet = serde_json::from_slice(json).expect("a manifest");
            assert_eq!(conclude(&set, record.input()), *record, "a record decides its tick again");
            self.records.push(Arc::unwrap_or_clone(record));
        }
        self.events.extend(history.events);
    }

    pub(super) fn state(&self) -> &SetState {
        self.state.as_ref().expect("the set is stored")
    }

    pub(super) fn last_record(&self) -> &TickRecord {
        self.records.last().expect("a tick was stored")
    }

    /// Texts of the events of that kind.
    pub(super) fn told(&self, kind: EventKind) -> Vec<&str> {
        self.events.iter().filter(|event| event.kind == kind).map(|event| event.text.as_str()).collect()
    }
}

/// The bench.
pub(super) struct Rig {
    pub(super) machine: SetMachine,
    pub(super) now: Time,
    pub(super) store: Stored,
    /// How the next batches are taken, in order; then they are stored.
    pub(super) refusals: VecDeque<Refusal>,
    /// The capacity that policies want, and by the number of their activation.
    pub(super) wish: u32,
    pub(super) wishes: BTreeMap<u64, Result<u32, String>>,
    /// How soon they want the next tick.
    pub(super) wake_after_ms: Option<u64>,
    /// The states that they leave, by the number of their activation.
    pub(super) states: BTreeMap<u64, String>,
    pub(super) migrated: Result<String, String>,
    pub(super) listened: Result<(), String>,
    /// What ticks are told.
    pub(super) facts: TickFacts,
    /// All effects, until they are taken.
    pub(super) effects: Vec<Effect>,
    pub(super) replies: BTreeMap<Token, Result<Done, CommandError>>,
    /// Asks of shadows that wait for [`Self::answer_shadows`].
    pub(super) shadows: VecDeque<(u64, Ask)>,
    /// Effects that wait for their answer.
    pub(super) waiting: VecDeque<Effect>,
    pub(super) reload: Option<String>,
    /// What nodes were told last of each instance: that it shall run, or end.
    pub(super) shall_run: BTreeMap<u32, bool>,
    committing: bool,
    last_token: Token,
    open_tokens: BTreeSet<Token>,
}

impl Rig {
    /// A set that was just created, and its machine.
    pub(super) fn new(more: &str) -> Self {
        let set = manifest(more);
        let policies = set.policies.iter().map(|spec| activation(&spec.name, 1)).collect();
        let now = Time { wall_ms: 1_700_000_000_000, mono_ms: 500 };
        let new = NewSet { set, image: ImageDigests::default(), policies, incarnation: 7 };
        let (state, batch) = create(new, now, Actor::User("ann".into()));
        let mut store = Stored::default();
        store.apply(batch);
        let wish = state.desired;
        let start = Self::start(&store, true);
        let mut rig = Self {
            machine: SetMachine::new(start, now),
            now,
            store,
            refusals: VecDeque::new(),
            wish,
            wishes: BTreeMap::new(),
            wake_after_ms: None,
            states: BTreeMap::new(),
            migrated: Ok("migrated".to_owned()),
            listened: Ok(()),
            facts: TickFacts {
                nodes: vec![NodeCapacity { placement: Placement::default(), launches: 1_000, why: None }],
                ..TickFacts::default()
            },
            effects: Vec::new(),
            replies: BTreeMap::new(),
            shadows: VecDeque::new(),
            waiting: VecDeque::new(),
            reload: None,
            shall_run: BTreeMap::new(),
            committing: false,
            last_token: 0,
            open_tokens: BTreeSet::new(),
        };
        rig.feed(Input::InventoryComplete);
        rig
    }

    /// A set with as many instances in service as it wants.
    pub(super) fn serving(more: &str) -> Self {
        let mut rig = Self::new(more);
        rig.tick();
        for id in rig.ids() {
            rig.serve(id);
        }
        rig.tick();
        rig.effects.clear();
        rig
    }

    pub(super) fn start(store: &Stored, listening: bool) -> Start {
        let state = store.state().clone();
        let read =
            |digest: &Digest| Arc::new(serde_json::from_slice(&store.blobs[digest]).expect("a manifest"));
        Start {
            manifests: state.manifests.iter().map(|(&of, digest)| (of, read(digest))).collect(),
            state,
            revision: Revision(store.revision),
            instances: store.instances.values().cloned().collect(),
            last: store.records.last().cloned().map(Arc::new),
            listening,
            image_problem: None,
        }
    }

    /// Gives the machine an input, and answers nothing.
    pub(super) fn feed(&mut self, input: Input) {
        let may_act = matches!(input, Input::Committed(Ok(_)) | Input::InventoryComplete);
        let effects = self.machine.on(self.now, input);
        for effect in effects {
            assert!(self.reload.is_none(), "nothing follows a reload");
            self.check(&effect, may_act);
            match &effect {
                Effect::AskShadow { observation, ask } => {
                    self.shadows.push_back((observation.tick, ask.clone()));
                }
                Effect::Ask { .. } | Effect::Migrate(_) | Effect::Listen(_) | Effect::Commit(_) => {
                    self.waiting.push_back(effect.clone());
                }
                Effect::Reload(why) => self.reload = Some(why.clone()),
                _ => {}
            }
            self.effects.push(effect);
        }
    }

    fn check(&mut self, effect: &Effect, may_act: bool) {
        match effect {
            Effect::Commit(batch) => {
                assert!(!std::mem::replace(&mut self.committing, true), "one batch at a time");
                assert_eq!(batch.expect.len(), 1, "every batch expects a revision");
                for state in &batch.state.sets {
                    assert_eq!(state.epoch, self.machine.state().epoch);
                }
            }
            Effect::Want(want) => {
                assert!(may_act, "acted before it was stored");
                let stored = self.store.instances.get(&want.id).expect("acted on what is not stored");
                assert_eq!((&stored.uid, stored.epoch), (&want.uid, want.epoch));
                let runs = matches!(want.order, Order::Run { .. });
                let before = self.shall_run.insert(want.id, runs);
                assert!(before != Some(false), "told to stop before, and now to run or to stop again");
                if !runs {
                    assert_eq!(stored.phase, Phase::Terminating, "stopped before that was stored");
                }
            }
            Effect::Reply { token, result } => {
                assert!(self.open_tokens.remove(token), "answered twice");
                self.replies.insert(*token, result.clone());
            }
            Effect::Forget { id } => {
                assert!(may_act && !self.store.instances.contains_key(id), "forgotten, and still stored");
            }
            Effect::Ticked(_) | Effect::Updated => assert!(may_act),
            Effect::Ended => assert!(self.store.state.is_none(), "ended, and still stored"),
            _ => {}
        }
    }

    /// Answers the effect that waits longest; false when none does.
    pub(super) fn answer(&mut self) -> bool {
        let Some(effect) = self.waiting.pop_front() else { return false };
        let input = match effect {
            Effect::Ask { observation, asks } => Input::Decided {
                tick: observation.tick,
                answers: asks.iter().map(|ask| self.decide(ask)).collect(),
            },
            Effect::Migrate(migrations) => Input::Migrated(vec![self.migrated.clone(); migrations.len()]),
            Effect::Listen(_) => Input::Listening(self.listened.clone()),
            Effect::Commit(batch) => Input::Committed(self.commit(*batch)),
            _ => return true,
        };
        self.feed(input);
        true
    }

    fn commit(&mut self, batch: Batch) -> Result<Revision, CommitError> {
        self.committing = false;
        let refusal = self.refusals.pop_front();
        if refusal == Some(Refusal::Failed) {
            return Err(CommitError::Failed("disk full".to_owned()));
        }
        if refusal == Some(Refusal::Conflict) || batch.expect[0].1.0 != self.store.revision {
            return Err(CommitError::Conflict("changed meanwhile".to_owned()));
        }
        self.store.apply(batch);
        match refusal {
            Some(_) => Err(CommitError::Failed("no answer".to_owned())),
            None => Ok(Revision(self.store.revision)),
        }
    }

    pub(super) fn decide(&self, ask: &Ask) -> Answer {
        let number = ask.activation.number;
        let wish = self.wishes.get(&number).cloned().unwrap_or(Ok(self.wish));
        let run = PolicyRun {
            slot: ask.slot.clone(),
            name: ask.activation.name.clone(),
            version: ask.activation.version.clone(),
            digest: ask.activation.digest.clone(),
            params: ask.activation.params.clone(),
            state_in: ask.activation.state.clone(),
            result: wish
                .map(|capacity| Decision {
                    capacity,
                    standby: None,
                    victims: Vec::new(),
                    wake_after_ms: self.wake_after_ms,
                    reasons: Vec::new(),
                })
                .map_err(|message| PolicyFailure { kind: FailureKind::Trap, message: message.into() }),
            fuel: 0,
            duration_us: 0,
            log: Vec::new(),
        };
        Answer { number, run, state: self.states.get(&number).cloned() }
    }

    /// Gives the machine an input, and answers all that it asks.
    pub(super) fn run(&mut self, input: Input) {
        self.feed(input);
        self.settle();
    }

    pub(super) fn settle(&mut self) {
        while self.reload.is_none() && self.answer() {}
    }

    pub(super) fn pass(&mut self, ms: u64) {
        self.now.wall_ms += ms;
        self.now.mono_ms += ms;
    }

    /// A second later, a tick.
    pub(super) fn tick(&mut self) {
        self.tick_after(1_000);
    }

    pub(super) fn tick_after(&mut self, ms: u64) {
        self.pass(ms);
        self.run(Input::Tick(Box::new(self.facts.clone())));
    }

    pub(super) fn send(&mut self, command: Command) -> Token {
        self.last_token += 1;
        self.open_tokens.insert(self.last_token);
        let actor = Actor::User("ann".to_owned());
        self.feed(Input::Command { token: self.last_token, actor, command });
        self.last_token
    }

    /// Carries out a command, and returns its answer.
    pub(super) fn command(&mut self, command: Command) -> Result<Done, CommandError> {
        let token = self.send(command);
        self.settle();
        self.replies.remove(&token).expect("a command is answered")
    }

    /// Why a command was refused; nothing is stored then.
    pub(super) fn refused(&mut self, command: Command) -> CommandError {
        let before = (self.store.revision, self.machine.state().clone());
        let error = self.command(command).expect_err("refused");
        assert_eq!((self.store.revision, self.machine.state().clone()), before);
        error
    }

    pub(super) fn unanswered(&self) -> usize {
        self.open_tokens.len()
    }

    pub(super) fn report(&mut self, id: u32, report: Report) {
        self.run(Input::Report { id, report });
    }

    pub(super) fn probed(&mut self, id: u32, event: InstanceEvent, detail: Option<&str>) {
        self.run(Input::Probed { id, event, detail: detail.map(ToOwned::to_owned) });
    }

    /// Its node makes an instance, up to where its guest boots.
    pub(super) fn launch(&mut self, id: u32) {
        let last = u8::try_from(id).expect("a small id");
        self.report(id, Report::Admitted { address: Ipv4Addr::new(127, 40, 0, last) });
        self.report(id, Report::LaunchStarted);
        self.report(id, Report::Booted(Running::default()));
    }

    /// And up to where it is in service.
    pub(super) fn serve(&mut self, id: u32) {
        self.launch(id);
        self.probed(id, InstanceEvent::FirstProbeAnswered, None);
        self.probed(id, InstanceEvent::BecameHealthy, None);
    }

    pub(super) fn ids(&self) -> Vec<u32> {
        self.machine.instances().map(|record| record.id).collect()
    }

    pub(super) fn record(&self, id: u32) -> &InstanceRecord {
        self.machine.instances().find(|record| record.id == id).expect("the instance")
    }

    pub(super) fn phases(&self) -> Vec<(u32, Phase)> {
        self.machine.instances().map(|record| (record.id, record.phase)).collect()
    }

    /// Takes what nodes were told since the last time.
    pub(super) fn wants(&mut self) -> Vec<Want> {
        let effects = std::mem::take(&mut self.effects);
        effects
            .into_iter()
            .filter_map(|effect| if let Effect::Want(want) = effect { Some(want) } else { None })
            .collect()
    }

    /// Takes the stops that nodes were told since the last time.
    pub(super) fn stops(&mut self) -> Vec<(u32, StopOrder)> {
        let stop = |want: Want| match want.order {
            Order::Stop(order) => Some((want.id, order)),
            Order::Run { .. } => None,
        };
        self.wants().into_iter().filter_map(stop).collect()
    }

    /// The daemon is killed and comes back after a while; agents find this of each instance.
    pub(super) fn restart_after(&mut self, away_ms: u64, found: impl Fn(&InstanceRecord) -> Found) {
        self.now = Time { wall_ms: self.now.wall_ms + away_ms, mono_ms: 3 };
        self.begin_again(found);
    }

    /// The machine begins again from what is stored.
    pub(super) fn begin_again(&mut self, found: impl Fn(&InstanceRecord) -> Found) {
        self.machine = SetMachine::new(Self::start(&self.store, self.listened.is_ok()), self.now);
        self.waiting.clear();
        self.shadows.clear();
        self.effects.clear();
        self.open_tokens.clear();
        self.shall_run.clear();
        self.committing = false;
        self.reload = None;
        let records: Vec<_> = self.machine.instances().cloned().collect();
        for record in records {
            self.feed(Input::Report { id: record.id, report: Report::Found(found(&record)) });
        }
        self.feed(Input::InventoryComplete);
        self.settle();
    }

    pub(super) fn shadow_answers(&mut self) {
        while let Some((tick, ask)) = self.shadows.pop_front() {
            let answer = Box::new(self.decide(&ask));
            self.run(Input::Shadow { tick, answer });
        }
    }
}
