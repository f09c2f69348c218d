//! WASI in its three shapes: preview 1 at the JSON door, preview 1 in a canonical module (through the adapter), and
//! 0.2 in a component. Each guest tells of what it sees; all of them must see the same world.

use std::sync::Arc;

use regatta_core::decision::{FailureKind, LogLevel};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_policy_host::{Abi, Call, CompiledPolicy, LoadError};

use crate::fixtures::{engine, limits, observation};
use crate::modules;

/// What all guests of preview 1 import and have in memory; their own lies from 104,096 on.
const IMPORTS: &str = r#"
    (import "wasi_snapshot_preview1" "clock_time_get" (func $clock (param i32 i64 i32) (result i32)))
    (import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "poll_oneoff" (func $poll (param i32 i32 i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
    (import "wasi_snapshot_preview1" "args_sizes_get" (func $args (param i32 i32) (result i32)))
    (import "wasi_snapshot_preview1" "path_open"
      (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))"#;

/// Says `hello` on both streams, in parts.
const TALK: &str = r#"
    (data (i32.const 104096) "hello\nwor")
    (data (i32.const 104112) "\a0\96\01\00\05\00\00\00\a5\96\01\00\04\00\00\00")
    (func $talk
      (if (call $fd_write (i32.const 1) (i32.const 104112) (i32.const 2) (i32.const 104144)) (then (unreachable)))
      (if (i32.ne (i32.load (i32.const 104144)) (i32.const 9)) (then (unreachable)))
      (if (call $fd_write (i32.const 2) (i32.const 104112) (i32.const 1) (i32.const 104144)) (then (unreachable)))
      (if (i32.ne (call $fd_write (i32.const 3) (i32.const 104112) (i32.const 1) (i32.const 104144)) (i32.const 8))
        (then (unreachable))))"#;

/// Puts at 105,000: wall clock, monotonic clock, 13 random bytes, then, after a sleep of 2 s among other things, the
/// number of events, user data and kind of the event, and the monotonic clock again.
const LOOK: &str = r#"
    (func $look
      (i32.store (i32.const 104148) (i32.const 7))
      (if (call $args (i32.const 104144) (i32.const 104148)) (then (unreachable)))
      (if (i32.or (i32.load (i32.const 104144)) (i32.load (i32.const 104148))) (then (unreachable)))
      (if (i32.eqz (call $open (i32.const 3) (i32.const 0) (i32.const 104096) (i32.const 5) (i32.const 0) (i64.const 0)
          (i64.const 0) (i32.const 0) (i32.const 104144))) (then (unreachable)))
      (drop (call $clock (i32.const 0) (i64.const 1) (i32.const 105000)))
      (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 105008)))
      (drop (call $random (i32.const 105016) (i32.const 13)))
      ;; A sleep until 3 s, and one of 2 s.
      (i64.store (i32.const 104200) (i64.const 11))
      (i32.store (i32.const 104216) (i32.const 1))
      (i64.store (i32.const 104224) (i64.const 3000000000))
      (i32.store (i32.const 104240) (i32.const 1))
      (i64.store (i32.const 104248) (i64.const 22))
      (i32.store (i32.const 104264) (i32.const 1))
      (i64.store (i32.const 104272) (i64.const 2000000000))
      (drop (call $poll (i32.const 104200) (i32.const 104400) (i32.const 2) (i32.const 104144)))
      (i32.store8 (i32.const 105029) (i32.load (i32.const 104144)))
      (i32.store8 (i32.const 105030) (i32.load (i32.const 104400)))
      (i32.store8 (i32.const 105031) (i32.load8_u (i32.const 104410)))
      (drop (call $clock (i32.const 1) (i64.const 1) (i32.const 105032))))"#;
const LOOKED: usize = 40;

/// A module of the canonical names that does `body` and gives `length` bytes from 105,000 as its state.
fn canonical(more: &str, body: &str, length: usize) -> Vec<u8> {
    modules::module(&format!(
        "{IMPORTS} {more} (func $answer {body} (i32.store (i32.const 264) (i32.const 1))
          (call $string (i32.const 312) (i32.const 105000) (i32.const {length})))"
    ))
}

/// A module of the JSON door that does the same; its state is the bytes as an array of numbers.
fn json(more: &str, body: &str, length: usize) -> Vec<u8> {
    let text = format!(
        r#"(module {IMPORTS}
        (memory (export "memory") 2)
        (data (i32.const 1024) "{{\"name\":\"by-hand\",\"version\":\"1\",\"params_schema\":{{}}}}[]")
        (data (i32.const 2048) "{{\"ok\":{{\"capacity\":1,\"state\":[")
        (data (i32.const 2096) "]}}}}")
        {more}
        (func (export "regatta_alloc") (param i32) (result i32) (i32.const 65536))
        (func (export "regatta_describe") (result i64) (i64.const {described}))
        (func (export "regatta_validate") (param i32 i32) (result i64) (i64.const {validated}))
        (func (export "regatta_decide") (param i32 i32) (result i64)
          (local $at i32) (local $end i32) (local $byte i32)
          {body}
          (memory.copy (i32.const 32768) (i32.const 2048) (i32.const 29))
          (local.set $end (i32.const 32797))
          (block $done (loop $next
            (br_if $done (i32.eq (local.get $at) (i32.const {length})))
            (if (local.get $at) (then
              (i32.store8 (local.get $end) (i32.const 44))
              (local.set $end (i32.add (local.get $end) (i32.const 1)))))
            (local.set $byte (i32.load8_u offset=105000 (local.get $at)))
            ;; A space, or a digit, three times.
            (i32.store8 (local.get $end) (select (i32.const 32)
              (i32.add (i32.const 48) (i32.div_u (local.get $byte) (i32.const 100)))
              (i32.lt_u (local.get $byte) (i32.const 100))))
            (i32.store8 offset=1 (local.get $end) (select (i32.const 32)
              (i32.add (i32.const 48) (i32.rem_u (i32.div_u (local.get $byte) (i32.const 10)) (i32.const 10)))
              (i32.lt_u (local.get $byte) (i32.const 10))))
            (i32.store8 offset=2 (local.get $end) (i32.add (i32.const 48) (i32.rem_u (local.get $byte) (i32.const 10))))
            (local.set $end (i32.add (local.get $end) (i32.const 3)))
            (local.set $at (i32.add (local.get $at) (i32.const 1)))
            (br $next)))
          (memory.copy (local.get $end) (i32.const 2096) (i32.const 3))
          (i64.or (i64.const {place})
            (i64.extend_i32_u (i32.sub (i32.add (local.get $end) (i32.const 3)) (i32.const 32768))))))"#,
        described = 1024_u64 << 32 | 51,
        validated = (1024_u64 + 51) << 32 | 2,
        place = 32_768_u64 << 32,
    );
    wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

fn load(bytes: &[u8]) -> Arc<CompiledPolicy> {
    engine().load(bytes).unwrap_or_else(|error| panic!("refused: {error:?}"))
}

fn decide(bytes: &[u8], observation: &Arc<Observation>) -> Call {
    load(bytes).decide(observation, "{}", b"", &limits())
}

/// The bytes that a guest gives as its state.
fn seen(bytes: &[u8], observation: &Arc<Observation>) -> Vec<u8> {
    let policy = load(bytes);
    let call = policy.decide(observation, "{}", b"", &limits());
    let state = call.state.unwrap_or_else(|| panic!("{:?}", call.run));
    if policy.abi() == Abi::CoreJson {
        serde_json::from_slice(&state).expect("an array of bytes")
    } else {
        state
    }
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}

/// Both guests of preview 1.
fn both(more: &str, body: &str, length: usize) -> [Vec<u8>; 2] {
    [canonical(more, body, length), json(more, body, length)]
}

#[test]
fn preview_1_shows_the_tick_and_nothing_else() {
    let first = observation(2, 0.5);
    let mut other = (*first).clone();
    other.tick += 1;
    let mut elsewhere = (*first).clone();
    elsewhere.set = "db".to_owned();
    let [canonical, json] = both(LOOK, "(call $look)", LOOKED).map(|guest| {
        let world = seen(&guest, &first);
        assert_eq!(u64_at(&world, 0), 1_000_000_000_000, "the wall clock shows the tick, in ns");
        assert_eq!(u64_at(&world, 8), 0, "the monotonic clock starts at 0");
        assert_eq!(world[29..32], [1, 22, 0], "of two sleeps the shorter one is over");
        assert_eq!(u64_at(&world, 32), 2_000_001_000, "the sleep took 2 s of no time");
        assert_eq!(seen(&guest, &first), world, "the same again");
        let random =
            |observation: &Observation| seen(&guest, &Arc::new(observation.clone()))[16..29].to_vec();
        assert_ne!(random(&first), random(&other), "another tick, other numbers");
        assert_ne!(random(&first), random(&elsewhere), "another set, other numbers");
        world
    });
    assert_eq!(canonical, json, "the adapter and the host's own functions show one world");
}

#[test]
fn output_becomes_lines_of_the_log() {
    for guest in both(TALK, "(call $talk)", 0) {
        let run = decide(&guest, &observation(2, 0.5)).run;
        assert!(run.result.is_ok(), "{run:?}");
        let log: Vec<_> = run.log.iter().map(|line| (line.level, line.message.as_str())).collect();
        // Lines that do not end are put out when the call does.
        assert_eq!(log, [(LogLevel::Info, "hello"), (LogLevel::Info, "wor"), (LogLevel::Warn, "hello")]);
    }
}

#[test]
fn output_without_end_is_bounded() {
    let flood = r#"(local $left i32)
        (local.set $left (i32.const 1000))
        (loop $again (call $talk)
          (local.set $left (i32.sub (local.get $left) (i32.const 1))) (br_if $again (local.get $left)))"#;
    let flood = format!("(func $flood {flood})");
    for guest in both(&format!("{TALK} {flood}"), "(call $flood)", 0) {
        let few = PolicyLimits { log_lines: 5, ..limits() };
        let log = load(&guest).decide(&observation(2, 0.5), "{}", b"", &few).run.log;
        assert_eq!(log.len(), 6, "{log:?}");
        assert_eq!(log[5].message, "997 more lines dropped");
    }
    // A gigabyte in one go, of memory that is not there; and all there is, again and again.
    let huge = r#"(data (i32.const 104160) "\00\00\00\00\00\00\00\40\00\00\00\00\00\00\01\00")"#;
    for (vector, kinds) in [
        (104160, &[FailureKind::Trap, FailureKind::OutOfFuel, FailureKind::Output][..]),
        (104168, &[FailureKind::OutOfFuel]),
    ] {
        let body = format!(
            "(loop $again (drop (call $fd_write (i32.const 1) (i32.const {vector}) (i32.const 1) (i32.const 104144)))
            (br $again))"
        );
        for guest in both(huge, &body, 0) {
            let failure = decide(&guest, &observation(2, 0.5)).run.result.unwrap_err();
            assert!(kinds.contains(&failure.kind), "{failure:?}");
        }
    }
}

#[test]
fn exit_ends_the_call() {
    for guest in both("", "(call $exit (i32.const 3))", 0) {
        let failure = decide(&guest, &observation(2, 0.5)).run.result.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Trap);
        assert_eq!(failure.message, "it ended itself with exit code 3");
    }
}

#[test]
fn random_without_end_uses_up_the_fuel() {
    for guest in
        both("", "(loop $again (drop (call $random (i32.const 0) (i32.const 65536))) (br $again))", 0)
    {
        let failure = decide(&guest, &observation(2, 0.5)).run.result.unwrap_err();
        assert_eq!(failure.kind, FailureKind::OutOfFuel, "{failure:?}");
    }
}

/// A component of the contract that imports WASI 0.2: a core module of the canonical names, made a component under a
/// world that has both.
fn component(wasi: &str, imports: &str, fixture: &str) -> Vec<u8> {
    let contract = include_str!("../../../../sdk/wit/v0.1.1/policy.wit");
    let mut resolve = wit_parser::Resolve::default();
    resolve.push_str("wasi.wit", wasi).expect("the WIT of the test is valid");
    let wit = contract.replace("world policy {", &format!("world policy {{ {imports}"));
    let package = resolve.push_str("policy.wit", &wit).expect("the contract is valid WIT");
    let world = resolve.select_world(&[package], Some("policy")).expect("the contract has the world");
    let text = modules::text(fixture).replace("regatta:policy/scaling@0.1.0", "regatta:policy/scaling@0.1.1");
    let mut bytes = wat::parse_str(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let encoding = wit_component::StringEncoding::UTF8;
    wit_component::embed_component_metadata(&mut bytes, &resolve, world, encoding)
        .expect("a type can be embedded");
    wit_component::ComponentEncoder::default()
        .validate(true)
        .module(&bytes)
        .and_then(|encoder| encoder.encode())
        .unwrap_or_else(|error| panic!("no component: {error:?}"))
}

const CLI: &str = "package wasi:cli@0.2.3;
    interface exit { exit: func(status: result); exit-with-code: func(code: u8); }
    interface environment { get-environment: func() -> list<tuple<string, string>>; }
    interface stdout { use wasi:io/streams@0.2.3.{output-stream}; get-stdout: func() -> output-stream; }
    interface stderr { use wasi:io/streams@0.2.3.{output-stream}; get-stderr: func() -> output-stream; }
    package wasi:clocks@0.2.3 {
      interface wall-clock { record datetime { seconds: u64, nanoseconds: u32 } now: func() -> datetime; }
      interface monotonic-clock {
        use wasi:io/poll@0.2.3.{pollable};
        now: func() -> u64; subscribe-duration: func(when: u64) -> pollable;
      }
    }
    package wasi:random@0.2.3 { interface random { get-random-u64: func() -> u64; get-random-bytes: func(len: u64) -> list<u8>; } }
    package wasi:sockets@0.2.3 { interface instance-network { resource network; instance-network: func() -> network; } }
    package wasi:io@0.2.3 {
      interface error { resource error; }
      interface poll {
        resource pollable { ready: func() -> bool; block: func(); }
        poll: func(in: list<borrow<pollable>>) -> list<u32>;
      }
      interface streams {
        use error.{error};
        use poll.{pollable};
        variant stream-error { last-operation-failed(error), closed }
        resource output-stream {
          check-write: func() -> result<u64, stream-error>;
          blocking-write-and-flush: func(contents: list<u8>) -> result<_, stream-error>;
          blocking-write-zeroes-and-flush: func(len: u64) -> result<_, stream-error>;
          subscribe: func() -> pollable;
        }
      }
    }";

const ALL: &str = "import wasi:cli/exit@0.2.3; import wasi:cli/environment@0.2.3; import wasi:cli/stdout@0.2.3;
    import wasi:cli/stderr@0.2.3; import wasi:clocks/wall-clock@0.2.3; import wasi:clocks/monotonic-clock@0.2.3;
    import wasi:random/random@0.2.3; import wasi:io/poll@0.2.3; import wasi:io/streams@0.2.3;
    import wasi:sockets/instance-network@0.2.3;";

const FUNCTIONS: &str = r#"
    (import "wasi:cli/exit@0.2.3" "exit-with-code" (func $exit (param i32)))
    (import "wasi:cli/environment@0.2.3" "get-environment" (func $environment (param i32)))
    (import "wasi:cli/stdout@0.2.3" "get-stdout" (func $stdout (result i32)))
    (import "wasi:cli/stderr@0.2.3" "get-stderr" (func $stderr (result i32)))
    (import "wasi:clocks/wall-clock@0.2.3" "now" (func $wall (param i32)))
    (import "wasi:clocks/monotonic-clock@0.2.3" "now" (func $monotonic (result i64)))
    (import "wasi:clocks/monotonic-clock@0.2.3" "subscribe-duration" (func $subscribe (param i64) (result i32)))
    (import "wasi:random/random@0.2.3" "get-random-u64" (func $random (result i64)))
    (import "wasi:random/random@0.2.3" "get-random-bytes" (func $bytes (param i64 i32)))
    (import "wasi:io/poll@0.2.3" "poll" (func $poll (param i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.check-write" (func $check (param i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-and-flush" (func $write (param i32 i32 i32 i32)))
    (import "wasi:io/streams@0.2.3" "[method]output-stream.blocking-write-zeroes-and-flush"
      (func $zeroes (param i32 i64 i32)))
    (import "wasi:sockets/instance-network@0.2.3" "instance-network" (func $network (result i32)))"#;

/// A component that does `body` and gives `length` bytes from 105,000 as its state.
fn p2(body: &str, length: usize) -> Vec<u8> {
    let fixture = format!(
        r#"{FUNCTIONS}
        (data (i32.const 104096) "hello\nwor")
        (func $answer {body} (i32.store (i32.const 264) (i32.const 1))
          (call $string (i32.const 312) (i32.const 105000) (i32.const {length})))"#
    );
    component(CLI, ALL, &fixture)
}

#[test]
fn a_component_sees_the_same_world() {
    let guest = p2(
        "(call $environment (i32.const 104200))
        (if (i32.load (i32.const 104204)) (then (unreachable)))
        (call $wall (i32.const 105000))
        (i64.store (i32.const 105016) (call $monotonic))
        (i64.store (i32.const 105024) (call $random))
        (i32.store (i32.const 104300) (call $subscribe (i64.const 3000000000)))
        (i32.store (i32.const 104304) (call $subscribe (i64.const 2000000000)))
        (call $poll (i32.const 104300) (i32.const 2) (i32.const 104200))
        (i64.store (i32.const 105032) (i64.load32_u (i32.const 104204)))
        (i64.store (i32.const 105040) (i64.load32_u (i32.load (i32.const 104200))))
        (i64.store (i32.const 105048) (call $monotonic))",
        56,
    );
    let policy = load(&guest);
    assert_eq!(policy.abi(), Abi::Component);
    assert!(
        policy.imports().iter().any(|import| import == "wasi:io/streams@0.2.3"),
        "{:?}",
        policy.imports()
    );
    let world = seen(&guest, &observation(2, 0.5));
    assert_eq!(u64_at(&world, 0), 1_000, "the wall clock shows the tick, in s");
    assert_eq!(u64_at(&world, 16), 0);
    assert_eq!((u64_at(&world, 32), u64_at(&world, 40)), (1, 1), "the second of the two is ready");
    assert_eq!(u64_at(&world, 48), 2_000_001_000);
    assert_eq!(seen(&guest, &observation(2, 0.5)), world);
    // The numbers are those of preview 1.
    let bytes = seen(&canonical(LOOK, "(call $look)", LOOKED), &observation(2, 0.5));
    assert_eq!(world[24..32], bytes[16..24]);
}

#[test]
fn a_component_writes_to_the_log_and_ends_itself() {
    let guest = p2(
        "(call $check (call $stdout) (i32.const 104200))
        (call $write (call $stdout) (i32.const 104096) (i32.const 9) (i32.const 104200))
        (if (i32.load8_u (i32.const 104200)) (then (unreachable)))
        (call $write (call $stderr) (i32.const 104096) (i32.const 5) (i32.const 104200))",
        0,
    );
    let run = decide(&guest, &observation(2, 0.5)).run;
    let log: Vec<_> = run.log.iter().map(|line| (line.level, line.message.as_str())).collect();
    assert_eq!(
        log,
        [(LogLevel::Info, "hello"), (LogLevel::Info, "wor"), (LogLevel::Warn, "hello")],
        "{run:?}"
    );

    for (body, kind, told) in [
        ("(call $exit (i32.const 9))", FailureKind::Trap, "exit code 9"),
        (
            "(drop (call $network))",
            FailureKind::Trap,
            "`instance-network` of `wasi:sockets/instance-network@0.2.3`",
        ),
        ("(call $bytes (i64.const -1) (i32.const 104200))", FailureKind::Trap, "random bytes at once"),
        (
            "(call $zeroes (call $stdout) (i64.const -1) (i32.const 104200))",
            FailureKind::Trap,
            "bytes at once",
        ),
        (
            "(call $poll (i32.const 104300) (i32.const 0) (i32.const 104200))",
            FailureKind::Trap,
            "waits for nothing",
        ),
        ("(loop $again (drop (call $stdout)) (br $again))", FailureKind::Output, "handle limit"),
        (
            "(loop $again (drop (call $subscribe (i64.const 1))) (br $again))",
            FailureKind::Trap,
            "more than 10000 pollables",
        ),
        (
            "(loop $again (call $zeroes (i32.const 1) (i64.const 1) (i32.const 104200)) (br $again))",
            FailureKind::Output,
            "handle",
        ),
    ] {
        let failure = decide(&p2(body, 0), &observation(2, 0.5)).run.result.unwrap_err();
        assert_eq!(failure.kind, kind, "{body}: {failure:?}");
        assert!(failure.message.contains(told), "{body}: {failure:?}");
    }
}

#[test]
fn other_worlds_are_refused_by_name() {
    for (name, allowed) in [
        ("wasi:cli/run@0.2.0", true),
        ("wasi:filesystem/types@0.2.9", true),
        ("wasi:http/types@0.2.0", false),
        ("wasi:cli/stdout@0.3.0", false),
        ("wasi:cli/stdout@0.2.0-rc1", false),
        ("wasi:keyvalue/store@0.2.0", false),
        ("regatta:virtual/wasi@0.1.0", false),
    ] {
        let bytes = wat::parse_str(format!(r#"(component (import "{name}" (instance)))"#)).unwrap();
        match engine().load(&bytes) {
            Err(LoadError::Imports { imports }) if !allowed => assert_eq!(imports, [format!("`{name}`")]),
            Err(LoadError::Exports { .. }) if allowed => {}
            other => panic!("{name}: {other:?}"),
        }
    }
}
