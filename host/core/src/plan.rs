//! From what is to what should be: the actions of one tick.
//!
//! Level-triggered: the plan is made anew from the present state each tick, and
//! the next tick is the retry. Nothing here remembers what an earlier plan said.

use serde::{Deserialize, Serialize};

use crate::manifest::Repair;
use crate::node::Placement;
use crate::phase::Phase;
use crate::record::NodeCapacity;

/// Creates per tick at most, so that one decision cannot flood the host.
pub const CREATES_PER_TICK_MAX: usize = 1_000;

/// What the planner knows of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedInstance {
    /// Ordinal within the set.
    pub id: u32,
    /// Phase of its life.
    pub phase: Phase,
    /// For how long, milliseconds.
    pub in_phase_ms: u64,
    /// Where it runs.
    pub placement: Placement,
    /// Generation of the manifest that it was made from.
    pub generation: u64,
    /// Protected from scale-in.
    pub protected: bool,
    /// Draining, and no connection is left.
    pub drained: bool,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// All instances that are not gone.
    pub instances: &'a [PlannedInstance],
    /// The granted capacity.
    pub capacity: u32,
    /// Preferred victims, best first.
    pub victims: &'a [u32],
    /// Generation of the manifest in force.
    pub generation: u64,
    /// The first id that was never used.
    pub next_id: u32,
    /// How broken instances are replaced.
    pub repair: Repair,
    /// How long a draining instance may finish its connections.
    pub drain_timeout_ms: u64,
    /// No launch for so long, milliseconds; 0 when launches may begin now.
    pub launches_resume_in_ms: u64,
    /// What each node has capacity for.
    pub nodes: &'a [NodeCapacity],
    /// Why no launch may begin now, if so.
    pub hold: Option<&'a str>,
}

/// What shall be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The actions, in order.
    pub actions: Vec<Action>,
    /// Why something that one might expect is not among them.
    pub notes: Vec<PlanNote>,
    /// What the host is short of, when that keeps instances from being made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
}

/// One thing to do. All are idempotent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case")]
pub enum Action {
    /// Make a new instance.
    Create {
        /// Its id.
        id: u32,
        /// Why.
        #[serde(default)]
        cause: CreateCause,
        /// Generation of the manifest that it is made from; 0 in records of version 1.
        #[serde(default)]
        generation: u64,
        /// Where.
        #[serde(default, flatten)]
        placement: Placement,
    },
    /// Take it out of traffic.
    Drain {
        /// Its id.
        id: u32,
        /// Why.
        cause: RemovalCause,
    },
    /// Stop and remove it.
    Terminate {
        /// Its id.
        id: u32,
        /// Why.
        cause: RemovalCause,
    },
}

/// Why an instance is made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CreateCause {
    /// There are fewer than wanted.
    #[default]
    ScaleOut,
    /// In the stead of one that failed or is unhealthy.
    Replacement,
}

/// Why something that one might expect is not in the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PlanNote {
    /// As records of version 1 have it.
    Text(String),
}

impl std::fmt::Display for PlanNote {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// Why an instance goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RemovalCause {
    /// There are more than wanted.
    ScaleIn,
    /// It was unhealthy for longer than the grace period.
    Unhealthy,
    /// Its launch failed or its VMM ended.
    Failed,
    /// It has finished its connections.
    Drained,
    /// It had its time to finish them.
    DrainTimeout,
}

impl RemovalCause {
    /// The cause as users read it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ScaleIn => "scale-in",
            Self::Unhealthy => "unhealthy",
            Self::Failed => "failed",
            Self::Drained => "drained",
            Self::DrainTimeout => "drain timeout",
        }
    }
}

/// Makes the plan of one tick.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut plan = Plan::default();
    remove_failed(input, &mut plan);
    finish_drains(input, &mut plan);
    let repaired = repair(input, &mut plan);
    size(input, &repaired, &mut plan);
    plan
}

fn remove_failed(input: &PlanInput<'_>, plan: &mut Plan) {
    let failed = input.instances.iter().filter(|i| matches!(i.phase, Phase::Failed | Phase::Refused));
    plan.actions.extend(failed.map(|i| Action::Terminate { id: i.id, cause: RemovalCause::Failed }));
}

fn finish_drains(input: &PlanInput<'_>, plan: &mut Plan) {
    for instance in input.instances.iter().filter(|i| i.phase == Phase::Draining) {
        let cause = if instance.drained {
            RemovalCause::Drained
        } else if instance.in_phase_ms >= input.drain_timeout_ms {
            RemovalCause::DrainTimeout
        } else {
            continue;
        };
        plan.actions.push(Action::Terminate { id: instance.id, cause });
    }
}

/// Removes unhealthy instances, few at a time; [`size`] makes their replacements.
fn repair(input: &PlanInput<'_>, plan: &mut Plan) -> Vec<u32> {
    let due = |i: &&PlannedInstance| i.phase == Phase::Unhealthy && i.in_phase_ms >= input.repair.grace_ms;
    let mut due: Vec<_> = input.instances.iter().filter(due).collect();
    if due.is_empty() {
        return Vec::new();
    }
    if !input.repair.enabled {
        plan.notes.push(note(format!("{} unhealthy: repair is off", due.len())));
        return Vec::new();
    }
    // One share of the set at a time: a repair that is still going on (its
    // replacement is warming) uses up the share.
    let share = (u64::from(input.capacity) * u64::from(input.repair.max_percent) / 100).max(1);
    let warming = input.instances.iter().filter(|i| i.phase.is_warming()).count() as u64;
    let room = usize::try_from(share.saturating_sub(warming)).unwrap_or(usize::MAX);
    due.sort_by_key(|i| (std::cmp::Reverse(i.in_phase_ms), i.id));
    if due.len() > room {
        plan.notes
            .push(note(format!("{} unhealthy, {room} repaired now: at most {share} at a time", due.len())));
    }
    let repaired: Vec<u32> = due.iter().take(room).map(|i| i.id).collect();
    plan.actions.extend(repaired.iter().map(|&id| Action::Terminate { id, cause: RemovalCause::Unhealthy }));
    repaired
}

fn size(input: &PlanInput<'_>, repaired: &[u32], plan: &mut Plan) {
    let counted: Vec<_> = input
        .instances
        .iter()
        .filter(|i| i.phase.counts_as_capacity() && !repaired.contains(&i.id))
        .collect();
    let capacity = input.capacity as usize;
    if counted.len() < capacity {
        create(input, capacity - counted.len(), plan);
    } else if counted.len() > capacity {
        shrink(input, counted.len() - capacity, counted, plan);
    }
}

fn create(input: &PlanInput<'_>, missing: usize, plan: &mut Plan) {
    if input.launches_resume_in_ms > 0 {
        plan.notes.push(note(format!(
            "{missing} missing: launches failed, the next try is in {} ms",
            input.launches_resume_in_ms
        )));
        return;
    }
    if let Some(hold) = input.hold {
        plan.notes.push(note(format!("{missing} missing: {hold}")));
        return;
    }
    let mut now = missing.min(CREATES_PER_TICK_MAX);
    let room: usize = input.nodes.iter().map(|node| node.launches as usize).sum();
    if let Some(why) = input.nodes.iter().find_map(|node| node.why.clone())
        && room < now
    {
        now = room;
        plan.notes.push(note(format!("{} missing: {why}", missing - now)));
        plan.short = Some(why);
    } else if now < missing {
        plan.notes.push(note(format!("{missing} missing, {now} created now: the rest follows next tick")));
    }
    let placement = input.nodes.first().map(|node| node.placement.clone()).unwrap_or_default();
    let ids = (input.next_id..u32::MAX).take(now);
    plan.actions.extend(ids.map(|id| Action::Create {
        id,
        cause: CreateCause::ScaleOut,
        generation: input.generation,
        placement: placement.clone(),
    }));
}

fn note(text: String) -> PlanNote {
    PlanNote::Text(text)
}

fn shrink(input: &PlanInput<'_>, surplus: usize, counted: Vec<&PlannedInstance>, plan: &mut Plan) {
    let (protected, mut candidates): (Vec<_>, Vec<_>) = counted.into_iter().partition(|i| i.protected);
    if candidates.len() < surplus {
        plan.notes.push(note(format!(
            "{} too many stay: {} protected from scale-in",
            surplus - candidates.len(),
            protected.len()
        )));
    }
    candidates.sort_by_key(|i| victim_rank(input, i));
    for instance in candidates.into_iter().take(surplus) {
        let (id, cause) = (instance.id, RemovalCause::ScaleIn);
        plan.actions.push(if instance.phase.is_warming() {
            Action::Terminate { id, cause }
        } else {
            Action::Drain { id, cause }
        });
    }
}

/// The order in which instances are given up, least loss first: those not in
/// service (the least advanced first), unhealthy ones, the policy's preferred
/// victims, outdated ones, then the newest.
fn victim_rank(input: &PlanInput<'_>, instance: &PlannedInstance) -> impl Ord + use<> {
    let service = match instance.phase {
        Phase::Pending => 0,
        Phase::Creating => 1,
        Phase::Booting => 2,
        Phase::Initializing => 3,
        Phase::Unhealthy => 4,
        _ => 5,
    };
    let preferred = input.victims.iter().position(|&id| id == instance.id).unwrap_or(usize::MAX);
    let up_to_date = instance.generation >= input.generation;
    (service, preferred, up_to_date, std::cmp::Reverse(instance.id))
}

/// How long launches wait after failures in a row: 1 s, doubling up to 1 min.
#[must_use]
pub fn launch_backoff_ms(failures_in_a_row: u32) -> u64 {
    match failures_in_a_row {
        0 => 0,
        n => 1_000u64.saturating_mul(1 << (n - 1).min(6)).min(60_000),
    }
}
