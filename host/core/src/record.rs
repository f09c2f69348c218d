//! The record of a tick: what was seen, wanted, allowed, planned and done.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::back_off::BackOff;
use crate::balancer::BalancerFull;
use crate::combine::Combined;
use crate::decision::PolicyRun;
use crate::digest::Digest;
use crate::guard::{GuardMemory, GuardTrail};
use crate::metrics::MetricGap;
use crate::node::{Placement, Placements};
use crate::observation::Observation;
use crate::phase::{InstanceEvent, Phase};
use crate::plan::{Plan, RepairMemory};
use crate::requested::Requested;
use crate::set_process::SetProcess;
use crate::sizing::InForce;
use crate::upgrade::Upgrade;
use regatta_util::Said;

/// Version of the record's shape. Version 1 lacked what the plan rests on, so its ticks can be read but not decided again.
pub const RECORD_VERSION: u32 = 2;

/// Everything that one tick saw and did; enough to decide it again, bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickRecord {
    /// Version of this shape; see [`RECORD_VERSION`].
    pub v: u32,
    /// Wall clock of the tick, Unix milliseconds, for people: policies see the steadier clock of the observation.
    #[serde(default)]
    pub wall_ms: u64,
    /// SHA-256 of the manifest in force, as JSON; empty in version 1.
    #[serde(default)]
    pub manifest: Digest,
    /// Names of the metrics that the active policies want.
    #[serde(default)]
    pub wanted_metrics: Vec<String>,
    /// The frozen input.
    pub observation: Observation,
    /// What happened to instances since the last tick: the outcomes of earlier plans.
    pub changes: Vec<InstanceChange>,
    /// What the plan rests on beside the observation.
    pub facts: PlanFacts,
    /// The active policies, in the order of the manifest.
    pub runs: Vec<PolicyRun>,
    /// Policies on trial, each in the place of an active one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub canaries: Vec<CanaryRun>,
    /// What policies that are never applied said of earlier ticks, since the last record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shadows: Vec<ShadowRun>,
    /// What they want together.
    pub combined: Combined,
    /// What the guards made of it.
    pub guards: GuardTrail,
    /// What shall be done.
    pub plan: Plan,
    /// What an operator did to the set since the last tick, one line each.
    pub operator: Vec<Said>,
}

/// The run of a policy that acts within bounds, on trial; its place is that of its run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CanaryRun {
    /// How many instances it may be away from the active policy.
    pub within: u32,
    /// The run.
    pub run: PolicyRun,
}

/// The run of a policy that is judged and never applied.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShadowRun {
    /// The tick that it was given.
    pub tick: u64,
    /// Number of its activation.
    pub number: u64,
    /// The run.
    pub run: PolicyRun,
}

/// What a plan rests on beside the observation: all that it was allowed to use.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// Draining instances without an open connection.
    pub drained: Vec<u32>,
    /// Instances that are protected from all actions of the set.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub protected_from_actions: Vec<u32>,
    /// What is asked for single instances.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requested: Vec<(u32, Requested)>,
    /// Instances that a repair made or restarted, and that have not shown yet that it helped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<u32>,
    /// What repair remembers.
    #[serde(default, skip_serializing_if = "RepairMemory::is_empty")]
    pub repair_memory: RepairMemory,
    /// What the set does not do by itself.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub suspended: BTreeSet<SetProcess>,
    /// The first instance id that was never used.
    pub next_id: u32,
    /// No launch before this moment on the set's own clock, `lived_ms`; 0 for none.
    pub launches_resume_ms: u64,
    /// Why launches back off, if they do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub back_off: Option<BackOff>,
    /// The set is being deleted: its capacity is zero, whatever anyone wants.
    pub deleting: bool,
    /// Why no launch may begin now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Said>,
    /// How long daemons have run this set, milliseconds: durations of the plan are measured on this clock.
    #[serde(default)]
    pub lived_ms: u64,
    /// When the daemon last came back after it was away, on the clock of `lived_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_ms: Option<u64>,
    /// When the manifest replaced another, on the clock of `lived_ms`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_ms: Option<u64>,
    /// Phase of each instance, in the order of the observation's table.
    #[serde(default)]
    pub phase: Vec<Phase>,
    /// Since when it is in that phase, on the clock of `lived_ms`.
    #[serde(default)]
    pub phase_since_ms: Vec<u64>,
    /// Where each instance runs.
    #[serde(default)]
    pub placement: Placements,
    /// What each node has capacity for.
    #[serde(default)]
    pub nodes: Vec<NodeCapacity>,
    /// What the guards remembered before this tick.
    #[serde(default)]
    pub guard_memory: GuardMemory,
    /// Metrics that instances in service have no fresh value of, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metric_gaps: Vec<MetricGap>,
    /// An upgrade that has not ended, when the set is not being deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeFacts>,
    /// The load balancer has as many connections as it may have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub balancer_full: Option<BalancerFull>,
    /// What operators say about the size.
    #[serde(default, skip_serializing_if = "InForce::is_default")]
    pub in_force: InForce,
}

/// What a plan rests on when it goes on with an upgrade.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeFacts {
    /// As it was after the last tick.
    pub upgrade: Upgrade,
    /// Generations whose instances are up to date.
    pub current: Vec<u64>,
}

/// How many more instances of a set a node has capacity for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeCapacity {
    /// The node.
    #[serde(flatten)]
    pub placement: Placement,
    /// How many launches, at most as many as the set may ever want.
    pub launches: u32,
    /// Why no more, when that is less than the set may want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Said>,
}

/// An instance went from one phase to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChange {
    /// Which instance.
    pub id: u32,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub event: InstanceEvent,
    /// From.
    pub from: Phase,
    /// To.
    pub to: Phase,
    /// What there is to say about it, for example the error of a launch.
    pub detail: Option<Said>,
}

impl InstanceChange {
    /// The instance failed, and that says something about it: a launch that was cut off by the end of its daemon says nothing.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        let cut_off = self.from == Phase::Creating && self.event == InstanceEvent::VmmExited;
        self.to == Phase::Failed && !cut_off
    }
}

/// Which way a tick moved the capacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// More instances.
    ScaleOut,
    /// Fewer instances.
    ScaleIn,
    /// As before.
    None,
}

impl TickRecord {
    /// Every run that it holds: of active policies, of those on trial, of shadows.
    pub fn every_run(&self) -> impl Iterator<Item = &PolicyRun> {
        let canaries = self.canaries.iter().map(|canary| &canary.run);
        self.runs.iter().chain(canaries).chain(self.shadows.iter().map(|shadow| &shadow.run))
    }

    /// Wall clock of the tick, Unix milliseconds. Records of version 1 know only the time that policies saw.
    #[must_use]
    pub fn at_ms(&self) -> u64 {
        if self.wall_ms == 0 { self.observation.now_ms } else { self.wall_ms }
    }

    /// Which way the tick moved the capacity.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.guards.granted.cmp(&self.observation.desired) {
            std::cmp::Ordering::Greater => Direction::ScaleOut,
            std::cmp::Ordering::Less => Direction::ScaleIn,
            std::cmp::Ordering::Equal => Direction::None,
        }
    }

    /// Why the granted capacity is what it is, for people: the last guard that changed it, else the deciding policy.
    #[must_use]
    pub fn reason(&self) -> String {
        let guard = self.guards.steps.last().map(|step| format!("{}: {}", step.guard, step.reason.text));
        guard
            .or_else(|| self.combined.reasons.first().map(|reason| reason.text.clone()).map(Into::into))
            .unwrap_or_else(|| "the policy gave no reason".to_owned())
    }
}
