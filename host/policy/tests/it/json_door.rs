//! Core modules that exchange JSON through their memory.

use std::sync::Arc;

use regatta_core::decision::{FailureKind, LogLevel, Reason};
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{LastDecision, WindowSample};
use regatta_policy_host::{Abi, Call, CompiledPolicy, LoadError, MigrateError, ParamsError};
use serde_json::{Value, json};

use crate::fixtures::{engine, limits, observation, observation_of};

const DESCRIBE: &str = r#"{"name":"by-hand","version":"1.2.3","params_schema":{"type":"object"},
    "metrics":[{"name":"utilization","window_ms":5000}]}"#;

/// Text as a data segment has it.
fn data(text: impl AsRef<[u8]>) -> String {
    text.as_ref().iter().map(|byte| format!("\\{byte:02x}")).collect()
}

/// An answer at `at` in memory.
fn answer(at: u32, text: &str) -> String {
    format!("(i64.const {})", u64::from(at) << 32 | u64::try_from(text.len()).expect("it is short"))
}

/// A module with these answers of `describe`, `validate` and `decide`; `more` comes beside them.
fn module(describe: &str, validate: &str, decide: &str, more: &str) -> Vec<u8> {
    with_bodies(
        describe,
        &answer(16_384, validate),
        &answer(32_768, decide),
        more,
        &[(16_384, validate), (32_768, decide)],
    )
}

/// The same with the bodies of `validate` and `decide`; arguments go to 65,536.
fn with_bodies(describe: &str, validate: &str, decide: &str, more: &str, texts: &[(u32, &str)]) -> Vec<u8> {
    let texts: String =
        texts.iter().map(|(at, text)| format!("(data (i32.const {at}) \"{}\")\n", data(text))).collect();
    let text = format!(
        r#"(module
            {more}
            (memory (export "memory") 4)
            (data (i32.const 1024) "{describe_text}")
            {texts}
            (func (export "regatta_alloc") (param i32) (result i32) (i32.const 65536))
            (func (export "regatta_describe") (result i64) {described})
            (func (export "regatta_validate") (param $at i32) (param $length i32) (result i64) {validate})
            (func (export "regatta_decide") (param $at i32) (param $length i32) (result i64) {decide}))"#,
        describe_text = data(describe),
        described = answer(1024, describe),
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// A module that decides this.
fn deciding(decide: &str) -> Vec<u8> {
    module(DESCRIBE, "[]", decide, "")
}

fn load(bytes: &[u8]) -> Arc<CompiledPolicy> {
    engine().load(bytes).unwrap_or_else(|error| panic!("refused: {error:?}"))
}

fn decide(bytes: &[u8], state: &[u8]) -> Call {
    load(bytes).decide(&observation(2, 0.5), "{}", state, &limits())
}

/// A module that gives what it is told in the place of `$give` as its state: `[<text>]`, in quotes when it is no
/// JSON of itself.
fn giving(gives: &str, more: &str) -> Vec<u8> {
    giving_as(DESCRIBE, gives, more)
}

/// The same with another description.
fn giving_as(describe: &str, gives: &str, more: &str) -> Vec<u8> {
    let (head, tail) = (r#"{"ok":{"capacity":1,"state":"#, "}}");
    let body = format!(
        "(local $end i32)
        (memory.copy (i32.const 131072) (i32.const 32768) (i32.const {head}))
        (local.set $end (i32.add (i32.const {from}) {gives}))
        (memory.copy (local.get $end) (i32.const 40960) (i32.const 2))
        (i64.or (i64.const {place}) (i64.extend_i32_u (i32.sub (i32.add (local.get $end) (i32.const 2)) (i32.const 131072))))",
        head = head.len(),
        from = 131_072 + head.len(),
        place = 131_072_u64 << 32,
    );
    let texts = [(32_768, head), (40_960, tail), (16_384, "[]"), (45_056, "utilization")];
    with_bodies(describe, &answer(16_384, "[]"), &body, more, &texts)
}

fn given(bytes: &[u8], decide: impl Fn(&CompiledPolicy) -> Call) -> Value {
    let call = decide(&load(bytes));
    let state = call.state.unwrap_or_else(|| panic!("{:?}", call.run.result));
    serde_json::from_slice(&state).expect("the state is JSON")
}

#[test]
fn a_tiny_module_is_a_policy() {
    let outcome = r#" { "ok" : {"capacity":3,"standby":1,"victims":[2,2,1],"wake_after_ms":500,
        "reasons":[{"code":"c","text":"t","evidence":[["name","value"]]}],"state":{"streak": [ 1.50, "a b" ]}}}"#;
    let policy = load(&deciding(outcome));
    assert_eq!(policy.abi(), Abi::CoreJson);
    assert_eq!(policy.imports(), [] as [String; 0]);
    assert!(!policy.migrates());
    let manifest = policy.manifest();
    assert_eq!(
        (manifest.name.as_str(), manifest.version.as_str(), manifest.state_version),
        ("by-hand", "1.2.3", 1)
    );
    assert_eq!(manifest.params_schema, json!({"type": "object"}));
    assert_eq!(policy.wishes("{}")[0].window_ms, 5000);
    policy.validate("{}", &limits()).unwrap();

    let call = policy.decide(&observation(2, 0.5), "{}", b"", &limits());
    let decision = call.run.result.clone().unwrap();
    assert_eq!((decision.capacity, decision.standby, decision.wake_after_ms), (3, Some(1), Some(500)));
    assert_eq!(decision.victims, [2, 1]);
    let evidence = vec![("name".into(), "value".into())];
    assert_eq!(decision.reasons, [Reason { code: "c".into(), text: "t".into(), evidence }]);
    assert_eq!(
        call.state.as_deref(),
        Some(&br#"{"streak":[1.50,"a b"]}"#[..]),
        "compact, numbers as written"
    );
    let again = policy.decide(&observation(2, 0.5), "{}", b"", &limits());
    assert_eq!((again.run.result, again.run.fuel, again.state), (call.run.result, call.run.fuel, call.state));
}

#[test]
fn the_argument_has_the_shape_of_the_contract() {
    let mut observation = observation_of(2, &[0.25, f64::INFINITY]);
    let reason = Reason { code: "a".into(), text: "b".into(), evidence: vec![("c".into(), "d".into())] };
    let narrowed_by = vec!["max".to_owned()];
    observation.last =
        Some(LastDecision { tick: 6, wanted: Some(9), granted: 4, reasons: vec![reason], narrowed_by });
    observation.schedule = vec!["night".to_owned()];
    let observation = Arc::new(observation);
    let echo = "(memory.copy (i32.const 131100) (local.get $at) (local.get $length)) (local.get $length)";
    let echo = giving(&format!("(block (result i32) {echo})"), "");
    let seen = given(&echo, |policy| policy.decide(&observation, r#"{"a":1.0}"#, br#"{"n":3}"#, &limits()));
    let missing = json!({"status": "missing"});
    assert_eq!(
        seen,
        json!({
            "tick": {
                "now_ms": 1_000_000, "number": 7, "set": "web", "generation": 1, "min": 1, "max": 1000, "desired": 2,
                "counts": {
                    "pending": 0, "creating": 0, "booting": 0, "initializing": 0, "in_service": 2, "standby": 0,
                    "unhealthy": 0, "draining": 0, "terminating": 0, "failed": 0,
                },
                "last": {
                    "tick": 6, "wanted": 9, "granted": 4,
                    "reasons": [{"code": "a", "text": "b", "evidence": [["c", "d"]]}], "narrowed_by": ["max"],
                },
                "schedule": ["night"],
                "metrics": [{
                    "name": "utilization", "mean": missing, "sum": missing,
                    "min": {"status": "fresh", "value": 0.25}, "max": missing, "fresh": 2, "stale": 0, "missing": 0,
                }],
            },
            "params": {"a": 1.0},
            "state": {"n": 3},
        })
    );
    let seen = given(&echo, |policy| policy.decide(&observation, "{}", b"", &limits()));
    assert_eq!(seen["state"], Value::Null);
}

#[test]
fn a_state_that_is_no_json_is_null_and_is_warned_of() {
    let policy = load(&deciding(r#"{"ok":{"capacity":1}}"#));
    let call = policy.decide(&observation(2, 0.5), "{}", b"\xff\x00", &limits());
    assert_eq!(call.run.log.len(), 1);
    assert_eq!(call.run.log[0].level, LogLevel::Warn);
    assert!(call.run.log[0].message.contains("not JSON"), "{:?}", call.run.log);
    assert_eq!(call.state.unwrap(), b"", "no state given");
    assert!(decide(&deciding(r#"{"ok":{"capacity":1}}"#), b"null").run.log.is_empty());
}

#[test]
fn bulk_data_comes_as_columns() {
    let import = |function: &str, params: &str| {
        format!(
            r#"(import "regatta" "{function}" (func $answer {params} (result i32)))
            (import "regatta" "read" (func $read (param i32)))"#
        )
    };
    let read = |call: &str| format!("(block (result i32) {call} (call $read (i32.const 131100)))");
    let mut observation = observation_of(3, &[0.25, 0.5, 0.75]);
    observation.instances.protected[2] = true;
    observation.metrics[0].values[1] = MetricValue::Stale { value: 0.5, age_ms: 9 };
    observation.metrics[0].values[2] = MetricValue::Missing;
    let sample = |at_ms, value| WindowSample { at_ms, value };
    observation.metrics[0].window =
        vec![sample(994_999, 1.0), sample(995_000, 2.0), sample(996_000, f64::NAN), sample(999_000, 3.0)];
    let observation = Arc::new(observation);
    let see = |bytes: &[u8]| given(bytes, |policy| policy.decide(&observation, "{}", b"", &limits()));

    assert_eq!(
        see(&giving(&read("(call $answer)"), &import("instances", ""))),
        json!({
            "id": [1, 2, 3], "state": ["in-service", "in-service", "in-service"], "state_since_ms": [1000, 1000, 1000],
            "created_ms": [500, 500, 500], "generation": [1, 1, 1], "protected": [false, false, true],
        })
    );
    let named = read("(call $answer (i32.const 45056) (i32.const 11))");
    assert_eq!(
        see(&giving(&named, &import("metric", "(param i32 i32)"))),
        json!({"value": [0.25, 0.5, null], "status": ["fresh", "stale", "missing"]})
    );
    assert_eq!(
        see(&giving(&named, &import("window", "(param i32 i32)"))),
        json!({"at_ms": [995_000, 996_000, 999_000], "value": [2.0, null, 3.0]}),
        "no further back than was asked for"
    );
    let unknown = read("(call $answer (i32.const 45056) (i32.const 3))");
    assert_eq!(
        see(&giving(&unknown, &import("metric", "(param i32 i32)"))),
        json!({"value": [], "status": []}),
        "there is no metric `uti`"
    );
}

#[test]
fn a_window_is_as_long_as_was_asked_for_and_no_longer_than_is_kept() {
    let import = r#"(import "regatta" "window" (func $answer (param i32 i32) (result i32)))
        (import "regatta" "read" (func $read (param i32)))"#;
    let call = "(block (result i32) (call $answer (i32.const 45056) (i32.const 11)) (call $read (i32.const 131100)))";
    let mut observation = observation_of(1, &[0.5]);
    // Ten minutes of seconds, and the present is 1,000,000 ms.
    let window = (400..1_000).map(|s| WindowSample { at_ms: s * 1_000, value: s as f64 });
    observation.metrics[0].window = window.collect();
    let observation = Arc::new(observation);
    let asking = |window_ms: u64| {
        let describe = DESCRIBE.replace("5000", &window_ms.to_string());
        giving_as(&describe, call, import)
    };
    for window_ms in [0, 5_000, 90_000, 500_000, 31 * 86_400_000] {
        let seen = given(&asking(window_ms), |policy| policy.decide(&observation, "{}", b"", &limits()));
        let reached = seen["at_ms"].as_array().expect("a column").len() as u64;
        assert_eq!(reached, (window_ms / 1_000).min(600), "of {window_ms} ms");
    }
    let Err(LoadError::BadManifest(problems)) = engine().load(&asking(90 * 86_400_000)) else {
        panic!("90 days are not kept")
    };
    assert_eq!(problems, ["it asks for 90 days of utilization; at most 31 days are kept"]);
}

#[test]
fn it_logs_and_is_initialized_first() {
    let more = r#"(import "regatta" "log" (func $log (param i32 i32 i32)))
        (data (i32.const 50000) "hello\ff")
        (global $ready (mut i32) (i32.const 0))
        (func (export "_initialize") (global.set $ready (i32.const 1)))"#;
    let outcome = r#"{"ok":{"capacity":1}}"#;
    let body = format!(
        "(if (i32.eqz (global.get $ready)) (then (unreachable)))
        (call $log (i32.const 3) (i32.const 50000) (i32.const 6)) {}",
        answer(32_768, outcome)
    );
    let texts = [(16_384, "[]"), (32_768, outcome)];
    let module = with_bodies(DESCRIBE, &answer(16_384, "[]"), &body, more, &texts);
    let run = decide(&module, b"").run;
    assert!(run.result.is_ok(), "{run:?}");
    assert_eq!((run.log[0].level, run.log[0].message.as_str()), (LogLevel::Warn, "hello\u{fffd}"));
}

#[test]
fn problems_and_errors_of_its_own_are_handed_on() {
    let policy = load(&module(
        DESCRIBE,
        r#"[{"path":"/target","message":"must be positive"},{"path":"","message":"no"}]"#,
        r#"{"error":"cannot say"}"#,
        "",
    ));
    let Err(ParamsError::Problems(problems)) = policy.validate("{}", &limits()) else { panic!("accepted") };
    assert_eq!(problems.len(), 2);
    assert_eq!(problems[0].to_string(), "/target: must be positive");
    let Err(ParamsError::Problems(problems)) = policy.validate("{", &limits()) else { panic!("accepted") };
    assert!(problems[0].message.contains("not JSON"), "{problems:?}");
    let failure = policy.decide(&observation(2, 0.5), "{}", b"", &limits()).run.result.unwrap_err();
    assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Refused, "cannot say"));
}

#[test]
fn it_migrates() {
    let migrating = |answered: &str| {
        let more = format!(
            r#"(data (i32.const 50000) "{}")
            (func (export "regatta_migrate") (param i32 i32) (result i64) {})"#,
            data(answered),
            answer(50_000, answered)
        );
        load(&module(DESCRIBE, "[]", r#"{"ok":{"capacity":1}}"#, &more))
    };
    let policy = migrating(r#"{"ok": {"streak": 3}}"#);
    assert!(policy.migrates());
    assert_eq!(policy.migrate(1, b"{}", &limits()).unwrap(), br#"{"streak":3}"#);
    let tight = PolicyLimits { output_bytes: 10, ..limits() };
    assert!(
        matches!(policy.migrate(1, b"{}", &tight), Err(MigrateError::Failed(f)) if f.failure.kind == FailureKind::Output)
    );
    match migrating(r#"{"error": "too old"}"#).migrate(1, b"", &limits()) {
        Err(MigrateError::Refused(message)) => assert_eq!(message, "too old"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(
        migrating(r#"{"fine": 1}"#).migrate(1, b"", &limits()),
        Err(MigrateError::Failed(call)) if call.failure.kind == FailureKind::Output
    ));
    let without = load(&deciding(r#"{"ok":{"capacity":1}}"#));
    assert!(matches!(without.migrate(1, b"", &limits()), Err(MigrateError::NoMigration)));
}

#[test]
fn answers_that_are_none_are_failures_of_their_output() {
    let nested = format!(r#"{{"ok":{}1{}}}"#, "[".repeat(5000), "]".repeat(5000));
    for (answered, told) in [
        ("", "EOF"),
        ("[]", "not the JSON of the contract"),
        ("{\"ok\":{\"capacity\":1}", "EOF"),
        (r#"{"ok":{}}"#, "missing field `capacity`"),
        (r#"{"ok":{"capacity":1,"victim":[1]}}"#, "unknown field `victim`"),
        (r#"{"ok":{"capacity":1},"error":"both"}"#, "not the JSON of the contract"),
        (r#"{"ok":{"capacity":1,"capacity":2}}"#, "duplicate field"),
        (r#"{"ok":{"capacity":4294967296}}"#, "invalid value"),
        (r#"{"ok":{"capacity":1e999}}"#, "out of range"),
        (r#"{"ok":{"capacity":-1}}"#, "invalid value"),
        (r#"{"ok":{"capacity":NaN}}"#, "expected"),
        (r#"{"ok":{"capacity":1000001}}"#, "capacity of 1000001"),
        (r#"{"ok":{"capacity":1,"standby":1000001}}"#, "standby of 1000001"),
        (r#"{"ok":{"capacity":1,"victims":[99]}}"#, "no such instance"),
        (r#"{"ok":{"capacity":1,"state":tru}}"#, "not the JSON"),
        (&nested, "not the JSON"),
    ] {
        let failure = decide(&deciding(answered), b"").run.result.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Output, "{answered}: {failure:?}");
        assert!(failure.message.contains(told), "{answered}: {failure:?}");
    }
    // A state may be as deep as it likes: nobody takes it apart.
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let call = decide(&deciding(&format!(r#"{{"ok":{{"capacity":1,"state":{deep}}}}}"#)), b"");
    assert_eq!(call.state.as_deref(), Some(deep.as_bytes()), "{:?}", call.run.result);
    assert!(decide(&deciding(r#"{"ok":{"capacity":1}}"#), deep.as_bytes()).run.result.is_ok());
}

#[test]
fn answers_out_of_reach_are_failures_of_their_output() {
    let texts = [(16_384, "[]"), (32_768, "\u{e4}")];
    let failure = |body: &str, limits: &PolicyLimits| {
        let module = with_bodies(DESCRIBE, &answer(16_384, "[]"), body, "", &texts);
        load(&module).decide(&observation(2, 0.5), "{}", b"", limits).run.result.unwrap_err()
    };
    for (body, told) in [
        ("(i64.const -1)", "4294967295 bytes, more than"),
        ("(i64.const 0x7fffffff_00000010)", "outside of its memory"),
        ("(i64.const 0xffffffff_00000010)", "outside of its memory"),
        ("(i64.const 0x0003fff8_00000010)", "outside of its memory"),
        ("(i64.const 0x00008000_00000001)", "not text"),
        ("(i64.const 0)", "EOF"),
    ] {
        let failure = failure(body, &limits());
        assert_eq!(failure.kind, FailureKind::Output, "{body}: {failure:?}");
        assert!(failure.message.contains(told), "{body}: {failure:?}");
    }
    let long = PolicyLimits { output_bytes: 1024, ..limits() };
    assert!(failure("(i64.const 1025)", &long).message.contains("1025 bytes, more than the 1024"));
    assert_eq!(failure("(unreachable)", &limits()).kind, FailureKind::Trap);
    assert_eq!(failure("(loop $again (br $again)) (i64.const 0)", &limits()).kind, FailureKind::OutOfFuel);
}

#[test]
fn imports_with_wild_pointers_trap() {
    for (call, params) in [
        ("log", "(i32.const 1) (i32.const -1) (i32.const 5)"),
        ("log", "(i32.const 1) (i32.const 0) (i32.const -1)"),
        ("metric", "(i32.const 262140) (i32.const 5)"),
        ("window", "(i32.const -5) (i32.const 4)"),
        ("read", "(i32.const -1)"),
    ] {
        let (types, drop) = match call {
            "log" => ("(param i32 i32 i32)", ""),
            "read" => ("(param i32)", ""),
            _ => ("(param i32 i32) (result i32)", "drop"),
        };
        let more = format!(
            r#"(import "regatta" "instances" (func $instances (result i32)))
            (import "regatta" "{call}" (func $call {types}))"#
        );
        let body = format!("(drop (call $instances)) (call $call {params}) {drop} (i64.const 0)");
        let module = with_bodies(DESCRIBE, &answer(16_384, "[]"), &body, &more, &[(16_384, "[]")]);
        let failure = decide(&module, b"").run.result.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Trap, "{call} {params}: {failure:?}");
        assert!(failure.message.contains("out of bounds"), "{call} {params}: {failure:?}");
    }
}

#[test]
fn the_work_of_the_host_costs_fuel() {
    let more = r#"(import "regatta" "instances" (func $instances (result i32)))"#;
    let body = "(loop $again (drop (call $instances)) (br $again)) (i64.const 0)";
    let module = with_bodies(DESCRIBE, &answer(16_384, "[]"), body, more, &[(16_384, "[]")]);
    let policy = load(&module);
    let observation = observation(10_000, 0.5);
    let calls = |fuel| policy.decide(&observation, "{}", b"", &PolicyLimits { fuel, ..limits() });
    let started = std::time::Instant::now();
    let run = calls(50_000_000).run;
    assert_eq!(run.result.unwrap_err().kind, FailureKind::OutOfFuel);
    assert_eq!(run.fuel, 50_000_000);
    // About 100 times half a megabyte; without the charge it would be some million times.
    assert!(started.elapsed().as_secs() < 30, "{:?}", started.elapsed());
}

#[test]
fn what_does_not_fit_the_door_is_named() {
    let refused = |text: &str| engine().load(&wat::parse_str(text).unwrap()).unwrap_err();
    match refused(r#"(module (memory (export "memory") 1) (func (export "regatta_decide")))"#) {
        LoadError::Exports { missing } => {
            assert_eq!(missing, ["`regatta_alloc`", "`regatta_describe`", "`regatta_validate`"])
        }
        other => panic!("{other:?}"),
    }
    match refused(
        r#"(module (import "regatta" "steal" (func)) (import "env" "abort" (func))
        (import "wasi_snapshot_preview1" "fd_fly" (func)) (func (export "regatta_decide")))"#,
    ) {
        LoadError::Imports { imports } => {
            assert_eq!(imports, ["`regatta` `steal`", "`env` `abort`", "`wasi_snapshot_preview1` `fd_fly`"])
        }
        other => panic!("{other:?}"),
    }
    let error = refused(
        r#"(module (memory (export "memory") i64 1) (func (export "regatta_alloc") (param i64) (result i32) (unreachable))
        (func (export "regatta_describe") (result i64) (unreachable)) (global (export "regatta_validate") i32 (i32.const 1))
        (func (export "regatta_decide") (param i32 i32) (result i64) (unreachable))
        (func (export "_initialize") (param i32)))"#,
    );
    let LoadError::Contract { source, .. } = error else { panic!("{error:?}") };
    let source = source.to_string();
    for name in ["regatta_alloc", "regatta_validate", "_initialize", "memory"] {
        assert!(source.contains(&format!("`{name}`")), "{name}: {source}");
    }
    assert!(!source.contains("regatta_decide"), "{source}");
    match refused(
        r#"(module (import "regatta" "log" (func (param i64))) (memory (export "memory") 1)
        (func (export "regatta_alloc") (param i32) (result i32) (unreachable))
        (func (export "regatta_describe") (result i64) (unreachable))
        (func (export "regatta_validate") (param i32 i32) (result i64) (unreachable))
        (func (export "regatta_decide") (param i32 i32) (result i64) (unreachable)))"#,
    ) {
        LoadError::Contract { .. } => {}
        other => panic!("{other:?}"),
    }
    match engine().load(&module(r#"{"name":"a","version":"1","params_schema":{},"wants":1}"#, "[]", "", "")) {
        Err(LoadError::Describe(call)) => {
            assert_eq!(call.failure.kind, FailureKind::Output);
            assert!(call.failure.message.contains("unknown field `wants`"), "{call:?}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_example_of_the_documentation_is_a_policy() {
    let page = include_str!("../../../../docs/policy-contract.md");
    let (_, example) = page.split_once("```wat\n").expect("the page has an example");
    let (example, _) = example.split_once("```").expect("the example ends");
    let policy = load(&wat::parse_str(example).unwrap());
    assert_eq!(policy.manifest().name, "keep-three");
    let params = format!(r#"{{"long": "{}"}}"#, "x".repeat(100_000));
    policy.validate(&params, &limits()).unwrap();
    let decision = policy.decide(&observation(2, 0.5), &params, b"", &limits()).run.result.unwrap();
    assert_eq!((decision.capacity, decision.reasons[0].code.as_str()), (3, "always"));
}
