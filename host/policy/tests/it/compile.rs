//! Modules that make compiling dear: the child that compiles them ends in time, and the caller does not notice.

use std::time::{Duration, Instant};

use regatta_policy_host::{
    CompileLimit, CompileLimits, Engine, EngineOptions, LoadError, Origin, Place, Program,
};

use crate::fixtures::{child, hostile, limits, module, observation};
use crate::modules::fates;

fn engine(compile_limits: CompileLimits) -> Engine {
    Engine::new(EngineOptions { compile_in: child(), compile_limits, ..EngineOptions::default() })
        .expect("an engine")
}

/// Limits that a machine under load does not reach, and a module that is bad enough does.
fn generous() -> CompileLimits {
    CompileLimits { cpu_time: Duration::from_secs(150), ..CompileLimits::default() }
}

#[test]
fn a_child_compiles_the_same_policy() {
    let fixture = hostile("log-flood");
    let own = crate::fixtures::engine().load(&fixture).unwrap();
    let childs = engine(generous()).load(&fixture).unwrap();
    assert_eq!(
        (own.manifest(), own.abi(), own.imports()),
        (childs.manifest(), childs.abi(), childs.imports())
    );
    let decide = |policy: &regatta_policy_host::CompiledPolicy| {
        let run = policy.decide(&observation(2, 0.5), "{}", b"", &limits()).run;
        (run.result, run.fuel, run.log)
    };
    assert_eq!(decide(&own), decide(&childs));
}

#[test]
fn a_refusal_says_the_same_from_a_child() {
    let childs = engine(generous());
    for fate in fates().into_iter().filter(|fate| fate.record.starts_with("refused: ")) {
        let fixture = hostile(&fate.name);
        let error = childs.load(&fixture).map(|_| ()).unwrap_err();
        let own = crate::fixtures::engine().load(&fixture).map(|_| ()).unwrap_err();
        let kind = |error: &LoadError| std::mem::discriminant(error);
        assert_eq!(kind(&own), kind(&error), "{}: {error}", fate.name);
        assert_eq!(own.to_string(), error.to_string());
    }
}

#[test]
fn it_works_with_the_cache() {
    let dir = tempfile::tempdir().unwrap();
    let load = || {
        let cache = Some(dir.path().to_owned());
        let options = EngineOptions {
            compile_in: child(),
            compile_limits: generous(),
            cache,
            ..EngineOptions::default()
        };
        Engine::new(options).unwrap().load(&hostile("well-behaved")).unwrap().compiled_from()
    };
    assert_eq!([load(), load()], [Origin::Fresh, Origin::Cache]);
}

#[test]
fn a_compiler_that_is_not_there_is_the_hosts_fault() {
    let compile_in = Place::Child(Program { path: "/nonexistent/compiler".into(), args: Vec::new() });
    let engine =
        Engine::new(EngineOptions { compile_in, pooling: false, ..EngineOptions::default() }).unwrap();
    let error = engine.load(&hostile("well-behaved")).unwrap_err();
    assert!(matches!(error, LoadError::Compiler { .. }), "{error}");
    assert_eq!(error.to_string(), "cannot run the compiler /nonexistent/compiler");
}

#[test]
fn what_is_too_large_is_refused_at_once() {
    let engine = engine(generous());
    let refused = |module: &[u8]| {
        let started = Instant::now();
        let error = engine.load(module).unwrap_err();
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        error
    };
    let error = refused(&vec![0; 50 << 20]);
    assert!(matches!(error, LoadError::TooLarge { .. }), "{error}");
    for (module, what) in [
        (module(&"(func)\n".repeat(100_001)), "functions"),
        (one_function(&"(drop (i32.const 0))".repeat(400_000)), "bytes of code in one function"),
        (nested(12), "levels of nesting"),
        (many_parts(201), "modules and components in it"),
    ] {
        match refused(&module) {
            LoadError::Limit(CompileLimit::Count { what: found, count, limit }) => {
                assert_eq!(found, what);
                assert!(count > limit);
            }
            other => panic!("{what}: {other:?}"),
        }
    }
}

fn one_function(body: &str) -> Vec<u8> {
    module(&format!("(func $answer {body})"))
}

fn nested(depth: usize) -> Vec<u8> {
    parse(&format!("{}{}", "(component ".repeat(depth), ")".repeat(depth)))
}

fn many_parts(parts: usize) -> Vec<u8> {
    parse(&format!("(component {})", "(core module)".repeat(parts - 1)))
}

fn parse(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap_or_else(|error| panic!("{error}"))
}

/// What is within all that is counted, and still hard to compile.
fn pathological() -> Vec<(&'static str, Vec<u8>)> {
    let n = |times: usize, text: &str| text.repeat(times);
    vec![
        ("100,000 functions", module(&n(99_000, "(func (result i32) (i32.const 7))\n"))),
        (
            "a megabyte of blocks in blocks",
            one_function(&format!("{}{}", n(300_000, "block "), n(300_000, "end "))),
        ),
        (
            "a thousand jumps with a thousand ways to go",
            one_function(&format!(
                "{} {} {}",
                n(500, "block "),
                n(900, &format!("block (br_table {} (i32.load (i32.const 264))) end ", n(500, "0 "))),
                n(500, "end ")
            )),
        ),
        (
            "values that are all alive at once",
            one_function(&format!(
                "(local {}) {} {}",
                n(40_000, "i32 "),
                (0..40_000)
                    .map(|n| format!("(local.set {n} (i32.load (i32.const {n})))"))
                    .collect::<String>(),
                (0..40_000)
                    .map(|n| format!("(i32.store (i32.const {n}) (local.get {n}))"))
                    .collect::<String>(),
            )),
        ),
        (
            "loops in loops with conditional ways out",
            one_function(&format!(
                "(local i32) {} {}",
                n(
                    20_000,
                    "loop (br_if 0 (local.get 0)) (local.set 0 (i32.add (local.get 0) (i32.const 1))) "
                ),
                n(20_000, "end ")
            )),
        ),
    ]
}

#[test]
fn a_pathological_module_ends_in_time_and_leaves_the_caller_alone() {
    let limits =
        CompileLimits { cpu_time: Duration::from_secs(8), memory_bytes: 2 << 30, ..CompileLimits::default() };
    let engine = engine(limits);
    for (what, module) in pathological() {
        let (started, before) = (Instant::now(), resident_kib());
        let loaded = engine.load(&module).map(|_| "compiled");
        let took = started.elapsed();
        let grown = resident_kib().saturating_sub(before) >> 10;
        println!("{what}: {} KB, {took:?}, the caller grew by {grown} MiB: {loaded:?}", module.len() >> 10);
        // Eight seconds of CPU time, on however busy a machine.
        assert!(took < Duration::from_secs(240), "{what}: {took:?}");
        assert!(grown < 300, "{what}: {grown} MiB");
        assert!(
            matches!(loaded, Ok(_) | Err(LoadError::Limit(_) | LoadError::Compile(_))),
            "{what}: {loaded:?}"
        );
    }
    // And it goes on.
    engine.load(&hostile("well-behaved")).unwrap();
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("there is such a line");
    line.trim().trim_end_matches(" kB").parse().expect("a number of kB")
}

#[test]
fn each_limit_is_kept_and_named() {
    let big = module(&"(func (result i32) (i32.const 7))\n".repeat(60_000));
    let refused = |limits: CompileLimits| match engine(limits).load(&big) {
        Err(LoadError::Limit(limit)) => limit,
        other => panic!("{limits:?}: {other:?}"),
    };
    let limit = refused(CompileLimits { cpu_time: Duration::from_secs(1), ..generous() });
    assert!(matches!(limit, CompileLimit::Time { .. }), "{limit:?}");
    // The compiler itself fits, what it makes of the module does not.
    let limit = refused(CompileLimits { memory_bytes: 320 << 20, ..generous() });
    assert!(matches!(limit, CompileLimit::Memory { mebibytes: 320 }), "{limit:?}");
    let small = module(&"(func (result i32) (i32.const 7))\n".repeat(8_000));
    match engine(CompileLimits { code_bytes: 1 << 20, ..generous() }).load(&small) {
        Err(LoadError::Limit(limit)) => assert_eq!(limit, CompileLimit::Code { mebibytes: 1 }),
        other => panic!("{other:?}"),
    }
}

/// A host that is so busy that the compiler only gets its turn when a limit in wall-clock time would be over.
#[test]
fn a_compiler_that_waits_for_its_turn_is_waited_for() {
    let script = format!("sleep 4; exec {} \"$0\"", env!("CARGO_BIN_EXE_regatta-policy-child"));
    let compile_in = Place::Child(Program { path: "/bin/sh".into(), args: vec!["-c".into(), script.into()] });
    let compile_limits = CompileLimits { cpu_time: Duration::from_secs(3), ..CompileLimits::default() };
    let options = EngineOptions { compile_in, compile_limits, ..EngineOptions::default() };
    Engine::new(options).expect("an engine").load(&hostile("well-behaved")).expect("it is compiled");
}

#[test]
fn what_the_host_is_to_blame_for_may_pass_and_what_the_module_is_does_not() {
    let refused = |compiler: &str, module: &[u8]| {
        let args = vec!["-c".into(), "kill -KILL $$".into()];
        let compile_in = Place::Child(Program { path: compiler.into(), args });
        let options = EngineOptions { compile_in, pooling: false, ..EngineOptions::default() };
        Engine::new(options).expect("an engine").load(module).expect_err("not compiled")
    };
    assert!(refused("/nowhere/compiler", &hostile("well-behaved")).may_pass());
    assert!(refused("/bin/sh", &hostile("well-behaved")).may_pass(), "killed, as for want of memory");
    assert!(!engine(generous()).load(b"no module").unwrap_err().may_pass());
    assert!(!engine(generous()).load(&hostile("bad-describe")).unwrap_err().may_pass());
}

/// What fuzzing found: a component-type section whose packages use each other makes `wit-parser` recurse without end.
#[test]
fn a_module_that_overflows_the_stack_of_the_compiler_ends_only_the_child() {
    let module = include_bytes!("../../../../tests/fuzz/seeds/packages-in-a-circle");
    match engine(generous()).load(module) {
        Err(LoadError::Limit(CompileLimit::Crash { status })) => {
            assert!(status.contains("overflowed its stack"), "{status}");
        }
        // A parser that has learnt better.
        Err(LoadError::Componentize(_) | LoadError::Malformed(_)) => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_compiler_that_crashes_is_told_of() {
    for (script, wanted) in [
        ("kill -SEGV $$", "signal: 11"),
        ("echo 'thread main has overflowed its stack' >&2; kill -ABRT $$", "overflowed its stack"),
        ("echo +garbage; exit 3", "exit status: 3: no words"),
    ] {
        let args = vec!["-c".into(), script.into()];
        let compile_in = Place::Child(Program { path: "/bin/sh".into(), args });
        let engine =
            Engine::new(EngineOptions { compile_in, pooling: false, ..EngineOptions::default() }).unwrap();
        match engine.load(&hostile("well-behaved")) {
            Err(LoadError::Limit(CompileLimit::Crash { status })) => {
                assert!(status.contains(wanted), "{status}");
            }
            other => panic!("{script}: {other:?}"),
        }
    }
}

#[test]
fn a_schema_that_explodes_is_given_up_and_the_caller_does_not_notice() {
    let policy = engine(generous()).load(&crate::modules::exploding_schema()).expect("a policy");
    let before = resident_kib();
    for params in [serde_json::json!({"b": 1}), serde_json::json!({})] {
        let refused = policy.against_schema(&[params]).expect_err("it cannot be followed");
        println!("{refused}");
        assert!(refused.contains("make it simpler"), "{refused}");
        assert!(resident_kib().saturating_sub(before) < 100 << 10, "the caller has grown");
    }
}
