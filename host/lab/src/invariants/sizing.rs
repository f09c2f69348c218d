//! Who decides the size: what operators say for a while counts for so long, and no longer.

use regatta_core::plan::{Action, RemovalCause};
use regatta_core::record::TickRecord;
use regatta_core::sizing::{ScheduleEntry, Sizing, Term};
use regatta_core::state::{Moment, SetState};

use super::Checks;
use crate::store::StoredSet;

impl Checks {
    pub(super) fn sizing(&mut self, before: &StoredSet, next: &SetState, record: &TickRecord) {
        let state = &before.state;
        if state.deleting {
            return;
        }
        let (set, tick, lived_ms) = (&state.set.name, record.observation.tick, record.facts.lived_ms);
        let held = lasts(state.sizing.hold.as_ref(), lived_ms);
        let (min, max) = (record.observation.min, record.observation.max);
        let granted = record.guards.granted;
        self.hold(!held || granted == state.desired.max(min).min(max), "hold", || {
            format!("tick {tick} of set {set} goes from {} to {granted}, and its size is held", state.desired)
        });
        let (seen, after) = (&record.facts.in_force, &next.sizing);
        let limits = |sizing: &Sizing| sizing.limits.as_ref().map(|it| it.term.clone());
        let seen_limits = seen.overridden.as_ref().map(|it| it.term.clone());
        for (name, stored, seen, after) in [
            ("hold", state.sizing.hold.clone(), seen.hold.clone(), after.hold.clone()),
            ("override", limits(&state.sizing), seen_limits, limits(after)),
            ("freeze", state.sizing.freeze.clone(), seen.freeze.clone(), after.freeze.clone()),
        ] {
            let lasting = stored.clone().filter(|term| lasts(Some(term), lived_ms));
            self.hold(seen == lasting && after == lasting, name, || {
                format!(
                    "tick {tick} of set {set} at {lived_ms} ms: stored is {stored:?}, it sees {seen:?} and leaves {after:?}"
                )
            });
        }
        let covering = |entry: &&ScheduleEntry| entry.covers(record.wall_ms).is_some();
        let names: Vec<&String> =
            state.set.schedules.iter().filter(covering).map(|entry| &entry.name).collect();
        self.hold(record.observation.schedule.iter().eq(names.iter().copied()), "schedule", || {
            format!("tick {tick} of set {set} sees {:?}, in force are {names:?}", record.observation.schedule)
        });
        for it in &record.facts.in_force.begins {
            self.hold(state.sizing.begun.get(&it.entry) != Some(&it.start_ms), "schedule", || {
                format!("tick {tick} of set {set}: the capacity of {it:?} counts twice")
            });
            self.hold(next.sizing.begun.get(&it.entry) == Some(&it.start_ms), "schedule", || {
                format!("tick {tick} of set {set} forgets that {it:?} began")
            });
        }
        let bound = bounds(state, at(record));
        self.hold((min, max) == bound, "override", || {
            format!("tick {tick} of set {set} sees the limits {min} to {max}, they are {bound:?}")
        });
        if frozen(state, at(record)) {
            self.freeze(before, record);
        }
    }

    fn freeze(&mut self, before: &StoredSet, record: &TickRecord) {
        let (set, tick) = (&record.observation.set, record.observation.tick);
        let (desired, granted) = (before.state.desired, record.guards.granted);
        self.hold(granted >= desired, "freeze", || {
            format!("tick {tick} of set {set}, which is frozen, scales in from {desired} to {granted}")
        });
        // Repairs are rare, so what the plan may spend on them is looked at, too.
        let budget = record.guards.budget();
        self.hold(budget.unavailable == 0 && budget.surge == 0, "freeze", || {
            format!("tick {tick} of set {set}, which is frozen, may replace instances: {budget}")
        });
        for action in &record.plan.actions {
            let (Action::Drain { id, cause } | Action::Terminate { id, cause }) = action else { continue };
            let takes = matches!(cause, RemovalCause::ScaleIn | RemovalCause::Unhealthy);
            self.hold(!takes, "freeze", || format!("{set}-{id} is removed from a frozen set: {cause:?}"));
        }
    }
}

/// When the tick was, on both clocks.
pub(super) fn at(record: &TickRecord) -> Moment {
    Moment { wall_ms: record.wall_ms, lived_ms: record.facts.lived_ms }
}

fn frozen(state: &SetState, at: Moment) -> bool {
    let scheduled = state.set.schedules.iter().any(|it| it.freeze && it.covers(at.wall_ms).is_some());
    scheduled || lasts(state.sizing.freeze.as_ref(), at.lived_ms)
}

/// The limits in force at that moment.
pub(super) fn bounds(state: &SetState, at: Moment) -> (u32, u32) {
    let lived_ms = at.lived_ms;
    let entries = || state.set.schedules.iter().filter(|entry| entry.covers(at.wall_ms).is_some());
    let capacity = state.set.capacity;
    let other = state.sizing.limits.as_ref().filter(|it| lasts(Some(&it.term), lived_ms));
    let min = other
        .and_then(|it| it.min)
        .or_else(|| entries().filter_map(|it| it.min).max())
        .unwrap_or(capacity.min);
    let max = other
        .and_then(|it| it.max)
        .or_else(|| entries().filter_map(|it| it.max).max())
        .unwrap_or(capacity.max);
    let least = min.min(max);
    match frozen(state, at) {
        true => (least, max.max(state.desired)),
        false => (least, max),
    }
}

/// Whether it counts at that moment of the set's own clock; said once more here, for the check to be one.
fn lasts(term: Option<&Term>, lived_ms: u64) -> bool {
    term.is_some_and(|term| term.until_lived_ms.is_none_or(|until_ms| lived_ms < until_ms))
}
