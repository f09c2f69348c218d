//! What the tests of the steps start from.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use super::{Budget, PlanInput, PlannedInstance, ScaleInOrder};
use crate::manifest::Repair;
use crate::node::Placement;
use crate::phase::Phase;
use crate::protection::Protection;
use crate::record::NodeCapacity;
use crate::set_process::SetProcess;

static LOCAL: LazyLock<[NodeCapacity; 1]> =
    LazyLock::new(|| [NodeCapacity { placement: Placement::default(), launches: 10_000, why: None }]);

static NOTHING: BTreeSet<SetProcess> = BTreeSet::new();

/// One instance per phase, with ids from 1, each long in its phase.
pub(super) fn fleet(phases: &[Phase]) -> Vec<PlannedInstance<'static>> {
    let instance = |(id, &phase)| PlannedInstance {
        id,
        phase,
        in_phase_ms: 60_000,
        placement: &LOCAL[0].placement,
        generation: 1,
        protection: Protection::None,
        requested: None,
        repaired: false,
        drained: false,
        connections: 0,
    };
    (1..).zip(phases).map(instance).collect()
}

/// A set on one node with plenty of capacity; the next id is 100.
pub(super) fn input<'a>(instances: &'a [PlannedInstance<'a>], capacity: u32) -> PlanInput<'a> {
    PlanInput {
        instances,
        capacity,
        victims: &[],
        scale_in_order: ScaleInOrder::Default,
        generation: 1,
        next_id: 100,
        repair: Repair {
            action: Default::default(),
            enabled: true,
            grace_ms: 10_000,
            max_percent: 5,
            max_unhealthy_percent: 100,
            hold_after_apply_ms: 0,
        },
        repair_memory: Default::default(),
        drain_timeout_ms: 30_000,
        launches_resume_in_ms: 0,
        one_at_a_time: false,
        suspended: &NOTHING,
        nodes: &*LOCAL,
        hold: None,
        since_change_ms: None,
        budget: Budget::UNLIMITED,
        upgrade: None,
    }
}
