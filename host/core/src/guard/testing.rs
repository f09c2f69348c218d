//! What the tests of the guards start from.

use super::{GuardContext, GuardMemory};
use crate::observation::Observation;
use crate::sizing::InForce;

static EMPTY: GuardMemory = GuardMemory { wanted: Vec::new(), sizes: Vec::new(), changes: None };

static FREE: InForce = InForce::NONE;

/// A set without instances.
pub(super) fn observation(min: u32, max: u32, desired: u32) -> Observation {
    Observation {
        set: "web".into(),
        tick: 1,
        now_ms: 0,
        generation: 1,
        min,
        max,
        desired,
        instances: Default::default(),
        metrics: Vec::new(),
        last: None,
        schedule: Vec::new(),
    }
}

/// All data are there, and nothing is remembered.
pub(super) fn context(observation: &Observation) -> GuardContext<'_> {
    GuardContext {
        observation,
        metrics_without_data: &[],
        lived_ms: 0,
        wall_ms: 0,
        resumed_ms: None,
        memory: &EMPTY,
        in_force: &FREE,
    }
}
