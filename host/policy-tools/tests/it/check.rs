//! What a check finds, in good modules and in others.

use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions, vectors};
use regatta_policy_tools::check::{CheckOptions, CheckReport, Finding, ModuleSubject, Status, check};
use regatta_sdk::testing::properties::Property;
use regatta_sdk::testing::{Load, Scenario, TestPolicy};
use serde_json::json;

fn built_in(name: &str) -> Arc<CompiledPolicy> {
    static ENGINE: LazyLock<Engine> =
        LazyLock::new(|| Engine::new(EngineOptions::default()).expect("an engine starts"));
    let folder = std::env::var_os("REGATTA_POLICIES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/policies"), PathBuf::from);
    let path = folder.join(name).with_extension("wasm");
    let bytes = std::fs::read(&path).unwrap_or_else(|error| {
        panic!("cannot read {}: {error}; build the policies with `cargo xtask policies`", path.display())
    });
    ENGINE.load(&bytes).unwrap_or_else(|error| panic!("{name} is refused: {error}"))
}

/// Few cases and small sets: what is tested here is the check, not the policy.
fn options(params: serde_json::Value) -> CheckOptions {
    CheckOptions { params: Some(params), cases: 8, instances: vec![10, 100], ..CheckOptions::default() }
}

fn found<'a>(report: &'a CheckReport, name: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.name == name);
    found.unwrap_or_else(|| panic!("no finding {name} in\n{report}"))
}

fn status(report: &CheckReport, name: &str) -> Status {
    found(report, name).status
}

fn checked(name: &str, options: &CheckOptions) -> CheckReport {
    let report = check(&built_in(name), options, &mut |_| {});
    println!("{report}");
    report
}

#[test]
fn a_good_module_passes() {
    let options = options(json!({"metric": "load", "target": 70}));
    let mut steps = Vec::new();
    let report = check(&built_in("target-tracking"), &options, &mut |step| steps.push(step.to_owned()));
    assert!(report.passed() && report.verdict() == "passed", "{report}");
    assert_eq!(report.full_at, Some(100.0));
    assert_eq!(report.costs.len(), 2);
    let [small, large] = &report.costs[..] else { panic!("{report}") };
    assert!(small.fuel > 1_000 && small.fuel_share < 0.1, "{small:?}");
    // Ten pages or so: code, stack and a heap that has begun.
    assert!((1 << 16..16 << 20).contains(&small.memory_bytes), "{small:?}");
    assert!(large.memory_bytes >= small.memory_bytes);
    assert_eq!(large.decisions, 16);
    assert!(steps.len() >= 4, "{steps:?}");
    let text = report.to_string();
    assert!(text.ends_with("\npassed\n"), "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "{text}");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(
        json["findings"][0],
        json!({"name": "imports", "status": "ok", "lines": found(&report, "imports").lines})
    );
}

#[test]
fn the_other_built_in_policy_passes_but_for_what_its_parameters_say() {
    let params = json!({"metric": "load", "scale_out": [{"above": 0.6, "add": 1}],
        "scale_in": [{"below": 0.4, "remove": 1}], "scale_in_cooldown_ms": 0});
    assert!(checked("step", &options(params.clone())).passed());
    // Thresholds that overlap at small sizes, and nothing that stops it: the step goes back and forth.
    let mut params = params;
    params["flapping_check"] = json!(false);
    params["scale_in"][0]["below"] = json!(0.59);
    let report = checked("step", &CheckOptions { cases: 64, ..options(params.clone()) });
    assert_eq!(status(&report, "no-oscillation"), Status::Failed);
    assert_eq!(report.verdict(), "FAILED: no-oscillation");
    let skipped = CheckOptions { skip: vec![Property::NoOscillation], ..options(params) };
    assert!(checked("step", &skipped).passed());
}

#[test]
fn parameters_that_are_missing_or_wrong_are_told() {
    let report = checked("target-tracking", &CheckOptions::default());
    assert_eq!(
        found(&report, "parameters").lines,
        ["the policy has no default for `metric`, `target`: give --params"]
    );
    assert!(!report.passed() && report.costs.is_empty() && report.params.is_none());

    let report = checked("target-tracking", &options(json!({"metric": "load", "target": -1})));
    assert_eq!(found(&report, "parameters").lines, ["/target: must be a number above 0"]);
    assert_eq!(report.verdict(), "FAILED: parameters");
}

#[test]
fn limits_are_limits() {
    let params = json!({"metric": "load", "target": 0.5});
    let fuel = PolicyLimits { fuel: 2_000, ..PolicyLimits::default() };
    let report = checked("target-tracking", &CheckOptions { limits: fuel, ..options(params.clone()) });
    assert_eq!(
        (status(&report, "sandbox"), status(&report, "worst-case")),
        (Status::Failed, Status::Skipped)
    );
    assert_eq!(status(&report, "no-oscillation"), Status::Skipped, "it ends early");
    let [first, .., end] = &found(&report, "sandbox").lines[..] else { panic!("{report}") };
    assert!(first.contains("out-of-fuel"), "{report}");
    assert_eq!(end, "3 decisions, then stopped after 3 calls that went past a limit");
    let full = checked("target-tracking", &options(params.clone()));
    let most = full.costs.iter().map(|cost| cost.memory_bytes).max().unwrap();
    let memory = PolicyLimits { memory_bytes: most + (32 << 10), ..PolicyLimits::default() };
    let report = checked("target-tracking", &CheckOptions { limits: memory, ..options(params) });
    assert_eq!(status(&report, "worst-case"), Status::Warning, "nearly all of it");
    assert!(report.passed() && report.verdict().starts_with("passed, with a warning: "), "{report}");
}

#[test]
fn a_check_ends_when_its_time_is_over() {
    let params = json!({"metric": "load", "target": 0.5});
    let budget = std::time::Duration::ZERO;
    let report = checked("target-tracking", &CheckOptions { budget, ..options(params) });
    assert_eq!(report.verdict(), "FAILED: broken-parameters, sandbox");
    for name in ["broken-parameters", "sandbox"] {
        assert!(found(&report, name).lines[0].contains("--budget"), "{report}");
    }
    for property in Property::ALL {
        assert_eq!(found(&report, property.name()).lines, ["not tried: see above"]);
    }
    assert!(report.costs.is_empty() && status(&report, "worst-case") == Status::Skipped, "{report}");
}

#[test]
fn vectors_are_compared() {
    let vector = |capacity: u32| {
        let text = json!({"vectors": [{
            "name": "twice the target",
            "params": {"metric": "load", "target": 0.5},
            "observation": {
                "set": "web", "tick": 1, "now_ms": 1_000, "generation": 1, "min": 1, "max": 10, "desired": 1,
                "instances": {"id": [1], "state": ["in-service"], "state_since_ms": [1], "created_ms": [1],
                    "generation": [1], "protected": [false]},
                "metrics": [{"name": "load", "scope": "instance", "values": [1.0], "window": []}],
                "last": null, "schedule": []
            },
            "expect": {"capacity": capacity, "reasons": ["above-target"]}
        }]});
        vectors::parse(&text.to_string()).unwrap()
    };
    let with = |capacity| CheckOptions {
        vectors: vector(capacity),
        ..options(json!({"metric": "load", "target": 0.5}))
    };
    assert_eq!(found(&checked("target-tracking", &with(2)), "vectors").lines, ["all 1 agree"]);
    let report = checked("target-tracking", &with(3));
    assert_eq!(report.verdict(), "FAILED: vectors");
    assert!(found(&report, "vectors").lines[0].contains("twice the target"), "{report}");

    // What goes past a limit takes all that it may, each time.
    let limits = PolicyLimits { fuel: 2_000, ..PolicyLimits::default() };
    let vectors = (0..9).flat_map(|_| vector(2)).collect();
    let many = CheckOptions { vectors, limits, ..with(2) };
    let report = checked("target-tracking", &many);
    let first = &found(&report, "vectors").lines[0];
    assert_eq!(first, "3 of 9 compared: stopped after 3 calls that went past a limit");
}

/// The module and the same policy natively go the same way through a scenario.
#[test]
fn a_module_is_a_subject_like_any_other() {
    let params = r#"{"metric": "load", "target": 0.5, "tolerance": 0.1}"#;
    let policy = built_in("target-tracking");
    let load = Load::new().hold(2.0, 10).ramp(9.0, 20).wave(5.0, 4.0, 25, 60);
    let scenario = Scenario::new().load(load).noise(0.1, 3).gap(20..25).stale(50..55);
    let sandboxed = scenario.run(&mut ModuleSubject::new(&policy, params, PolicyLimits::default()));
    let mut native = TestPolicy::<target_tracking::TargetTracking>::new(params).unwrap();
    assert_eq!(sandboxed, scenario.run(&mut native));
    assert!(sandboxed.changes() > 10, "{sandboxed}");
}
