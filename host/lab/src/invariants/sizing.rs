//! Who decides the size: what operators say for a while counts for so long, and no longer.

use regatta_core::record::TickRecord;
use regatta_core::sizing::Term;
use regatta_core::state::SetState;

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
        let (now, after) = (record.facts.in_force.hold.is_some(), next.sizing.hold.is_some());
        self.hold(now == held && after == held, "hold", || {
            format!(
                "tick {tick} of set {set} at {lived_ms} ms: the hold is stored as {:?}, in force {now}, after it {after}",
                state.sizing.hold
            )
        });
    }
}

/// Whether it counts at that moment of the set's own clock; said once more here, for the check to be one.
fn lasts(term: Option<&Term>, lived_ms: u64) -> bool {
    term.is_some_and(|term| term.until_lived_ms.is_none_or(|until_ms| lived_ms < until_ms))
}
