//! What policies ask of a set's metrics, and how much they may ask for.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::downsample::MAX_WINDOW_MS;
use super::specs_of;
use crate::manifest::{ScaleSet, nearest};
use crate::observation::MetricScope;

/// A metric that a policy asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MetricWish {
    /// Name, as the manifest calls it.
    pub name: String,
    /// How far back the policy looks, milliseconds; 0 for no window.
    pub window_ms: u64,
}

/// Most metrics that a policy may ask for: as many as a manifest may name. With [`MAX_WINDOW_MS`] this bounds the windows of a
/// set, whatever its policies ask for: 64 metrics for 31 days take 0.9 MiB at a tick of 5 s, 1.4 MiB at one of 20 ms.
pub const MAX_WISHES: usize = 64;

/// Characters of a metric's name in a problem; a name is a policy's, and may be anything.
const SHOWN_CHARS: usize = 80;

/// Why a wish cannot be granted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WishProblem {
    /// A window reaches back too far.
    #[error("asks for {} of {}; at most {} are kept", span(*.asked_ms), shown(.metric), span(*.most_ms))]
    TooLong {
        /// The metric.
        metric: String,
        /// What was asked for, milliseconds.
        asked_ms: u64,
        /// What can be had, milliseconds.
        most_ms: u64,
    },
    /// Too many metrics.
    #[error("asks for {asked} metrics; at most {most} are kept")]
    TooMany {
        /// What was asked for.
        asked: usize,
        /// What can be had.
        most: usize,
    },
}

/// Whether a set can keep what one policy asks for. The length of the tick does not matter: older samples are down-sampled, so a
/// window of 31 days stays below [`MAX_WINDOW_SAMPLES`](super::downsample::MAX_WINDOW_SAMPLES) at any tick.
///
/// # Errors
/// All wishes beyond the bounds.
pub fn check_wishes(wishes: &[MetricWish]) -> Result<(), Vec<WishProblem>> {
    let mut problems = Vec::new();
    if wishes.len() > MAX_WISHES {
        problems.push(WishProblem::TooMany { asked: wishes.len(), most: MAX_WISHES });
    }
    let too_long = wishes.iter().take(MAX_WISHES).filter(|wish| wish.window_ms > MAX_WINDOW_MS);
    problems.extend(too_long.map(|wish| WishProblem::TooLong {
        metric: wish.name.clone(),
        asked_ms: wish.window_ms,
        most_ms: MAX_WINDOW_MS,
    }));
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

/// A metric that a policy asks for and that its set does not have: it is missing in every tick.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("asks for metric {}, which set {set} does not have{}", shown(.name), meant(.suggestion))]
pub struct UnknownMetric {
    /// The set.
    pub set: String,
    /// Its name, as the policy gives it.
    pub name: String,
    /// The metric of the set that was probably meant.
    pub suggestion: Option<String>,
}

/// Those of `wishes` that `set` cannot serve, each name once. Whether that matters is for the policy to know: it may do
/// without.
#[must_use]
pub fn unknown_metrics(set: &ScaleSet, wishes: &[MetricWish]) -> Vec<UnknownMetric> {
    let known: Vec<String> = specs_of(set).into_iter().map(|spec| spec.name).collect();
    let unknown: BTreeSet<&str> = wishes
        .iter()
        .map(|wish| wish.name.as_str())
        .filter(|name| !known.iter().any(|it| it == name))
        .collect();
    let told = |name: &str| UnknownMetric {
        set: set.name.clone(),
        name: name.to_owned(),
        suggestion: nearest(name, known.iter().map(String::as_str)).map(str::to_owned),
    };
    unknown.into_iter().map(told).collect()
}

/// Whether a set that has no instance may stay without for good: it has no load balancer whose clients could start the first one,
/// and each of its policies asks for metrics that only instances have. `wishes` are those of its active policies. A policy that
/// asks for no metric decides by something else, such as the time.
#[must_use]
pub fn cannot_start_from_zero<'a>(
    set: &ScaleSet,
    wishes: impl IntoIterator<Item = &'a [MetricWish]>,
) -> bool {
    let specs = specs_of(set);
    let of_the_set =
        |wish: &MetricWish| specs.iter().any(|spec| spec.name == wish.name && spec.scope == MetricScope::Set);
    let blind = |wishes: &[MetricWish]| !wishes.is_empty() && !wishes.iter().any(of_the_set);
    set.capacity.min == 0 && set.load_balancer.is_none() && wishes.into_iter().all(blind)
}

/// The longest window that any of `wishes` asks for, by metric, milliseconds.
#[must_use]
pub fn longest_wishes<'a>(wishes: impl IntoIterator<Item = &'a MetricWish>) -> BTreeMap<&'a str, u64> {
    let mut longest = BTreeMap::new();
    for wish in wishes {
        let reach_ms: &mut u64 = longest.entry(wish.name.as_str()).or_default();
        *reach_ms = wish.window_ms.max(*reach_ms);
    }
    longest
}

fn shown(name: &str) -> String {
    name.chars().take(SHOWN_CHARS).flat_map(char::escape_debug).collect()
}

fn meant(suggestion: &Option<String>) -> String {
    suggestion.as_ref().map(|name| format!("; did you mean {name}?")).unwrap_or_default()
}

/// A time in words, in the largest unit that says it exactly.
fn span(ms: u64) -> String {
    let units = [(86_400_000, "days"), (3_600_000, "hours"), (60_000, "minutes"), (1_000, "seconds")];
    let (of_ms, unit) = units.into_iter().find(|(of_ms, _)| ms.is_multiple_of(*of_ms)).unwrap_or((1, "ms"));
    format!("{} {unit}", ms / of_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY_MS: u64 = 86_400_000;

    fn wish(name: &str, window_ms: u64) -> MetricWish {
        MetricWish { name: name.to_owned(), window_ms }
    }

    #[test]
    fn wishes_within_the_bounds_are_granted() {
        assert_eq!(check_wishes(&[]), Ok(()));
        assert_eq!(check_wishes(&[wish("cpu", 0), wish("queue", 31 * DAY_MS)]), Ok(()));
        assert_eq!(check_wishes(&vec![wish("cpu", 0); MAX_WISHES]), Ok(()));
    }

    #[test]
    fn wishes_beyond_the_bounds_are_all_named() {
        let told = |wishes: &[MetricWish]| {
            let problems = check_wishes(wishes).unwrap_err();
            problems.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        assert_eq!(
            told(&[wish("cpu", 90 * DAY_MS), wish("queue", 0), wish("a\nb", 31 * DAY_MS + 1)]),
            [
                "asks for 90 days of cpu; at most 31 days are kept",
                r"asks for 2678400001 ms of a\nb; at most 31 days are kept",
            ]
        );
        assert_eq!(told(&vec![wish("cpu", 0); 65]), ["asks for 65 metrics; at most 64 are kept"]);
    }

    #[test]
    fn a_metric_that_the_set_lacks_is_told_once_with_what_was_meant() {
        let extra =
            "load_balancer: { listen: \"127.0.0.1:8000\" }\nmetrics: [{ name: utilization, series: u }]";
        let told = |wishes: &[MetricWish], extra: &str| {
            let set = crate::machine::testing::manifest(extra);
            let unknown = unknown_metrics(&set, wishes);
            unknown.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let wishes = [
            wish("cpu", 0),
            wish("utilisation", 0),
            wish("connections", 0),
            wish("a\nb", 0),
            wish("a\nb", 9),
        ];
        assert_eq!(
            told(&wishes, extra),
            [
                r"asks for metric a\nb, which set web does not have",
                "asks for metric utilisation, which set web does not have; did you mean utilization?",
            ]
        );
        assert_eq!(
            told(&[wish("connections", 0)], "").len(),
            1,
            "there is no load balancer that counts them"
        );
    }

    #[test]
    fn a_set_of_min_0_needs_a_load_balancer_or_a_policy_that_decides_without_instances() {
        let stuck = |extra: &str, wishes: &[&[MetricWish]]| {
            cannot_start_from_zero(&crate::machine::testing::manifest(extra), wishes.iter().copied())
        };
        let zero = "capacity: { min: 0, max: 3 }";
        let of_instances: &[MetricWish] = &[wish("cpu", 0), wish("unknown", 0)];
        assert!(stuck(zero, &[of_instances]) && stuck(zero, &[of_instances, of_instances]));
        assert!(!stuck(zero, &[of_instances, &[]]), "one policy that decides by the time is enough");
        assert!(!stuck("capacity: { min: 1, max: 3 }", &[of_instances]));
        let balanced = format!("{zero}\nload_balancer: {{ listen: \"127.0.0.1:8000\" }}");
        assert!(!stuck(&balanced, &[of_instances]));
    }

    #[test]
    fn the_longest_wish_counts() {
        let (one, other) = ([wish("cpu", 60_000), wish("queue", 0)], [wish("cpu", 300_000), wish("cpu", 0)]);
        let longest = longest_wishes(one.iter().chain(&other));
        assert_eq!(longest.into_iter().collect::<Vec<_>>(), [("cpu", 300_000), ("queue", 0)]);
    }
}
