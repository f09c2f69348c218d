//! What the fuzz targets do with bytes that a guest may choose: every way by which they reach the host. The targets of
//! `cargo xtask fuzz` call these, and so does a test of every build (`host/policy/tests/it/fuzz.rs`).
//!
//! A body panics when the host is not what it promises to be, whatever the bytes: anything else is a fine answer.

use std::fmt::Write;
use std::sync::{Arc, LazyLock, OnceLock};

use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::{InstanceRow, InstanceTable, Observation};
use regatta_policy_host::{
    Call, CompiledPolicy, Engine, EngineOptions, LoadError, MAX_CAPACITY, ParamsError, Place,
};

/// A body and its name.
pub(crate) type Target = (&'static str, fn(&[u8]));

/// All of them.
pub(crate) const TARGETS: [Target; 7] = [
    ("load", load),
    ("contract_version", contract_version),
    ("component_results", component_results),
    ("json_answers", json_answers),
    ("json_describe", json_describe),
    ("json_imports", json_imports),
    ("wasi_output", wasi_output),
];

/// Longest message of anything, bytes.
const MESSAGE_BYTES: usize = 8 << 10;

/// Where modules are compiled; this process unless something else is set before the first body runs. Parsers of modules
/// overflow the stack on some: a body that loads any bytes must be given a child, as the daemon has.
pub(crate) static COMPILER: OnceLock<Place> = OnceLock::new();

static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let compile_in = COMPILER.get().cloned().unwrap_or(Place::InProcess);
    // No pool: address sanitizers want the address space for themselves.
    let options = EngineOptions { pooling: false, compile_in, ..EngineOptions::default() };
    Engine::new(options).expect("an engine starts")
});

fn limits() -> PolicyLimits {
    PolicyLimits { fuel: 5_000_000, deadline_ms: 5_000, ..PolicyLimits::default() }
}

fn observation() -> Arc<Observation> {
    let mut instances = InstanceTable::default();
    for id in 1..=3 {
        let state = regatta_core::instance_state::InstanceState::InService;
        instances.push(InstanceRow {
            id,
            state,
            state_since_ms: 1,
            created_ms: 1,
            generation: 1,
            protected: false,
        });
    }
    Arc::new(Observation {
        set: "web".to_owned(),
        tick: 7,
        now_ms: 1_000_000,
        generation: 1,
        min: 0,
        max: 10,
        desired: 3,
        instances,
        metrics: Vec::new(),
        last: None,
        schedule: Vec::new(),
    })
}

/// A guest of ours, compiled once.
fn guest(text: &str) -> Arc<CompiledPolicy> {
    let module = wat::parse_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    ENGINE.load(&module).unwrap_or_else(|error| panic!("our own guest is refused: {error:?}"))
}

/// Any bytes as a module; what is a policy checks parameters and decides.
pub(crate) fn load(bytes: &[u8]) {
    match ENGINE.load(bytes) {
        Ok(policy) => {
            let manifest = policy.manifest();
            assert!(
                manifest.name.len() <= 64
                    && manifest.description.len() <= 1024
                    && manifest.metrics.len() <= 64
            );
            validate(&policy, "{}");
            decide(&policy, "{}", b"");
        }
        Err(error) => refused(&error),
    }
}

/// Any bytes as the custom section that says which contract a module speaks.
pub(crate) fn contract_version(bytes: &[u8]) {
    let mut module = wat::parse_str(json_guest("", "(i64.const 0)", "(i64.const 0)")).expect("it is valid");
    let name = b"regatta-contract";
    let content = [&[u8::try_from(name.len()).expect("it is short")], &name[..], bytes].concat();
    module.push(0);
    module.extend(leb(content.len()));
    module.extend(content);
    match ENGINE.load(&module) {
        Ok(_) => {
            let text = String::from_utf8_lossy(bytes);
            assert!(text.trim().starts_with("0.1."), "{text:?} is taken for a version of ours");
        }
        Err(error) => refused(&error),
    }
}

static COMPONENT: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| {
    guest(
        r#"(module
            (memory (export "memory") 4)
            (data (i32.const 1024) "fuzz1.0.0true")
            (global $next (mut i32) (i32.const 131072))
            (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
              (global.set $next (i32.and (i32.add (global.get $next) (i32.const 15)) (i32.const -16)))
              (global.get $next)
              (global.set $next (i32.add (global.get $next) (local.get 3))))
            (func $string (param i32 i32 i32)
              (i32.store (local.get 0) (local.get 1)) (i32.store offset=4 (local.get 0) (local.get 2)))
            (func (export "regatta:policy/scaling@0.1.0#describe") (result i32)
              (call $string (i32.const 0) (i32.const 1024) (i32.const 4))
              (call $string (i32.const 8) (i32.const 1028) (i32.const 5))
              (call $string (i32.const 24) (i32.const 1033) (i32.const 4))
              (i32.const 0))
            (func (export "regatta:policy/scaling@0.1.0#validate") (param i32 i32) (result i32)
              (memory.copy (i32.const 256) (local.get 0) (local.get 1))
              (i32.const 256))
            ;; The state that it is given, as it is, is what it gives.
            (func (export "regatta:policy/scaling@0.1.0#decide") (param i32) (result i32)
              (memory.copy (i32.const 256) (i32.load offset=160 (local.get 0)) (i32.load offset=164 (local.get 0)))
              (i32.const 256)))"#,
    )
});

/// Any bytes where the result of a component lies, and behind it, where its pointers may lead.
pub(crate) fn component_results(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(60_000)];
    decide(&COMPONENT, "{}", bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        validate(&COMPONENT, text);
    }
}

static JSON: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| {
    let answer =
        "(i64.or (i64.const 844424930131968) (i64.extend_i32_u (call $given (local.get 0) (local.get 1))))";
    guest(&json_guest("", answer, answer))
});

/// Any bytes as the answers of a module that talks JSON.
pub(crate) fn json_answers(bytes: &[u8]) {
    let params = hex(bytes);
    validate(&JSON, &params);
    decide(&JSON, &params, b"");
}

/// Any bytes as what a module that talks JSON says of itself.
pub(crate) fn json_describe(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(4_000)];
    let data: String = bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "\\{byte:02x}").expect("text can be written to text");
        text
    });
    let described = format!("(i64.const {})", 4096_u64 << 32 | bytes.len() as u64);
    let text = json_guest(&format!("(data (i32.const 4096) \"{data}\")"), "(i64.const 0)", "(i64.const 0)");
    let text = text.replace(DESCRIBED, &described);
    load(&wat::parse_str(&text).expect("it is valid"));
}

static IMPORTS: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| {
    let imports = r#"(import "regatta" "log" (func $log (param i32 i32 i32)))
        (import "regatta" "instances" (func $instances (result i32)))
        (import "regatta" "metric" (func $metric (param i32 i32) (result i32)))
        (import "regatta" "window" (func $window (param i32 i32) (result i32)))
        (import "regatta" "read" (func $read (param i32)))"#;
    // Five numbers, and the bytes behind them are wherever the numbers say.
    let calls = r#"(drop (call $given (local.get 0) (local.get 1)))
        (call $log (i32.load (i32.const 196608)) (i32.load (i32.const 196612)) (i32.load (i32.const 196616)))
        (drop (call $instances))
        (call $read (i32.load (i32.const 196620)))
        (drop (call $metric (i32.load (i32.const 196612)) (i32.load (i32.const 196616))))
        (call $read (i32.load (i32.const 196624)))
        (drop (call $window (i32.load (i32.const 196612)) (i32.load (i32.const 196616))))
        (call $read (i32.load (i32.const 196620)))
        (i64.const 0)"#;
    guest(&json_guest(imports, calls, calls))
});

/// Any numbers and names as arguments of what a module that talks JSON may import.
pub(crate) fn json_imports(bytes: &[u8]) {
    decide(&IMPORTS, &hex(bytes), b"");
}

static WASI: LazyLock<Arc<CompiledPolicy>> = LazyLock::new(|| {
    let imports =
        r#"(import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))"#;
    // First by a list that is right, for all of the bytes; then by one that they are themselves.
    let calls = r#"(i32.store (i32.const 64) (i32.const 196608))
        (i32.store (i32.const 68) (call $given (local.get 0) (local.get 1)))
        (drop (call $write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))
        (drop (call $write (i32.const 2) (i32.const 64) (i32.const 1) (i32.const 72)))
        (drop (call $write (i32.and (i32.load (i32.const 196608)) (i32.const 3))
          (i32.const 196616) (i32.load8_u (i32.const 196612)) (i32.const 72)))
        (i64.const 0)"#;
    guest(&json_guest(imports, calls, calls))
});

/// Any bytes on standard output and standard error, and as the lists that say where they are.
pub(crate) fn wasi_output(bytes: &[u8]) {
    decide(&WASI, &hex(bytes), b"");
}

const DESCRIBED: &str = "(i64.const 4398046511156)";

/// A module of the JSON door with these bodies of `validate` and `decide`. `$given` writes what the hexadecimal digits of
/// its parameters stand for to 196,608, and returns how many bytes that are.
fn json_guest(more: &str, validate: &str, decide: &str) -> String {
    let text = r#"{\22name\22:\22fuzz\22,\22version\22:\221.0.0\22,\22params_schema\22:{}}"#;
    format!(
        r#"(module
            {more}
            (memory (export "memory") 6)
            (data (i32.const 1024) "{text}")
            (func (export "regatta_alloc") (param i32) (result i32) (i32.const 65536))
            (func $digit (param i32) (result i32)
              (i32.sub (i32.load8_u (local.get 0))
                (select (i32.const 87) (i32.const 48) (i32.ge_u (i32.load8_u (local.get 0)) (i32.const 97)))))
            ;; The longest run of hexadecimal digits after the last `"` but one: `"params":"…"` or `"…"` itself.
            (func $given (param $at i32) (param $bytes i32) (result i32)
              (local $from i32) (local $to i32)
              (local.set $from (i32.add (local.get $at) (local.get $bytes)))
              ;; Past `,"state":null}}` when it is there.
              (if (i32.eq (i32.load8_u (i32.sub (local.get $from) (i32.const 1))) (i32.const 125))
                (then (local.set $from (i32.sub (local.get $from) (i32.const 14)))))
              (local.set $from (i32.sub (local.get $from) (i32.const 1)))
              (local.set $bytes (local.get $from))
              (loop $back
                (local.set $from (i32.sub (local.get $from) (i32.const 1)))
                (br_if $back (i32.ne (i32.load8_u (local.get $from)) (i32.const 34))))
              (local.set $from (i32.add (local.get $from) (i32.const 1)))
              (local.set $to (i32.const 196608))
              (block $done (loop $next
                (br_if $done (i32.ge_u (local.get $from) (local.get $bytes)))
                (i32.store8 (local.get $to) (i32.or
                  (i32.shl (call $digit (local.get $from)) (i32.const 4))
                  (call $digit (i32.add (local.get $from) (i32.const 1)))))
                (local.set $to (i32.add (local.get $to) (i32.const 1)))
                (local.set $from (i32.add (local.get $from) (i32.const 2)))
                (br $next)))
              (i32.sub (local.get $to) (i32.const 196608)))
            (func (export "regatta_describe") (result i64) {DESCRIBED})
            (func (export "regatta_validate") (param i32 i32) (result i64) {validate})
            (func (export "regatta_decide") (param i32 i32) (result i64) {decide}))"#
    )
}

/// Parameters that stand for any bytes: a JSON string of hexadecimal digits.
fn hex(bytes: &[u8]) -> String {
    let bytes = &bytes[..bytes.len().min(30_000)];
    let mut text = String::from("\"");
    for byte in bytes {
        write!(text, "{byte:02x}").expect("text can be written to text");
    }
    text + "\""
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f | 0x80).expect("seven bits and one"));
        number >>= 7;
    }
    bytes.push(u8::try_from(number).expect("seven bits"));
    bytes
}

fn refused(error: &LoadError) {
    let cause = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let said = error.to_string().len() + cause.len();
    assert!(said <= MESSAGE_BYTES, "{said} bytes of message");
}

fn validate(policy: &CompiledPolicy, params: &str) {
    match policy.validate(params, &limits()) {
        Ok(()) => {}
        Err(ParamsError::Failed(call)) => assert!(call.failure.message.len() <= MESSAGE_BYTES),
        Err(ParamsError::Problems(problems)) => {
            assert!((1..=100).contains(&problems.len()));
            assert!(
                problems.iter().all(|problem| problem.path.len() <= 1024 && problem.message.len() <= 1024)
            );
        }
    }
}

fn decide(policy: &CompiledPolicy, params: &str, state: &[u8]) -> Call {
    let limits = limits();
    let call = policy.decide(&observation(), params, state, &limits);
    let run = &call.run;
    assert!(run.log.len() as u64 <= u64::from(limits.log_lines) + 1, "{} lines", run.log.len());
    assert!(run.log.iter().all(|line| line.message.len() <= regatta_util::SAID_BYTES));
    match &run.result {
        Ok(decision) => {
            assert!(decision.capacity <= MAX_CAPACITY);
            assert!(decision.victims.iter().all(|id| (1..=3).contains(id)), "{:?}", decision.victims);
            let state = call.state.as_ref().expect("a decision has a state");
            assert!(state.len() as u64 <= limits.output_bytes);
        }
        Err(failure) => {
            assert!(failure.message.len() <= MESSAGE_BYTES);
            assert!(call.state.is_none());
        }
    }
    call
}

/// That the guests hand on what they are given: a body that reaches nothing finds nothing.
pub(crate) fn check_themselves() {
    let decided = |call: Call| call.run.result.unwrap_or_else(|failure| panic!("{failure:?}"));
    assert_eq!(decided(decide(&JSON, &hex(br#"{"ok":{"capacity":3}}"#), b"")).capacity, 3);
    assert!(JSON.validate(&hex(br#"[{"path":"/a","message":"b"}]"#), &limits()).is_err());
    assert!(JSON.validate(&hex(b"[]"), &limits()).is_ok());
    let mut result = [0; 64];
    result[8] = 7;
    assert_eq!(decided(decide(&COMPONENT, "{}", &result)).capacity, 7);
    let log = decide(&WASI, &hex(b"one line\n"), b"").run.log;
    assert!(log.len() >= 2 && log[0].message == "one line" && log[1].message == "one line", "{log:?}");
    let log = decide(&IMPORTS, &hex(&[2, 0, 0, 0, 0, 4, 0, 0, 6, 0, 0, 0]), b"").run.log;
    assert_eq!(log[0].message, "{\"name");
}
