//! Who decides the size beside the policies: schedules, and what operators say for a while.
//!
//! What is stored is [`Sizing`]; what of it counts in a tick is worked out once, in [`InForce`], which the record keeps. So a
//! record decides its tick again without a clock or a calendar.

mod cron;
mod limits;
mod schedule;
mod term;

pub use self::cron::Cron;
pub use self::limits::{Limits, LimitsOverride, Source};
pub use self::schedule::{ScheduleEntry, When, Zone};
pub use self::term::{Term, utc};

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::mutant::{self, Mutant};
use crate::state::{Moment, SetState};

/// What operators said about the size of a set, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizing {
    /// Policies do not change the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Term>,
    /// Other limits than those of the manifest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<LimitsOverride>,
    /// Nothing that serves is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Term>,
    /// By name, the beginning of the schedule entry whose capacity the set last went to, Unix milliseconds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub begun: BTreeMap<String, u64>,
}

impl Sizing {
    /// Whether there is nothing to store.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Without what is over by then, on the set's own clock.
    #[must_use]
    pub fn at(&self, lived_ms: u64) -> Self {
        let lasts = |term: &Term| !term.is_over(lived_ms);
        Self {
            hold: self.hold.clone().filter(lasts),
            limits: self.limits.clone().filter(|it| lasts(&it.term)),
            freeze: self.freeze.clone().filter(lasts),
            begun: self.begun.clone(),
        }
    }
}

/// What counts at `at`: of what operators said, and of the schedules.
#[must_use]
pub fn in_force(state: &SetState, at: Moment) -> InForce {
    let Sizing { hold, limits, freeze, begun } = state.sizing.at(at.lived_ms);
    let wall_ms = if mutant::is(Mutant::ScheduleOnLivedClock) { at.lived_ms } else { at.wall_ms };
    let covering = |entry| ScheduleEntry::covers(entry, wall_ms).map(|start_ms| (entry, start_ms));
    let entries: Vec<(&ScheduleEntry, u64)> = state.set.schedules.iter().filter_map(covering).collect();
    let largest = |size: fn(&ScheduleEntry) -> Option<u32>| {
        let sizes = entries.iter().filter_map(|(entry, _)| Some((size(entry)?, &entry.name)));
        // Of equal ones the first.
        sizes.reduce(|most, other| if other.0 > most.0 { other } else { most })
    };
    let mut bounds = Limits::of(state.set.capacity);
    if let Some((min, name)) = largest(|entry| entry.min) {
        bounds = bounds.with(Some(min), None, &Source::Schedule(name.clone()));
    }
    if let Some((max, name)) = largest(|entry| entry.max) {
        bounds = bounds.with(None, Some(max), &Source::Schedule(name.clone()));
    }
    if let Some(it) = &limits {
        bounds = bounds.with(it.min, it.max, &Source::Override);
    }
    bounds = bounds.reconciled();
    let frozen_by = entries.iter().find(|(entry, _)| entry.freeze).map(|(entry, _)| entry.name.clone());
    if freeze.is_some() || frozen_by.is_some() {
        bounds = bounds.frozen_at(state.desired);
    }
    let begins = |(entry, start_ms): &(&ScheduleEntry, u64)| {
        let is_new = begun.get(&entry.name) != Some(start_ms) || mutant::is(Mutant::ScheduleBeginsAgain);
        Some(Beginning { entry: entry.name.clone(), start_ms: *start_ms, capacity: entry.capacity? })
            .filter(|_| is_new)
    };
    InForce {
        hold: hold.filter(|_| !mutant::is(Mutant::ForgetHold)),
        limits: (bounds != Limits::of(state.set.capacity)).then_some(bounds),
        overridden: limits,
        freeze,
        frozen_by,
        begins: entries.iter().filter_map(begins).collect(),
        schedule: entries.iter().map(|(entry, _)| entry.name.clone()).collect(),
    }
}

/// A schedule entry with a capacity begins: the set goes to it once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beginning {
    /// Name of the entry.
    pub entry: String,
    /// When it began, Unix milliseconds: it may have been a while ago.
    pub start_ms: u64,
    /// Its capacity.
    pub capacity: u32,
}

/// What of it counts in one tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// The size is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Term>,
    /// The limits, and where they come from, when those of the manifest are not all of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limits: Option<Limits>,
    /// What an operator put in their place.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overridden: Option<LimitsOverride>,
    /// Nothing that serves is removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub freeze: Option<Term>,
    /// By which schedule entry, when it is by one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frozen_by: Option<String>,
    /// Schedule entries whose capacity the set goes to in this tick.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub begins: Vec<Beginning>,
    /// Names of the schedule entries in force; in a record the observation has them.
    #[serde(skip)]
    pub schedule: Vec<String>,
}

impl Default for InForce {
    fn default() -> Self {
        Self::NONE
    }
}

impl InForce {
    /// Nothing.
    pub const NONE: Self = Self {
        hold: None,
        limits: None,
        overridden: None,
        freeze: None,
        frozen_by: None,
        begins: Vec::new(),
        schedule: Vec::new(),
    };

    /// As a record keeps it.
    #[must_use]
    pub(crate) fn recorded(self) -> Self {
        Self { schedule: Vec::new(), ..self }
    }

    /// Whether nothing that serves may be removed.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.freeze.is_some() || self.frozen_by.is_some()
    }

    /// What is frozen, and until when, for people; none when nothing is.
    #[must_use]
    pub fn frozen_told(&self, set: &str, at: Moment) -> Option<String> {
        let by_hand = self.freeze.as_ref().map(|term| term.told(at, &format!("regatta freeze {set} --end")));
        let told = by_hand.or_else(|| self.frozen_by.as_ref().map(|name| format!("(schedule {name})")))?;
        Some(format!("nothing is removed {told}"))
    }

    /// The beginning whose capacity counts: the largest.
    #[must_use]
    pub fn beginning(&self) -> Option<&Beginning> {
        self.begins.iter().reduce(|most, other| if other.capacity > most.capacity { other } else { most })
    }

    /// What operators keep from the policies, a line each: as it lasts at `at`.
    #[must_use]
    pub fn told(&self, set: &str, at: Moment) -> Vec<String> {
        let hold = self
            .hold
            .as_ref()
            .map(|term| format!("the size is held {}", term.told(at, &format!("regatta resume {set}"))));
        let freeze = self.frozen_told(set, at);
        let overridden = self.overridden.as_ref().map(|it| {
            let until = it.term.told(at, &format!("regatta limits {set} --clear"));
            format!("{} instead of the manifest's {until}", it.values())
        });
        let contradiction = self.limits.as_ref().and_then(Limits::contradiction);
        hold.into_iter().chain(freeze).chain(overridden).chain(contradiction).collect()
    }

    /// The same as conditions of the set: without times, so that each keeps its words while it lasts.
    #[must_use]
    pub fn problems(&self, set: &str) -> Vec<String> {
        let hold = self.hold.as_ref().map(|term| {
            format!("the size is held {}; `regatta resume {set}` leaves it to the policies again", term.by())
        });
        let freeze = self.freeze.as_ref().map(|term| {
            format!(
                "the set is frozen {}: nothing that serves is removed; `regatta freeze {set} --end` ends it",
                term.by()
            )
        });
        let contradiction = self.limits.as_ref().and_then(Limits::contradiction);
        let scheduled = self.frozen_by.as_ref().filter(|_| freeze.is_none());
        let scheduled = scheduled
            .map(|name| format!("the set is frozen by schedule {name}: nothing that serves is removed"));
        hold.into_iter().chain(freeze).chain(scheduled).chain(contradiction).collect()
    }

    /// Whether policies alone decide, within limits that are not known to be others than the manifest's.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::NONE
    }
}
