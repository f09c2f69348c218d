//! Commands about who decides the size: hold it, put other limits in force, freeze the set, and end that again.

use crate::event::{Actor, EventKind};
use crate::manifest::MAX_CAPACITY;
use crate::sizing::{self, LimitsOverride, Sizing, Term};
use crate::state::SetState;

use super::super::{CommandError, SetMachine};
use super::{Change, Step};

impl SetMachine {
    pub(super) fn hold_size(
        &self,
        capacity: Option<u32>,
        for_ms: Option<u64>,
        reason: &str,
        actor: &Actor,
    ) -> Result<Step, CommandError> {
        let desired = self.capacity_within(capacity.unwrap_or(self.state.desired))?;
        let at = self.moment();
        let term = Term::begin(at, for_ms, actor.clone(), reason);
        let until = term.told(at, &format!("regatta resume {}", self.state.set.name));
        let size = match desired == self.state.desired {
            true => desired.to_string(),
            false => format!("{} → {desired}", self.state.desired),
        };
        let next = SetState { desired, ..self.sized(|sizing| sizing.hold = Some(term)) };
        let text = format!("capacity {size} is held {until}");
        Ok(Step::Store(Box::new(Change::new(next, EventKind::SizeHeld, text))))
    }

    pub(super) fn resume(&self) -> Step {
        if self.state.sizing.at(self.clock.lived_ms).hold.is_none() {
            return Step::Nothing;
        }
        let next = self.sized(|sizing| sizing.hold = None);
        let text = format!("capacity {} is no longer held: policies decide again", self.state.desired);
        Step::Store(Box::new(Change::new(next, EventKind::SizeResumed, text)))
    }

    pub(super) fn override_limits(
        &self,
        min: Option<u32>,
        max: Option<u32>,
        for_ms: Option<u64>,
        reason: &str,
        actor: &Actor,
    ) -> Result<Step, CommandError> {
        let at = self.moment();
        let term = Term::begin(at, for_ms, actor.clone(), reason);
        let until = term.told(at, &format!("regatta limits {} --clear", self.state.set.name));
        let limits = LimitsOverride { min, max, term };
        let values = limits.values();
        let next = self.sized(|sizing| sizing.limits = Some(limits));
        let mut problems = Vec::new();
        if values.is_empty() {
            problems.push("neither a min nor a max is given".to_owned());
        }
        if max == Some(0) {
            problems.push("max must be at least 1".to_owned());
        }
        if let Some(limit) = min.into_iter().chain(max).find(|limit| u64::from(*limit) > MAX_CAPACITY) {
            problems.push(format!("{limit} is more than {MAX_CAPACITY}, the most that a set may have"));
        }
        let room = self.state.set.network.room();
        if let Some(max) = max.filter(|max| *max > room) {
            problems
                .push(format!("the set's network has addresses for {room} instances, max would be {max}"));
        }
        let bounds = sizing::in_force(&next, at).limits;
        if let Some(min) = bounds.as_ref().and_then(|bounds| bounds.beyond_max) {
            let max = bounds.map_or(0, |bounds| bounds.max);
            problems.push(format!("min would be {min} and max {max}: give both"));
        }
        if !problems.is_empty() {
            return Err(CommandError::Conflict(format!(
                "these limits are not possible: {}",
                problems.join("; ")
            )));
        }
        let text = format!("{values} instead of the manifest's {until}");
        Ok(Step::Store(Box::new(Change::new(next, EventKind::LimitsOverridden, text))))
    }

    pub(super) fn clear_limits(&self) -> Step {
        if self.state.sizing.at(self.clock.lived_ms).limits.is_none() {
            return Step::Nothing;
        }
        let next = self.sized(|sizing| sizing.limits = None);
        let capacity = self.state.set.capacity;
        let text = format!("the manifest's limits count again, {} to {}", capacity.min, capacity.max);
        Step::Store(Box::new(Change::new(next, EventKind::LimitsRestored, text)))
    }

    pub(super) fn freeze(&self, for_ms: Option<u64>, reason: &str, actor: &Actor) -> Step {
        let at = self.moment();
        let term = Term::begin(at, for_ms, actor.clone(), reason);
        let until = term.told(at, &format!("regatta freeze {} --end", self.state.set.name));
        let next = self.sized(|sizing| sizing.freeze = Some(term));
        Step::Store(Box::new(Change::new(next, EventKind::Frozen, format!("nothing is removed {until}"))))
    }

    pub(super) fn thaw(&self) -> Step {
        if self.state.sizing.at(self.clock.lived_ms).freeze.is_none() {
            return Step::Nothing;
        }
        let next = self.sized(|sizing| sizing.freeze = None);
        Step::Store(Box::new(Change::new(
            next,
            EventKind::Thawed,
            "instances may be removed again".to_owned(),
        )))
    }

    /// The state with something else that an operator says about the size.
    fn sized(&self, change: impl FnOnce(&mut Sizing)) -> SetState {
        let mut next = self.state.clone();
        change(&mut next.sizing);
        next
    }

    /// `capacity` as a size that may be set now.
    pub(super) fn capacity_within(&self, capacity: u32) -> Result<u32, CommandError> {
        let (in_force, limits, set) = (self.in_force(), self.limits(), &self.state.set.name);
        if in_force.is_frozen() && capacity < self.state.desired {
            return Err(CommandError::Conflict(format!(
                "set {set} is frozen, so capacity {capacity} would remove nothing: {}",
                in_force.frozen_told(set, self.moment()).unwrap_or_default()
            )));
        }
        if limits.contains(capacity) {
            return Ok(capacity);
        }
        Err(CommandError::Conflict(format!(
            "capacity {capacity} is outside the set's limits, {} to {}; change them in the manifest, or for a while \
             with `regatta limits {set}`",
            limits.min, limits.max
        )))
    }
}
