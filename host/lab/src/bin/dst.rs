//! Runs seeds of the deterministic simulation test on all cores; `cargo xtask dst` calls it.

use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use regatta_lab::run::{Settings, report, run};

/// Run seeded worlds under faults and check every promise after each step.
#[derive(Parser)]
#[command(name = "cargo xtask dst", bin_name = "cargo xtask dst", max_term_width = 100)]
struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed; alone, run only this one
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of each seed before faults stop
    #[arg(long, default_value_t = Settings::default().wild_steps)]
    steps: u64,
    /// Print the whole story of a single seed
    #[arg(long)]
    verbose: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let settings = Settings { wild_steps: args.steps, story_lines: 0 };
    if let Some(seed) = args.seed {
        return one(seed, settings, args.verbose);
    }
    many(args.seeds, settings)
}

fn one(seed: u64, settings: Settings, verbose: bool) -> ExitCode {
    let story_lines = if verbose { usize::MAX } else { 0 };
    let outcome = run(seed, settings);
    if verbose || outcome.violation.is_some() {
        println!("{}", report(seed, Settings { story_lines, ..settings }));
    }
    println!("seed {seed}: {} steps, {} s of virtual time", outcome.steps, outcome.virtual_ms / 1_000);
    if outcome.violation.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn many(seeds: u64, settings: Settings) -> ExitCode {
    let (next, steps, virtual_ms) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let failed = Mutex::new(Vec::new());
    let begun = Instant::now();
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let outcome = run(seed, settings);
                    steps.fetch_add(outcome.steps, Ordering::Relaxed);
                    virtual_ms.fetch_add(outcome.virtual_ms, Ordering::Relaxed);
                    if let Some(violation) = outcome.violation
                        && let Ok(mut failed) = failed.lock()
                    {
                        failed.push((seed, violation));
                    }
                }
            });
        }
    });
    let mut failed = failed.into_inner().unwrap_or_default();
    failed.sort_by_key(|(seed, _)| *seed);
    if let Some((seed, _)) = failed.first() {
        println!("{}\n", report(*seed, settings));
    }
    for (seed, violation) in failed.iter().take(20) {
        println!("seed {seed}: {}: {}", violation.invariant, violation.text);
    }
    let (steps, took) = (steps.into_inner(), begun.elapsed().as_secs_f64());
    #[expect(clippy::cast_precision_loss, reason = "for people")]
    let rate = steps as f64 / took;
    println!(
        "{seeds} seeds, {} failed; {steps} steps in {took:.1} s on {threads} threads: {rate:.0} steps/s, {} days of virtual time",
        failed.len(),
        virtual_ms.into_inner() / 86_400_000
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
