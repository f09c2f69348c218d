//! What a tick costs the machine of a set alone, and how fast recorded ticks are decided again.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::batch::{Batch, Revision};
use regatta_core::decision::{Decision, PolicyRun, Reason};
use regatta_core::digest::Digest;
use regatta_core::event::Actor;
use regatta_core::machine::{
    Answer, Ask, Effect, Input, NewSet, ProcessReading, Scrape, SetMachine, Start, TickFacts, create,
};
use regatta_core::node::Placement;
use regatta_core::observation::Observation;
use regatta_core::phase::Phase;
use regatta_core::record::{NodeCapacity, TickRecord};
use regatta_core::replay::Replay;
use regatta_core::state::{ImageDigests, InstanceRecord, Moment, PolicyActivation};
use regatta_core::time::Time;
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions};
use regatta_policy_tools::Replayer;
use regatta_util::percentile;
use serde_json::json;

use crate::effort::Effort;
use crate::figure::{Figure, Promise, rounded, us};
use crate::observed::set;
use crate::pinned::Pinned;
use crate::rig::Place;

const TICK: Promise = Promise {
    name: "machine-tick",
    target: "tick of the machine alone at 1,000 instances, observe to batch, without policies: median ≤ 100 µs",
    unit: "µs",
    at_most: 100.0,
    method: "one thread on one CPU: `Tick` (with scrapes and readings taken in before) to `Ask`, and `Decided` to \
             `Commit`; windows of 60 samples are full; median of 2,000 after 200 to warm up",
};

const REPLAY: Promise = Promise {
    name: "replay",
    target: "recorded ticks of 100 instances decided again, policy included: ≥ 2,000 per second (≤ 500 µs each)",
    unit: "µs",
    at_most: 500.0,
    method: "1,000 ticks of the machine with target-tracking in Wasm, replayed on one thread; wall clock per tick",
};

/// What a tick of the machine alone costs.
pub(crate) fn machine(effort: Effort) -> Result<Figure> {
    let (warm_up, counted) = effort.choose((200, 2_000), (2, 8));
    let mut detail = Vec::new();
    let mut value = f64::NAN;
    for instances in [100, 1_000] {
        let mut rig = Rig::new(instances, activation("", Vec::new()))?;
        let _pinned = Pinned::to_one_cpu()?;
        let mut took = Vec::new();
        for turn in 0..warm_up + counted {
            let (cost, _) = rig.tick(|asks, _| asks.iter().map(answer).collect())?;
            if turn >= warm_up {
                took.push(cost);
            }
        }
        let of = |share| percentile(&took, share).map_or(f64::NAN, us);
        value = of(0.5);
        detail.push(json!({ "instances": instances, "median_us": of(0.5), "p99_us": of(0.99) }));
    }
    Ok(TICK.measured(value, true, json!({ "by_instances": detail })))
}

/// How fast recorded ticks are decided again.
pub(crate) fn replay(place: &Place) -> Result<Figure> {
    let path = place.policies.join("target-tracking.wasm");
    let module = std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let policy = Engine::new(EngineOptions::default())?.load(&module)?;
    let params = set(100)?.policies.first().context("a policy")?.params.to_string();
    let wishes = policy.wishes(&params);
    let active = PolicyActivation { params, wishes, ..activation(policy.digest(), Vec::new()) };
    let mut rig = Rig::new(100, active)?;
    let mut records = Vec::new();
    for _ in 0..place.effort.choose(1_000, 20) {
        records.push(rig.tick(|asks, seen| asks.iter().map(|ask| decide(&policy, ask, seen)).collect())?.1);
    }
    let mut replayer = Replayer::new(&EngineOptions::default())?;
    replayer.provide(policy.digest(), module);
    for (sha256, blob) in rig.blobs {
        replayer.provide(&sha256, blob);
    }
    let mut replay = Replay::new(replayer);
    // The first one compiles the module.
    replay.next(records.first().context("a record")?);
    let begun = Instant::now();
    for record in &records[1..] {
        replay.next(record);
    }
    let each = begun.elapsed() / u32::try_from(records.len() - 1)?;
    let outcome = replay.finish();
    ensure!(outcome.is_identical(), "it differs: {outcome:?}");
    let per_second = rounded(1.0 / each.as_secs_f64());
    Ok(REPLAY.measured(
        us(each),
        true,
        json!({ "ticks_per_second": per_second, "identical": outcome.identical }),
    ))
}

fn activation(digest: &str, wishes: Vec<regatta_core::metrics::MetricWish>) -> PolicyActivation {
    PolicyActivation {
        number: 1,
        digest: digest.into(),
        name: "target-tracking".into(),
        version: "1.0.0".into(),
        source: "target-tracking".into(),
        params: "{}".to_owned(),
        state_version: 1,
        state: String::new(),
        since_ms: 0,
        wishes,
    }
}

fn answer(ask: &Ask) -> Answer {
    let decision = Decision {
        capacity: 0,
        standby: None,
        victims: Vec::new(),
        wake_after_ms: None,
        reasons: vec![Reason {
            code: "at-target".into(),
            text: "at its target".into(),
            evidence: Vec::new(),
        }],
    };
    let run = PolicyRun {
        slot: ask.slot.clone(),
        name: ask.activation.name.clone(),
        version: ask.activation.version.clone(),
        digest: ask.activation.digest.clone(),
        params: ask.activation.params.clone(),
        state_in: ask.activation.state.clone(),
        result: Ok(Decision { capacity: u32::MAX, ..decision }),
        fuel: 1,
        duration_us: 1,
        log: Vec::new(),
    };
    Answer { number: ask.activation.number, run, state: None }
}

fn decide(policy: &CompiledPolicy, ask: &Ask, observation: &Arc<Observation>) -> Answer {
    let state = BASE64.decode(&ask.activation.state).unwrap_or_default();
    let call = policy.decide(observation, &ask.activation.params, &state, &ask.limits);
    Answer {
        number: ask.activation.number,
        run: PolicyRun { slot: ask.slot.clone(), ..call.run },
        state: call.state.map(|state| BASE64.encode(state)),
    }
}

/// A machine with a fleet in service.
struct Rig {
    machine: SetMachine,
    now: Time,
    revision: u64,
    tick_ms: u64,
    instances: u32,
    blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Rig {
    fn new(instances: u32, active: PolicyActivation) -> Result<Self> {
        let mut set = set(instances)?;
        // The fleet stays as it is, whatever the policy wants.
        (set.capacity.min, set.capacity.max, set.capacity.initial) = (instances, instances, instances);
        let now = Time { wall_ms: 1_780_000_000_000, mono_ms: 0 };
        let tick_ms = set.tick_ms;
        let new = NewSet { set, image: ImageDigests::default(), policies: vec![active], incarnation: 1 };
        let (state, batch) = create(new, now, Actor::Daemon);
        let records = (1..=instances).map(|id| {
            let at = Moment { wall_ms: now.wall_ms, lived_ms: 0 };
            let mut record = InstanceRecord::pending(id, at, 1);
            let [_, b, c, d] = id.to_be_bytes();
            (record.phase, record.served) = (Phase::InService, true);
            record.address = Some(Ipv4Addr::new(127, b, c, d));
            record
        });
        let start = Start {
            state,
            revision: Revision(1),
            instances: records.collect(),
            manifests: BTreeMap::new(),
            last: None,
            listening: true,
            image_problem: None,
        };
        let mut rig = Self {
            machine: SetMachine::new(start, now),
            now,
            revision: 1,
            tick_ms,
            instances,
            blobs: batch.blobs.into_iter().collect(),
        };
        rig.machine.on(now, Input::InventoryComplete);
        for _ in 0..64 {
            rig.tick(|asks, _| asks.iter().map(answer).collect())?;
        }
        Ok(rig)
    }

    /// One tick. Returns what it cost the machine, and its record.
    fn tick(
        &mut self,
        decide: impl FnOnce(&[Ask], &Arc<Observation>) -> Vec<Answer>,
    ) -> Result<(Duration, Arc<TickRecord>)> {
        self.now.mono_ms += self.tick_ms;
        self.now.wall_ms += self.tick_ms;
        let metrics = self.machine.manifest().metrics.len();
        let phase = self.now.mono_ms / self.tick_ms % 7;
        let scrapes = (1..=self.instances).map(|id| Scrape {
            id,
            at_mono_ms: self.now.mono_ms,
            values: vec![Ok(0.5 + f64::from(id % 10) / 100.0 + phase as f64 / 50.0); metrics],
        });
        self.machine.on(self.now, Input::Scraped(scrapes.collect()));
        let processes = (1..=self.instances).map(|id| ProcessReading {
            id,
            cpu_time_ns: Some(self.now.mono_ms * 400_000),
            rss_bytes: Some(7 << 20),
        });
        let facts = Box::new(TickFacts {
            processes: processes.collect(),
            nodes: vec![NodeCapacity { placement: Placement::default(), launches: 0, why: None }],
            ..TickFacts::default()
        });
        let begun = Instant::now();
        let effects = self.machine.on(self.now, Input::Tick(facts));
        let mut cost = begun.elapsed();
        let asked = effects.into_iter().find_map(|effect| match effect {
            Effect::Ask { observation, asks } => Some((observation, asks)),
            _ => None,
        });
        let Some((observation, asks)) = asked else { bail!("the machine asked nobody") };
        let (answers, tick) = (decide(&asks, &observation), observation.tick);
        drop(observation);
        let begun = Instant::now();
        let effects = self.machine.on(self.now, Input::Decided { tick, answers });
        cost += begun.elapsed();
        let stored: Option<Batch> = effects.into_iter().find_map(|effect| match effect {
            Effect::Commit(batch) => Some(*batch),
            _ => None,
        });
        let batch = stored.context("the machine stored nothing")?;
        self.revision += 1;
        self.machine.on(self.now, Input::Committed(Ok(Revision(self.revision))));
        let record = batch.history.records.into_iter().next().context("a record")?;
        Ok((cost, record))
    }
}
