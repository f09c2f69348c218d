//! Good policies have the properties, bad ones are told why not.

use std::cell::Cell;

use regatta_sdk::Outcome;
use regatta_sdk::testing::properties::{Options, Property, Verdict, assert_all, check_all};
use regatta_sdk::testing::{Signal, Subject, TestPolicy, TestTick};

use crate::policies::{Blind, Contrary, Flapping, Growing, Hasty, PARAMS, Proportional, Silent, ToZero};

#[test]
fn a_good_policy_has_them_all() {
    for seed in 1..=5 {
        let mut policy = TestPolicy::<Proportional>::new(PARAMS).unwrap();
        assert_all(&mut policy, &Options::new().seed(seed));
    }
    let patient = r#"{"metric": "load", "target": 0.5, "patience": 3}"#;
    assert_all(&mut TestPolicy::<Proportional>::new(patient).unwrap(), &Options::new().cases(100));
}

#[test]
fn what_a_full_instance_reads_is_found_out() {
    for (target, full) in [(0.5, 1.0), (60.0, 100.0), (250.0, 100.0), (900.0, 1_000.0)] {
        let params = format!(r#"{{"metric": "load", "target": {target}}}"#);
        let report = check_all(&mut TestPolicy::<Proportional>::new(&params).unwrap(), &Options::new());
        assert!(report.passed(), "{report}");
        assert_eq!((report.full, report.reacts), (full, true), "for {target}");
    }
    // A total is spread over the instances by the policy itself.
    let params = r#"{"metric": "load", "target": 200}"#;
    let options = Options::new().signal(Signal::Total).full_at(250.0);
    assert_all(&mut TestPolicy::<Proportional>::new(params).unwrap(), &options);
}

fn story<S: Subject>(subject: &mut S, property: Property) -> String {
    let report = check_all(subject, &Options::new());
    let Verdict::Failed { story } = report.verdict(property) else {
        panic!("{property} was not refuted:\n{report}")
    };
    for (other, verdict) in &report.verdicts {
        println!("{other}: {verdict:?}");
    }
    story.clone()
}

fn rule<P: regatta_sdk::Policy>() -> TestPolicy<P> {
    TestPolicy::new("{}").expect("it has no parameters")
}

#[test]
fn a_policy_without_a_property_is_told_why() {
    let text = story(&mut rule::<Flapping>(), Property::NoOscillation);
    assert!(text.starts_with("under a constant load of "), "{text}");
    assert!(text.contains(" it still turned at tick "), "{text}");
    assert!(text.contains(" in service, metric at "), "{text}");

    let text = story(&mut rule::<Blind>(), Property::RecoversAfterGap);
    assert!(text.starts_with("metrics ") && text.contains("it scaled in from "), "{text}");

    let text = story(&mut rule::<Hasty>(), Property::WaitsForSamples);
    assert!(text.starts_with("scaled out from "), "{text}");
    assert!(
        text.contains(" no sample from the other ") && text.contains(", the same load: it wanted "),
        "{text}"
    );

    let text = story(&mut rule::<Contrary>(), Property::MonotonicInLoad);
    assert!(text.contains("it wanted only 1"), "{text}");

    let text = story(&mut rule::<ToZero>(), Property::StaysInBounds);
    assert!(text.contains("it wanted 0 of a set that may have 1 to"), "{text}");

    let text = story(&mut rule::<Silent>(), Property::Answers);
    assert!(text.ends_with("it had no outcome: no load is known"), "{text}");
}

/// Growth that has another cause than missing samples is not held against a policy.
#[test]
fn a_policy_that_grows_anyway_waits_for_samples() {
    let report = check_all(&mut rule::<Growing>(), &Options::new());
    let Verdict::Held { cases } = report.verdict(Property::WaitsForSamples) else { panic!("{report}") };
    assert!(*cases > 10, "{report}");
}

/// Keeps something that is not in its state.
struct Forgetful(Cell<u32>);

impl Subject for Forgetful {
    fn reset(&mut self) {}
    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        self.0.set(self.0.get() + 1);
        Ok(Outcome::capacity(tick.parts().desired + self.0.get() % 2))
    }
}

/// Names victims that are not there.
struct Murderous;

impl Subject for Murderous {
    fn reset(&mut self) {}
    fn decide(&mut self, _: &TestTick) -> Result<Outcome, String> {
        Ok(Outcome::capacity(2).victims([1, 4_711]))
    }
}

#[test]
fn what_no_set_of_a_policy_can_show_is_found_too() {
    let text = story(&mut Forgetful(Cell::new(0)), Property::Deterministic);
    assert!(text.contains("and everything before it the same"), "{text}");
    let text = story(&mut Murderous, Property::StaysInBounds);
    assert!(text.contains("as a victim, and there is no such instance"), "{text}");
}

#[test]
fn a_property_can_be_left_out() {
    let options = Options::new().skip(Property::NoOscillation).skip("monotonic-in-load".parse().unwrap());
    let report = check_all(&mut rule::<Flapping>(), &options);
    assert_eq!(report.verdict(Property::NoOscillation), &Verdict::Skipped);
    assert_eq!(report.verdict(Property::MonotonicInLoad), &Verdict::Skipped);
    let unknown = "monotone".parse::<Property>().unwrap_err();
    assert!(
        unknown.contains("there is no property `monotone`") && unknown.contains("no-oscillation"),
        "{unknown}"
    );
    for property in Property::ALL {
        assert_eq!(property.name().parse(), Ok(property));
    }
}

#[test]
fn the_same_seed_gives_the_same_report() {
    let report = |seed| check_all(&mut rule::<Flapping>(), &Options::new().seed(seed));
    assert_eq!(report(3), report(3));
    let text = report(3).to_string();
    assert!(text.starts_with("properties (seed 3; an instance that is full reads 1)\n"), "{text}");
    assert!(text.contains("  FAILED   no-oscillation\n             under a constant load"), "{text}");
}
