//! Host rules between what the policies want and what happens.
//!
//! A guard may only narrow: what it returns lies between the current capacity and what was proposed to it, and it can
//! take budget away from the plan but never add any. [`judge`] holds every guard to that. The set's limits come last and
//! are not a guard: they bind whatever came before.

mod after_absence;
mod cooldown;
mod flapping;
mod freeze;
mod hold;
mod limits;
mod max_cost;
mod missing_data;
mod on_failure;
mod rate;
mod scale_from_zero;
mod stabilization;
#[cfg(test)]
mod testing;
mod tolerance;
mod trail;

pub use self::cooldown::LastChanges;
pub use self::missing_data::metrics_without_data;
pub use self::rate::PastSizes;
pub use self::stabilization::WantedCapacity;
pub use self::trail::{BudgetLimit, GuardName, GuardStep, GuardTrail};

use serde::{Deserialize, Serialize};

use self::after_absence::AfterAbsenceGuard;
use self::cooldown::CooldownGuard;
use self::flapping::FlappingGuard;
use self::freeze::FreezeGuard;
use self::hold::HoldGuard;
use self::max_cost::MaxCostGuard;
use self::missing_data::MissingDataGuard;
use self::rate::RateGuard;
use self::stabilization::StabilizationGuard;
use self::tolerance::ToleranceGuard;
use crate::combine::Combined;
use crate::decision::Reason;
use crate::manifest::{Guards, RateLimit};
use crate::mutant::{self, Mutant};
use crate::observation::Observation;
use crate::plan::Budget;
use crate::sizing::InForce;
use crate::state::Moment;

/// What a guard may look at.
#[derive(Debug, Clone, Copy)]
pub struct GuardContext<'a> {
    /// The tick's observation.
    pub observation: &'a Observation,
    /// Names of the metrics that the active policies want and that have no fresh
    /// value for at least one instance in service (or for the set).
    pub metrics_without_data: &'a [String],
    /// How long daemons have run this set, milliseconds. Guards measure time on it.
    pub lived_ms: u64,
    /// Wall clock, Unix milliseconds, for what guards say to people.
    pub wall_ms: u64,
    /// When the daemon last came back after it was away, on the same clock.
    pub resumed_ms: Option<u64>,
    /// What the guards remembered before this tick.
    pub memory: &'a GuardMemory,
    /// What operators say about the size.
    pub in_force: &'a InForce,
}

impl GuardContext<'_> {
    /// When the tick is.
    fn at(&self) -> Moment {
        Moment { wall_ms: self.wall_ms, lived_ms: self.lived_ms }
    }
}

/// A host rule that may narrow a proposal.
pub trait Guard {
    /// Stable name, as it stands in the record.
    fn name(&self) -> GuardName;

    /// Writes what this guard wants to remember into `memory`, which starts empty each tick: what a guard does not carry
    /// over from `context.memory` is forgotten. Must stay bounded. Called in every tick, with what the policies want.
    fn remember(&self, _context: &GuardContext<'_>, _wanted: u32, _memory: &mut GuardMemory) {}

    /// The capacity to continue with and why, or none to let `proposed` pass. `memory` is what the guards remember after
    /// this tick. Never called with `proposed` equal to the current capacity.
    fn narrow(
        &self,
        context: &GuardContext<'_>,
        memory: &GuardMemory,
        proposed: u32,
    ) -> Option<(u32, Reason)>;

    /// What the plan may spend at most, and why, or none to leave its budget alone.
    fn limit(&self, _context: &GuardContext<'_>) -> Option<(Budget, Reason)> {
        None
    }
}

/// What the guards of a set remember from tick to tick. Bounded: each guard keeps at most a few dozen entries.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardMemory {
    /// `scale_in_stabilization`: what the policies wanted lately, oldest first, as far as it can still be the largest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub wanted: Vec<WantedCapacity>,
    /// `scale_out_limit`, `scale_in_limit`: the sizes that the set had within their periods, oldest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<PastSizes>,
    /// `scale_out_cooldown`, `scale_in_cooldown`: when the size last changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<LastChanges>,
}

/// The guards of a set, in the order in which they judge.
#[must_use]
pub fn guards_of(settings: &Guards) -> Vec<Box<dyn Guard + Send + Sync>> {
    let mut guards: Vec<Box<dyn Guard + Send + Sync>> =
        vec![Box::new(HoldGuard), Box::new(FreezeGuard), Box::new(MissingDataGuard(settings.missing_data))];
    if settings.warm_up_ms > 0 && !mutant::is(Mutant::ForgetAbsence) {
        guards.push(Box::new(AfterAbsenceGuard { hold_ms: settings.warm_up_ms }));
    }
    if settings.tolerance_percent > 0 {
        guards.push(Box::new(ToleranceGuard { percent: settings.tolerance_percent }));
    }
    if settings.scale_in_stabilization_ms > 0 {
        guards.push(Box::new(StabilizationGuard { window_ms: settings.scale_in_stabilization_ms }));
    }
    let (scale_out, scale_in) = (settings.scale_out_limit, settings.scale_in_limit);
    if (scale_out, scale_in) != (RateLimit::NONE, RateLimit::NONE) && !mutant::is(Mutant::NoRateLimit) {
        guards.push(Box::new(RateGuard { scale_out, scale_in }));
    }
    if !settings.flapping.is_empty() {
        guards.push(Box::new(FlappingGuard(settings.flapping.clone())));
    }
    let (scale_out_ms, scale_in_ms) = (settings.scale_out_cooldown_ms, settings.scale_in_cooldown_ms);
    if (scale_out_ms, scale_in_ms) != (0, 0) && !mutant::is(Mutant::NoCooldown) {
        guards.push(Box::new(CooldownGuard { scale_out_ms, scale_in_ms }));
    }
    guards.extend(settings.max_cost.map(|cost| Box::new(MaxCostGuard(cost)) as Box<dyn Guard + Send + Sync>));
    guards
}

/// Takes what the policies want through `guards` to what the plan works towards.
///
/// `settings` supplies a capacity where the policies cannot: `on_failure` when
/// all of them failed, `missing_data: {default}` when a wanted metric has no data. Clients that wait at the load balancer
/// of a set without instances get the first, whatever policies and guards say. None of this moves a size that is held.
#[must_use]
pub fn judge(
    settings: &Guards,
    guards: &[Box<dyn Guard + Send + Sync>],
    context: &GuardContext<'_>,
    combined: &Combined,
) -> GuardTrail {
    let (desired, wanted) = (context.observation.desired, combined.capacity);
    let mut trail = GuardTrail { granted: wanted.unwrap_or(desired), ..GuardTrail::default() };
    if wanted.is_none() {
        let (after, reason) = on_failure::stand_in(settings.on_failure, desired);
        trail.step(GuardName::OnFailure, None, after, reason);
    }
    let held = context.in_force.hold.is_some();
    let policies_want = trail.granted;
    if let Some(it) = context.in_force.beginning() {
        let text = format!("schedule {} begins with capacity {}", it.entry, it.capacity);
        let reason = Reason { code: "schedule".into(), text: text.into(), evidence: Vec::new() };
        trail.change(GuardName::Schedule, it.capacity, reason);
    }
    let wake = scale_from_zero::wake(context.observation).filter(|_| !held);
    start_first(&mut trail, wake.as_ref());
    for guard in guards {
        guard.remember(context, policies_want.max(trail.granted), &mut trail.memory);
    }
    // Guards narrow what policies want; a schedule's capacity is what the manifest says, but for a hold and a freeze.
    let scheduled = context.in_force.beginning().is_some();
    for guard in guards.iter().filter(|guard| !scheduled || guard.name().narrows_schedules()) {
        let proposed = trail.granted;
        if proposed == desired {
            break;
        }
        if let Some((wish, reason)) = guard.narrow(context, &trail.memory, proposed) {
            let after = wish.clamp(proposed.min(desired), proposed.max(desired));
            trail.change(guard.name(), after, reason);
        }
    }
    if let Some((after, reason)) = missing_data::stand_in(settings.missing_data, context).filter(|_| !held) {
        trail.change(GuardName::MissingData, after.max(trail.granted), reason);
    }
    start_first(&mut trail, wake.as_ref());
    if let Some((after, reason)) = limits::bind(context.observation, trail.granted) {
        trail.change(GuardName::Limits, after, reason);
    }
    if let Some(changes) = &mut trail.memory.changes {
        changes.note(trail.granted, context.lived_ms);
    }
    for guard in guards {
        if let Some((budget, reason)) = guard.limit(context) {
            trail.limits.push(BudgetLimit { guard: guard.name(), budget, reason });
        }
    }
    trail
}

fn start_first(trail: &mut GuardTrail, wake: Option<&Reason>) {
    if let Some(reason) = wake {
        trail.change(GuardName::ScaleFromZero, trail.granted.max(1), reason.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::testing::{context, observation};
    use super::*;

    #[test]
    fn what_no_guard_carries_over_is_forgotten() {
        let observation = observation(0, 10, 3);
        let memory =
            GuardMemory { wanted: vec![WantedCapacity { at_ms: 0, capacity: 9 }], ..GuardMemory::default() };
        let context = GuardContext { memory: &memory, ..context(&observation) };
        let trail = |settings: &Guards| judge(settings, &guards_of(settings), &context, &Combined::default());
        assert_eq!(trail(&Guards::default()).memory, GuardMemory::default());
        let stabilized = Guards { scale_in_stabilization_ms: 60_000, ..Guards::default() };
        assert_eq!(trail(&stabilized).memory.wanted[0], memory.wanted[0]);
    }
}
