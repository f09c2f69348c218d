//! What a well-behaved policy can rely on.

use std::sync::Arc;

use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::WindowSample;
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions, LoadError, MetricWish, ParamsError};

use crate::fixtures::{
    TARGET_TRACKING, built_in, compiled, engine, limits, module, observation, observation_of,
};

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
    let on_demand = Engine::new(EngineOptions { pooling: false, ..EngineOptions::default() }).unwrap();
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

/// Bytes of a custom section.
fn section(name: &str, data: &str) -> Vec<u8> {
    let byte = |length: usize| u8::try_from(length).expect("it is short");
    let mut bytes = vec![0, byte(1 + name.len() + data.len()), byte(name.len())];
    bytes.extend([name.as_bytes(), data.as_bytes()].concat());
    bytes
}

#[test]
fn the_contract_version_of_a_module_is_checked() {
    let module = built_in("target-tracking");
    let named = b"regatta-contract0.1.1";
    assert!(module.windows(named.len()).any(|window| window == named), "the SDK writes the section");
    let newer = [module.as_slice(), &section("regatta-contract", "0.2.0")].concat();
    match engine().load(&newer) {
        Err(LoadError::ContractVersion { found, .. }) => assert_eq!(found, "0.2.0"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_component_is_as_good_as_a_core_module() {
    let module = built_in("target-tracking");
    let component = wit_component::ComponentEncoder::default().module(&module).unwrap().encode().unwrap();
    let (module, component) = (engine().load(&module).unwrap(), engine().load(&component).unwrap());
    assert_ne!(module.digest(), component.digest());
    assert_eq!(module.manifest(), component.manifest());
    let decide = |policy: &CompiledPolicy| {
        let run = policy.decide(&observation(10, 0.8), TARGET_TRACKING, b"", &limits()).run;
        (run.result, run.fuel)
    };
    assert_eq!(decide(&module), decide(&component));
}

/// A module whose state is one column of what an import answers: it looks at
/// `utilization`, and at the last 5 s of it.
fn column(call: &str, offset: u32, bytes_each: u32) -> Vec<u8> {
    module(&format!(
        r#"(import "regatta:policy/observe@0.1.0" "instances" (func $instances (param i32)))
        (import "regatta:policy/observe@0.1.0" "metric" (func $metric (param i32 i32 i32)))
        (import "regatta:policy/observe@0.1.0" "window" (func $window (param i32 i32 i32)))
        (data (i32.const 1104) "utilization")
        (func $describe (export "regatta:policy/scaling@0.1.0#describe") (result i32)
          (call $string (i32.const 0) (i32.const 1024) (i32.const 7))
          (call $string (i32.const 8) (i32.const 1040) (i32.const 5))
          (call $string (i32.const 24) (i32.const 1072) (i32.const 4))
          (call $string (i32.const 32) (i32.const 2048) (i32.const 1))
          (call $string (i32.const 2048) (i32.const 1104) (i32.const 11))
          (i64.store (i32.const 2056) (i64.const 5000))
          (i32.const 0))
        (func $answer
          (call {call} (i32.const 3072))
          (call $string (i32.const 312) (i32.load offset={offset} (i32.const 3072))
            (i32.mul (i32.const {bytes_each}) (i32.load offset={length} (i32.const 3072)))))"#,
        length = offset + 4,
    ))
}

#[test]
fn bulk_data_arrives_in_columns() {
    let mut observation = observation_of(3, &[0.25, 0.5, 0.75]);
    observation.instances.state[1] = InstanceState::Draining;
    observation.instances.protected[2] = true;
    observation.metrics[0].values[1] = MetricValue::Stale { value: 0.5, age_ms: 9 };
    observation.metrics[0].values[2] = MetricValue::Missing;
    let sample = |at_ms, value| WindowSample { at_ms, value };
    observation.metrics[0].window = vec![sample(994_999, 1.0), sample(995_000, 2.0), sample(999_000, 3.0)];
    let observation = Arc::new(observation);

    let get = |call: &str, offset, bytes_each| {
        let policy = engine().load(&column(call, offset, bytes_each)).unwrap();
        let call = policy.decide(&observation, "{}", b"", &limits());
        call.state.unwrap_or_else(|| panic!("{:?}", call.run.result))
    };
    let u32s = |values: &[u32]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let u64s = |values: &[u64]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let instances = |offset, bytes_each| get("$instances", offset, bytes_each);
    assert_eq!(instances(0, 4), u32s(&[1, 2, 3]));
    assert_eq!(instances(8, 1), [4, 7, 4], "in service, draining, in service");
    assert_eq!(instances(16, 8), u64s(&[1_000; 3]));
    assert_eq!(instances(24, 8), u64s(&[500; 3]));
    assert_eq!(instances(32, 8), u64s(&[1; 3]));
    assert_eq!(instances(40, 1), [0, 0, 1]);

    let metric = "$metric (i32.const 1104) (i32.const 11)";
    let values = get(metric, 0, 8);
    let bits = |values: &[f64]| u64s(&values.iter().map(|value| value.to_bits()).collect::<Vec<_>>());
    assert_eq!(values[..16], bits(&[0.25, 0.5]));
    assert!(f64::from_le_bytes(values[16..].try_into().unwrap()).is_nan());
    assert_eq!(get(metric, 8, 1), [0, 1, 2], "fresh, stale, missing");
    assert_eq!(get("$metric (i32.const 1104) (i32.const 3)", 0, 8), [0; 0], "there is no metric `uti`");

    let window = "$window (i32.const 1104) (i32.const 11)";
    assert_eq!(get(window, 0, 8), u64s(&[995_000, 999_000]), "no further back than was asked for");
    assert_eq!(get(window, 8, 8), bits(&[2.0, 3.0]));
}

#[test]
fn a_call_tells_its_memory() {
    let policy = compiled("target-tracking");
    let call = policy.decide(&observation(10, 0.8), TARGET_TRACKING, b"", &limits());
    assert!(
        call.memory_bytes >= 17 << 16 && call.memory_bytes.is_multiple_of(1 << 16),
        "{}",
        call.memory_bytes
    );
    // As much as it has is enough, a page less is not.
    let with = |memory_bytes| {
        let limits = PolicyLimits { memory_bytes, ..limits() };
        policy.decide(&observation(10, 0.8), TARGET_TRACKING, b"", &limits)
    };
    let enough = with(call.memory_bytes);
    assert!(enough.run.result.is_ok() && enough.memory_bytes == call.memory_bytes);
    assert!(with(call.memory_bytes - 1).run.result.is_err());
}
