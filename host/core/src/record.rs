//! The record of a tick: what was seen, wanted, allowed, planned and done.

use serde::{Deserialize, Serialize};

use crate::admission::Room;
use crate::combine::Combined;
use crate::decision::PolicyRun;
use crate::guard::GuardTrail;
use crate::instance_state::{InstanceEvent, InstanceState};
use crate::observation::Observation;
use crate::plan::Plan;

/// Version of the record's shape.
pub const RECORD_VERSION: u32 = 1;

/// Everything that one tick saw and did; enough to decide it again, bit for bit.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TickRecord {
    /// Version of this shape.
    pub v: u32,
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
    pub operator: Vec<String>,
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

/// What a plan rests on beside the observation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanFacts {
    /// Draining instances without an open connection.
    pub drained: Vec<u32>,
    /// The first instance id that was never used.
    pub next_id: u32,
    /// No launch before this time, Unix milliseconds; 0 for none.
    pub launches_resume_ms: u64,
    /// The set is being deleted: its capacity is zero, whatever anyone wants.
    pub deleting: bool,
    /// Where the host is short of room for all that the set may want.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub room: Option<Room>,
    /// Why no launch may begin now, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<String>,
}

/// An instance went from one state to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceChange {
    /// Which instance.
    pub id: u32,
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// What happened.
    pub event: InstanceEvent,
    /// From.
    pub from: InstanceState,
    /// To.
    pub to: InstanceState,
    /// What there is to say about it, for example the error of a launch.
    pub detail: Option<String>,
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

    /// Which way the tick moved the capacity.
    #[must_use]
    pub fn direction(&self) -> Direction {
        match self.guards.granted.cmp(&self.observation.desired) {
            std::cmp::Ordering::Greater => Direction::ScaleOut,
            std::cmp::Ordering::Less => Direction::ScaleIn,
            std::cmp::Ordering::Equal => Direction::None,
        }
    }
}
