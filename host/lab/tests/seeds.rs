//! A thousand worlds hold every promise, and the same seed gives the same world.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use regatta_lab::run::{Settings, report, run};

#[test]
fn a_thousand_worlds_hold_every_promise() {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(None));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= 1_000 || failed.lock().unwrap().is_some() {
                        return;
                    }
                    if run(seed, Settings::default()).violation.is_some() {
                        failed.lock().unwrap().get_or_insert(seed);
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        panic!("{}", report(seed, Settings::default()));
    }
}

#[test]
fn the_same_seed_gives_the_same_world_whether_its_story_is_told_or_not() {
    for seed in 0..20 {
        let quiet = run(seed, Settings::default());
        let told = run(seed, Settings { story_lines: usize::MAX, ..Settings::default() });
        let again = run(seed, Settings { story_lines: usize::MAX, ..Settings::default() });
        assert_eq!(told, again, "seed {seed}");
        assert_eq!(quiet.fingerprint, told.fingerprint, "seed {seed}");
        assert_eq!((quiet.steps, quiet.virtual_ms), (told.steps, told.virtual_ms), "seed {seed}");
    }
}
