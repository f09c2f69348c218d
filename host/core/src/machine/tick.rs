//! One tick: observe, ask, conclude, and store what shall be done before it is done.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::balancer::BalancerFull;
use crate::canary;
use crate::decision::PolicyRun;
use crate::digest::Digest;
use crate::manifest::PolicyLimits;
use crate::mutant::{self, Mutant};
use crate::node::Placements;
use crate::observation::Observation;
use crate::phase::{InstanceEvent, Phase};
use crate::plan::{Action, has_helped, replaced};
use crate::record::{CanaryRun, InstanceChange, NodeCapacity, PlanFacts, TickRecord};
use crate::requested::Requested;
use crate::set_process::SetProcess;
use crate::state::{InstanceRecord, Moment, SetState, instance_uid};
use crate::tick::{TickInput, conclude};
use crate::upgrade::Upgrade;

use super::{Answer, Ask, Busy, Effect, SetMachine, TickFacts, TrafficReading, recordable, shadows};

/// A tick while its policies decide.
#[derive(Debug)]
pub(super) struct Frozen {
    pub(super) observation: Arc<Observation>,
    at: Moment,
    facts: PlanFacts,
    /// For each ask, how far a canary may be away; none for an active policy.
    within: Vec<Option<u32>>,
}

/// What a tick is about to make true.
#[derive(Debug)]
pub(super) struct Intent {
    pub(super) record: Arc<TickRecord>,
    pub(super) state: SetState,
    /// Instances as they will be, and how they came to be so; no change for new ones.
    pub(super) instances: Vec<(InstanceRecord, Option<InstanceChange>)>,
    /// The set is removed with this batch.
    pub(super) removed: bool,
}

impl SetMachine {
    pub(super) fn on_tick(&mut self, mut facts: TickFacts, effects: &mut Vec<Effect>) {
        if !self.listening && self.manifest.load_balancer.is_some() && !self.state.deleting {
            // Whoever holds the address may let go of it.
            effects.push(Effect::Listen(self.manifest.load_balancer.clone()));
        }
        effects.push(Effect::Snapshot(self.wanted_snapshot()));
        self.give_up_slow_boots(&facts);
        let balancer_full = facts.traffic.as_ref().and_then(|traffic| self.balancer_full(traffic));
        facts.processes.sort_unstable_by_key(|reading| reading.id);
        self.sample(&facts.processes, facts.traffic.as_ref());
        let observation = Arc::new(self.observe());
        let (asks, within): (Vec<Ask>, Vec<Option<u32>>) = self.asks().into_iter().unzip();
        let frozen = Frozen {
            facts: self.facts(&observation, facts.traffic.as_ref(), facts.nodes, balancer_full),
            observation: Arc::clone(&observation),
            at: self.moment(),
            within,
        };
        if asks.is_empty() {
            return self.decided(frozen, Vec::new(), effects);
        }
        self.busy = Busy::Deciding(Box::new(frozen));
        effects.push(Effect::Ask { observation, asks });
    }

    pub(super) fn on_decided(&mut self, tick: u64, answers: Vec<Answer>, effects: &mut Vec<Effect>) {
        match std::mem::replace(&mut self.busy, Busy::Idle) {
            Busy::Deciding(frozen)
                if (frozen.observation.tick == tick || mutant::is(Mutant::LateDecisionApplied))
                    && frozen.within.len() == answers.len() =>
            {
                self.decided(*frozen, answers, effects);
            }
            // An answer that comes twice, or too late.
            other => self.busy = other,
        }
    }

    fn decided(&mut self, frozen: Frozen, mut answers: Vec<Answer>, effects: &mut Vec<Effect>) {
        recordable::refuse_unrecordable(&mut answers);
        let (mut runs, mut canaries, mut states) = (Vec::new(), Vec::new(), Vec::new());
        for (Answer { number, run, state }, within) in answers.into_iter().zip(&frozen.within) {
            states.extend(state.map(|state| (number, state)));
            match *within {
                Some(within) => canaries.push(CanaryRun { within, run }),
                None => runs.push(run),
            }
        }
        if mutant::is(Mutant::ApplyShadow)
            && let (Some(shadow), Some(run)) = (self.shadows.waiting.last(), runs.first_mut())
        {
            *run = shadow.run.clone();
        }
        let input = TickInput {
            wall_ms: frozen.at.wall_ms,
            manifest: if mutant::is(Mutant::WrongManifest) {
                Digest::default()
            } else {
                self.manifest_digest.clone()
            },
            observation: Arc::unwrap_or_clone(frozen.observation),
            changes: self.changes.clone(),
            operator: self.operator.clone(),
            facts: frozen.facts,
            runs,
            canaries,
            shadows: self.shadows.waiting.clone(),
            wanted_metrics: self.wanted_metrics(),
        };
        let mut record = conclude(&self.manifest, input);
        if mutant::is(Mutant::LoseFacts) {
            record.facts.nodes.clear();
        }
        let intent = self.intend(Arc::new(record), frozen.at, &states);
        if mutant::is(Mutant::ActBeforeCommit) {
            return self.act(intent, effects);
        }
        effects.push(Effect::Commit(Box::new(self.batch_of(&intent))));
        self.busy = Busy::Storing(Box::new(intent));
    }

    /// Every policy that acts, and how far a canary may be away from its active policy.
    fn asks(&self) -> Vec<(Ask, Option<u32>)> {
        if self.state.deleting || self.state.suspended.contains(&SetProcess::Policy) {
            return Vec::new();
        }
        let slots = self.state.policies.iter().flat_map(|slot| {
            let limits = self.limits_of(&slot.name);
            let ask = move |activation: &crate::state::PolicyActivation| Ask {
                slot: slot.name.clone(),
                activation: activation.clone(),
                limits,
            };
            let canary = slot.canary.as_ref().map(|canary| (ask(&canary.activation), Some(canary.within)));
            std::iter::once((ask(&slot.active), None)).chain(canary)
        });
        slots.collect()
    }

    /// What a decision for that slot may cost.
    pub(super) fn limits_of(&self, slot: &str) -> PolicyLimits {
        let spec = self.state.set.policies.iter().find(|spec| spec.name == slot);
        spec.map_or_else(PolicyLimits::default, |spec| spec.limits)
    }

    /// Names of the metrics that the policies which act ask for, each once.
    fn wanted_metrics(&self) -> Vec<String> {
        let mut wanted: Vec<String> = Vec::new();
        for slot in &self.state.policies {
            let canary = slot.canary.as_ref().map(|canary| &canary.activation);
            for wish in std::iter::once(&slot.active).chain(canary).flat_map(|it| &it.wishes) {
                if !wanted.contains(&wish.name) {
                    wanted.push(wish.name.clone());
                }
            }
        }
        wanted
    }

    /// All that the plan may rest on and use.
    fn facts(
        &self,
        observation: &Observation,
        traffic: Option<&TrafficReading>,
        nodes: Vec<NodeCapacity>,
        balancer_full: Option<BalancerFull>,
    ) -> PlanFacts {
        // What a load balancer does not list has no connection; without one nobody has any.
        let open = |id: u32| traffic.and_then(|traffic| traffic.open.get(&id)).copied().unwrap_or(0);
        let launches = self.launches(self.clock.lived_ms);
        let rows = observation.instances.len();
        let mut facts = PlanFacts {
            drained: Vec::new(),
            protected_from_actions: Vec::new(),
            requested: Vec::new(),
            repaired: Vec::new(),
            repair_memory: self.state.repair,
            // A set that is deleted goes whatever is suspended.
            suspended: if self.state.deleting { BTreeSet::new() } else { self.state.suspended.clone() },
            next_id: self.state.next_instance_id
                - u32::from(mutant::is(Mutant::ReuseId) && self.state.next_instance_id > 3),
            launches_resume_ms: if mutant::is(Mutant::NoBackoff) { 0 } else { launches.resume_ms },
            back_off: launches.back_off(),
            deleting: self.state.deleting,
            hold: self.snapshot_hold().map(Into::into),
            lived_ms: self.clock.lived_ms,
            resumed_ms: self.resumed_ms,
            phase: Vec::with_capacity(rows),
            phase_since_ms: Vec::with_capacity(rows),
            placement: Placements::default(),
            nodes,
            guard_memory: self.state.guard_memory.clone(),
            changed_ms: self.state.changed_ms,
            metric_gaps: self.metric_gaps(observation),
            upgrade: self.upgrade_facts(),
            balancer_full,
            in_force: self.in_force().recorded(),
        };
        for record in self.living() {
            facts.phase.push(record.phase);
            facts.phase_since_ms.push(self.phase_since(record));
            facts.placement.push(&record.placement);
            facts.repaired.extend(record.repaired.then_some(record.id));
            facts.requested.extend(record.requested.map(|requested| (record.id, requested)));
            if record.protection.from_actions() {
                facts.protected_from_actions.push(record.id);
            }
            if record.phase == Phase::Draining && (open(record.id) == 0 || mutant::is(Mutant::ForgetDrain)) {
                facts.drained.push(record.id);
            }
        }
        facts
    }

    /// Since when it is in its phase, on the set's own clock.
    fn phase_since(&self, record: &InstanceRecord) -> u64 {
        let on_wall_clock = mutant::is(Mutant::DrainOnWallClock) && record.phase == Phase::Draining;
        let at_once = mutant::is(Mutant::RepairAtOnce) && record.phase == Phase::Unhealthy;
        match (on_wall_clock, at_once) {
            (true, _) => {
                self.clock.lived_ms.saturating_sub(self.now.wall_ms.saturating_sub(record.phase_since_ms))
            }
            (_, true) => 0,
            _ => record.phase_since_lived_ms,
        }
    }

    /// Works out what the record's plan makes of state and instances, without touching either.
    fn intend(&self, record: Arc<TickRecord>, at: Moment, policy_states: &[(u64, String)]) -> Intent {
        let mut state = self.state.clone();
        state.desired = record.guards.granted;
        state.last_tick = record.observation.tick - u64::from(mutant::is(Mutant::ReuseTick));
        state.guard_memory = record.guards.memory.clone();
        state.repair = record.plan.repair_memory;
        state.clock = self.clock;
        state.sizing = state.sizing.at(record.facts.lived_ms);
        state.sizing.begun.retain(|name, _| state.set.schedules.iter().any(|entry| entry.name == *name));
        let begins = record.facts.in_force.begins.iter();
        state.sizing.begun.extend(begins.map(|it| (it.entry.clone(), it.start_ms)));
        for slot in &mut state.policies {
            let canary = slot.canary.as_mut().map(|canary| &mut canary.activation);
            for activation in std::iter::once(&mut slot.active).chain(canary) {
                let new = policy_states.iter().find(|(number, _)| *number == activation.number);
                if let Some((_, new)) = new {
                    activation.state.clone_from(new);
                }
            }
            // A canary that failed is not given another tick.
            if canary::failed(&record.canaries).any(|(run, _): (&PolicyRun, _)| run.slot == slot.name) {
                slot.canary = None;
            }
        }
        shadows::note(&record.shadows, &mut state.shadows);
        self.launches(record.facts.lived_ms).note_in(&mut state);
        if let Some(upgrade) = record.plan.upgrade.clone() {
            let ended_ms = upgrade.status.has_ended().then_some(at.wall_ms);
            state.upgrade = Some(Upgrade { ended_ms, ..upgrade });
        }
        self.prune_manifests(&mut state);

        let mut instances = Vec::new();
        let mut replaced = replaced(record.facts.repair_memory.owed, &record.plan);
        for action in &record.plan.actions {
            match action {
                Action::Create { id, generation, placement, .. } => {
                    state.next_instance_id = state.next_instance_id.max(id + 1);
                    let old = u64::from(mutant::is(Mutant::OldGeneration) && *generation > 1);
                    let mut instance = InstanceRecord::pending(*id, at, *generation - old);
                    instance.uid = instance_uid(state.incarnation, *id);
                    instance.placement = placement.clone();
                    instance.epoch = state.epoch;
                    instance.repaired = replaced > 0;
                    replaced = replaced.saturating_sub(1);
                    instances.push((instance, None));
                }
                Action::Drain { id, .. } => {
                    instances.extend(self.staged(*id, InstanceEvent::DrainRequested, at));
                }
                Action::Restart { id } => {
                    let Some(instance) = self.instances.get(id) else { continue };
                    let mut record = instance.record.clone();
                    // Another order only when the one before is carried out.
                    if record.requested != Some(Requested::Restarting) {
                        record.repaired |= record.requested.is_none();
                        record.requested = Some(Requested::Restarting);
                        record.restarts += 1;
                    }
                    instances.push((record, None));
                }
                Action::Terminate { id, .. } => {
                    instances.extend(self.staged(*id, InstanceEvent::TerminateRequested, at));
                }
            }
        }
        instances.extend(self.helped(&record).map(|helped| (helped, None)));
        let nothing_left = self.instances.values().all(|instance| instance.record.phase == Phase::Gone);
        let removed = state.deleting && nothing_left && instances.is_empty() && self.snapshot_is_idle();
        Intent { record, state, instances, removed }
    }

    /// What repairs made and has served long enough since, unless the plan names it.
    fn helped<'a>(&'a self, record: &'a TickRecord) -> impl Iterator<Item = InstanceRecord> + 'a {
        let helped = |it: &&InstanceRecord| {
            it.repaired && has_helped(it.phase, record.facts.lived_ms.saturating_sub(it.phase_since_lived_ms))
        };
        let named = |id| record.plan.actions.iter().any(|action| action.id() == id);
        let helped = self.living().filter(helped).filter(move |it| !named(it.id));
        helped.map(|it| InstanceRecord { repaired: false, ..it.clone() })
    }

    fn staged(
        &self,
        id: u32,
        event: InstanceEvent,
        at: Moment,
    ) -> Option<(InstanceRecord, Option<InstanceChange>)> {
        let mut record = self.instances.get(&id)?.record.clone();
        let detail = record.detail.clone();
        let change = record.meet(event, at, detail).ok()??;
        Some((record, Some(change)))
    }

    fn snapshot_is_idle(&self) -> bool {
        !matches!(self.snapshot, super::SnapshotStatus::Making { .. })
    }
}
