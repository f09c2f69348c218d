//! The second half of `cargo xtask bench`: measures the figures that Regatta promises and prints them as JSON.
//! Nothing here fails because a figure is missed: that is what `met` says.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

mod bare;
mod calls;
#[path = "../live/daemon.rs"]
#[expect(dead_code, reason = "the demo leaves its daemon running when asked to; nothing here does")]
mod daemon;
mod decision;
mod effort;
mod figure;
mod fleet;
mod hosts;
mod observed;
mod pinned;
mod policies;
mod policy;
mod records;
mod rig;
mod swap;
mod tick;

use effort::Effort;
use figure::Figure;
use rig::Place;

/// Started by `cargo xtask bench`.
#[derive(Parser)]
#[command(name = "xtask-bench")]
struct Args {
    /// Directory with the binaries of Regatta.
    #[arg(long)]
    bin: PathBuf,
    /// Directory with the built policies.
    #[arg(long)]
    policies: PathBuf,
    /// Directory with an example policy per language.
    #[arg(long)]
    languages: PathBuf,
    /// Directory for logs.
    #[arg(long)]
    logs: PathBuf,
    /// Measure only this; may be repeated.
    #[arg(long)]
    only: Vec<What>,
    /// Measure as little as shows that everything still runs.
    #[arg(long)]
    quick: bool,
    /// Write the JSON to this file as well.
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    Decision,
    Worker,
    MachineTick,
    Replay,
    Swap,
    SwapsUnderLoad,
    Compile,
    Fleet,
    Steady,
    Records,
    Hosts,
    Policies,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let measured =
        runtime.context("cannot start the async runtime").and_then(|runtime| runtime.block_on(run(&args)));
    match measured {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args) -> Result<()> {
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot catch signals")?;
    let mut terminate = signal(SignalKind::terminate()).context("cannot catch signals")?;
    // What is under way is dropped, and with it every process that it started.
    let report = tokio::select! {
        report = measure_all(args) => report?,
        _ = interrupt.recv() => bail!("interrupted"),
        _ = terminate.recv() => bail!("terminated"),
    };
    let text = serde_json::to_string_pretty(&report)?;
    println!("{text}");
    if let Some(file) = &args.json {
        fs::write(file, text + "\n").with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

async fn measure_all(args: &Args) -> Result<Value> {
    let place = Place {
        bin: args.bin.clone(),
        policies: args.policies.clone(),
        logs: args.logs.clone(),
        effort: Effort::new(args.quick),
    };
    let load_before = load_average();
    let mut figures: Vec<Value> = Vec::new();
    let mut policies = None;
    for what in What::value_variants() {
        if !args.only.is_empty() && !args.only.contains(what) {
            continue;
        }
        let start = Instant::now();
        eprintln!("measuring {what:?} …");
        let failed = || format!("cannot measure {what:?}");
        if *what == What::Policies {
            let mut report = policies::measure(&place, &args.languages).await.with_context(failed)?;
            if let Value::Array(measured) = report["figures"].take() {
                figures.extend(measured);
            }
            policies = Some(report);
            continue;
        }
        let figure = measure(*what, &place).await.with_context(failed)?;
        let Some(figure) = figure else { continue };
        eprintln!(
            "  {} {}, at most {}: {} ({:.0} s)",
            figure.value,
            figure.unit,
            figure.at_most,
            place.effort.verdict(figure.met),
            start.elapsed().as_secs_f64()
        );
        figures.push(serde_json::to_value(figure)?);
    }
    let mut report = json!({
        "cpus": std::thread::available_parallelism().map_or(1, usize::from),
        "load_average": { "before": load_before, "after": load_average() },
        "optimised": !cfg!(debug_assertions),
        "quick": args.quick,
        "figures": figures,
    });
    if let Some(policies) = policies {
        report["policies"] = policies;
    }
    Ok(report)
}

/// None where this machine cannot show the figure; it was said why.
async fn measure(what: What, place: &Place) -> Result<Option<Figure>> {
    let figure = match what {
        What::Hosts => return hosts::measure(place).await,
        // Several figures: not through here.
        What::Policies => return Ok(None),
        What::Decision => decision::measure(place),
        What::Worker => decision::worker(place),
        What::MachineTick => tick::machine(place.effort),
        What::Replay => tick::replay(place),
        What::Swap => swap::measure(place).await,
        What::SwapsUnderLoad => swap::under_load(place).await,
        What::Compile => policy::compile(place),
        What::Fleet => fleet::start(place).await,
        What::Steady => fleet::steady(place).await,
        What::Records => records::measure(place.effort),
    };
    figure.map(Some)
}

/// What other programs do to the figures: the load of the machine over 1, 5 and 15 minutes.
fn load_average() -> Vec<f64> {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).filter_map(|number| number.parse().ok()).collect()
}
