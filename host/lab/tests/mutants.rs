//! The test must be able to fail: every seeded fault is found within 1,500 seeds, and the same seeds pass without it.
//!
//! `cargo test -p regatta-lab --features mutants --test mutants`
#![cfg(feature = "mutants")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use regatta_core::mutant::{self, Mutant};
use regatta_lab::run::{Settings, run};

const SEEDS: u64 = 1_500;

/// By which invariant and at which seed a fault is found. A panic finds it as well.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    mutant::set(Some(mutant));
    let found = (0..SEEDS).find_map(|seed| {
        let caught = std::panic::catch_unwind(|| run(seed, Settings::default()));
        match caught {
            Ok(outcome) => outcome.violation.map(|it| (seed, format!("{}: {}", it.invariant, it.text))),
            Err(_) => Some((seed, "a panic".to_owned())),
        }
    });
    mutant::set(None);
    found
}

#[test]
fn every_seeded_fault_is_found() {
    let (next, lines) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                while let Some(&mutant) = Mutant::ALL.get(next.fetch_add(1, Ordering::Relaxed)) {
                    lines.lock().unwrap().push((mutant, found(mutant)));
                }
            });
        }
    });
    let mut lines = lines.into_inner().unwrap();
    lines.sort_by_key(|(mutant, _)| format!("{mutant:?}"));
    for (mutant, found) in &lines {
        match found {
            Some((seed, how)) => println!("{mutant:?}: seed {seed}, {how}"),
            None => println!("{mutant:?}: not found"),
        }
    }
    let missed: Vec<_> =
        lines.iter().filter(|(_, found)| found.is_none()).map(|(mutant, _)| mutant).collect();
    assert!(missed.is_empty(), "not found within {SEEDS} seeds: {missed:?}");
    // Without a fault, the seeds that found one pass.
    for seed in lines.iter().filter_map(|(_, found)| found.as_ref().map(|(seed, _)| *seed)) {
        let outcome = run(seed, Settings::default());
        assert_eq!(outcome.violation, None, "seed {seed}");
    }
}
