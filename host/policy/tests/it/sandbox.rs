//! What a well-behaved policy can rely on.

use std::sync::Arc;

use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_policy_host::{Engine, EngineOptions, MetricWish, ParamsError};

use crate::fixtures::{TARGET_TRACKING, built_in, compiled, engine, limits, observation, observation_of};

#[test]
fn the_same_bytes_in_give_the_same_bytes_out() {
    let policy = compiled("target-tracking");
    let observation = observation(100, 0.8);
    let mut first = policy.decide(&observation, TARGET_TRACKING, b"", &limits());
    assert_eq!(first.run.result.as_ref().unwrap().capacity, 160);
    assert!(first.run.fuel > 0);
    for _ in 0..10 {
        let again = policy.decide(&observation, TARGET_TRACKING, b"", &limits());
        (first.run.duration_us, first.times) = (again.run.duration_us, again.times);
        assert_eq!(first, again);
    }
    // Neither the pool nor another compilation makes a difference.
    let on_demand = Engine::new(EngineOptions { pooling: false }).unwrap();
    assert!(!on_demand.pooling());
    let policy = on_demand.load(&built_in("target-tracking")).unwrap();
    let again = policy.decide(&observation, TARGET_TRACKING, b"", &limits());
    (first.run.duration_us, first.times) = (again.run.duration_us, again.times);
    assert_eq!(first, again);
}

#[test]
fn a_module_in_use_is_compiled_once() {
    let engine = engine();
    let bytes = built_in("target-tracking");
    let first = engine.load(&bytes).unwrap();
    assert!(Arc::ptr_eq(&first, &engine.load(&bytes).unwrap()));
    assert_eq!(first.size_bytes(), bytes.len());
    assert_eq!(first.digest().len(), 64);
}

#[test]
fn it_describes_itself_and_wants_the_metric_that_its_parameter_names() {
    let policy = compiled("target-tracking");
    let manifest = policy.manifest();
    assert_eq!(manifest.name, "target-tracking");
    assert_eq!(manifest.params_schema["properties"]["target"]["type"], "number");
    let wish = |name: &str| MetricWish { name: name.to_owned(), window_ms: 0 };
    assert_eq!(policy.wishes(TARGET_TRACKING), [wish("utilization")]);
    assert_eq!(policy.wishes(r#"{"metric": ["a", "b", 3]}"#), [wish("a"), wish("b")]);
    assert_eq!(policy.wishes("{}"), []);
    assert_eq!(policy.wishes("no json"), []);
}

#[test]
fn all_problems_of_parameters_come_at_once() {
    let policy = compiled("target-tracking");
    policy.validate(TARGET_TRACKING, &limits()).unwrap();
    let params = r#"{"metric": " ", "target": 0, "tolerance": 1.5, "max_scale_out_factor": 1}"#;
    let Err(ParamsError::Problems(problems)) = policy.validate(params, &limits()) else { panic!("accepted") };
    let paths: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
    assert_eq!(paths, ["/metric", "/target", "/tolerance", "/max_scale_out_factor"]);

    let params = r#"{"metric": "utilization", "target": "much"}"#;
    let Err(error) = policy.validate(params, &limits()) else { panic!("accepted") };
    assert_eq!(error.to_string(), "/target: invalid type: string \"much\", expected f64");
    let Err(error) = policy.validate(r#"{"metric": "utilization", "goal": 1}"#, &limits()) else {
        panic!("accepted")
    };
    assert!(error.to_string().starts_with("unknown field `goal`, expected one of `metric`"), "{error}");
}

#[test]
fn a_metric_without_values_is_missing_and_never_zero() {
    let policy = compiled("target-tracking");
    let mut seen = Vec::new();
    let mut gone = observation_of(4, &[0.9; 4]);
    gone.metrics.clear();
    let mut missing = observation_of(4, &[0.9; 4]);
    missing.metrics[0].values = vec![MetricValue::Missing; 4];
    let mut stale = observation_of(4, &[0.9; 4]);
    stale.metrics[0].values = vec![MetricValue::Stale { value: 0.01, age_ms: 90_000 }; 4];
    for observation in [gone, missing, stale, observation_of(4, &[f64::NAN; 4])] {
        let call = policy.decide(&Arc::new(observation), TARGET_TRACKING, b"", &limits());
        let decision = call.run.result.unwrap();
        assert_eq!(decision.capacity, 4);
        seen.push(decision.reasons[0].code.clone());
    }
    assert_eq!(seen, ["metric-missing", "metric-missing", "metric-stale", "metric-not-a-number"]);
}

#[test]
fn many_calls_at_once_wait_for_their_turn() {
    let policy = compiled("target-tracking");
    let observation = observation(10, 0.8);
    std::thread::scope(|scope| {
        let one =
            || policy.decide(&observation, TARGET_TRACKING, b"", &limits()).run.result.unwrap().capacity;
        let calls: Vec<_> = (0..64).map(|_| scope.spawn(one)).collect();
        for call in calls {
            assert_eq!(call.join().unwrap(), 16);
        }
    });
}

#[test]
fn too_little_fuel_is_a_failure_of_its_own() {
    let policy = compiled("target-tracking");
    let limits = PolicyLimits { fuel: 1_000, ..limits() };
    let call = policy.decide(&observation(10, 0.8), TARGET_TRACKING, b"", &limits);
    assert_eq!(call.run.result.unwrap_err().kind, regatta_core::decision::FailureKind::OutOfFuel);
}
