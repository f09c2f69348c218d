//! The example policy in every language: each decides the vectors of `examples/languages/vectors.json` alike, needs
//! nothing but the contract, and does the same in every run, on every engine.
//!
//! `cargo xtask policies --language all` builds the modules. One that is not there is skipped, unless
//! `REGATTA_REQUIRE_LANGUAGES` is set and xtask does not say that it could not be built.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;
use regatta_policy_host::vectors::{self, Check, Vector};
use regatta_policy_host::{Abi, CompiledPolicy, Engine, EngineOptions};

use crate::fixtures::{engine, limits, observation};

mod cases;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/languages")
}

fn file() -> PathBuf {
    examples().join("vectors.json")
}

fn all_vectors() -> Vec<Vector> {
    let text = std::fs::read_to_string(file()).expect("the vectors can be read");
    vectors::parse(&text).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

/// Where `cargo xtask policies --language` puts the modules.
fn modules() -> PathBuf {
    let policies = std::env::var_os("REGATTA_POLICIES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/policies"), PathBuf::from);
    policies.join("languages")
}

/// The module of a language, or none and a line that says so.
fn module(language: &str) -> Option<Vec<u8>> {
    let path = modules().join(language).with_extension("wasm");
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let skipped = std::fs::read_to_string(modules().join("skipped.txt")).unwrap_or_default();
            let reason = skipped.lines().find(|line| line.split(':').next() == Some(language));
            if std::env::var_os("REGATTA_REQUIRE_LANGUAGES").is_some() && reason.is_none() {
                panic!(
                    "cannot read {}: {error}; `cargo xtask policies --language {language}`",
                    path.display()
                );
            }
            println!("skipped: {}", reason.unwrap_or(&format!("{language}: not built")));
            None
        }
    }
}

fn load(engine: &Engine, module: &[u8]) -> Arc<CompiledPolicy> {
    engine.load(module).unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)))
}

#[test]
fn the_file_of_vectors_is_what_the_cases_say() {
    let text = cases::text();
    if std::env::var_os("REGATTA_BLESS").is_some() {
        std::fs::write(file(), &text).expect("the file can be written");
    }
    let kept = std::fs::read_to_string(file()).unwrap_or_default();
    assert!(kept == text, "examples/languages/vectors.json is old: REGATTA_BLESS=1 writes it");
    assert!(text.len() < 300_000, "{} bytes", text.len());
    assert!(all_vectors().len() >= 40);
}

/// Examples that carry the contract carry the one that is in force.
#[test]
fn copies_of_the_contract_are_copies() {
    let contract =
        std::fs::read_to_string(examples().join("../../sdk/wit/v0.1.1/policy.wit")).expect("it is there");
    let mut copies = 0;
    for entry in std::fs::read_dir(examples()).expect("the examples can be listed") {
        let copy = entry.expect("the examples can be listed").path().join("wit/policy.wit");
        if let Ok(text) = std::fs::read_to_string(&copy) {
            assert!(text == contract, "{} differs from sdk/wit/v0.1.1/policy.wit", copy.display());
            copies += 1;
        }
    }
    assert!(copies > 0);
}

/// The header of the contract is published once; examples carry copies, as projects are made of them.
#[test]
fn copies_of_the_header_are_copies() {
    let read =
        |path: &str| std::fs::read(examples().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"));
    let header = read("../../sdk/c/v0.1.1/regatta.h");
    assert!(
        read("c/regatta.h") == header && read("cpp/regatta.h") == header,
        "copies of sdk/c/v0.1.1/regatta.h"
    );
    assert!(read("c/json.h") == read("cpp/json.h"), "one reader of JSON for both");
}

/// Every field of a decision, the new state, fuel and log: what must be the same in every run.
fn trace(policy: &CompiledPolicy, vectors: &[Vector], limits: &PolicyLimits) -> Vec<String> {
    let mut trace = Vec::new();
    for vector in vectors {
        trace.push(format!(
            "{:?}",
            policy.validate(&vector.params, limits).map_err(|error| error.to_string())
        ));
        let Check::Ticks { state, ticks } = &vector.check else { continue };
        let mut state = state.clone();
        for tick in ticks {
            let mut call = policy.decide(&tick.observation, &vector.params, &state, limits);
            call.run.duration_us = 0;
            trace.push(format!("{:?} {:?}", call.run, call.state));
            state = call.state.unwrap_or(state);
        }
    }
    trace
}

/// Instances of the sizes that users have, at twice the target; with one more of each state.
fn sized(instances: u32) -> Arc<Observation> {
    let mut observation = Observation::clone(&observation(instances, 1.0));
    observation.desired = instances;
    assert!(observation.instances.state.iter().all(|&state| state == InstanceState::InService));
    Arc::new(observation)
}

/// What one decision needs, for the reader of the test's output; and that the default limits are enough for it.
fn needs(language: &str, policy: &CompiledPolicy) {
    let params = r#"{"metric":"utilization","target":0.5}"#;
    for instances in [10, 100, 1_000] {
        let observation = sized(instances);
        let mut micros = Vec::new();
        let mut fuel = 0;
        for _ in 0..20 {
            let call = policy.decide(&observation, params, b"", &limits());
            assert_eq!(
                call.run.result.as_ref().map(|decision| decision.capacity),
                Ok(2 * instances),
                "{language}"
            );
            fuel = call.run.fuel;
            micros.push(call.run.duration_us);
        }
        micros.sort_unstable();
        let decides = |memory_bytes: u64| {
            policy
                .decide(&observation, params, b"", &PolicyLimits { memory_bytes, ..limits() })
                .run
                .result
                .is_ok()
        };
        // The least number of 64 KiB pages that it runs with.
        let (mut too_few, mut enough) = (0, PolicyLimits::default().memory_bytes >> 16);
        assert!(
            decides(enough << 16),
            "{language} needs more than the default memory at {instances} instances"
        );
        while enough - too_few > 1 {
            let middle = (too_few + enough) / 2;
            if decides(middle << 16) { enough = middle } else { too_few = middle }
        }
        println!(
            "{language}: {instances} instances: fuel {fuel}, {} µs (median of 20), memory {} KiB",
            micros[micros.len() / 2],
            enough * 64
        );
        assert!(
            fuel < PolicyLimits::default().fuel,
            "{language} needs more than the default fuel at {instances} instances"
        );
    }
}

fn agrees(language: &str, abi: Abi) {
    let Some(module) = module(language) else { return };
    let policy = load(&engine(), &module);
    println!("{language}: {} bytes, compiled in {:?}", policy.size_bytes(), policy.compile_time());
    assert_eq!(policy.manifest().name, "tolerant-target");
    assert_eq!(policy.manifest().version, "1.0.0");
    assert_eq!(policy.abi(), abi, "{language}");
    // Go, JavaScript, Nim and Python bring WASI along, which the host makes up; all others see the contract and nothing else.
    let wasi = ["go", "javascript", "nim", "python"].contains(&language);
    let outside = |import: &&String| !(import.starts_with("regatta") || wasi && import.starts_with("wasi"));
    let outside: Vec<&String> = policy.imports().iter().filter(outside).collect();
    assert!(outside.is_empty(), "{language} imports {outside:?}");

    let vectors = all_vectors();
    let mismatches: Vec<String> = vectors
        .iter()
        .flat_map(|vector| vectors::check(&policy, vector, &limits()))
        .map(|mismatch| mismatch.to_string())
        .collect();
    assert!(mismatches.is_empty(), "{language}:\n{}", mismatches.join("\n"));

    let first = trace(&policy, &vectors, &limits());
    let same = |other: &[String], what: &str| {
        for (one, other) in first.iter().zip(other) {
            assert_eq!(one, other, "{language}, {what}");
        }
        assert_eq!(first.len(), other.len());
    };
    same(&trace(&policy, &vectors, &limits()), "a second run");
    // Another engine compiles anew, and lays out memory in another way.
    let other = Engine::new(EngineOptions { pooling: false, ..EngineOptions::default() })
        .expect("an engine without a pool starts");
    same(&trace(&load(&other, &module), &vectors, &limits()), "on an engine without a pool");
    needs(language, &policy);
}

#[test]
fn rust() {
    agrees("rust", Abi::CoreCanonical);
}

#[test]
fn javascript() {
    agrees("javascript", Abi::Component);
}

#[test]
fn python() {
    agrees("python", Abi::Component);
}

#[test]
fn wat() {
    agrees("wat", Abi::CoreCanonical);
}

#[test]
fn assemblyscript() {
    agrees("assemblyscript", Abi::CoreCanonical);
}

#[test]
fn c() {
    agrees("c", Abi::CoreCanonical);
}

#[test]
fn cpp() {
    agrees("cpp", Abi::CoreCanonical);
}

#[test]
fn nim() {
    agrees("nim", Abi::CoreJson);
}

#[test]
fn d() {
    agrees("d", Abi::CoreCanonical);
}

#[test]
fn go() {
    agrees("go", Abi::CoreJson);
}

#[test]
fn zig() {
    agrees("zig", Abi::CoreJson);
}
