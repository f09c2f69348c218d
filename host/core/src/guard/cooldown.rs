//! `scale_out_cooldown` and `scale_in_cooldown`: how long a set stays as it is after its size has changed.

use serde::{Deserialize, Serialize};

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::units::format_duration_ms;

/// When the size last changed, whoever changed it, on the set's own clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastChanges {
    /// The size by then.
    pub size: u32,
    /// When it last grew.
    pub grew_ms: Option<u64>,
    /// When it last shrank.
    pub shrank_ms: Option<u64>,
}

impl LastChanges {
    /// The size is another one now.
    pub(super) fn note(&mut self, size: u32, now_ms: u64) {
        if size > self.size {
            self.grew_ms = Some(now_ms);
        } else if size < self.size {
            self.shrank_ms = Some(now_ms);
        }
        self.size = size;
    }
}

/// Lets the capacity rest after a change. One direction each: a set that has just scaled in may scale out at once, but
/// nothing scales in shortly after a change of either kind.
#[derive(Debug, Clone, Copy)]
pub(super) struct CooldownGuard {
    /// From one scale-out to the next, milliseconds.
    pub(super) scale_out_ms: u64,
    /// From any change to a scale-in, milliseconds.
    pub(super) scale_in_ms: u64,
}

impl Guard for CooldownGuard {
    fn name(&self) -> GuardName {
        GuardName::Cooldown
    }

    fn remember(&self, context: &GuardContext<'_>, _: u32, memory: &mut GuardMemory) {
        let size = context.observation.desired;
        let first = LastChanges { size, grew_ms: None, shrank_ms: None };
        // Somebody may have changed it since the last tick.
        let mut changes = context.memory.changes.unwrap_or(first);
        changes.note(size, context.lived_ms);
        memory.changes = Some(changes);
    }

    fn narrow(
        &self,
        context: &GuardContext<'_>,
        memory: &GuardMemory,
        proposed: u32,
    ) -> Option<(u32, Reason)> {
        let (desired, last) = (context.observation.desired, memory.changes?);
        let (what, since_ms, cooldown_ms) = match proposed > desired {
            true => ("scale-out", last.grew_ms?, self.scale_out_ms),
            false => ("scale-in", last.grew_ms.max(last.shrank_ms)?, self.scale_in_ms),
        };
        let left_ms =
            cooldown_ms.checked_sub(context.lived_ms.saturating_sub(since_ms)).filter(|it| *it > 0)?;
        let left = format_duration_ms(left_ms);
        let reason = Reason {
            code: format!("{what}-cooldown").into(),
            text: format!("{what} to {proposed} waits for its cooldown: {left} more").into(),
            evidence: vec![("left".into(), left.into())],
        };
        Some((desired, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::testing::{context, observation};

    /// What is granted of these wishes, one per second.
    fn granted(guard: CooldownGuard, mut desired: u32, wishes: &[u32]) -> Vec<u32> {
        let mut memory = GuardMemory::default();
        let turn = |(second, &wish): (u64, &u32)| {
            let observation = observation(0, 100, desired);
            let context = GuardContext { lived_ms: second * 1_000, memory: &memory, ..context(&observation) };
            let mut after = GuardMemory::default();
            guard.remember(&context, wish, &mut after);
            if wish != desired {
                desired = guard.narrow(&context, &after, wish).map_or(wish, |(capacity, _)| capacity);
            }
            if let Some(changes) = &mut after.changes {
                changes.note(desired, context.lived_ms);
            }
            memory = after;
            desired
        };
        (0..).zip(wishes).map(turn).collect()
    }

    #[test]
    fn each_direction_has_its_own() {
        let guard = CooldownGuard { scale_out_ms: 2_000, scale_in_ms: 3_000 };
        assert_eq!(granted(guard, 2, &[3, 4, 5, 6, 7]), [3, 3, 5, 5, 7], "the first change is free");
        assert_eq!(granted(guard, 9, &[8, 7, 6, 5, 4]), [8, 8, 8, 5, 5]);
        assert_eq!(granted(guard, 5, &[4, 6, 5]), [4, 6, 6], "out is not held back by in, in by both");
        let none = CooldownGuard { scale_out_ms: 0, scale_in_ms: 0 };
        assert_eq!(granted(none, 5, &[4, 6, 5]), [4, 6, 5]);
    }

    #[test]
    fn the_reason_says_how_long() {
        let guard = CooldownGuard { scale_out_ms: 0, scale_in_ms: 60_000 };
        let observation = observation(0, 10, 5);
        let changes = Some(LastChanges { size: 5, grew_ms: Some(1_000), shrank_ms: None });
        let memory = GuardMemory { changes, ..GuardMemory::default() };
        let context = GuardContext { lived_ms: 11_000, memory: &memory, ..context(&observation) };
        let (capacity, reason) = guard.narrow(&context, &memory, 3).expect("it narrows");
        assert_eq!((capacity, reason.text.as_str()), (5, "scale-in to 3 waits for its cooldown: 50s more"));
    }
}
