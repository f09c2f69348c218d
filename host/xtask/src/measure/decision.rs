//! What one decision costs: from a frozen observation to a plan.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use regatta_core::digest::Digest;
use regatta_core::manifest::{PolicyLimits, ScaleSet};
use regatta_core::node::Placement;
use regatta_core::observation::Observation;
use regatta_core::phase::Phase;
use regatta_core::record::{NodeCapacity, PlanFacts, TickRecord};
use regatta_core::tick::{TickInput, conclude};
use regatta_policy_host::{CallTimes, CompiledPolicy, Engine, EngineOptions, Place as RunIn, Program};
use regatta_util::percentile;
use serde_json::{Value, json};

use crate::figure::{Figure, Promise, rounded, us};
use crate::observed::{SEEDS, observation, set};
use crate::pinned::Pinned;
use crate::rig::Place;

const PROMISE: Promise = Promise {
    name: "decision",
    target: "observation with 1,000 instances → target-tracking in Wasm → guards → plan: median ≤ 63 µs",
    unit: "µs",
    at_most: 63.0,
    method: "one thread on one CPU, 8 observations in turn (five metrics per instance, windows of 60), a fresh \
             Wasm instance per call, then regatta_core::tick::conclude; median of 4,000 after 400 to warm up",
};

const WORKER: Promise = Promise {
    name: "worker",
    target: "the same decision by the policy worker, as the daemon has it made: at most 1.5 times of that in one process",
    unit: "×",
    at_most: 1.5,
    method: "decisions as for `decision`, in this process and in a worker in turn; ratio of the medians of 4,000",
};

/// The user of the worker, when this is root: the last of the daemon's range.
const WORKERS_USER: u32 = 565_535;

/// Decisions that are not counted, and decisions that are.
const TURNS: (usize, usize) = (400, 4_000);
const QUICK_TURNS: (usize, usize) = (8, 8);

/// The figure, with smaller sets beside it.
pub(crate) fn measure(place: &Place) -> Result<Figure> {
    let mut sizes = Vec::new();
    for instances in [10, 100, 1_000] {
        sizes.push((instances, decide(place, instances)?));
    }
    let largest = sizes.last().map(|(_, costs)| costs.median(|cost| cost.total));
    let value = largest.flatten().map_or(f64::NAN, us);
    let detail: Vec<Value> = sizes.iter().map(|(instances, costs)| costs.json(*instances)).collect();
    Ok(PROMISE.measured(value, true, json!({ "by_instances": detail })))
}

/// The times of one decision.
#[derive(Debug, Clone, Copy)]
struct Cost {
    total: Duration,
    call: CallTimes,
    conclude: Duration,
}

struct Costs {
    all: Vec<Cost>,
    scale_outs: usize,
    pooling: bool,
}

impl Costs {
    fn share(&self, share: f64, part: impl Fn(&Cost) -> Duration) -> Option<Duration> {
        percentile(&self.all.iter().map(part).collect::<Vec<_>>(), share)
    }

    fn median(&self, part: impl Fn(&Cost) -> Duration) -> Option<Duration> {
        self.share(0.5, part)
    }

    fn json(&self, instances: u32) -> Value {
        let median = |part: fn(&Cost) -> Duration| self.median(part).map(us);
        let total: Duration = self.all.iter().map(|cost| cost.total).sum();
        let guest: Duration = self.all.iter().map(|cost| cost.call.guest).sum();
        json!({
            "instances": instances,
            "median_us": median(|cost| cost.total),
            "p99_us": self.share(0.99, |cost| cost.total).map(us),
            "share_inside_wasm": rounded(guest.as_secs_f64() / total.as_secs_f64()),
            "median_us_of": {
                "folding_the_observation": median(|cost| cost.call.observe),
                "making_the_instance": median(|cost| cost.call.instantiate),
                "inside_wasm": median(|cost| cost.call.guest),
                "the_whole_call": median(|cost| cost.call.total),
                "combine_guards_plan": median(|cost| cost.conclude),
            },
            "decisions": self.all.len(),
            "of_them_scale_outs": self.scale_outs,
            "pooling": self.pooling,
        })
    }
}

fn decide(place: &Place, instances: u32) -> Result<Costs> {
    let engine = Engine::new(EngineOptions::default())?;
    let rig = Rig::new(place, &engine, instances)?;
    let _pinned = Pinned::to_one_cpu()?;
    let (warm_up, counted) = place.effort.choose(TURNS, QUICK_TURNS);
    let mut costs = Costs { all: Vec::with_capacity(counted), scale_outs: 0, pooling: engine.pooling() };
    for turn in 0..warm_up + counted {
        let (cost, scaled_out) = rig.decide(turn)?;
        if turn >= warm_up {
            costs.all.push(cost);
            costs.scale_outs += usize::from(scaled_out);
        }
    }
    Ok(costs)
}

/// What a policy worker costs: the same decisions in this process and in a worker, in turn.
pub(crate) fn worker(place: &Place) -> Result<Figure> {
    let program = Program { path: place.bin.join("regatta"), args: vec!["policy-child".into()] };
    let user = rustix::process::geteuid().is_root().then_some(WORKERS_USER);
    let there =
        Engine::new(EngineOptions { run_in: RunIn::Child(program), user, ..EngineOptions::default() })?;
    let here = Engine::new(EngineOptions::default())?;
    let mut sizes = Vec::new();
    let mut ratio = f64::NAN;
    for instances in [10, 100, 1_000] {
        let rigs = [Rig::new(place, &here, instances)?, Rig::new(place, &there, instances)?];
        let (warm_up, counted) = place.effort.choose(TURNS, QUICK_TURNS);
        let mut all = [Vec::with_capacity(counted), Vec::with_capacity(counted)];
        for turn in 0..warm_up + counted {
            for (rig, costs) in rigs.iter().zip(&mut all) {
                let (cost, _) = rig.decide(turn)?;
                if turn >= warm_up {
                    costs.push(cost);
                }
            }
        }
        let [own, workers] = all.map(|all| Costs { all, scale_outs: 0, pooling: here.pooling() });
        let total = |costs: &Costs| costs.median(|cost| cost.total).map_or(f64::NAN, us);
        ratio = total(&workers) / total(&own);
        sizes.push(json!({
            "instances": instances,
            "ratio": rounded(ratio),
            "in_process": own.json(instances),
            "in_worker": workers.json(instances),
        }));
    }
    let walls = there.walls().into_iter().filter_map(|state| state.missing).collect::<Vec<_>>();
    Ok(WORKER.measured(ratio, true, json!({ "by_instances": sizes, "walls_missing": walls })))
}

/// A policy with what it decides on.
struct Rig {
    policy: Arc<CompiledPolicy>,
    set: ScaleSet,
    params: String,
    limits: PolicyLimits,
    observations: Vec<Observation>,
    wanted_metrics: Vec<String>,
    instances: u32,
}

impl Rig {
    fn new(place: &Place, engine: &Engine, instances: u32) -> Result<Self> {
        let module = place.policies.join("target-tracking.wasm");
        let bytes = std::fs::read(&module).with_context(|| format!("cannot read {}", module.display()))?;
        let policy = engine.load(&bytes)?;
        let set = set(instances)?;
        let [spec] = set.policies.as_slice() else { bail!("the set has not one policy") };
        let (params, limits) = (spec.params.to_string(), spec.limits);
        let observations = SEEDS.map(|seed| observation(&set, instances, seed)).collect();
        let wanted_metrics = policy.wishes(&params).into_iter().map(|wish| wish.name).collect();
        Ok(Self { policy, set, params, limits, observations, wanted_metrics, instances })
    }

    /// One decision, and whether it scaled out.
    fn decide(&self, turn: usize) -> Result<(Cost, bool)> {
        let observation = Arc::new(self.observations[turn % self.observations.len()].clone());
        // What a tick hands over beside the observation is made before the clock starts.
        let wanted_metrics = self.wanted_metrics.clone();
        let facts = facts_of(&observation, self.instances);
        let start = Instant::now();
        let call = self.policy.decide(&observation, &self.params, &[], &self.limits);
        let decided = Instant::now();
        let input = TickInput {
            wall_ms: observation.now_ms,
            manifest: Digest::default(),
            observation: Arc::unwrap_or_clone(observation),
            changes: Vec::new(),
            operator: Vec::new(),
            facts,
            runs: vec![call.run],
            canaries: Vec::new(),
            shadows: Vec::new(),
            wanted_metrics,
        };
        let record = conclude(&self.set, input);
        let cost = Cost { total: start.elapsed(), call: call.times, conclude: decided.elapsed() };
        check(&record)?;
        Ok((cost, record.guards.granted > record.observation.desired))
    }
}

/// What the plan rests on: every instance is in service on the only node, which has capacity for as many again.
fn facts_of(observation: &Observation, instances: u32) -> PlanFacts {
    let count = observation.instances.len();
    let placement = Placement::default();
    PlanFacts {
        next_id: instances + 1,
        lived_ms: 3_600_000,
        phase: vec![Phase::InService; count],
        phase_since_ms: vec![900; count],
        placement: std::iter::repeat_n(&placement, count).collect(),
        nodes: vec![NodeCapacity { placement, launches: instances, why: None }],
        ..PlanFacts::default()
    }
}

/// A decision that failed would be fast and worth nothing.
fn check(record: &TickRecord) -> Result<()> {
    let run = record.runs.first().context("no run")?;
    let decision = run.result.as_ref().map_err(|failure| anyhow::anyhow!("{failure:?}"))?;
    ensure!(!decision.reasons.is_empty(), "no reason given");
    let created = record.plan.actions.len() as u32;
    ensure!(
        record.guards.granted <= record.observation.desired || created > 0,
        "a scale-out to {} planned nothing",
        record.guards.granted
    );
    Ok(())
}
