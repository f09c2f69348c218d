//! `scale_in_stabilization`: scales in only to the largest capacity wanted within a window, as the Kubernetes HPA does.

use serde::{Deserialize, Serialize};

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::units::format_duration_ms;

/// Parts of the window. Wishes within one part are remembered as one, so a scale-in may wait for up to this share of the
/// window longer, never shorter. With the parts at both ends, which may lie half outside, at most 64 are remembered.
const PARTS: u64 = 62;

/// What the policies wanted at one time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct WantedCapacity {
    /// When, on the set's own clock, milliseconds.
    pub at_ms: u64,
    /// Capacity.
    pub capacity: u32,
}

/// Scales in only to the largest capacity wanted within the window.
#[derive(Debug, Clone, Copy)]
pub(super) struct StabilizationGuard {
    /// Length of the window, milliseconds, more than 0.
    pub(super) window_ms: u64,
}

impl Guard for StabilizationGuard {
    fn name(&self) -> GuardName {
        GuardName::ScaleInStabilization
    }

    fn remember(&self, context: &GuardContext<'_>, wanted: u32, memory: &mut GuardMemory) {
        let now_ms = context.lived_ms;
        let before = &context.memory.wanted;
        // When nothing is known of the past, the current capacity is what was wanted.
        let start = before.is_empty().then_some(context.observation.desired);
        let news =
            start.into_iter().chain([wanted]).map(|capacity| WantedCapacity { at_ms: now_ms, capacity });
        let since_ms = now_ms.saturating_sub(self.window_ms);
        let part_ms = self.window_ms.div_ceil(PARTS);
        memory.wanted.clear();
        for wish in before.iter().copied().chain(news).filter(|wish| wish.at_ms >= since_ms) {
            remember(&mut memory.wanted, wish, part_ms);
        }
    }

    fn narrow(
        &self,
        context: &GuardContext<'_>,
        memory: &GuardMemory,
        proposed: u32,
    ) -> Option<(u32, Reason)> {
        // Each entry is larger than those after it.
        let largest = memory.wanted.first()?.capacity.min(context.observation.desired);
        if proposed >= largest {
            return None;
        }
        let window = format_duration_ms(self.window_ms);
        let reason = Reason {
            code: "scale-in-stabilized".into(),
            text: format!("scale-in to {proposed} held back: {largest} wanted within the last {window}")
                .into(),
            evidence: vec![("largest".into(), largest.to_string().into()), ("window".into(), window.into())],
        };
        Some((largest, reason))
    }
}

/// Appends a wish, and forgets those that it outlasts: an earlier one that is not larger can no longer be the largest.
fn remember(wanted: &mut Vec<WantedCapacity>, mut wish: WantedCapacity, part_ms: u64) {
    while let Some(last) = wanted.last() {
        if last.capacity > wish.capacity {
            if last.at_ms / part_ms != wish.at_ms / part_ms {
                break;
            }
            wish.capacity = last.capacity;
        }
        wanted.pop();
    }
    wanted.push(wish);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::testing::{context, observation};

    const WINDOW_MS: u64 = 62_000;

    /// What is granted for each wish, one per second, with the current capacity following.
    fn granted(desired: u32, wishes: &[u32]) -> Vec<u32> {
        let (mut desired, mut memory) = (desired, GuardMemory::default());
        let guard = StabilizationGuard { window_ms: WINDOW_MS };
        let mut granted = Vec::new();
        for (second, &wish) in (0..).zip(wishes) {
            let observation = observation(0, 1_000, desired);
            let context = GuardContext { lived_ms: second * 1_000, memory: &memory, ..context(&observation) };
            let mut after = GuardMemory::default();
            guard.remember(&context, wish, &mut after);
            desired = guard.narrow(&context, &after, wish).map_or(wish, |(capacity, _)| capacity);
            granted.push(desired);
            memory = after;
        }
        granted
    }

    #[test]
    fn a_scale_in_waits_until_the_window_wants_no_more_and_a_scale_out_does_not() {
        let mut wishes = vec![5, 2, 9];
        wishes.resize(70, 3);
        let granted = granted(5, &wishes);
        assert_eq!(granted[..5], [5, 5, 9, 9, 9]);
        // Wanted at second 2, within the window up to second 64.
        assert_eq!((granted[64], granted[65]), (9, 3));
    }

    #[test]
    fn the_capacity_in_force_is_the_first_that_was_wanted() {
        let granted = granted(8, &[1; 70]);
        assert_eq!((granted[0], granted[62], granted[63]), (8, 8, 1));
    }

    #[test]
    fn what_was_wanted_above_the_capacity_in_force_is_no_reason_to_scale_out() {
        let memory =
            GuardMemory { wanted: vec![WantedCapacity { at_ms: 0, capacity: 50 }], ..GuardMemory::default() };
        let observation = observation(0, 10, 5);
        let context = GuardContext { lived_ms: 1, memory: &memory, ..context(&observation) };
        let guard = StabilizationGuard { window_ms: WINDOW_MS };
        let (capacity, reason) = guard.narrow(&context, &memory, 3).expect("it narrows");
        assert_eq!(capacity, 5);
        assert_eq!(reason.text, "scale-in to 3 held back: 5 wanted within the last 62s");
    }

    proptest! {
        /// Never earlier than the exact window would allow, hardly later, and with bounded memory, also when the window
        /// changes on the way.
        #[test]
        fn the_largest_of_the_window_is_remembered(
            wishes in prop::collection::vec((0..3_000_u64, 0..200_u32), 1..400),
            first_ms in 1..200_000_u64,
            window_ms in 1..200_000_u64,
            change in 0..400_usize,
        ) {
            let (mut memory, mut now_ms, mut all) = (GuardMemory::default(), 0, Vec::new());
            let observation = observation(0, 1_000, 0);
            for (index, (passed_ms, wish)) in wishes.into_iter().enumerate() {
                now_ms += passed_ms;
                all.push((now_ms, wish));
                let window_ms = if index < change { first_ms } else { window_ms };
                let context = GuardContext { lived_ms: now_ms, memory: &memory, ..context(&observation) };
                let mut after = GuardMemory::default();
                StabilizationGuard { window_ms }.remember(&context, wish, &mut after);
                memory = after;
                prop_assert!(memory.wanted.len() <= 64);
                prop_assert!(memory.wanted.windows(2).all(|w| w[0].capacity > w[1].capacity && w[0].at_ms < w[1].at_ms));
                // A window that has just grown cannot know what a smaller one forgot.
                let sure_ms = first_ms.min(window_ms);
                let largest = |reach_ms: u64| {
                    all.iter().filter(|(at_ms, _)| at_ms + reach_ms >= now_ms).map(|(_, wish)| *wish).max().unwrap_or(0)
                };
                let remembered = memory.wanted[0].capacity;
                prop_assert!(remembered >= largest(sure_ms));
                let longest_ms = first_ms.max(window_ms);
                prop_assert!(remembered <= largest(longest_ms + 2 * longest_ms.div_ceil(PARTS)));
            }
        }
    }
}
