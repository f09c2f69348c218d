//! A policy on trial: it acts, but never further from the active one than was
//! allowed, and not at all once it fails.

use crate::decision::{Decision, FailureKind, PolicyFailure, PolicyRun, Reason};
use crate::record::CanaryRun;

/// The runs that count: that of a policy on trial, within its bounds, in the place
/// of the active one's. The trial of a policy that failed is void: the active one acts.
#[must_use]
pub fn acting(runs: &[PolicyRun], canaries: &[CanaryRun], desired: u32) -> Vec<PolicyRun> {
    let of = |run: &PolicyRun| canaries.iter().find(|canary| canary.run.slot == run.slot);
    runs.iter()
        .map(|run| of(run).map_or_else(|| run.clone(), |canary| bounded(run, canary, desired)))
        .collect()
}

/// What a policy on trial may do beside the active one.
///
/// When the active one gave no decision, the size in force is what the trial is
/// measured by, and it does not scale in: a failure is never a reason for that.
#[must_use]
pub fn bounded(active: &PolicyRun, canary: &CanaryRun, desired: u32) -> PolicyRun {
    let Ok(wish) = &canary.run.result else { return active.clone() };
    let within = canary.within;
    let (least, most, center) = match &active.result {
        Ok(Decision { capacity, .. }) => {
            (capacity.saturating_sub(within), capacity.saturating_add(within), *capacity)
        }
        Err(_) => (desired, desired.saturating_add(within), desired),
    };
    let capacity = wish.capacity.clamp(least, most);
    let mut decision = Decision { capacity, ..wish.clone() };
    if capacity != wish.capacity {
        let text = format!(
            "canary wants {}; limited to {capacity}, within {within} of the active policy's {center}",
            wish.capacity
        );
        let evidence = vec![
            ("wanted".into(), wish.capacity.to_string().into()),
            ("within".into(), within.to_string().into()),
            ("in-charge".into(), center.to_string().into()),
        ];
        decision.reasons.insert(0, Reason { code: "canary-bounded".into(), text: text.into(), evidence });
    }
    PolicyRun { result: Ok(decision), ..canary.run.clone() }
}

/// The trials that are over because the policy failed: its place, and how it failed. One that the host could not run, for
/// example while its module is compiled after a restart, goes on.
pub fn failed(canaries: &[CanaryRun]) -> impl Iterator<Item = (&PolicyRun, &PolicyFailure)> {
    let failures =
        canaries.iter().filter_map(|canary| Some((&canary.run, canary.run.result.as_ref().err()?)));
    failures.filter(|(_, failure)| failure.kind != FailureKind::Host)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(digest: &str, capacity: Option<u32>) -> PolicyRun {
        PolicyRun {
            slot: "load".into(),
            name: "p".into(),
            version: "1".into(),
            digest: digest.into(),
            params: "{}".into(),
            state_in: String::new(),
            result: capacity
                .map(|capacity| Decision {
                    capacity,
                    standby: None,
                    victims: Vec::new(),
                    wake_after_ms: None,
                    reasons: Vec::new(),
                })
                .ok_or(PolicyFailure { kind: FailureKind::Trap, message: "trapped".into() }),
            fuel: 0,
            duration_us: 0,
            log: Vec::new(),
        }
    }

    fn canary(within: u32, capacity: Option<u32>) -> CanaryRun {
        CanaryRun { within, run: run("new", capacity) }
    }

    #[test]
    fn another_place_is_not_touched() {
        let other = PolicyRun { slot: "other".into(), ..run("old", Some(7)) };
        let runs = [run("old", Some(4)), other.clone()];
        let acting = acting(&runs, &[canary(2, Some(9))], 4);
        assert_eq!(acting[0].result.as_ref().unwrap().capacity, 6);
        assert_eq!(acting[0].digest, "new", "the record names the module that decided");
        assert_eq!(acting[1], other);
    }

    #[test]
    fn a_wish_within_the_bounds_passes_untouched() {
        let acting = bounded(&run("old", Some(4)), &canary(2, Some(3)), 4);
        assert_eq!(acting.result, run("new", Some(3)).result);
    }

    proptest! {
        #[test]
        fn it_never_leaves_its_bounds(
            active in proptest::option::of(0..10_000_u32),
            wish in proptest::option::of(0..1_000_000_u32),
            within in 0..100_u32,
            desired in 0..10_000_u32,
        ) {
            let active = run("old", active);
            let acting = bounded(&active, &canary(within, wish), desired);
            match (&active.result, wish) {
                (_, None) => prop_assert_eq!(&acting, &active),
                (Ok(in_charge), Some(wish)) => {
                    let capacity = acting.result.as_ref().unwrap().capacity;
                    prop_assert!(capacity.abs_diff(in_charge.capacity) <= within);
                    // As near to the wish as it may be.
                    prop_assert_eq!(capacity == wish, wish.abs_diff(in_charge.capacity) <= within);
                }
                (Err(_), Some(_)) => {
                    let capacity = acting.result.as_ref().unwrap().capacity;
                    prop_assert!((desired..=desired + within).contains(&capacity));
                }
            }
        }
    }

    #[test]
    fn a_trial_ends_when_the_policy_fails_and_not_when_the_host_does() {
        let canary = |kind| {
            let result = Err(PolicyFailure { kind, message: "".into() });
            CanaryRun { run: PolicyRun { result, ..run("new", None) }, within: 1 }
        };
        let over = [canary(FailureKind::Host), canary(FailureKind::Trap), canary(FailureKind::Refused)];
        let kinds: Vec<FailureKind> = failed(&over).map(|(_, failure)| failure.kind).collect();
        assert_eq!(kinds, [FailureKind::Trap, FailureKind::Refused]);
    }
}
