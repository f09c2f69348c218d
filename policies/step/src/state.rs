//! What is carried from tick to tick.

use serde::{Deserialize, Serialize};

use crate::Params;

/// Ticks in a row, and when the capacity last changed.
///
/// Changes are seen in the capacity in force, not in what was asked for: a wish
/// that a guard cut starts no cooldown, and a change by hand does.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The last tick: its time, Unix milliseconds, and the capacity then in force.
    #[serde(default)]
    last: Option<(u64, u32)>,
    /// Tick of the last scale-out, Unix milliseconds.
    #[serde(default)]
    out_ms: Option<u64>,
    /// Tick of the last scale-in, Unix milliseconds.
    #[serde(default)]
    in_ms: Option<u64>,
    /// Ticks in a row above a scale-out threshold.
    #[serde(default)]
    pub(crate) above_ticks: u32,
    /// Ticks in a row below a scale-in threshold.
    #[serde(default)]
    pub(crate) below_ticks: u32,
}

impl State {
    /// Notes a change since the last tick; it was made in that tick.
    pub(crate) fn see(&mut self, desired: u32, now_ms: u64) {
        if let Some((at_ms, before)) = self.last {
            if desired > before {
                self.out_ms = Some(at_ms);
            }
            if desired < before {
                self.in_ms = Some(at_ms);
            }
        }
        self.last = Some((now_ms, desired));
    }

    pub(crate) fn count(&mut self, above: bool, below: bool) {
        self.above_ticks = if above { self.above_ticks.saturating_add(1) } else { 0 };
        self.below_ticks = if below { self.below_ticks.saturating_add(1) } else { 0 };
    }

    /// What is left of the time from a scale-out to the next.
    pub(crate) fn out_cooldown_ms(&self, params: &Params, now_ms: u64) -> Option<u64> {
        left_ms(self.out_ms, params.scale_out_cooldown_ms, now_ms)
    }

    /// What is left of the time from any change to a scale-in.
    pub(crate) fn in_cooldown_ms(&self, params: &Params, now_ms: u64) -> Option<u64> {
        left_ms(self.out_ms.max(self.in_ms), params.scale_in_cooldown_ms, now_ms)
    }
}

/// A clock that went back counts as no time gone by.
fn left_ms(since_ms: Option<u64>, cooldown_ms: u64, now_ms: u64) -> Option<u64> {
    let gone_ms = now_ms.saturating_sub(since_ms?);
    cooldown_ms.checked_sub(gone_ms).filter(|&left| left > 0)
}
