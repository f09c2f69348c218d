//! Who decides the size beside the policies: what operators say for a while.
//!
//! What is stored is [`Sizing`]; what of it counts in a tick is worked out once, in [`InForce`], which the record keeps. So a
//! record decides its tick again without a clock or a calendar.

mod term;

pub use self::term::{Term, utc};

use crate::mutant::{self, Mutant};
use crate::state::{Moment, SetState};

use serde::{Deserialize, Serialize};

/// What operators said about the size of a set, as it is stored.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Sizing {
    /// Policies do not change the size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Term>,
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
        Self { hold: self.hold.clone().filter(|term| !term.is_over(lived_ms)) }
    }
}

/// What counts of it at `at`.
#[must_use]
pub fn in_force(state: &SetState, at: Moment) -> InForce {
    let Sizing { hold } = state.sizing.at(at.lived_ms);
    InForce { hold: hold.filter(|_| !mutant::is(Mutant::ForgetHold)) }
}

/// What of it counts in one tick.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InForce {
    /// The size is held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hold: Option<Term>,
}

impl Default for InForce {
    fn default() -> Self {
        Self::NONE
    }
}

impl InForce {
    /// Nothing.
    pub const NONE: Self = Self { hold: None };

    /// What operators keep from the policies, a line each.
    #[must_use]
    pub fn told(&self, set: &str, at: Moment) -> Vec<String> {
        let hold = self
            .hold
            .as_ref()
            .map(|term| format!("the size is held {}", term.told(at, &format!("regatta resume {set}"))));
        hold.into_iter().collect()
    }

    /// The same as conditions of the set: without times, so that each keeps its words while it lasts.
    #[must_use]
    pub fn problems(&self, set: &str) -> Vec<String> {
        let hold = self.hold.as_ref().map(|term| {
            format!("the size is held {}; `regatta resume {set}` leaves it to the policies again", term.by())
        });
        hold.into_iter().collect()
    }

    /// Whether policies alone decide, within the manifest's limits.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::NONE
    }
}
