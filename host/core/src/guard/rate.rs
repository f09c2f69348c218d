//! `scale_out_limit` and `scale_in_limit`: how far the capacity may move within a period, as scaling policies of the
//! Kubernetes HPA do.

use serde::{Deserialize, Serialize};

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::manifest::RateLimit;
use crate::manifest::units::format_duration_ms;

/// Parts of a period. Sizes within one part are remembered as their extremes, so a limit may bind for up to this share of the
/// period longer, never shorter.
const PARTS: u64 = 30;

/// The sizes that a set had within a part of a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastSizes {
    /// The last moment, on the set's own clock, milliseconds.
    pub at_ms: u64,
    /// The smallest.
    pub least: u32,
    /// The largest.
    pub most: u32,
}

/// Lets the capacity move only so far within a period.
#[derive(Debug, Clone, Copy)]
pub(super) struct RateGuard {
    pub(super) scale_out: RateLimit,
    pub(super) scale_in: RateLimit,
}

impl Guard for RateGuard {
    fn name(&self) -> GuardName {
        GuardName::RateLimit
    }

    fn remember(&self, context: &GuardContext<'_>, _: u32, memory: &mut GuardMemory) {
        let (now_ms, size) = (context.lived_ms, context.observation.desired);
        let longest_ms = self.scale_out.period_ms.max(self.scale_in.period_ms);
        let part_ms = longest_ms.div_ceil(PARTS).max(1);
        let since_ms = now_ms.saturating_sub(longest_ms);
        memory.sizes = context.memory.sizes.iter().copied().filter(|past| past.at_ms >= since_ms).collect();
        match memory.sizes.last_mut() {
            Some(last) if last.at_ms / part_ms == now_ms / part_ms => {
                *last = PastSizes { at_ms: now_ms, least: last.least.min(size), most: last.most.max(size) };
            }
            _ => memory.sizes.push(PastSizes { at_ms: now_ms, least: size, most: size }),
        }
    }

    fn narrow(
        &self,
        context: &GuardContext<'_>,
        memory: &GuardMemory,
        proposed: u32,
    ) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        let within = |period_ms: u64| {
            let since_ms = context.lived_ms.saturating_sub(period_ms);
            memory.sizes.iter().filter(move |past| past.at_ms >= since_ms)
        };
        let (what, limit, from, furthest) = if proposed > desired {
            let limit = self.scale_out;
            let from = within(limit.period_ms).map(|past| past.least).min()?.min(desired);
            ("scale-out", limit, from, from.saturating_add(limit.step(from)).max(desired))
        } else {
            let limit = self.scale_in;
            let from = within(limit.period_ms).map(|past| past.most).max()?.max(desired);
            ("scale-in", limit, from, from.saturating_sub(limit.step(from)).min(desired))
        };
        if proposed.abs_diff(desired) <= furthest.abs_diff(desired) {
            return None;
        }
        let period = format_duration_ms(limit.period_ms);
        let reason = Reason {
            code: format!("{what}-rate").into(),
            text: format!("{what} to {proposed} limited to {furthest}: {limit} (from {from})").into(),
            evidence: vec![("from".into(), from.to_string().into()), ("period".into(), period.into())],
        };
        Some((furthest, reason))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::testing::{context, observation};

    fn guard(out_percent: u32, out_count: u32, in_percent: u32, in_count: u32, period_ms: u64) -> RateGuard {
        let limit = |percent, count| RateLimit { percent, count, period_ms };
        RateGuard { scale_out: limit(out_percent, out_count), scale_in: limit(in_percent, in_count) }
    }

    /// What is granted for each wish, one per second, with the current capacity following.
    fn granted(guard: RateGuard, mut desired: u32, wishes: &[u32]) -> Vec<u32> {
        let mut memory = GuardMemory::default();
        let mut granted = Vec::new();
        for (second, &wish) in (0..).zip(wishes) {
            let observation = observation(0, u32::MAX, desired);
            let context = GuardContext { lived_ms: second * 1_000, memory: &memory, ..context(&observation) };
            let mut after = GuardMemory::default();
            guard.remember(&context, wish, &mut after);
            assert!(after.sizes.len() as u64 <= PARTS + 2, "memory is bounded");
            if wish != desired {
                desired = guard.narrow(&context, &after, wish).map_or(wish, |(capacity, _)| capacity);
            }
            granted.push(desired);
            memory = after;
        }
        granted
    }

    #[test]
    fn the_larger_of_share_and_count_is_allowed_per_period() {
        let doubling = guard(100, 4, 50, 1, 3_000);
        let up = granted(doubling, 1, &[100; 14]);
        assert_eq!(up, [5, 5, 5, 5, 10, 10, 10, 10, 20, 20, 20, 20, 40, 40]);
        let down = granted(doubling, 51, &[3; 14]);
        assert_eq!(down, [26, 26, 26, 26, 13, 13, 13, 13, 7, 7, 7, 7, 4, 4]);
    }

    #[test]
    fn a_move_within_the_limit_passes_and_the_reason_names_the_limit() {
        let guard = guard(100, 4, 50, 1, 15_000);
        let observation = observation(0, 1_000, 10);
        let context = context(&observation);
        let mut memory = GuardMemory::default();
        guard.remember(&context, 99, &mut memory);
        assert_eq!(guard.narrow(&context, &memory, 20), None);
        assert_eq!(guard.narrow(&context, &memory, 5), None);
        let (capacity, reason) = guard.narrow(&context, &memory, 99).expect("it narrows");
        assert_eq!(capacity, 20);
        assert_eq!(
            reason.text,
            "scale-out to 99 limited to 20: at most 100% or 4 instances per 15s (from 10)"
        );
    }

    proptest! {
        /// Within any period the size moves no further than the limit allows from its extreme, and memory is bounded.
        #[test]
        fn never_further_than_the_limit(
            start in 0..200_u32,
            wishes in prop::collection::vec(0..400_u32, 1..100),
            (percent, count) in (0..200_u32, 1..20_u32),
            seconds in 0..20_u64,
        ) {
            let guard = guard(percent, count, percent.min(100), count, seconds * 1_000);
            let sizes: Vec<u32> = std::iter::once(start).chain(granted(guard, start, &wishes)).collect();
            for end in 1..sizes.len() {
                let begin = (end - 1).saturating_sub(usize::try_from(seconds).unwrap());
                let past = &sizes[begin..end];
                let (least, most) = (*past.iter().min().unwrap(), *past.iter().max().unwrap());
                let before = sizes[end - 1];
                prop_assert!(sizes[end] <= before.max(least + guard.scale_out.step(least)));
                prop_assert!(sizes[end] >= before.min(most.saturating_sub(guard.scale_in.step(most))));
            }
        }
    }
}
