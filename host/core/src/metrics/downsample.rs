//! How a window of past values grows coarser with age. Pure: the next window is a function of the window before, the new
//! sample and two numbers, so whoever has stored the samples (a record, a replay) has stored the windows.
//!
//! The rule, for a metric that is measured every `period_ms`:
//!
//! * The newest [`EXACT_SAMPLES`] samples stay as they were.
//! * Before them, at an age of `a` (behind the newest sample), there is one sample per bucket of
//!   `period_ms · 2^⌊log2(1 + a / (60 · period_ms))⌋`, which is at most `period_ms + a / 60`. Buckets are aligned to multiples
//!   of their width, so each one lies within one of the next level.
//! * Samples that fall into one bucket become one: the time stamp of the newest, and the mean over time, in which each stands
//!   for the time since the one before it. With regular ticks that is the plain mean; a value never leaves the range of the
//!   samples that it stands for.
//! * What is older than `reach_ms` and one period is dropped. The oldest sample left may stand for more than that.
//!
//! The SDK's test model has the same rule (`sdk/src/testing/downsample.rs`); a test of `regatta-policy-tools` holds the
//! two together.

use crate::observation::WindowSample;

/// Newest samples of a window, which are never merged; also all that is kept when nobody asks for more. Five minutes at the
/// default tick: what a policy needs to tell a trend from noise.
pub const EXACT_SAMPLES: usize = 60;

/// Greatest reach of a window: a month, so that a policy can look at the same day of the last four weeks.
pub const MAX_WINDOW_MS: u64 = 31 * 24 * 3_600_000;

/// No window has more samples than this, at any period and reach; at 20 ms and [`MAX_WINDOW_MS`] it has at most 1,402
/// (22 KiB). See [`most_samples`].
pub const MAX_WINDOW_SAMPLES: usize = 2_048;

/// Appends `new` to `window` and lets what became older grow coarser. Samples that are not older than `new` go: of one moment
/// the last value counts. `reach_ms` is capped at [`MAX_WINDOW_MS`].
pub fn append(window: &mut Vec<WindowSample>, new: WindowSample, period_ms: u64, reach_ms: u64) {
    while window.last().is_some_and(|sample| sample.at_ms >= new.at_ms) {
        window.pop();
    }
    window.push(new);
    compact(window, period_ms, reach_ms);
}

/// Makes ascending samples a window: drops what is beyond the reach, merges what is too fine for its age. Does nothing to what
/// is a window already.
pub fn compact(window: &mut Vec<WindowSample>, period_ms: u64, reach_ms: u64) {
    let (Some(newest), Some(exact_from)) = (window.last(), window.len().checked_sub(EXACT_SAMPLES)) else {
        return;
    };
    let (newest_ms, period_ms) = (newest.at_ms, period_ms.max(1));
    let oldest_ms = newest_ms.saturating_sub(reach_ms.min(MAX_WINDOW_MS).saturating_add(period_ms));
    let dropped = window.partition_point(|sample| sample.at_ms < oldest_ms).min(exact_from);
    window.drain(..dropped);
    merge(window, exact_from - dropped, newest_ms, period_ms);
}

/// Merges those of the first `count` samples that share a bucket, oldest first.
fn merge(window: &mut Vec<WindowSample>, count: usize, newest_ms: u64, period_ms: u64) {
    let Some(oldest) = window.first() else { return };
    let mut level = level(newest_ms - oldest.at_ms, period_ms);
    let mut kept = 0;
    for at in 1..count {
        let (older, newer) = (window[kept], window[at]);
        while newest_ms - newer.at_ms < level_from_ms(level, period_ms) {
            level -= 1;
        }
        let (width_ms, apart_ms) = (period_ms.saturating_mul(1 << level), newer.at_ms - older.at_ms);
        // Most are a whole bucket apart, which saves the division.
        if apart_ms >= width_ms || older.at_ms < newer.at_ms - newer.at_ms % width_ms {
            kept += 1;
            window[kept] = newer;
            continue;
        }
        // Time before the bucket does not count, so that a gap does not give weight to the sample after it; but for one
        // period, without which the weight of the first sample would hang on where in its period it was taken.
        let before_ms = kept.checked_sub(1).map_or(0, |before| window[before].at_ms);
        let start_ms = (newer.at_ms - newer.at_ms % width_ms).saturating_sub(period_ms);
        let older_ms = older.at_ms - before_ms.max(start_ms);
        let value = mean((older.value, older_ms), (newer.value, apart_ms));
        window[kept] = WindowSample { at_ms: newer.at_ms, value };
    }
    if count > 0 {
        window.drain(kept + 1..count);
    }
}

/// The mean of two values, each with its weight in ms; the second has some.
#[expect(clippy::cast_precision_loss, reason = "weights are far below 2^53 ms")]
fn mean((one, one_ms): (f64, u64), (other, other_ms): (f64, u64)) -> f64 {
    let share = other_ms as f64 / (one_ms + other_ms) as f64;
    // Between the two, whatever the rounding.
    (one * (1.0 - share) + other * share).clamp(one.min(other), one.max(other))
}

/// How many times the buckets have doubled at an age.
fn level(age_ms: u64, period_ms: u64) -> u32 {
    (age_ms / period_ms.saturating_mul(EXACT_SAMPLES as u64)).saturating_add(1).ilog2()
}

/// The age at which a level begins.
fn level_from_ms(level: u32, period_ms: u64) -> u64 {
    period_ms.saturating_mul(EXACT_SAMPLES as u64).saturating_mul((1 << level) - 1)
}

/// How many samples a window can have: the exact ones, and for each level up to the reach its 60 buckets, of which those at
/// the ends may be cut in two.
#[must_use]
pub fn most_samples(period_ms: u64, reach_ms: u64) -> usize {
    let period_ms = period_ms.max(1);
    let levels = level(reach_ms.min(MAX_WINDOW_MS).saturating_add(period_ms), period_ms) as usize + 1;
    EXACT_SAMPLES + levels * (EXACT_SAMPLES + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DAY_MS: u64 = 24 * 3_600_000;

    fn sample(at_ms: u64, value: f64) -> WindowSample {
        WindowSample { at_ms, value }
    }

    fn window_of(samples: &[WindowSample], period_ms: u64, reach_ms: u64) -> Vec<WindowSample> {
        let mut window = Vec::new();
        for &sample in samples {
            append(&mut window, sample, period_ms, reach_ms);
        }
        window
    }

    /// Samples with jitter, gaps and bursts.
    fn samples() -> impl Strategy<Value = (u64, Vec<WindowSample>)> {
        let step = prop_oneof![12 => 90..=110_u64, 3 => 0..300_u64, 1 => 0..100_000_u64];
        let samples = proptest::collection::vec((step, -1e6..1e6_f64), 1..600);
        (1..5_000_u64, 0..2_000_000_000_000_u64, samples).prop_map(|(period_ms, mut at_ms, steps)| {
            let samples = steps.into_iter().map(|(percent, value)| {
                at_ms += (period_ms * percent).div_ceil(100).max(1);
                sample(at_ms, value)
            });
            (period_ms, samples.collect())
        })
    }

    #[test]
    fn an_hour_at_a_second() {
        let samples: Vec<_> = (1..=7_200).map(|s| sample(s * 1_000, s as f64)).collect();
        let window = window_of(&samples, 1_000, 3_600_000);
        assert_eq!(window[window.len() - 60..], samples[7_140..]);
        // Each level of ages has its 60 buckets, twice as wide as those of the level before.
        let widths = |from_s: u64, to_s: u64| {
            let ages = (7_200 - to_s) * 1_000..=(7_200 - from_s) * 1_000;
            let at: Vec<u64> = window.iter().map(|s| s.at_ms).filter(|at| ages.contains(at)).collect();
            at.windows(2).map(|pair| pair[1] - pair[0]).collect::<std::collections::BTreeSet<_>>()
        };
        assert_eq!(widths(0, 59), [1_000].into());
        assert_eq!(widths(65, 170), [2_000].into());
        assert_eq!(widths(190, 410), [4_000].into());
        assert_eq!(widths(440, 880), [8_000].into());
        assert_eq!(widths(1_000, 1_800), [16_000].into());
        assert_eq!(widths(2_000, 3_500), [32_000].into());
        assert!((3_599_000..3_632_000).contains(&window[0].at_ms));
        assert_eq!(window.len(), 358);
        // A bucket has the mean of its seconds.
        let merged = window[10];
        let width = (merged.at_ms - window[9].at_ms) / 1_000;
        assert_eq!(merged.value, merged.at_ms as f64 / 1_000.0 - (width - 1) as f64 / 2.0);
    }

    #[test]
    fn nobody_asked() {
        let samples: Vec<_> = (1..=100).map(|s| sample(s * 1_000, s as f64)).collect();
        assert_eq!(window_of(&samples, 1_000, 0), samples[40..]);
    }

    #[test]
    fn a_month_fits_at_any_tick() {
        assert_eq!(most_samples(20, MAX_WINDOW_MS), 1_402);
        assert_eq!(most_samples(5_000, MAX_WINDOW_MS), 914);
        assert_eq!(most_samples(5_000, 3_600_000), 304);
        assert!(most_samples(0, u64::MAX) <= MAX_WINDOW_SAMPLES);
    }

    #[test]
    fn a_month_at_twenty_milliseconds() {
        // Every hour for a month, then every tick: the bound holds and the month is there.
        let month: Vec<_> = (0..31 * 24).map(|hour| sample(hour * 3_600_000, 1.0)).collect();
        let mut window = window_of(&month, 20, MAX_WINDOW_MS);
        for tick in 1..=20_000 {
            append(&mut window, sample(31 * DAY_MS - 3_600_000 + tick * 20, 3.0), 20, MAX_WINDOW_MS);
        }
        assert!(window[0].at_ms <= DAY_MS / 2 + DAY_MS / 60, "half a day is a bucket at that age");
        assert!(window.len() <= most_samples(20, MAX_WINDOW_MS), "{}", window.len());
        assert!(window.iter().all(|sample| (1.0..=3.0).contains(&sample.value)));
    }

    #[test]
    fn a_constant_stays_one_and_extremes_stay_finite() {
        for value in [0.1, -7.3e-5, f64::MAX, f64::MIN] {
            let samples: Vec<_> = (0..2_000_u64).map(|n| sample(n * 700 + n % 7 * 90, value)).collect();
            assert!(window_of(&samples, 700, DAY_MS).iter().all(|sample| sample.value == value));
        }
        let samples: Vec<_> =
            (0..2_000_u64).map(|n| sample(n * 700, if n % 2 == 0 { f64::MAX } else { f64::MIN })).collect();
        assert!(window_of(&samples, 700, DAY_MS).iter().all(|sample| sample.value.is_finite()));
    }

    proptest! {
        /// Whatever comes: ascending, bounded, the newest exact, the reach covered, each value within those it stands for.
        #[test]
        fn what_a_window_promises((period_ms, samples) in samples(), reach_periods in 0..5_000_u64) {
            let reach_ms = reach_periods * period_ms;
            let window = window_of(&samples, period_ms, reach_ms);
            prop_assert!(window.iter().is_sorted_by(|a, b| a.at_ms < b.at_ms));
            prop_assert!(window.len() <= most_samples(period_ms, reach_ms));
            let exact = window.len().min(EXACT_SAMPLES);
            prop_assert_eq!(&window[window.len() - exact..], &samples[samples.len() - exact..]);

            let newest_ms = samples[samples.len() - 1].at_ms;
            let mut rest = &samples[..];
            for (at, merged) in window.iter().enumerate() {
                let end = rest.partition_point(|raw| raw.at_ms <= merged.at_ms);
                let (mut of, later) = rest.split_at(end);
                rest = later;
                prop_assert_eq!(of.last().map(|raw| raw.at_ms), Some(merged.at_ms), "stamped by its newest");
                if at == 0 && of.len() > 1 {
                    // What was dropped is not told from what it stands for.
                    let width_ms = period_ms << level(newest_ms - merged.at_ms, period_ms);
                    let start_ms = merged.at_ms - merged.at_ms % width_ms;
                    of = &of[of.partition_point(|raw| raw.at_ms < start_ms)..];
                } else {
                    let span_ms = merged.at_ms - of[0].at_ms;
                    prop_assert!(span_ms <= period_ms + (newest_ms - merged.at_ms) / 60, "no coarser than its age");
                }
                let (least, most) = of.iter().fold((f64::MAX, f64::MIN), |(l, m), raw| (l.min(raw.value), m.max(raw.value)));
                prop_assert!((least..=most).contains(&merged.value));
            }
            // A sample that was dropped or merged was at most a bucket older than the oldest that there is.
            let gap_ms = samples.windows(2).map(|pair| pair[1].at_ms - pair[0].at_ms).max().unwrap_or(0);
            let reached_ms = newest_ms - window[0].at_ms;
            prop_assert!(
                reached_ms + gap_ms + 2 * period_ms + reach_ms / 60 >= reach_ms.min(newest_ms - samples[0].at_ms)
            );
        }

        /// With regular ticks, a merged sample is the plain mean of those it stands for; but for the first, which also
        /// stands for the time before there was any.
        #[test]
        fn the_mean_is_kept(period_ms in 1..5_000_u64, from_ms in 0..2_000_000_000_000_u64, values in proptest::collection::vec(0.0..1e3_f64, 1..800)) {
            let samples: Vec<_> = values.iter().zip(0..).map(|(&value, n)| sample(from_ms + n * period_ms, value)).collect();
            let window = window_of(&samples, period_ms, MAX_WINDOW_MS);
            for pair in window.windows(2) {
                let of = samples.iter().filter(|raw| (pair[0].at_ms + 1..=pair[1].at_ms).contains(&raw.at_ms));
                let (count, sum) = of.fold((0.0, 0.0), |(count, sum), raw| (count + 1.0, sum + raw.value));
                prop_assert!((pair[1].value - sum / count).abs() <= 1e-9, "{} of {count} samples", pair[1].value);
            }
        }

        /// A window is what compaction leaves alone, so it can be stored and taken up again.
        #[test]
        fn a_window_is_one_already((period_ms, samples) in samples(), reach_periods in 0..5_000_u64) {
            let window = window_of(&samples, period_ms, reach_periods * period_ms);
            let mut again = window.clone();
            compact(&mut again, period_ms, reach_periods * period_ms);
            prop_assert_eq!(again, window);
        }
    }
}
