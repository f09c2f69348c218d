//! Who decides the size beside the policies: what operators say for a while.
//!
//! What is stored is [`Sizing`]; what of it counts in a tick is worked out once, in [`InForce`], which the record keeps. So a
//! record decides its tick again without a clock or a calendar.

mod limits;
mod term;

pub use self::limits::{Limits, LimitsOverride, Source};
pub use self::term::{Term, utc};

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
        }
    }
}

/// What counts of it at `at`.
#[must_use]
pub fn in_force(state: &SetState, at: Moment) -> InForce {
    let Sizing { hold, limits, freeze } = state.sizing.at(at.lived_ms);
    let mut bounds = Limits::of(state.set.capacity);
    if let Some(it) = &limits {
        bounds = bounds.with(it.min, it.max, &Source::Override);
    }
    bounds = bounds.reconciled();
    if freeze.is_some() {
        bounds = bounds.frozen_at(state.desired);
    }
    InForce {
        hold: hold.filter(|_| !mutant::is(Mutant::ForgetHold)),
        limits: (bounds != Limits::of(state.set.capacity)).then_some(bounds),
        overridden: limits,
        freeze,
    }
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
}

impl Default for InForce {
    fn default() -> Self {
        Self::NONE
    }
}

impl InForce {
    /// Nothing.
    pub const NONE: Self = Self { hold: None, limits: None, overridden: None, freeze: None };

    /// What operators keep from the policies, a line each: as it lasts at `at`.
    #[must_use]
    pub fn told(&self, set: &str, at: Moment) -> Vec<String> {
        let hold = self
            .hold
            .as_ref()
            .map(|term| format!("the size is held {}", term.told(at, &format!("regatta resume {set}"))));
        let freeze = self.freeze.as_ref().map(|term| {
            format!("nothing is removed {}", term.told(at, &format!("regatta freeze {set} --end")))
        });
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
        hold.into_iter().chain(freeze).chain(contradiction).collect()
    }

    /// Whether policies alone decide, within limits that are not known to be others than the manifest's.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::NONE
    }
}
