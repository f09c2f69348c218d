//! The bodies of the fuzz targets, over seeds and what chance makes of them: the same number in every build. Without
//! coverage to guide it, but without a toolchain of its own either.

use std::hash::{BuildHasher, Hasher, RandomState};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

use crate::modules::{fates, hostile};

#[path = "../../../../tests/fuzz/bodies.rs"]
mod bodies;

/// What a mutation puts in.
const WORDS: [&[u8]; 16] = [
    b"{\"ok\":{",
    b"\"capacity\":",
    b"\"state\":",
    b"\"reasons\":[",
    b"\"error\":",
    b"1e999",
    b"-1",
    b"null",
    b"\xff\xff\xff\xff",
    b"\0\0\0\0",
    b"\x7f",
    b"\x80\x80\x80\x80\x08",
    b"0.1.",
    b"\0asm\x01\0\0\0",
    b"\n",
    b"\xf0\x9f\x98\x80",
];

fn mutated(rng: &mut SmallRng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => bytes[at] = rng.random(),
            3 if at < bytes.len() => {
                let to = rng.random_range(at..bytes.len().min(at + 40));
                bytes.drain(at..to);
            }
            4 => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let number: u32 = rng.random();
                bytes.splice(at..at, number.to_le_bytes());
            }
        }
    }
    bytes
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        // The large ones say nothing that a small one does not, and take their time.
        "load" => {
            fates().iter().map(|fate| hostile(&fate.name)).filter(|module| module.len() < 20_000).collect()
        }
        "contract_version" => texts(&["0.1.0", "0.1.1", " 0.1.7\n", "0.2.0", "1.0.0-rc1", ""]),
        "component_results" => {
            let mut seeds = vec![vec![0; 64], vec![1, 0, 0, 0, 0, 0, 0, 0, 16, 1, 0, 0, 4, 0, 0, 0]];
            // Ok, capacity 3, one reason at 512, whose code and text are bytes behind it.
            let mut reason = vec![0_u8; 512];
            reason[8] = 3;
            reason[48..56].copy_from_slice(&[0, 2, 0, 0, 1, 0, 0, 0]);
            reason[256..272].copy_from_slice(&[32, 2, 0, 0, 4, 0, 0, 0, 36, 2, 0, 0, 4, 0, 0, 0]);
            seeds.push(reason);
            seeds
        }
        "json_describe" => texts(&[
            r#"{"name":"a","version":"1","params_schema":{"type":"object"},"metrics":[{"name":"m","window_ms":9}]}"#,
            r#"{"name":"a","version":"1","description":"d","params_schema":true,"state_version":7}"#,
        ]),
        "json_imports" => vec![
            [[2_u8, 0, 0, 0], [0, 4, 0, 0], [9, 0, 0, 0], [0, 8, 0, 0], [0, 9, 0, 0]].concat(),
            vec![255; 20],
        ],
        "wasi_output" => texts(&[
            "one line\nand another\n",
            "\u{1b}[2J no end",
            "\x01\0\0\0\x02\0\0\0\0\x04\0\0\x05\0\0\0",
        ]),
        _ => texts(&[
            "[]",
            r#"[{"path":"/target","message":"it is too small"}]"#,
            r#"{"ok":{"capacity":3,"standby":1,"victims":[1,2],"wake_after_ms":50,"state":{"streak":2}}}"#,
            r#"{"ok":{"capacity":3,"reasons":[{"code":"a","text":"b","evidence":[["n","v"]]}],"state":null}}"#,
            r#"{"error":"no data"}"#,
        ]),
    }
}

/// `inputs` for a target.
fn run(target: &str, inputs: usize) {
    let &(_, body) = bodies::TARGETS.iter().find(|(name, _)| *name == target).expect("a target");
    let given = std::env::var("REGATTA_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    let (seeds, seed) = (seeds(target), given.unwrap_or_else(|| RandomState::new().build_hasher().finish()));
    println!("REGATTA_FUZZ_SEED={seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    for seed in &seeds {
        body(seed);
    }
    for _ in 0..inputs {
        let seed = &seeds[rng.random_range(0..seeds.len())];
        let input = mutated(&mut rng, seed);
        let shown = Shown(&input);
        body(&input);
        std::mem::forget(shown);
    }
}

/// Tells of the input when a body panics.
struct Shown<'a>(&'a [u8]);

impl Drop for Shown<'_> {
    fn drop(&mut self) {
        eprintln!("the input: {:?}", self.0.escape_ascii().to_string());
    }
}

#[test]
fn load() {
    assert!(bodies::COMPILER.set(crate::fixtures::child()).is_ok(), "each test has a process of its own");
    bodies::load(include_bytes!("../../../../tests/fuzz/seeds/packages-in-a-circle"));
    run("load", 500);
}

#[test]
fn contract_version() {
    run("contract_version", 200);
}

#[test]
fn component_results() {
    run("component_results", 5_000);
}

#[test]
fn json_answers() {
    run("json_answers", 5_000);
}

#[test]
fn json_describe() {
    run("json_describe", 200);
}

#[test]
fn json_imports() {
    run("json_imports", 5_000);
}

#[test]
fn wasi_output() {
    run("wasi_output", 5_000);
}

#[test]
fn what_is_put_in_arrives() {
    bodies::check_themselves();
}

#[test]
fn every_target_is_run_by_both() {
    let targets =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fuzz/Cargo.toml"));
    let targets = targets.expect("the crate of the fuzz targets");
    let here = include_str!("fuzz.rs");
    for (name, _) in bodies::TARGETS {
        assert!(targets.contains(&format!("name = \"{name}\"")), "{name} is not a target of cargo-fuzz");
        assert!(here.contains(&format!("run(\"{name}\", ")), "{name} is not run here");
    }
}
