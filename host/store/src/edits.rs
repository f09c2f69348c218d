//! A metric's window as the difference from the one before it: each sample is stored once.
//!
//! From tick to tick a window gains a sample at its end, loses its oldest, and where it is down-sampled two old samples become
//! one. Everything else is as it was. Any two sequences of samples can be told apart this way, also those that have nothing in
//! common, so the first record of a segment is a difference as well: from nothing.

use regatta_core::observation::WindowSample;
use serde::{Deserialize, Serialize};

/// What leads from an older window to a newer one.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Edits {
    /// Runs of samples that are no longer there: position in the older window, and how many.
    #[serde(rename = "-", default, skip_serializing_if = "Vec::is_empty")]
    removed: Vec<(usize, usize)>,
    /// Runs of samples that are new: position in the newer window, and the samples.
    #[serde(rename = "+", default, skip_serializing_if = "Vec::is_empty")]
    inserted: Vec<(usize, Vec<Step>)>,
}

/// A sample: its time since the one before it in its run (wrapping, so that any order comes back), and its value.
type Step = (u64, f64);

impl Edits {
    /// What leads from `old` to `new`.
    pub(crate) fn between(old: &[WindowSample], new: &[WindowSample]) -> Self {
        let edits = Self::walk(old, new);
        // What is stored must be what was seen, whatever a later change does to the walk.
        match edits.apply(old) {
            Ok(rebuilt) if rebuilt.len() == new.len() && rebuilt.iter().zip(new).all(|(a, b)| same(a, b)) => {
                edits
            }
            _ => Self::replacing(old, new),
        }
    }

    /// Goes through both by rising time. Also windows whose times do not rise come back, only with more edits than needed.
    fn walk(old: &[WindowSample], new: &[WindowSample]) -> Self {
        let mut edits = Self::default();
        let (mut at, mut to) = (0, 0);
        while at < old.len() || to < new.len() {
            match (old.get(at), new.get(to)) {
                (Some(before), Some(after)) if same(before, after) => (at, to) = (at + 1, to + 1),
                (Some(before), after) if after.is_none_or(|after| before.at_ms <= after.at_ms) => {
                    match edits.removed.last_mut() {
                        Some((from, count)) if *from + *count == at => *count += 1,
                        _ => edits.removed.push((at, 1)),
                    }
                    at += 1;
                }
                _ => {
                    match edits.inserted.last_mut() {
                        Some((from, steps)) if *from + steps.len() == to => {
                            steps.push(step(&new[to], new[to - 1].at_ms));
                        }
                        _ => edits.inserted.push((to, steps(&new[to..=to]))),
                    }
                    to += 1;
                }
            }
        }
        edits
    }

    /// Nothing of `old` stays.
    fn replacing(old: &[WindowSample], new: &[WindowSample]) -> Self {
        Self { removed: vec![(0, old.len())], inserted: vec![(0, steps(new))] }
    }

    /// The newer window. Stored edits may say anything.
    pub(crate) fn apply(&self, old: &[WindowSample]) -> Result<Vec<WindowSample>, String> {
        let outside = || "a stored window does not follow from the one before it".to_owned();
        let mut kept = Vec::with_capacity(old.len());
        let mut at = 0;
        for &(from, count) in &self.removed {
            kept.extend_from_slice(old.get(at..from).ok_or_else(outside)?);
            at = from.checked_add(count).ok_or_else(outside)?;
        }
        kept.extend_from_slice(old.get(at..).ok_or_else(outside)?);

        let mut kept = kept.into_iter();
        let mut window = Vec::with_capacity(kept.len());
        for (position, steps) in &self.inserted {
            let before = position
                .checked_sub(window.len())
                .filter(|&count| count <= kept.len())
                .ok_or_else(outside)?;
            window.extend(kept.by_ref().take(before));
            let mut at_ms = 0u64;
            for &(since_ms, value) in steps {
                at_ms = at_ms.wrapping_add(since_ms);
                window.push(WindowSample { at_ms, value });
            }
        }
        window.extend(kept);
        Ok(window)
    }
}

fn same(a: &WindowSample, b: &WindowSample) -> bool {
    a.at_ms == b.at_ms && a.value.to_bits() == b.value.to_bits()
}

fn step(sample: &WindowSample, before_ms: u64) -> Step {
    (sample.at_ms.wrapping_sub(before_ms), sample.value)
}

fn steps(samples: &[WindowSample]) -> Vec<Step> {
    let before = std::iter::once(0).chain(samples.iter().map(|sample| sample.at_ms));
    samples.iter().zip(before).map(|(sample, before_ms)| step(sample, before_ms)).collect()
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn sample((at_ms, value): (u64, f64)) -> WindowSample {
        WindowSample { at_ms, value }
    }

    fn bits(window: &[WindowSample]) -> Vec<(u64, u64)> {
        window.iter().map(|sample| (sample.at_ms, sample.value.to_bits())).collect()
    }

    fn round(old: &[WindowSample], new: &[WindowSample]) -> Edits {
        let edits = Edits::between(old, new);
        let json = serde_json::to_vec(&edits).unwrap();
        let read: Edits = serde_json::from_slice(&json).unwrap();
        assert_eq!(bits(&read.apply(old).unwrap()), bits(new), "{edits:?}");
        edits
    }

    #[test]
    fn a_tick_takes_a_sample_or_two() {
        let old: Vec<_> = (0..1_000).map(|i| sample((i * 5_000, i as f64))).collect();
        let mut new = old[1..].to_vec();
        new.push(sample((5_000_000, 0.5)));
        assert_eq!(
            round(&old, &new),
            Edits { removed: vec![(0, 1)], inserted: vec![(999, vec![(5_000_000, 0.5)])] }
        );
        // Samples 300 and 301 become one.
        new.splice(299..301, [sample((301 * 5_000, 300.5))]);
        let edits = round(&old, &new);
        assert_eq!(edits.removed, [(0, 1), (300, 2)]);
        assert_eq!(edits.inserted, [(299, vec![(301 * 5_000, 300.5)]), (998, vec![(5_000_000, 0.5)])]);
        assert_eq!(round(&new, &new), Edits::default());
    }

    #[test]
    fn zeros_of_either_sign_stay_apart() {
        round(&[sample((1, 0.0))], &[sample((1, -0.0))]);
    }

    #[test]
    fn edits_that_fit_nowhere_are_an_error() {
        let old = [sample((1, 1.0)), sample((2, 2.0))];
        for edits in [
            r#"{"-":[[1,2]]}"#,
            r#"{"-":[[3,1]]}"#,
            r#"{"-":[[1,1],[0,1]]}"#,
            r#"{"-":[[1,18446744073709551615]]}"#,
            r#"{"+":[[3,[[1,1.0]]]]}"#,
            r#"{"+":[[1,[[1,1.0]]],[0,[[1,1.0]]]]}"#,
        ] {
            let read: Edits = serde_json::from_str(edits).unwrap();
            assert!(read.apply(&old).is_err(), "{edits}");
        }
    }

    proptest! {
        /// Few times and values, so that the windows have something in common; not in any order.
        #[test]
        fn any_window_follows_from_any_other(
            old in vec((0..20u64, 0..3u8), 0..30),
            new in vec((0..20u64, 0..3u8), 0..30),
            sorted in any::<bool>(),
        ) {
            let window = |samples: Vec<(u64, u8)>| {
                let mut window: Vec<_> = samples.into_iter().map(|(at, value)| sample((at, f64::from(value)))).collect();
                if sorted {
                    window.sort_by_key(|sample| sample.at_ms);
                }
                window
            };
            round(&window(old), &window(new));
        }

        #[test]
        fn any_time_and_value_comes_back(
            old in vec((any::<u64>(), proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO), 0..10),
            new in vec((any::<u64>(), proptest::num::f64::NORMAL | proptest::num::f64::SUBNORMAL | proptest::num::f64::ZERO), 0..10),
        ) {
            let window = |samples: Vec<_>| samples.into_iter().map(sample).collect::<Vec<_>>();
            round(&window(old), &window(new));
        }
    }
}
