//! The process that runs policies: what it cannot reach, and what its end costs.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::sync::Arc;
use std::thread;

use regatta_core::decision::FailureKind;
use regatta_core::digest::Digest;
use regatta_core::manifest::PolicyLimits;
use regatta_policy_host::{CompiledPolicy, Engine, EngineOptions, LoadError, Place, Program};
use rustix::process::{Pid, Signal, geteuid, kill_process};

use crate::fixtures::{
    NOBODY_ELSE, TARGET_TRACKING, built_in, child, confined, hostile, hostile_names, limits, observation,
};

const STEP: &str = "{}";

fn engine() -> Engine {
    Engine::new(confined()).expect("an engine starts")
}

fn pid(engine: &Engine) -> u32 {
    engine.worker().expect("policies run in a worker")
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().expect("a pid")).expect("not 0");
    kill_process(pid, Signal::KILL).expect("it runs");
}

/// The fields of `/proc/PID/status` of one thread.
fn status(pid: u32, thread: &str) -> impl Fn(&str) -> String {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).expect("it runs");
    move |field| {
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(":\t"));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }
}

#[test]
fn every_thread_of_it_has_given_up_its_rights() {
    let engine = engine();
    for state in engine.walls() {
        assert_eq!(state.missing, None, "{}", state.wall);
    }
    assert_eq!(engine.walls().len(), 5);
    let pid = pid(&engine);
    let threads: Vec<String> = fs::read_dir(format!("/proc/{pid}/task"))
        .expect("it runs")
        .map(|thread| thread.expect("a thread").file_name().into_string().expect("a number"))
        .collect();
    // Lanes, the epoch, and the first.
    assert!(threads.len() > 16, "{threads:?}");
    for thread in threads {
        let status = status(pid, &thread);
        if geteuid().is_root() {
            assert_eq!(status("Uid"), [NOBODY_ELSE; 4].map(|id| id.to_string()).join("\t"));
            assert_eq!(status("Groups").trim(), "");
        }
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(status(set), "0000000000000000", "{set} of {thread}");
        }
        assert_eq!(status("NoNewPrivs"), "1");
        assert_eq!(status("Seccomp"), "2", "of {thread}");
    }
    let namespace = |of: &str, kind: &str| fs::read_link(format!("/proc/{of}/ns/{kind}")).expect("it runs");
    for kind in ["net", "ipc"] {
        assert_ne!(namespace(&pid.to_string(), kind), namespace("self", kind), "{kind}");
    }
    // Nothing of what this process has open: its lanes, the pool, and the standard ones.
    let kinds: BTreeSet<String> = fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .filter_map(|fd| fs::read_link(fd.expect("a descriptor").path()).ok())
        .map(|target| {
            target.to_string_lossy().split(['[', '(']).next().unwrap_or_default().trim_end().to_owned()
        })
        .collect();
    let known = ["/dev/null", "pipe:", "socket:", "/memfd:wasm-memory-image", "pagemap"];
    for kind in kinds {
        assert!(known.iter().any(|known| kind.contains(known)), "{kind} is open in the worker");
    }
}

/// The same in the worker and in this process, whatever a policy does.
#[test]
fn it_decides_as_this_process_does() {
    let (worker, own) = (engine(), Engine::new(EngineOptions::default()).expect("an engine starts"));
    for name in ["target-tracking", "step"] {
        let [there, here] = [&worker, &own].map(|engine| engine.load(&built_in(name)).expect("a policy"));
        assert_eq!(there.manifest(), here.manifest());
        assert_eq!(
            (there.abi(), there.imports(), there.migrates()),
            (here.abi(), here.imports(), here.migrates())
        );
        assert_eq!(there.compiled_bytes(), here.compiled_bytes());
        for (load, params) in [(0.9, TARGET_TRACKING), (0.1, TARGET_TRACKING), (f64::NAN, "{}")] {
            let observation = observation(40, load);
            let decide = |policy: &CompiledPolicy| {
                let call = policy.decide(&observation, params, b"", &limits());
                (call.run.result, call.run.fuel, call.run.log, call.state, call.memory_bytes)
            };
            assert_eq!(decide(&there), decide(&here), "{name} at {load}");
            let problems = |policy: &CompiledPolicy| format!("{:?}", policy.accept(params, &limits()));
            assert_eq!(problems(&there), problems(&here));
        }
    }
}

#[test]
fn its_end_between_two_decisions_costs_nothing() {
    let engine = engine();
    let policy = engine.load(&built_in("target-tracking")).expect("a policy");
    let decide = || policy.decide(&observation(2, 0.9), TARGET_TRACKING, b"", &limits()).run.result;
    let first = decide().expect("a decision");
    let before = pid(&engine);
    kill(before);
    // A decision that is under way when it ends would fail: all of its threads are gone first.
    let stat =
        || fs::read_to_string(format!("/proc/{before}/stat")).expect("its end is not taken note of yet");
    let threads = || fs::read_dir(format!("/proc/{before}/task")).expect("nor is it").count();
    while !stat().contains(") Z ") || threads() > 1 {
        thread::yield_now();
    }
    assert_eq!(decide(), Ok(first));
    assert_ne!(pid(&engine), before);
}

#[test]
fn its_end_during_a_decision_is_a_failed_decision_and_the_next_one_is_made() {
    let engine = engine();
    let endless = engine.load(&hostile("infinite-loop")).expect("a policy");
    let good = engine.load(&built_in("target-tracking")).expect("a policy");
    let for_long = PolicyLimits { fuel: u64::MAX >> 2, deadline_ms: 600_000, ..limits() };
    let before = pid(&engine);
    let failure = thread::scope(|scope| {
        let call = scope.spawn(|| endless.decide(&observation(2, 0.5), "{}", b"", &for_long));
        // It computes: some thread of the worker runs.
        let busy = || {
            let threads = fs::read_dir(format!("/proc/{before}/task")).expect("it runs");
            threads.flatten().any(|thread| {
                fs::read_to_string(thread.path().join("stat")).is_ok_and(|stat| stat.contains(") R "))
            })
        };
        while !busy() {
            thread::yield_now();
        }
        kill(before);
        call.join().expect("no panic").run.result.expect_err("no decision")
    });
    assert_eq!(failure.kind, FailureKind::Host);
    assert!(failure.message.contains("the policy worker gave no answer"), "{}", failure.message);
    assert!(failure.message.contains("signal: 9"), "{}", failure.message);
    let again = good.decide(&observation(2, 0.9), TARGET_TRACKING, b"", &limits());
    assert!(again.run.result.is_ok(), "{:?}", again.run.result);
    assert_ne!(pid(&engine), before);
}

/// What came with the program needs no worker; everything else waits for it.
#[test]
fn policies_of_ones_own_run_without_it() {
    let own = built_in("target-tracking");
    let options = EngineOptions { own: HashSet::from([Digest::of(&own)]), ..confined() };
    let engine = Engine::new(options).expect("an engine starts");
    let [own, other] = [own, built_in("step")].map(|module| engine.load(&module).expect("a policy"));
    let worker = Pid::from_raw(pid(&engine).try_into().expect("a pid")).expect("not 0");
    let decide = || own.decide(&observation(2, 0.9), TARGET_TRACKING, b"", &limits());
    // Until it has shown that it takes no time, it stands in line with others of which nobody knows.
    decide();
    kill_process(worker, Signal::STOP).expect("it runs");
    thread::scope(|scope| {
        let waits = scope.spawn(|| other.accept(STEP, &limits()));
        let call = decide();
        assert_eq!(call.run.result.expect("a decision").capacity, 4);
        assert!(!waits.is_finished(), "the worker is stopped");
        kill_process(worker, Signal::CONT).expect("it is there");
        assert!(waits.join().expect("no panic").is_err(), "no parameters of step");
    });
}

#[test]
fn it_ends_with_its_engine_and_leaves_no_zombie() {
    let engine = engine();
    let policy = engine.load(&built_in("step")).expect("a policy");
    let pid = pid(&engine);
    drop(engine);
    assert!(fs::exists(format!("/proc/{pid}")).expect("/proc"), "a policy still needs it");
    drop(policy);
    assert!(!fs::exists(format!("/proc/{pid}")).expect("/proc"));
}

/// Many threads with several policies, so that connections and code are shared.
#[test]
fn calls_at_once_do_not_mix() {
    let engine = engine();
    let policies: Vec<Arc<CompiledPolicy>> =
        ["target-tracking", "step"].map(|name| engine.load(&built_in(name)).expect("a policy")).into();
    thread::scope(|scope| {
        for turn in 0..24_u32 {
            let policy = &policies[0];
            scope.spawn(move || {
                for round in 1..=20 {
                    let instances = 1 + (turn * 7 + round) % 50;
                    let call = policy.decide(&observation(instances, 1.0), TARGET_TRACKING, b"", &limits());
                    assert_eq!(call.run.result.expect("a decision").capacity, instances * 2);
                }
            });
        }
    });
}

/// Modules are got ready beside the calls: a daemon that starts has one for each set.
#[test]
fn more_at_once_than_there_are_connections_wait() {
    let engine = engine();
    let policy = engine.load(&built_in("target-tracking")).expect("a policy");
    let names: Vec<String> = hostile_names().into_iter().filter(|name| name.starts_with("json-")).collect();
    assert!(names.len() > 20, "{names:?}");
    thread::scope(|scope| {
        for name in &names {
            let (engine, policy) = (&engine, &policy);
            scope.spawn(move || {
                if let Err(error) = engine.load(&hostile(name)) {
                    assert!(
                        !matches!(error, LoadError::Worker { .. }),
                        "{name}: {}",
                        regatta_util::chain(&error)
                    );
                }
                let call = policy.decide(&observation(2, 0.9), TARGET_TRACKING, b"", &limits());
                assert!(call.run.result.is_ok(), "{:?}", call.run.result);
            });
        }
    });
}

#[test]
fn a_worker_that_cannot_be_started_is_told_of() {
    let start = |script: &str| {
        let args = vec!["-c".into(), script.into()];
        let run_in = Place::Child(Program { path: "/bin/sh".into(), args });
        regatta_util::chain(
            &Engine::new(EngineOptions { run_in, ..EngineOptions::default() }).expect_err("no worker"),
        )
    };
    let error = start("echo 'no such thing' >&2; exit 3");
    assert!(error.contains("cannot start the policy worker /bin/sh"), "{error}");
    assert!(error.contains("exit status: 3: no such thing"), "{error}");
    let run_in = Place::Child(Program { path: "/nonexistent".into(), args: Vec::new() });
    let error = Engine::new(EngineOptions { run_in, ..EngineOptions::default() }).expect_err("no worker");
    assert!(regatta_util::chain(&error).contains("No such file"), "{error}");
    assert!(matches!(child(), Place::Child(_)));
}
