//! The policy natively, through the SDK's harness.

use proptest::prelude::*;
use regatta_sdk::testing::properties::{self, Options, Property};
use regatta_sdk::testing::{self, TestPolicy, TestTick};
use regatta_sdk::{InstanceState, MetricValue, Outcome};

use super::Step;

const PARAMS: &str = r#"{
    "metric": "load",
    "scale_out": [{"above": 0.6, "add": 1}, {"above": 0.8, "add_percent": 50}, {"above": 0.95, "set": 20}],
    "scale_in": [{"below": 0.3, "remove": 1}, {"below": 0.1, "remove_percent": 50}],
    "scale_in_cooldown_ms": 0
}"#;

fn policy(params: &str) -> TestPolicy<Step> {
    TestPolicy::new(params).unwrap_or_else(|problems| panic!("{problems:?}"))
}

fn steady(in_service: u32, load: f64) -> TestTick {
    let values = vec![load; usize::try_from(in_service).unwrap()];
    TestTick::new().instances(InstanceState::InService, in_service).metric("load", &values)
}

fn wants(outcome: &Outcome) -> (u32, &str) {
    (outcome.capacity, outcome.reasons[0].code.as_str())
}

#[test]
fn each_threshold_has_its_step() {
    for (load, wanted) in [
        (0.6, (10, "within-thresholds")),
        (0.61, (11, "above-threshold")),
        (0.8, (11, "above-threshold")),
        (0.81, (15, "above-threshold")),
        (0.96, (20, "above-threshold")),
        (0.3, (10, "within-thresholds")),
        (0.29, (9, "below-threshold")),
        (0.09, (5, "below-threshold")),
    ] {
        let outcome = policy(PARAMS).tick(&steady(10, load)).unwrap();
        assert_eq!(wants(&outcome), wanted, "at {load}: {outcome:?}");
    }
    // Percent: at least one, up when rounded outwards, down when rounded inwards.
    assert_eq!(policy(PARAMS).tick(&steady(1, 0.81)).unwrap().capacity, 2);
    assert_eq!(policy(PARAMS).tick(&steady(5, 0.81)).unwrap().capacity, 8);
    assert_eq!(policy(PARAMS).tick(&steady(5, 0.01)).unwrap().capacity, 3);
}

#[test]
fn steps_do_not_add_up_while_instances_are_warming() {
    let tick = TestTick::new()
        .desired(11)
        .instances(InstanceState::InService, 10)
        .instances(InstanceState::Creating, 1);
    let mut policy = policy(PARAMS);
    let same = policy.tick(&tick.clone().metric("load", &[0.7; 10])).unwrap();
    assert_eq!(wants(&same), (11, "capacity-coming"));
    let higher = policy.tick(&tick.clone().metric("load", &[0.9; 10])).unwrap();
    assert_eq!(wants(&higher), (15, "above-threshold"));
    let lower = policy.tick(&tick.metric("load", &[0.05; 10])).unwrap();
    assert_eq!(wants(&lower), (11, "warming"));
}

#[test]
fn instances_without_a_sample_yet_are_warming_for_five_minutes() {
    for statistic in ["mean", "sum", "min", "max"] {
        let params = format!(
            r#"{{"metric": "load", "statistic": "{statistic}", "scale_out": [{{"above": 0.6, "add": 2}}],
            "scale_in": [{{"below": 0.3, "remove": 1}}], "scale_in_cooldown_ms": 0}}"#
        );
        let at = |ms_later: u64, load: f64| {
            let rows = TestTick::new().instances(InstanceState::InService, 6).parts().instances;
            let later = TestTick::new().at(rows.state_since_ms[0] + ms_later, 2);
            let tick = rows.rows().fold(later, TestTick::instance).metric("load", &[load; 4]);
            let outcome = policy(&params).tick(&tick).unwrap();
            (outcome.capacity, outcome.reasons[0].code.clone())
        };
        // Four of six have a value.
        assert_eq!(at(0, 0.9), (6, "capacity-coming".to_owned()), "{statistic}");
        assert_eq!(at(0, 0.01), (6, "warming".to_owned()), "{statistic}");
        // Two that never report must not hold the set for ever.
        assert_eq!(at(300_000, 0.9), (8, "above-threshold".to_owned()), "{statistic}");
        assert_eq!(at(300_000, 0.01), (5, "below-threshold".to_owned()), "{statistic}");
    }
}

#[test]
fn it_waits_for_ticks_in_a_row() {
    let params = r#"{"metric": "load", "scale_out": [{"above": 0.6, "add": 1}], "for_ticks": 3}"#;
    let mut policy = policy(params);
    let (high, low) = (steady(4, 0.7), steady(4, 0.5));
    let blind = TestTick::new().instances(InstanceState::InService, 4);
    let ticks = [&high, &high, &low, &high, &high, &blind, &high, &high, &high];
    let sizes = ticks.map(|tick| policy.tick(tick).unwrap().capacity);
    assert_eq!(sizes, [4, 4, 4, 4, 4, 4, 4, 4, 5]);
}

#[test]
fn each_direction_has_its_cooldown() {
    let params = r#"{"metric": "load", "scale_out": [{"above": 0.6, "add": 1}],
        "scale_in": [{"below": 0.3, "remove": 1}], "scale_out_cooldown_ms": 60000, "scale_in_cooldown_ms": 120000}"#;
    let mut policy = policy(params);
    let mut at = |second: u64, size: u32, load: f64| {
        let tick = steady(size, load).at(second * 1_000, second);
        let outcome = policy.tick(&tick).unwrap();
        (outcome.capacity, outcome.reasons[0].code.clone())
    };
    let is = |capacity: u32, code: &str| (capacity, code.to_owned());
    assert_eq!(at(0, 4, 0.7), is(5, "above-threshold"));
    // A guard may have said no: then nothing cools down.
    assert_eq!(at(10, 4, 0.7), is(5, "above-threshold"));
    assert_eq!(at(20, 5, 0.7), is(5, "cooldown"));
    assert_eq!(at(69, 5, 0.7), is(5, "cooldown"));
    assert_eq!(at(71, 5, 0.7), is(6, "above-threshold"));
    assert_eq!(at(80, 6, 0.1), is(6, "cooldown"));
    assert_eq!(at(195, 6, 0.1), is(5, "below-threshold"));
    // A scale-out does not wait for a scale-in; and a change by hand counts.
    assert_eq!(at(200, 5, 0.7), is(6, "above-threshold"));
    assert_eq!(at(210, 9, 0.7), is(9, "cooldown"));
}

#[test]
fn a_scale_in_stops_short_of_flapping() {
    let params = r#"{"metric": "load", "scale_out": [{"above": 0.6, "add": 1}],
        "scale_in": [{"below": 0.5, "set": 1}], "scale_in_cooldown_ms": 0}"#;
    // A load of 4.9 is at most 0.6 each over nine.
    let outcome = policy(params).tick(&steady(10, 0.49)).unwrap();
    assert_eq!(wants(&outcome), (9, "below-threshold"));
    assert_eq!(outcome.reasons[1].code, "would-flap");
    assert_eq!(wants(&policy(params).tick(&steady(2, 0.45)).unwrap()), (2, "would-flap"));
    let off = params.replace("\"metric\"", "\"flapping_check\": false, \"metric\"");
    assert_eq!(policy(&off).tick(&steady(10, 0.49)).unwrap().capacity, 1);
}

#[test]
fn a_metric_of_the_whole_set_is_one_without_any_instance() {
    let tick = TestTick::new().desired(0).set_metric("load", MetricValue::Fresh(0.9));
    let outcome = policy(PARAMS).tick(&tick).unwrap();
    assert_eq!(wants(&outcome), (1, "above-threshold"), "{outcome:?}");
}

#[test]
fn no_data_keeps_the_size() {
    let base = TestTick::new().instances(InstanceState::InService, 5);
    for (tick, code) in [
        (base.clone(), "metric-missing"),
        (base.clone().metric_rows("load", &[MetricValue::Missing; 5]), "metric-missing"),
        (base.metric("load", &[f64::NAN; 5]), "metric-not-a-number"),
        (TestTick::new().desired(5).instances(InstanceState::Booting, 5), "nothing-in-service"),
    ] {
        assert_eq!(wants(&policy(PARAMS).tick(&tick).unwrap()), (5, code));
    }
}

#[test]
fn the_statistic_is_what_was_asked_for() {
    let tick = TestTick::new().instances(InstanceState::InService, 3).metric("load", &[1.0, 2.0, 6.0]);
    for (statistic, value) in [("mean", 3.0), ("sum", 9.0), ("min", 1.0), ("max", 6.0)] {
        let params = |above: f64| {
            format!(
                r#"{{"metric": "load", "statistic": "{statistic}", "scale_out": [{{"above": {above}, "add": 1}}]}}"#
            )
        };
        assert_eq!(policy(&params(value - 0.1)).tick(&tick).unwrap().capacity, 4, "{statistic}");
        assert_eq!(policy(&params(value + 0.1)).tick(&tick).unwrap().capacity, 3, "{statistic}");
    }
}

#[test]
fn the_schema_in_the_file_is_that_of_the_parameters() {
    testing::assert_schema_file::<Step>(concat!(env!("CARGO_MANIFEST_DIR"), "/params.schema.json"));
}

#[test]
fn it_has_the_properties_of_a_good_policy() {
    // Without `set`: that step asks for less than a percentage would in a large set.
    let percent = r#"{
        "metric": "load",
        "scale_out": [{"above": 60, "add": 1}, {"above": 80, "add_percent": 50}],
        "scale_in": [{"below": 30, "remove": 1}, {"below": 10, "remove_percent": 50}],
        "scale_out_cooldown_ms": 30000, "scale_in_cooldown_ms": 60000
    }"#;
    for seed in 1..=3 {
        properties::assert_all(&mut policy(percent), &Options::new().seed(seed));
        // `set` asks for one size, however many instances have a sample.
        let options =
            Options::new().seed(seed).skip(Property::MonotonicInLoad).skip(Property::WaitsForSamples);
        properties::assert_all(&mut policy(PARAMS), &options);
    }
}

#[test]
fn all_problems_come_at_once() {
    let bad = r#"{
        "metric": "", "for_ticks": 0,
        "scale_out": [{"above": 0.5, "add": 2}, {"above": 0.4, "add": 1}, {"above": 0.9}],
        "scale_in": [{"below": 0.6, "remove": 1, "set": 1}, {"below": 0.7, "remove_percent": 150}]
    }"#;
    let problems = testing::validate::<Step>(bad).unwrap_err();
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/metric",
            "/for_ticks",
            "/scale_out/2",
            "/scale_in/0",
            "/scale_in/1/remove_percent",
            "/scale_out/1/above",
            "/scale_in/1/below",
            "/scale_in/0/below",
            "/scale_out/1",
        ],
        "{problems:?}"
    );
    assert_eq!(testing::validate::<Step>(r#"{"metric": "load"}"#).unwrap_err().len(), 1);
    let nested = r#"{"metric": "load", "scale_out": [{"above": 1, "add": 1}, {"above": 2, "add": -1}]}"#;
    assert_eq!(testing::validate::<Step>(nested).unwrap_err()[0].path, "/scale_out/1/add");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn more_load_never_wants_less(size in 1..50_u32, one in 0.0..1.0_f64, more in 0.0..1.0_f64) {
        let wanted = |load: f64| policy(PARAMS).tick(&steady(size, load)).unwrap().capacity;
        // `set` is not a factor: above 20 it asks for less than 50 percent more would.
        prop_assume!(size <= 13);
        prop_assert!(wanted(one) <= wanted(one + more));
    }

    /// A constant load spread over whatever is in service: no scale-out ever
    /// follows a scale-in, so the size settles.
    #[test]
    fn a_constant_load_does_not_oscillate(start in 1..60_u32, total in 0.0..30.0_f64) {
        let mut policy = policy(PARAMS);
        let mut sizes = vec![start];
        for second in 0..80_u64 {
            let size = sizes[sizes.len() - 1];
            let tick = steady(size, total / f64::from(size)).at(second * 1_000, second);
            sizes.push(policy.tick(&tick).unwrap().capacity);
        }
        let went_in = sizes.windows(2).position(|pair| pair[1] < pair[0]).unwrap_or(sizes.len());
        prop_assert!(sizes[went_in.min(sizes.len() - 1)..].windows(2).all(|pair| pair[1] <= pair[0]), "{sizes:?}");
        prop_assert_eq!(sizes[sizes.len() - 1], sizes[sizes.len() - 2], "{:?}", sizes);
    }
}
