//! The scenarios of `tests/scenarios` hold what came of them. `REGATTA_BLESS=1` writes that anew.

use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;
use rand::{RngExt, SeedableRng};
use regatta_lab::scenario::{STEPS, play};

fn scenarios() -> Vec<(PathBuf, String)> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/scenarios");
    let entries = fs::read_dir(&directory).expect("scenarios").map(|entry| entry.expect("a scenario").path());
    entries.map(|path| (path.clone(), fs::read_to_string(&path).expect("a text"))).collect()
}

#[test]
fn every_scenario_plays_as_it_is_written() {
    let bless = std::env::var_os("REGATTA_BLESS").is_some_and(|bless| bless == "1");
    let (mut all, mut differ) = (String::new(), Vec::new());
    for (path, text) in scenarios() {
        let played = play(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        if bless {
            fs::write(&path, &played).unwrap();
        } else if played != text {
            differ.push(format!("{}:\n{played}", path.display()));
        }
        all.push_str(&text);
    }
    assert!(differ.is_empty(), "REGATTA_BLESS=1 writes them anew:\n{}", differ.join("\n"));
    let used = |step: &str| all.contains(&format!("\n> {}", step.split(' ').next().unwrap_or(step)));
    let unused: Vec<_> = STEPS.iter().map(|(step, _)| *step).filter(|step| !used(step)).collect();
    assert_eq!(unused, ["policy wants N"; 0], "steps that no scenario shows");
}

/// Steps of all scenarios in any order, some of them mangled: whatever is a scenario plays the same again, and the rest is refused
/// with its line.
#[test]
fn any_steps_in_any_order_are_played_or_refused() {
    let seed = RandomState::new().build_hasher().finish();
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let all: Vec<String> = scenarios().into_iter().flat_map(|(_, text)| blocks(&text)).collect();
    // Minutes are many ticks.
    let all: Vec<String> =
        all.into_iter().filter(|it| !it.starts_with("> wait") || it.ends_with("s\n")).collect();
    for _ in 0..300 {
        let mut text = "> apply\n    capacity: { min: 1, max: 5 }\n".to_owned();
        for _ in 0..rng.random_range(1..25) {
            let mut block = all.choose(&mut rng).unwrap().clone();
            let at = rng.random_range(0..=block.len());
            if rng.random_ratio(1, 20) && block.is_char_boundary(at) {
                block.insert_str(
                    at,
                    ["0", "-", "99999999999", " ", "\n> wait 3s\n", "x"].choose(&mut rng).unwrap(),
                );
            }
            text.push_str(&block);
        }
        match play(&text) {
            Ok(played) => assert_eq!(play(&played).as_ref(), Ok(&played), "{text}"),
            Err(error) => assert!(error.line > 0 && !error.message.is_empty(), "{text}"),
        }
    }
}

/// The steps of a scenario, each with its lines below.
fn blocks(text: &str) -> Vec<String> {
    let mut blocks: Vec<String> = Vec::new();
    for line in text.lines() {
        match blocks.last_mut() {
            Some(block) if line.starts_with("    ") => *block += &format!("{line}\n"),
            _ if line.starts_with('>') => blocks.push(format!("{line}\n")),
            _ => {}
        }
    }
    blocks
}
