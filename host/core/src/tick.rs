//! One turn of a scale set's loop, after the policies have run: combine, guard,
//! plan. Pure, so that a replay of a record gives the record again.

use crate::canary;
use crate::combine::{Combined, combine};
use crate::decision::{PolicyRun, Reason};
use crate::digest::Digest;
use crate::guard::{GuardContext, GuardName, GuardTrail, guards_of, judge, metrics_without_data};
use crate::manifest::ScaleSet;
use crate::metric::MetricValue;
use crate::metrics::CONNECTIONS;
use crate::mutant::{self, Mutant};
use crate::node::Placement;
use crate::observation::{InstanceRow, LastDecision, Observation};
use crate::phase::Phase;
use crate::plan::{PlanInput, PlannedInstance, UpgradeInput, plan};
use crate::protection::Protection;
use crate::record::{CanaryRun, InstanceChange, PlanFacts, RECORD_VERSION, ShadowRun, TickRecord};
use crate::requested::Requested;
use crate::set_process::SetProcess;
use regatta_util::Said;

/// What a tick knows once its policies have run.
#[derive(Debug, Clone)]
pub struct TickInput {
    /// Wall clock, Unix milliseconds.
    pub wall_ms: u64,
    /// SHA-256 of the manifest in force, as JSON.
    pub manifest: Digest,
    /// The frozen input of the policies.
    pub observation: Observation,
    /// What happened to instances since the last tick.
    pub changes: Vec<InstanceChange>,
    /// What an operator did since the last tick.
    pub operator: Vec<Said>,
    /// What the plan rests on beside the observation.
    pub facts: PlanFacts,
    /// The runs of the active policies.
    pub runs: Vec<PolicyRun>,
    /// The runs of policies on trial.
    pub canaries: Vec<CanaryRun>,
    /// What shadows said of earlier ticks, since the last record.
    pub shadows: Vec<ShadowRun>,
    /// Names of the metrics that the active policies want.
    pub wanted_metrics: Vec<String>,
}

/// Combines, guards and plans.
#[must_use]
pub fn conclude(set: &ScaleSet, input: TickInput) -> TickRecord {
    let TickInput {
        wall_ms,
        manifest,
        observation,
        changes,
        operator,
        facts,
        runs,
        canaries,
        shadows,
        wanted_metrics,
    } = input;
    let combined = match canaries.is_empty() {
        _ if facts.suspended.contains(&SetProcess::Policy) => keeps_capacity(observation.desired),
        true => combine(set.combine, observation.desired, &runs),
        false => {
            combine(set.combine, observation.desired, &canary::acting(&runs, &canaries, observation.desired))
        }
    };
    let combined = mutated(combined, &canaries);
    let guards = if facts.deleting {
        deletion(&combined)
    } else {
        let metrics_without_data = metrics_without_data(&observation, &wanted_metrics, set.guards.warm_up_ms);
        let context = GuardContext {
            observation: &observation,
            metrics_without_data: &metrics_without_data,
            lived_ms: facts.lived_ms,
            resumed_ms: facts.resumed_ms,
            memory: &facts.guard_memory,
            in_force: &facts.in_force,
            wall_ms,
        };
        judge(&set.guards, &guards_of(&set.guards), &context, &combined)
    };
    let guards = match mutant::is(Mutant::IgnoreLimits) && !facts.deleting {
        true => GuardTrail { granted: combined.capacity.unwrap_or(guards.granted).min(100), ..guards },
        false => guards,
    };
    let nowhere = Placement::default();
    let instances = planned_instances(&observation, &facts, &nowhere);
    let failed: Vec<u32> =
        changes.iter().filter(|change| change.is_failure()).map(|change| change.id).collect();
    let plan = plan(&PlanInput {
        instances: &instances,
        capacity: to_be(&facts, guards.granted).saturating_sub(warming_twice(&facts)),
        victims: &combined.victims,
        scale_in_order: set.scale_in.order,
        generation: observation.generation,
        next_id: facts.next_id,
        repair: set.repair,
        repair_memory: facts.repair_memory,
        since_change_ms: facts.changed_ms.map(|changed| facts.lived_ms.saturating_sub(changed)),
        drain_timeout_ms: set.load_balancer.as_ref().map_or(0, |lb| lb.drain.timeout_ms),
        launches_resume_in_ms: facts.launches_resume_ms.saturating_sub(facts.lived_ms),
        one_at_a_time: facts.back_off.is_some(),
        suspended: &facts.suspended,
        nodes: &facts.nodes,
        hold: facts.hold.as_deref(),
        budget: guards.budget(),
        upgrade: facts.upgrade.as_ref().map(|it| UpgradeInput {
            upgrade: &it.upgrade,
            current: &it.current,
            failed: &failed,
            policy: &set.upgrade,
            lived_ms: facts.lived_ms,
        }),
    });
    TickRecord {
        v: RECORD_VERSION,
        wall_ms,
        manifest,
        wanted_metrics,
        observation,
        changes,
        operator,
        facts,
        runs,
        canaries,
        shadows,
        combined,
        guards,
        plan,
    }
}

/// Joins the columns of the observation and those of the facts. `nowhere` is where an instance is whose placement is not
/// known.
fn planned_instances<'a>(
    observation: &Observation,
    facts: &'a PlanFacts,
    nowhere: &'a Placement,
) -> Vec<PlannedInstance<'a>> {
    let rows = observation.instances.rows().enumerate();
    let open = observation.metric(CONNECTIONS).map_or(&[][..], |metric| &metric.values);
    let planned = |(index, row): (usize, InstanceRow)| {
        let phase = facts.phase.get(index).copied().unwrap_or(Phase::Gone);
        PlannedInstance {
            id: row.id,
            phase,
            in_phase_ms: facts
                .phase_since_ms
                .get(index)
                .map_or(0, |since| facts.lived_ms.saturating_sub(*since)),
            placement: facts.placement.get(index).unwrap_or(nowhere),
            generation: row.generation,
            protection: protection(&row, facts),
            repaired: facts.repaired.contains(&row.id),
            requested: requested(row.id, facts),
            drained: phase == Phase::Draining && facts.drained.contains(&row.id),
            connections: open.get(index).map_or(0, connections),
        }
    };
    rows.map(planned).collect()
}

/// What an instance is protected from while its set stays.
fn protection(row: &InstanceRow, facts: &PlanFacts) -> Protection {
    let all = facts.protected_from_actions.contains(&row.id) && !mutant::is(Mutant::IgnoreFullProtection);
    match row.protected && !facts.deleting && !mutant::is(Mutant::IgnoreProtection) {
        true if all => Protection::All,
        true => Protection::ScaleIn,
        false => Protection::None,
    }
}

/// What is asked for an instance while its set stays.
fn requested(id: u32, facts: &PlanFacts) -> Option<Requested> {
    let found = facts.requested.iter().find(|(of, _)| *of == id);
    found.filter(|_| !facts.deleting && !mutant::is(Mutant::ForgetRequest)).map(|(_, requested)| *requested)
}

/// Open connections as a tick reads them; one that the load balancer does not list has none.
fn connections(open: &MetricValue) -> u32 {
    match *open {
        MetricValue::Fresh(open) | MetricValue::Stale { value: open, .. } => open as u32,
        MetricValue::Missing => 0,
    }
}

/// The decision as it is, unless a fault is seeded here.
fn mutated(combined: Combined, canaries: &[CanaryRun]) -> Combined {
    let unbounded = canaries.first().and_then(|it| it.run.result.as_ref().ok()).map(|it| it.capacity);
    match (combined.capacity, unbounded) {
        (None, _) if mutant::is(Mutant::ScaleInOnFailure) => Combined { capacity: Some(0), ..combined },
        (_, Some(_)) if mutant::is(Mutant::CanaryUnbounded) => Combined { capacity: unbounded, ..combined },
        _ => combined,
    }
}

/// How many instances the plan works towards: while nothing may be removed, not fewer than there are.
fn to_be(facts: &PlanFacts, granted: u32) -> u32 {
    let there = facts.phase.iter().filter(|phase| phase.counts_as_capacity()).count();
    match facts.in_force.is_frozen() && !facts.deleting {
        true => granted.max(u32::try_from(there).unwrap_or(u32::MAX)),
        false => granted,
    }
}

/// How many instances too many are counted: none.
fn warming_twice(facts: &PlanFacts) -> u32 {
    let warming =
        facts.phase.iter().filter(|phase| mutant::is(Mutant::WarmingCountsTwice) && phase.is_warming());
    u32::try_from(warming.count()).unwrap_or(u32::MAX)
}

fn deletion(combined: &Combined) -> GuardTrail {
    let mut trail = GuardTrail::default();
    let text = "the set is being deleted".to_owned();
    let reason = Reason { code: "set-deleted".into(), text: text.into(), evidence: Vec::new() };
    trail.step(GuardName::Delete, combined.capacity, 0, reason);
    trail
}

/// What takes the place of a decision while the policies are suspended.
fn keeps_capacity(desired: u32) -> Combined {
    let text = "process policy is suspended: keeping the capacity".to_owned();
    let reason = Reason { code: "policy-suspended".into(), text: text.into(), evidence: Vec::new() };
    Combined { capacity: Some(desired), reasons: vec![reason], ..Combined::default() }
}

/// What the next tick's policies may know of this one.
#[must_use]
pub fn last_decision(record: &TickRecord) -> LastDecision {
    let mut narrowed_by: Vec<String> =
        record.guards.steps.iter().map(|step| step.guard.to_string()).collect();
    narrowed_by.dedup();
    LastDecision {
        tick: record.observation.tick,
        wanted: record.combined.capacity,
        granted: record.guards.granted,
        reasons: record.combined.reasons.clone(),
        narrowed_by,
    }
}

impl TickRecord {
    /// What the tick knew when it was concluded: [`conclude`] with the same manifest gives this record again.
    #[must_use]
    pub fn input(&self) -> TickInput {
        TickInput {
            wall_ms: self.wall_ms,
            manifest: self.manifest.clone(),
            observation: self.observation.clone(),
            changes: self.changes.clone(),
            operator: self.operator.clone(),
            facts: self.facts.clone(),
            runs: self.runs.clone(),
            canaries: self.canaries.clone(),
            shadows: self.shadows.clone(),
            wanted_metrics: self.wanted_metrics.clone(),
        }
    }
}
