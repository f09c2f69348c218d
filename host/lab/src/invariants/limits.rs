//! How many instances there may be, and which may go.

use std::collections::BTreeMap;

use regatta_core::combine::CombineRule;
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::{MissingData, OnFailure, ScaleSet};
use regatta_core::metric::MetricValue;
use regatta_core::observation::Observation;
use regatta_core::phase::Phase;
use regatta_core::plan::{Action, IN_VAIN_MAX, RemovalCause};
use regatta_core::record::TickRecord;
use regatta_core::requested::returns;
use regatta_core::set_process::SetProcess;
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
        self.suspended(before, record);
        let counts = |it: &&InstanceRecord| it.phase.counts_as_capacity() || returns(it.phase, it.requested);
        let counted = after.values().filter(counts).count();
        let counted = u32::try_from(counted).unwrap_or(u32::MAX);
        let creates = record.plan.actions.iter().any(|action| matches!(action, Action::Create { .. }));
        let surge = record.facts.upgrade.as_ref().map_or(0, |_| set.upgrade.surge(granted));
        self.hold(!creates || counted <= max + surge, "maximum", || {
            format!(
                "tick {tick} of set {name} makes instances and comes to {counted}, at most {max} and {surge} are allowed"
            )
        });
        let mut scales_in = false;
        for action in &record.plan.actions {
            let (Action::Drain { id, cause } | Action::Terminate { id, cause }) = action else { continue };
            let was = before.instances.get(id);
            let requested = was.and_then(|it| it.requested);
            self.hold(*cause != RemovalCause::Requested || requested.is_some(), "requested", || {
                format!("{name}-{id} goes because somebody asked for it, and nobody did")
            });
            let left_alone = was.is_some_and(|it| {
                it.requested.is_none()
                    && it.protection.from_actions()
                    && !matches!(it.phase, Phase::Draining | Phase::Refused)
            });
            // It may have been refused, or have ended while it drained, since it was stored.
            let by_itself =
                matches!(cause, RemovalCause::Refused | RemovalCause::Drained | RemovalCause::DrainTimeout);
            self.hold(!left_alone || by_itself, "protected", || {
                format!("{name}-{id} is protected from all actions and goes: {}", cause.as_str())
            });
            if *cause != RemovalCause::ScaleIn {
                continue;
            }
            scales_in = true;
            let protected = was.is_some_and(|it| it.protection.from_scale_in());
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
        self.cooldown(before, record);
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

    /// Nothing moves the size again before its cooldown is over, but for what binds or stands in.
    fn cooldown(&mut self, before: &StoredSet, record: &TickRecord) {
        let (set, now_ms) = (&before.state.set, record.facts.lived_ms);
        let (granted, desired) = (record.guards.granted, before.state.desired);
        // Another manifest may have had no cooldown, and nothing to remember.
        let of = (before.state.incarnation, before.state.generation);
        let grew_ms = self.grew_ms.get(&set.name).filter(|(grown, _)| *grown == of);
        let since_ms = grew_ms.map(|(_, grew_ms)| now_ms.saturating_sub(*grew_ms));
        let held = since_ms.is_some_and(|since_ms| since_ms < set.guards.scale_out_cooldown_ms);
        let observation = &record.observation;
        let scheduled = !record.facts.in_force.begins.is_empty();
        let excused = granted <= observation.min.max(1) || stands_in(set, observation, granted) || scheduled;
        self.hold(!held || granted <= desired || excused, "cooldown", || {
            format!("set {} goes from {desired} to {granted} {since_ms:?} ms after it grew", set.name)
        });
        if granted > desired {
            self.grew_ms.insert(set.name.clone(), (of, now_ms));
        }
    }

    /// What is suspended does not happen, but for what operators ask for single instances.
    fn suspended(&mut self, before: &StoredSet, record: &TickRecord) {
        let suspended = &before.state.suspended;
        let asked = |id: &u32| before.instances.get(id).is_some_and(|it| it.requested.is_some());
        for action in &record.plan.actions {
            let process = match action {
                Action::Create { .. } => SetProcess::Launch,
                Action::Drain { id, .. } | Action::Terminate { id, .. } if !asked(id) => {
                    SetProcess::Terminate
                }
                _ => continue,
            };
            self.hold(!suspended.contains(&process), "suspended", || {
                let (tick, set) = (record.observation.tick, &before.state.set.name);
                format!("tick {tick} of set {set}: {action:?}, and {} is suspended", process.as_str())
            });
        }
        let repairs = |action: &&Action| match action {
            Action::Terminate { cause, .. } => *cause == RemovalCause::Unhealthy,
            Action::Restart { id } => !asked(id),
            _ => false,
        };
        let repairs: Vec<u32> = record.plan.actions.iter().filter(repairs).map(Action::id).collect();
        self.in_vain(before, record, &repairs);
        let repaired = suspended.contains(&SetProcess::Repair) && !repairs.is_empty();
        let decided = suspended.contains(&SetProcess::Policy) && !record.runs.is_empty();
        self.hold(!repaired && !decided, "suspended", || {
            format!(
                "tick {} of set {} repairs: {repaired}, asks policies: {decided}",
                record.observation.tick, before.state.set.name
            )
        });
    }

    /// Repair ends when it does not help.
    fn in_vain(&mut self, before: &StoredSet, record: &TickRecord, repairs: &[u32]) {
        let made_by_repair = |id: &&u32| before.instances.get(id).is_some_and(|it| it.repaired);
        let again = u32::try_from(repairs.iter().filter(made_by_repair).count()).unwrap_or(u32::MAX);
        let memory = before.state.repair;
        let in_vain = memory.suspended || memory.in_vain + again >= IN_VAIN_MAX;
        // Reset within this very tick: one has helped, or all were well.
        let anew = record.plan.repair_memory.in_vain <= again;
        self.hold(repairs.is_empty() || !in_vain || anew, "in-vain", || {
            format!(
                "tick {} of set {} repairs after {memory:?}",
                record.observation.tick, before.state.set.name
            )
        });
        let protected =
            repairs.iter().any(|id| before.instances.get(id).is_some_and(|it| it.protection.from_actions()));
        self.hold(!protected, "protected", || format!("{repairs:?} are repaired, and protected from that"));
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
