//! The bodies of the fuzz targets that reach the host past no sandbox, over seeds and what chance makes of them: the same number in every
//! build. `cargo xtask fuzz` runs them with coverage to guide it.

use std::hash::{BuildHasher, Hasher, RandomState};

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

#[path = "../../fuzz/parsers.rs"]
mod bodies;

const WORDS: [&[u8]; 14] = [
    b"\n\n{",
    b"QFI\xfb",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"1e999",
    b"NaN",
    b"\r\n\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551615\r\n",
    b"&a [*a, *a]",
    b"\xf0\x9f\x98\x80",
    b"\x1b[2J\xe2\x80\xae",
    b"- ",
    b"null",
    b"-0.0",
];

fn mutated(rng: &mut SmallRng, seed: &[u8]) -> Vec<u8> {
    let mut bytes = seed.to_vec();
    for _ in 0..rng.random_range(1..6) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..5) {
            0 => bytes.truncate(at),
            1 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            2 if at < bytes.len() => {
                let to = rng.random_range(at..bytes.len().min(at + 40));
                bytes.drain(at..to);
            }
            3 => {
                let word = WORDS[rng.random_range(0..WORDS.len())];
                bytes.splice(at..at, word.iter().copied());
            }
            _ => {
                let number: u32 = rng.random();
                bytes.splice(at..at, number.to_be_bytes());
            }
        }
    }
    bytes
}

fn qcow2() -> Vec<u8> {
    let mut image = vec![0; 2 << 16];
    image[..8].copy_from_slice(b"QFI\xfb\0\0\0\x03");
    image[20..24].copy_from_slice(&16_u32.to_be_bytes());
    image[24..32].copy_from_slice(&(1_u64 << 20).to_be_bytes());
    image[36..40].copy_from_slice(&1_u32.to_be_bytes());
    image[40..48].copy_from_slice(&(1_u64 << 16).to_be_bytes());
    image[100..104].copy_from_slice(&104_u32.to_be_bytes());
    image
}

fn seeds(target: &str) -> Vec<Vec<u8>> {
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    match target {
        "manifest" => vec![
            include_bytes!("../../../examples/quickstart/set.yaml").to_vec(),
            include_bytes!("../../../examples/production/set.yaml").to_vec(),
        ],
        "quantities" => {
            texts(&["1m30s", "1.5GiB", "fuel=5000,deadline=10ms", "18446744073709551615d", "0.5ms"])
        }
        "guest_page" => texts(&[
            "# HELP load x\nload{a=\"b\",c=\"d\\\"\"} 0.5 1700000000\nup 1\na:b_c NaN\n",
            "http_requests_total 1e20\nload 1e308\n",
        ]),
        "guest_answer" => texts(&[
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x=y\r\nok\r\n0\r\nTrailer: 1\r\n\r\n",
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 204 No Content\r\n\r\n",
        ]),
        "vmm_events" => texts(&[
            "{\n  \"timestamp\": {\"secs\": 1, \"nanos\": 2},\n  \"source\": \"vm\",\n  \"event\": \"booted\",\n  \"properties\": null\n}\n\n",
            "\n\n{\"a\":[1,1,\n\n{}\n\n",
        ]),
        "image" => vec![qcow2(), vec![0; 512], b"\x7fELF\x02\x01\x01".to_vec(), vec![0x1f; 1_024]],
        "recording" => texts(&["{\"regatta-recording\":{\"version\":1,\"set\":\"web\"}}\n{\"record\":{}}\n"]),
        "state_copy" => vec![vec![0; 1], vec![0, 0, 0, 9, 255, 255, 255], vec![200, 1, 2, 3, 4, 5, 6]],
        "policy_files" => texts(&[
            r##"{"type":"object","properties":{"a":{"type":"number","default":1,"$ref":"#/$defs/b"}},"$defs":{"b":{"anyOf":[{}]}}}"##,
            r#"{"vectors":[{"name":"a","observation":{},"params":{},"expect":{"capacity":1}}]}"#,
        ]),
        _ => texts(&["{}", r#"{"v":2,"observation":{}}"#]),
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
        body(&mutated(&mut rng, seed));
    }
}

#[test]
fn manifests_and_quantities() {
    run("manifest", 1_000);
    run("quantities", 5_000);
}

#[test]
fn what_guests_answer() {
    run("guest_page", 5_000);
    run("guest_answer", 1_000);
}

#[test]
fn what_vmms_write() {
    run("vmm_events", 5_000);
}

#[test]
fn images() {
    run("image", 2_000);
}

#[test]
fn records_and_recordings() {
    run("record", 5_000);
    run("recording", 1_000);
}

#[test]
fn copies_of_the_state() {
    run("state_copy", 30);
}

#[test]
fn files_of_policies() {
    run("policy_files", 5_000);
}

#[test]
fn every_target_is_run_by_both() {
    let targets = include_str!("../../fuzz/Cargo.toml");
    let here = include_str!("parsers.rs");
    for (name, _) in bodies::TARGETS {
        assert!(targets.contains(&format!("name = \"{name}\"")), "{name} is not a target of cargo-fuzz");
        assert!(here.contains(&format!("run(\"{name}\", ")), "{name} is not run here");
    }
}
