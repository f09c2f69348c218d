use proptest::prelude::*;
use regatta_core::combine::Combined;
use regatta_core::decision::Reason;
use regatta_core::guard::{Guard, GuardContext, GuardMemory, GuardName, guards_of, judge};
use regatta_core::manifest::{Guards, MissingData, OnFailure};
use regatta_core::observation::Observation;
use regatta_core::plan::Budget;

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
    Combined { capacity, ..Combined::default() }
}

static FREE: regatta_core::sizing::InForce = regatta_core::sizing::InForce::NONE;

fn context<'a>(
    observation: &'a Observation,
    missing: &'a [String],
    memory: &'a GuardMemory,
) -> GuardContext<'a> {
    GuardContext {
        observation,
        metrics_without_data: missing,
        lived_ms: 0,
        wall_ms: 0,
        resumed_ms: None,
        memory,
        in_force: &FREE,
    }
}

fn granted(settings: Guards, desired: u32, wanted: Option<u32>, missing: &[&str]) -> (u32, Vec<GuardName>) {
    let observation = observation(1, 10, desired);
    let missing: Vec<String> = missing.iter().map(ToString::to_string).collect();
    let memory = GuardMemory::default();
    let context = context(&observation, &missing, &memory);
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
    assert_eq!(granted(hold.clone(), 7, None, &[]), (7, vec![GuardName::OnFailure]));
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
    assert_eq!(granted(Guards::default(), 2, Some(99), &[]), (10, vec![GuardName::Limits]));
    assert_eq!(granted(Guards::default(), 2, Some(0), &[]), (1, vec![GuardName::Limits]));
    assert_eq!(granted(Guards::default(), 50, None, &[]).0, 10);
}

#[test]
fn a_scale_in_waits_for_the_window_and_limits_still_bind() {
    let stabilized = Guards { scale_in_stabilization_ms: 60_000, ..Guards::default() };
    assert_eq!(granted(stabilized.clone(), 5, Some(2), &[]), (5, vec![GuardName::ScaleInStabilization]));
    let steps = vec![GuardName::ScaleInStabilization, GuardName::Limits];
    assert_eq!(granted(stabilized.clone(), 50, Some(2), &[]), (10, steps));
    assert_eq!(granted(stabilized.clone(), 5, Some(8), &[]), (8, vec![]));
    assert_eq!(granted(stabilized, 5, None, &[]), (5, vec![GuardName::OnFailure]));
}

fn because(code: &str) -> Reason {
    Reason { code: code.into(), text: code.into(), evidence: Vec::new() }
}

/// A guard that breaks the rule that a guard may only narrow. It has a name that no other step has.
struct Unruly {
    wish: u32,
    budget: Budget,
}

impl Guard for Unruly {
    fn name(&self) -> GuardName {
        GuardName::Delete
    }
    fn narrow(&self, _: &GuardContext<'_>, _: &GuardMemory, _: u32) -> Option<(u32, Reason)> {
        Some((self.wish, because("unruly")))
    }
    fn limit(&self, _: &GuardContext<'_>) -> Option<(Budget, Reason)> {
        Some((self.budget, because("unruly")))
    }
}

proptest! {
    #[test]
    fn whatever_the_guards_say_the_result_is_between_desired_and_wanted_and_within_limits(
        min in 0u32..20, extra in 0u32..50, desired in 0u32..80, wanted in 0u32..80,
        wishes in prop::collection::vec(any::<(u32, u32)>(), 0..4)
    ) {
        let max = min + extra;
        let observation = observation(min, max, desired);
        let memory = GuardMemory::default();
        let unruly = |&(wish, creates)| Unruly { wish, budget: Budget { creates, ..Budget::UNLIMITED } };
        let guards: Vec<Box<dyn Guard + Send + Sync>> = wishes.iter().map(|wish| Box::new(unruly(wish)) as _).collect();
        let trail = judge(&Guards::default(), &guards, &context(&observation, &[], &memory), &wants(Some(wanted)));
        prop_assert!((min..=max).contains(&trail.granted));
        let narrowed = trail.steps.iter().rfind(|step| step.guard == GuardName::Delete).map_or(wanted, |step| step.after);
        prop_assert!((wanted.min(desired)..=wanted.max(desired)).contains(&narrowed));
        let mut capacity = Some(wanted);
        for step in &trail.steps {
            prop_assert_eq!(step.before, capacity, "the steps join up");
            capacity = Some(step.after);
        }
        prop_assert_eq!(capacity, Some(trail.granted));
        prop_assert_eq!(trail.budget().creates, wishes.iter().map(|wish| wish.1).min().unwrap_or(u32::MAX));
        prop_assert_eq!(Budget { creates: u32::MAX, ..trail.budget() }, Budget::UNLIMITED);
    }
}
