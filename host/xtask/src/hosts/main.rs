//! Launches and stops instances with all that they get on a host: network, overlay, seed, containment, a VMM. Started by
//! `cargo xtask bench hosts`, which gives it namespaces of its own: everything that it could see or leave behind is its own.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::{Value, json};

mod by_hand;
#[path = "../measure/figure.rs"]
#[expect(dead_code, reason = "the bench makes the figure out of what this program prints")]
mod figure;
mod fleet;
mod present;
mod spans;

use fleet::Fleet;
use present::Present;
use spans::Spans;

/// How many are launched at once beside one by one.
const AT_ONCE: usize = 8;

/// Started by `xtask-bench`.
#[derive(Parser)]
#[command(name = "xtask-hosts")]
struct Args {
    /// The VMM.
    #[arg(long)]
    vmm: PathBuf,
    /// A directory for everything.
    #[arg(long)]
    data: PathBuf,
    /// An empty cgroup (v2) for those of the VMMs.
    #[arg(long)]
    cgroup: Option<PathBuf>,
    /// Instances.
    #[arg(long)]
    count: u8,
    #[command(subcommand)]
    what: What,
}

#[derive(Clone, Copy, Subcommand)]
enum What {
    /// Measure times, and count what is there before, meanwhile and afterwards.
    Time,
    /// Launch one by one and mark each step for a tracer of system calls.
    Marked,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let done = runtime.context("cannot start the async runtime").and_then(|runtime| {
        runtime.block_on(async {
            match args.what {
                What::Time => println!("{}", time(&args).await?),
                What::Marked => marked(&args).await?,
            }
            Ok(())
        })
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn time(args: &Args) -> Result<Value> {
    let spans = Spans::install(false);
    let fleet = Fleet::new(&args.vmm, &args.data, args.cgroup.as_deref()).await?;
    let count = || Present::count(&args.data, args.cgroup.as_deref());
    let mut rounds = Vec::new();
    for at_once in [1, AT_ONCE] {
        let before = count()?;
        let (set_up, vmms) = fleet.launch(args.count, at_once).await?;
        let during = count()?;
        let torn_down = Fleet::stop(vmms, at_once).await?;
        let (after, waited) = Present::settled(&before, count)?;
        rounds.push(json!({
            "at_once": at_once,
            "set_up_s": figure::rounded(set_up.as_secs_f64()),
            "tear_down_s": figure::rounded(torn_down.as_secs_f64()),
            "ms_per_instance": spans.take(),
            "there": { "before": before, "during": during, "after": after, "until_after_ms": figure::ms(waited) },
            "left_behind": after.beyond(&before),
        }));
    }
    let bare = by_hand::measure(args.count)?;
    let contained = fleet.containment();
    Ok(json!({ "instances": args.count, "rounds": rounds, "bare": bare, "not_contained_by": contained }))
}

async fn marked(args: &Args) -> Result<()> {
    // One before the marks: what is done once in the life of a daemon is not counted.
    let fleet = Fleet::new(&args.vmm, &args.data, args.cgroup.as_deref()).await?;
    let (_, first) = fleet.launch(1, 1).await?;
    let _spans = Spans::install(true);
    spans::mark("set-up");
    // The first one stays, so that the rules of the host do.
    let (_, vmms) = fleet.launch_from(1, args.count, 1).await?;
    spans::mark("tear-down");
    Fleet::stop(vmms, 1).await?;
    spans::mark("end");
    Fleet::stop(first, 1).await?;
    Ok(())
}
