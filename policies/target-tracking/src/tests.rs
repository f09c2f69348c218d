//! The policy natively, through the SDK's harness.

use proptest::prelude::*;
use regatta_sdk::testing::properties::{self, Options};
use regatta_sdk::testing::{self, TestPolicy, TestTick};
use regatta_sdk::{InstanceState, MetricValue, Outcome, StaleValue};

use super::TargetTracking;

const PARAMS: &str = r#"{"metric": "load", "target": 0.5}"#;

fn decide(params: &str, tick: &TestTick) -> Outcome {
    TestPolicy::<TargetTracking>::new(params).unwrap().tick(tick).unwrap()
}

/// `in_service` instances, all at `load`, and nothing else.
fn steady(in_service: u32, load: f64) -> TestTick {
    let values = vec![load; usize::try_from(in_service).unwrap()];
    TestTick::new().instances(InstanceState::InService, in_service).metric("load", &values)
}

fn wants(outcome: &Outcome) -> (u32, &str) {
    (outcome.capacity, outcome.reasons[0].code.as_str())
}

#[test]
fn it_is_proportional_with_a_tolerance() {
    for (load, wanted) in [
        (0.5, (10, "within-tolerance")),
        (0.55, (10, "within-tolerance")),
        (0.56, (12, "above-target")),
        (1.0, (20, "above-target")),
        (0.45, (10, "within-tolerance")),
        (0.44, (9, "below-target")),
        (0.01, (1, "below-target")),
        (0.0, (1, "below-target")),
    ] {
        let outcome = decide(PARAMS, &steady(10, load));
        assert_eq!(wants(&outcome), wanted, "at {load}: {outcome:?}");
    }
}

#[test]
fn the_last_instance_goes_only_when_told_so() {
    let params = r#"{"metric": "load", "target": 0.5, "scale_to_zero": true}"#;
    assert_eq!(wants(&decide(params, &steady(1, 0.0).bounds(0, 9))), (0, "below-target"));
    assert_eq!(decide(params, &steady(1, 0.1).bounds(0, 9)).capacity, 1);
    assert_eq!(decide(params, &steady(1, 0.0).bounds(1, 9)).capacity, 1);
}

#[test]
fn a_metric_of_the_whole_set_is_one_without_any_instance() {
    let tick = TestTick::new().desired(0).set_metric("load", MetricValue::Fresh(1.4));
    assert_eq!(wants(&decide(PARAMS, &tick)), (3, "above-target"));
}

#[test]
fn sums_of_floats_do_not_cost_an_instance() {
    // 0.1 * 3 is a little more than 0.3.
    let params = r#"{"metric": "load", "target": 0.1, "tolerance": 0}"#;
    assert_eq!(decide(params, &steady(3, 0.1)).capacity, 3);
    assert_eq!(decide(params, &steady(3, 0.2)).capacity, 6);
}

#[test]
fn warming_instances_are_neither_in_the_way_nor_asked_for_twice() {
    // Four at full load need eight. Eight are in force, four of them on their way.
    let tick = TestTick::new()
        .desired(8)
        .instances(InstanceState::InService, 4)
        .instances(InstanceState::Booting, 3)
        .instances(InstanceState::Pending, 1);
    let outcome = decide(PARAMS, &tick.clone().metric("load", &[1.0; 4]));
    assert_eq!(wants(&outcome), (8, "capacity-coming"));
    // The load went away meanwhile: what is coming is let come first.
    let outcome = decide(PARAMS, &tick.clone().metric("load", &[0.1; 4]));
    assert_eq!(wants(&outcome), (8, "warming"));
    // The load grew meanwhile.
    let outcome = decide(PARAMS, &tick.metric("load", &[1.5; 4]));
    assert_eq!(wants(&outcome), (12, "above-target"));
}

#[test]
fn a_gap_in_the_metric_keeps_the_size() {
    let base = TestTick::new().instances(InstanceState::InService, 5);
    let stale = MetricValue::Stale(StaleValue { value: 0.01, age_ms: 61_000 });
    for (tick, code) in [
        (base.clone(), "metric-missing"),
        (base.clone().metric_rows("load", &[MetricValue::Missing; 5]), "metric-missing"),
        (base.clone().metric_rows("load", &[stale; 5]), "metric-stale"),
        (base.clone().metric("load", &[f64::NAN; 5]), "metric-not-a-number"),
        (base.clone().metric("load", &[f64::INFINITY; 5]), "metric-not-a-number"),
        (base.metric("load", &[-1.0; 5]), "metric-not-a-number"),
        (TestTick::new().desired(5).instances(InstanceState::Booting, 5), "nothing-in-service"),
    ] {
        assert_eq!(wants(&decide(PARAMS, &tick)), (5, code));
    }
}

#[test]
fn unmeasured_instances_count_so_that_less_changes() {
    let tick = TestTick::new().instances(InstanceState::InService, 10);
    // Five idle, five unknown: those are taken to be at the target.
    let outcome = decide(PARAMS, &tick.clone().metric("load", &[0.0; 5]));
    assert_eq!(wants(&outcome), (5, "below-target"));
    assert!(outcome.reasons[0].evidence.contains(&("unmeasured".to_owned(), "5".to_owned())));
    // Five at twice the target, five unknown: those are taken to be idle.
    let outcome = decide(PARAMS, &tick.metric("load", &[1.0; 5]));
    assert_eq!(wants(&outcome), (10, "within-tolerance"));
    // Four of ten do not serve and none is coming: no rush inwards.
    let tick = TestTick::new()
        .desired(10)
        .instances(InstanceState::InService, 6)
        .instances(InstanceState::Unhealthy, 4)
        .metric("load", &[0.25; 6]);
    assert_eq!(wants(&decide(PARAMS, &tick)), (7, "below-target"));
}

#[test]
fn a_metric_of_the_whole_set_is_divided_among_the_instances() {
    let tick = TestTick::new().instances(InstanceState::InService, 4);
    let tick = tick.set_metric("load", MetricValue::Fresh(700.0));
    let outcome = decide(r#"{"metric": "load", "target": 100}"#, &tick);
    assert_eq!(wants(&outcome), (7, "above-target"));
}

#[test]
fn limits_of_the_parameters_hold() {
    let params = r#"{"metric": "load", "target": 0.5, "max_scale_out_factor": 1.5}"#;
    assert_eq!(decide(params, &steady(10, 5.0)).capacity, 15);
    assert_eq!(decide(params, &steady(1, 5.0)).capacity, 2, "one more is always allowed");
    let params = r#"{"metric": "load", "target": 0.5, "scale_in": false}"#;
    assert_eq!(wants(&decide(params, &steady(10, 0.1))), (10, "scale-in-off"));
    assert_eq!(decide(params, &steady(10, 1.0)).capacity, 20);
    let outcome = decide(PARAMS, &steady(3, 0.1).bounds(3, 9));
    assert_eq!(wants(&outcome), (3, "at-minimum"));
}

#[test]
fn huge_values_saturate() {
    assert_eq!(decide(PARAMS, &steady(10, 1e300)).capacity, regatta_sdk::MAX_CAPACITY);
    // Their sum is infinite: no number to act on.
    assert_eq!(decide(PARAMS, &steady(10, f64::MAX)).capacity, 10);
}

#[test]
fn the_schema_in_the_file_is_that_of_the_parameters() {
    testing::assert_schema_file::<TargetTracking>(concat!(env!("CARGO_MANIFEST_DIR"), "/params.schema.json"));
}

#[test]
fn it_has_the_properties_of_a_good_policy() {
    for params in [
        PARAMS,
        r#"{"metric": "load", "target": 0.5, "tolerance": 0}"#,
        r#"{"metric": "load", "target": 70, "tolerance": 0.3, "max_scale_out_factor": 1.5}"#,
        r#"{"metric": "load", "target": 0.5, "scale_in": false}"#,
    ] {
        let mut policy = TestPolicy::<TargetTracking>::new(params).unwrap();
        for seed in 1..=3 {
            properties::assert_all(&mut policy, &Options::new().seed(seed));
        }
    }
}

#[test]
fn all_problems_come_at_once() {
    let bad = r#"{"metric": "", "target": -1, "tolerance": 1, "max_scale_out_factor": 0.5}"#;
    assert_eq!(testing::validate::<TargetTracking>(bad).unwrap_err().len(), 4);
    let problems = testing::validate::<TargetTracking>(r#"{"metric": "load"}"#).unwrap_err();
    assert_eq!(problems[0].message, "missing field `target`");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_load_never_wants_less(
        in_service in 1..50_u32, warming in 0..10_u32, one in 0.0..2.0_f64, more in 0.0..2.0_f64,
        tolerance in 0.0..0.9_f64,
    ) {
        let params = format!(r#"{{"metric": "load", "target": 0.5, "tolerance": {tolerance}}}"#);
        let wanted = |load: f64| {
            let tick = steady(in_service, load).instances(InstanceState::Booting, warming);
            decide(&params, &tick.desired(in_service + warming)).capacity
        };
        prop_assert!(wanted(one) <= wanted(one + more));
    }

    /// A constant load spread over whatever is in service: the size settles at once
    /// and stays.
    #[test]
    fn a_constant_load_does_not_oscillate(start in 1..100_u32, total in 0.0..60.0_f64, tolerance in 0.0..0.5_f64) {
        let params = format!(r#"{{"metric": "load", "target": 0.5, "tolerance": {tolerance}}}"#);
        let mut policy = TestPolicy::<TargetTracking>::new(&params).unwrap();
        let mut sizes = vec![start];
        for _ in 0..5 {
            let size = sizes[sizes.len() - 1];
            sizes.push(policy.tick(&steady(size, total / f64::from(size))).unwrap().capacity);
        }
        prop_assert!(sizes[1..].iter().all(|&size| size == sizes[1]), "{sizes:?}");
        let needed = (total / 0.5).max(1.0);
        prop_assert!(f64::from(sizes[1]) >= needed / (1.0 + tolerance) - 1e-6, "{sizes:?} for {needed}");
    }

    #[test]
    fn it_goes_on_after_a_gap(size in 1..50_u32, load in 0.0..2.0_f64, gap in 1..5_u32) {
        let mut policy = TestPolicy::<TargetTracking>::new(PARAMS).unwrap();
        let before = policy.tick(&steady(size, load)).unwrap();
        for _ in 0..gap {
            let blind = TestTick::new().instances(InstanceState::InService, size);
            prop_assert_eq!(policy.tick(&blind).unwrap().capacity, size);
        }
        prop_assert_eq!(policy.tick(&steady(size, load)).unwrap(), before);
    }
}

#[test]
fn a_demand_that_no_instances_could_carry_is_a_failure_and_not_a_capacity() {
    // The sum is a number, and the load in instances' worth is not.
    let mut policy = TestPolicy::<TargetTracking>::new(r#"{"metric": "load", "target": 1e-10}"#).unwrap();
    let refused = policy.tick(&steady(10, 1e300)).unwrap_err();
    assert_eq!(refused, "the demand is inf, which is not a number of instances");
}
