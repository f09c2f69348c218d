use proptest::prelude::*;
use regatta_core::combine::Combined;
use regatta_core::decision::Reason;
use regatta_core::guard::{Guard, GuardContext, guards_of, judge};
use regatta_core::manifest::{Guards, MissingData, OnFailure};
use regatta_core::observation::Observation;

fn observation(min: u32, max: u32, desired: u32) -> Observation {
    Observation {
        set: "web".into(),
        tick: 1,
        now_ms: 0,
        generation: 1,
        min,
        max,
        desired,
        instances: Default::default(),
        metrics: Vec::new(),
        last: None,
        schedule: Vec::new(),
    }
}

fn wants(capacity: Option<u32>) -> Combined {
    Combined {
        decided_by_digest: None,
        votes: Vec::new(),
        capacity,
        standby: None,
        victims: Vec::new(),
        wake_after_ms: None,
        reasons: Vec::new(),
        decided_by: None,
    }
}

fn granted(settings: Guards, desired: u32, wanted: Option<u32>, missing: &[&str]) -> (u32, Vec<String>) {
    let observation = observation(1, 10, desired);
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let context = GuardContext { observation: &observation, metrics_without_data: &missing };
    let trail = judge(&settings, &guards_of(&settings), &context, &wants(wanted));
    (trail.granted, trail.steps.into_iter().map(|step| step.guard).collect())
}

#[test]
fn a_decision_within_limits_passes_untouched() {
    assert_eq!(granted(Guards::default(), 2, Some(5), &[]), (5, vec![]));
}

#[test]
fn a_failed_policy_never_scales_in() {
    let hold = Guards::default();
    assert_eq!(granted(hold.clone(), 7, None, &[]), (7, vec!["on-failure".into()]));
    let fixed = Guards { on_failure: OnFailure::Static { capacity: 4 }, ..hold };
    assert_eq!(granted(fixed.clone(), 7, None, &[]).0, 7);
    assert_eq!(granted(fixed, 2, None, &[]).0, 4);
}

#[test]
fn missing_data_forbids_what_each_setting_says() {
    let with = |missing_data| Guards { missing_data, ..Guards::default() };
    let cases = [
        (MissingData::NoScaleIn, 3, 5, 8),
        (MissingData::Hold, 5, 5, 5),
        (MissingData::Default { capacity: 6 }, 6, 6, 6),
        (MissingData::Ignore, 3, 5, 8),
    ];
    for (setting, on_in, on_stay, on_out) in cases {
        let on_in = if setting == MissingData::NoScaleIn { 5 } else { on_in };
        let got = [3, 5, 8].map(|wanted| granted(with(setting), 5, Some(wanted), &["cpu"]).0);
        assert_eq!(got, [on_in, on_stay, on_out], "{setting:?}");
        let got = [3, 5, 8].map(|wanted| granted(with(setting), 5, Some(wanted), &[]).0);
        assert_eq!(got, [3, 5, 8], "{setting:?} with all data there");
    }
}

#[test]
fn limits_bind_whatever_came_before() {
    assert_eq!(granted(Guards::default(), 2, Some(99), &[]), (10, vec!["limits".into()]));
    assert_eq!(granted(Guards::default(), 2, Some(0), &[]), (1, vec!["limits".into()]));
    assert_eq!(granted(Guards::default(), 50, None, &[]).0, 10);
}

/// A guard that breaks the rule that a guard may only narrow.
struct Unruly(u32);

impl Guard for Unruly {
    fn name(&self) -> &'static str {
        "unruly"
    }
    fn narrow(&self, _: &GuardContext<'_>, _: u32) -> Option<(u32, Reason)> {
        Some((self.0, Reason { code: "x".into(), text: "x".into(), evidence: Vec::new() }))
    }
}

proptest! {
    #[test]
    fn whatever_the_guards_say_the_result_is_between_desired_and_wanted_and_within_limits(
        min in 0u32..20, extra in 0u32..50, desired in 0u32..80, wanted in 0u32..80, wishes in prop::collection::vec(any::<u32>(), 0..4)
    ) {
        let max = min + extra;
        let observation = observation(min, max, desired);
        let context = GuardContext { observation: &observation, metrics_without_data: &[] };
        let guards: Vec<Box<dyn Guard + Send + Sync>> =
            wishes.into_iter().map(|wish| Box::new(Unruly(wish)) as _).collect();
        let trail = judge(&Guards::default(), &guards, &context, &wants(Some(wanted)));
        prop_assert!((min..=max).contains(&trail.granted));
        let narrowed = trail.steps.iter().rfind(|step| step.guard == "unruly").map_or(wanted, |step| step.after);
        prop_assert!((wanted.min(desired)..=wanted.max(desired)).contains(&narrowed));
        let mut capacity = Some(wanted);
        for step in &trail.steps {
            prop_assert_eq!(step.before, capacity, "the steps join up");
            capacity = Some(step.after);
        }
        prop_assert_eq!(capacity, Some(trail.granted));
    }
}
