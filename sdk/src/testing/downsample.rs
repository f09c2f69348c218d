//! How a window of past values grows coarser with age: the host's own rule (`regatta_core::metrics::downsample`, where it is
//! explained), so that a policy sees in a test what it sees in a set. A test of policy-tools holds the two together.

/// Newest samples, which are never merged.
const EXACT_SAMPLES: usize = 60;
/// How far back the longest window reaches: 31 days.
const MAX_WINDOW_MS: u64 = 31 * 24 * 3_600_000;

/// Appends a sample (time and value), younger than all the others, and lets what became older grow coarser.
pub(super) fn append(window: &mut Vec<(u64, f64)>, new: (u64, f64), period_ms: u64) {
    window.push(new);
    let (now_ms, period_ms) = (new.0, period_ms.max(1));
    let Some(exact_from) = window.len().checked_sub(EXACT_SAMPLES) else { return };
    let oldest_ms = now_ms.saturating_sub(MAX_WINDOW_MS.saturating_add(period_ms));
    let dropped = window.partition_point(|sample| sample.0 < oldest_ms).min(exact_from);
    let exact = window.split_off(exact_from);
    let mut older: Vec<(u64, f64)> = Vec::with_capacity(window.len());
    for &(at_ms, value) in &window[dropped..] {
        let width_ms = bucket_ms(now_ms - at_ms, period_ms);
        let start_ms = at_ms - at_ms % width_ms;
        match older.pop() {
            Some((before_ms, before)) if before_ms >= start_ms => {
                let from_ms =
                    older.last().map_or(0, |sample| sample.0).max(start_ms.saturating_sub(period_ms));
                let weights = (before_ms - from_ms, at_ms - before_ms);
                older.push((at_ms, mean(before, value, weights)));
            }
            before => older.extend(before.into_iter().chain([(at_ms, value)])),
        }
    }
    older.extend(exact);
    *window = older;
}

/// Width of the buckets at an age.
fn bucket_ms(age_ms: u64, period_ms: u64) -> u64 {
    let exact_ms = period_ms.saturating_mul(EXACT_SAMPLES as u64);
    period_ms.saturating_mul(1 << (age_ms / exact_ms).saturating_add(1).ilog2())
}

#[expect(clippy::cast_precision_loss, reason = "weights are far below 2^53 ms")]
fn mean(one: f64, other: f64, (one_ms, other_ms): (u64, u64)) -> f64 {
    let share = other_ms as f64 / (one_ms + other_ms) as f64;
    (one * (1.0 - share) + other * share).clamp(one.min(other), one.max(other))
}
