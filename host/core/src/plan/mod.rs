//! From what is to what should be: the actions of one tick.
//!
//! Level-triggered: each tick plans anew from the present state, and the next tick is the retry. Nothing here
//! remembers what an earlier plan said.

mod action;
mod budget;
mod create;
mod draft;
mod drains;
mod failed;
mod in_vain;
mod note;
mod order;
mod placement;
mod repair;
mod requests;
mod shrink;
#[cfg(test)]
mod testing;
mod upgrade;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

pub use self::action::{Action, CreateCause, RemovalCause};
pub use self::budget::{Budget, CREATES_PER_TICK_MAX};
pub use self::in_vain::{HELPED_AFTER_MS, IN_VAIN_MAX, RepairMemory, has_helped, replaced};
pub use self::note::PlanNote;
pub use self::order::ScaleInOrder;
pub use self::upgrade::{UpgradeInput, upgrade_order};

use self::draft::Draft;
use crate::manifest::Repair;
use crate::mutant::{self, Mutant};
use crate::node::Placement;
use crate::phase::Phase;
use crate::protection::Protection;
use crate::record::NodeCapacity;
use crate::requested::Requested;
use crate::set_process::SetProcess;
use crate::upgrade::Upgrade;

/// What the planner knows of one instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlannedInstance<'a> {
    /// Ordinal within the set.
    pub id: u32,
    /// Phase of its life.
    pub phase: Phase,
    /// For how long, milliseconds.
    pub in_phase_ms: u64,
    /// Where it runs.
    pub placement: &'a Placement,
    /// Generation of the manifest that it was made from.
    pub generation: u64,
    /// What it is protected from.
    pub protection: Protection,
    /// A repair made or restarted it, and has not helped yet.
    pub repaired: bool,
    /// What is asked for it.
    pub requested: Option<Requested>,
    /// Draining, and no connection is left.
    pub drained: bool,
    /// Open connections at the load balancer.
    pub connections: u32,
}

/// Everything that a plan depends on.
#[derive(Debug, Clone)]
pub struct PlanInput<'a> {
    /// All instances that are not gone, each id once.
    pub instances: &'a [PlannedInstance<'a>],
    /// The granted capacity.
    pub capacity: u32,
    /// Preferred victims, best first.
    pub victims: &'a [u32],
    /// In which order surplus instances go.
    pub scale_in_order: ScaleInOrder,
    /// Generation of the manifest in force.
    pub generation: u64,
    /// The first id that was never used.
    pub next_id: u32,
    /// How broken instances are replaced.
    pub repair: Repair,
    /// What repair remembers.
    pub repair_memory: RepairMemory,
    /// How long ago the manifest replaced another, milliseconds; none when it is the first.
    pub since_change_ms: Option<u64>,
    /// How long a draining instance may finish its connections.
    pub drain_timeout_ms: u64,
    /// Time until launches may begin again, milliseconds; 0 when they may begin now.
    pub launches_resume_in_ms: u64,
    /// Launches back off: one at a time, until one has shown that it stays.
    pub one_at_a_time: bool,
    /// What the set does not do by itself.
    pub suspended: &'a BTreeSet<SetProcess>,
    /// What each node has capacity for. Instances are created on these nodes only.
    pub nodes: &'a [NodeCapacity],
    /// Why no launch may begin now, if so.
    pub hold: Option<&'a str>,
    /// What the guards allow at most; [`Budget::UNLIMITED`] leaves it to the set's own settings.
    pub budget: Budget,
    /// An upgrade that has not ended.
    pub upgrade: Option<UpgradeInput<'a>>,
}

impl PlanInput<'_> {
    fn is_suspended(&self, process: SetProcess) -> bool {
        let ignored = process == SetProcess::Terminate && mutant::is(Mutant::SuspendedTerminates)
            || process == SetProcess::Launch && mutant::is(Mutant::SuspendedLaunches);
        self.suspended.contains(&process) && !ignored
    }
}

/// What shall be done.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The actions, in order. Each instance is named at most once.
    pub actions: Vec<Action>,
    /// Why something that one might expect is not among them.
    pub notes: Vec<PlanNote>,
    /// What repair remembers after this tick.
    #[serde(default, skip_serializing_if = "RepairMemory::is_empty")]
    pub repair_memory: RepairMemory,
    /// What the hosts are short of, when that keeps instances from being created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short: Option<String>,
    /// The upgrade after this tick, if there was one that had not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<Upgrade>,
}

/// What one step did, and why not more.
#[derive(Debug, Default)]
struct Report {
    actions: Vec<Action>,
    notes: Vec<PlanNote>,
    short: Option<String>,
}

/// The steps, in order. Each sees only what earlier ones left, and all spend one budget.
const STEPS: [fn(&mut Draft<'_>) -> Report; 7] = [
    failed::remove,      // what is broken beyond repair
    drains::finish,      // what has finished its connections, or had its time to
    requests::carry_out, // what operators ask for single instances
    repair::remove,      // what has been unhealthy for too long, few at a time
    upgrade::replace,    // what is outdated, batch by batch
    create::missing,     // what is missing now, replacements included
    shrink::surplus,     // what is too many
];

/// Makes the plan of one tick.
#[must_use]
pub fn plan(input: &PlanInput<'_>) -> Plan {
    let mut draft = Draft::new(input);
    let mut plan = Plan::default();
    in_vain::begin(&mut draft);
    for step in STEPS {
        let report = step(&mut draft);
        plan.actions.extend(report.actions);
        plan.notes.extend(report.notes);
        plan.short = plan.short.or(report.short);
    }
    in_vain::end(&draft, &mut plan);
    plan.upgrade = draft.upgrade;
    plan
}
