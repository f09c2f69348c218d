//! How many instances there may be, and which may go.

use std::collections::BTreeMap;

use regatta_core::combine::CombineRule;
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::{MissingData, OnFailure, ScaleSet};
use regatta_core::metric::MetricValue;
use regatta_core::observation::Observation;
use regatta_core::plan::{Action, RemovalCause};
use regatta_core::record::TickRecord;
use regatta_core::state::InstanceRecord;

use super::Checks;
use super::sizing::{at, bounds};
use crate::store::StoredSet;

impl Checks {
    pub(super) fn limits(
        &mut self,
        before: &StoredSet,
        after: &BTreeMap<u32, InstanceRecord>,
        record: &TickRecord,
    ) {
        if before.state.deleting {
            return;
        }
        let (set, tick) = (&before.state.set, record.observation.tick);
        let name = &set.name;
        let (granted, desired) = (record.guards.granted, before.state.desired);
        let (min, max) = bounds(&before.state, at(record));
        self.hold((min..=max).contains(&granted), "maximum", || {
            format!("tick {tick} of set {name} grants {granted}, the limits are {min} to {max}")
        });
        let scheduled = !record.facts.in_force.begins.is_empty();
        if let Some(why) = no_scale_in(before, record).filter(|_| !scheduled) {
            self.hold(granted >= desired.min(max), "minimum", || {
                format!("tick {tick} of set {name} scales in from {desired} to {granted} although {why}")
            });
        }
        self.guards(before, record);
        let counted = after.values().filter(|it| it.phase.counts_as_capacity()).count();
        let counted = u32::try_from(counted).unwrap_or(u32::MAX);
        let creates = record.plan.actions.iter().any(|action| matches!(action, Action::Create { .. }));
        // There is no budget for a surge yet.
        self.hold(!creates || counted <= max, "maximum", || {
            format!(
                "tick {tick} of set {name} makes instances and comes to {counted}, at most {max} are allowed"
            )
        });
        let mut scales_in = false;
        for action in &record.plan.actions {
            let (Action::Drain { id, cause } | Action::Terminate { id, cause }) = action else { continue };
            if *cause != RemovalCause::ScaleIn {
                continue;
            }
            scales_in = true;
            let protected = before.instances.get(id).is_some_and(|it| it.protected);
            self.hold(!protected, "protected", || {
                format!("{name}-{id} is protected and goes for a scale-in")
            });
        }
        self.hold(!scales_in || counted >= granted, "minimum", || {
            format!("tick {tick} of set {name} takes instances away and leaves {counted} of {granted}")
        });
        self.canary(before, record);
    }

    /// What the guards that are on by default promise, but for the set's own limits, which bind whatever came before.
    fn guards(&mut self, before: &StoredSet, record: &TickRecord) {
        let (set, observation) = (&before.state.set, &record.observation);
        let (granted, desired) = (record.guards.granted, before.state.desired);
        // A schedule says what it says at once.
        let scheduled = !record.facts.in_force.begins.is_empty();
        let limit = set.guards.scale_out_limit;
        let furthest = desired.saturating_add(limit.step(desired));
        self.hold(
            granted <= furthest.max(observation.min) || stands_in(set, observation, granted) || scheduled,
            "rate",
            || {
                format!(
                    "tick {} of set {} goes from {desired} to {granted}: {limit}",
                    observation.tick, set.name
                )
            },
        );
        let limit = set.guards.scale_in_limit;
        let furthest = desired.saturating_sub(limit.step(desired));
        self.hold(granted >= furthest.min(observation.max) || scheduled, "rate", || {
            format!("tick {} of set {} goes from {desired} to {granted}: {limit}", observation.tick, set.name)
        });
        let Some(load) = observation.metric("utilization") else { return };
        for (row, value) in observation.instances.rows().zip(&load.values) {
            let since_ms = before.instances.get(&row.id).map_or(0, |it| it.phase_since_lived_ms);
            let warms_up = row.state == InstanceState::InService
                && record.facts.lived_ms.saturating_sub(since_ms) < set.guards.warm_up_ms;
            self.hold(!warms_up || value.fresh().is_none(), "warm-up", || {
                format!(
                    "tick {} counts what {}-{} shows while it warms up",
                    observation.tick, set.name, row.id
                )
            });
        }
    }

    /// With one slot, what is wanted stays near what the active policy wants.
    fn canary(&mut self, before: &StoredSet, record: &TickRecord) {
        let ([run], [canary]) = (record.runs.as_slice(), record.canaries.as_slice()) else { return };
        let stored = before.state.policies.first().and_then(|slot| slot.canary.as_ref());
        let (Ok(decision), Some(stored), Some(wanted)) = (&run.result, stored, record.combined.capacity)
        else {
            return;
        };
        self.hold(canary.within == stored.within && wanted.abs_diff(decision.capacity) <= stored.within, "canary", || {
            format!(
                "tick {} of set {}: the canary makes it {wanted}, the active policy wants {}, at most {} away is allowed",
                record.observation.tick, before.state.set.name, decision.capacity, stored.within
            )
        });
    }
}

/// Whether that is the size that the set goes to without a decision or without data.
fn stands_in(set: &ScaleSet, observation: &Observation, granted: u32) -> bool {
    let within = |capacity: u32| capacity.max(observation.min).min(observation.max) == granted;
    matches!(set.guards.on_failure, OnFailure::Static { capacity } if within(capacity))
        || matches!(set.guards.missing_data, MissingData::Default { capacity } if within(capacity))
}

/// Why a tick may not scale in, if so.
fn no_scale_in(before: &StoredSet, record: &TickRecord) -> Option<String> {
    let failed = record.runs.iter().filter(|run| run.result.is_err()).count();
    let all = before.state.set.combine == CombineRule::AnyOutAllIn;
    if failed > 0 && (all || failed == record.runs.len()) {
        return Some(format!("{failed} of {} policies failed", record.runs.len()));
    }
    let observation = &record.observation;
    let back_ms = record.facts.resumed_ms.map(|at_ms| record.facts.lived_ms - at_ms);
    let warm_up_ms = before.state.set.guards.warm_up_ms;
    if back_ms.is_some_and(|back_ms| back_ms < warm_up_ms) {
        return Some("the daemon was away a short while ago".to_owned());
    }
    if before.state.set.guards.missing_data == MissingData::Ignore {
        return None;
    }
    let mut wished = before.state.policies.iter().flat_map(|slot| &slot.active.wishes);
    let dark = wished.find(|wish| {
        observation.metric(&wish.name).is_none_or(|metric| {
            let rows = metric.values.iter().zip(observation.instances.rows());
            rows.into_iter().any(|(value, row)| {
                row.state == InstanceState::InService
                    && !row.warms_up(observation.now_ms, warm_up_ms)
                    && !matches!(value, MetricValue::Fresh(_))
            })
        })
    });
    dark.map(|wish| format!("not every instance in service has a fresh {}", wish.name))
}
