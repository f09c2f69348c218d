//! The second half of `cargo xtask demo`, built when it is asked for because it needs an async
//! runtime. `cargo xtask demo` has compiled everything and made the image files before it starts
//! this program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use clap::Parser;
use tokio::signal::unix::{Signal, SignalKind, signal};

mod daemon;
mod demo;
mod load;
mod profile;
mod records;
mod screen;
mod tally;
mod verdict;
mod view;

use daemon::Daemon;
use demo::Scenario;
use regatta_util::program::on_path;
use screen::print;

/// What runs guests with `--guest qemu`.
const QEMU: &str = "qemu-system-x86_64";

/// Started by `cargo xtask demo`.
#[derive(Parser)]
#[command(name = "xtask-live")]
struct Args {
    /// Root of the workspace.
    #[arg(long)]
    root: PathBuf,
    /// Directory with the binaries of Regatta.
    #[arg(long)]
    bin: PathBuf,
    /// Directory for logs.
    #[arg(long)]
    logs: PathBuf,
    /// Length of the load, seconds.
    #[arg(long)]
    seconds: u64,
    /// Passed on to `regatta serve`.
    #[arg(long)]
    vmm: String,
    /// Passed on to `regatta serve`.
    #[arg(long)]
    guest: Option<String>,
    /// Show guests that boot a kernel.
    #[arg(long)]
    real: bool,
    /// Number of the first of the three steps that are here.
    #[arg(long)]
    step: usize,
    /// Leave the daemon and the set running.
    #[arg(long)]
    keep: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let outcome =
        runtime.context("cannot start the async runtime").and_then(|runtime| runtime.block_on(run(&args)));
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

impl Args {
    fn scenario(&self) -> &'static Scenario {
        if self.real { &Scenario::REAL } else { &Scenario::MODEL }
    }

    /// Says which of the three steps begins.
    fn begin(&self, step: usize, title: impl std::fmt::Display) {
        print(format_args!("[{}/{}] {title}", self.step + step, self.step + 2));
    }
}

/// The directories of one demo.
struct Place {
    data: PathBuf,
    log: PathBuf,
}

impl Place {
    /// The data directory is short, because it holds Unix sockets, whose paths may be at most
    /// 107 bytes; the log stays when the data goes.
    fn create(args: &Args) -> Result<Self> {
        let data = std::env::temp_dir().join(format!("regatta-demo-{}", std::process::id()));
        fs::create_dir(&data).with_context(|| format!("cannot create {}", data.display()))?;
        fs::create_dir_all(&args.logs).with_context(|| format!("cannot create {}", args.logs.display()))?;
        Ok(Self { data, log: args.logs.join("daemon.log") })
    }
}

/// Runs the demo; returns whether everything it claims was seen.
async fn run(args: &Args) -> Result<bool> {
    let mut signals = Signals::catch()?;
    let place = Place::create(args)?;
    let binary = args.bin.join("regatta");
    args.begin(0, "starting the daemon and applying the set");
    let begun = Instant::now();
    let started = tokio::select! {
        started = Daemon::start(&binary, &args.root, &place.data, &place.log, &args.vmm, args.guest.as_deref()) => started,
        ended = signals.wait() => Err(ended),
    };
    let daemon = match started {
        Ok(daemon) => daemon,
        Err(error) => {
            remove(&place.data);
            return Err(error);
        }
    };
    let outcome = tokio::select! {
        outcome = steps(args, &daemon, &place, begun) => outcome,
        ended = signals.wait() => Err(ended),
    };
    if args.keep && outcome.is_ok() {
        keep(daemon, &binary, &place.data);
    } else {
        // Also before an error is shown: nothing is left behind.
        clean_up(args, daemon, &place).await;
    }
    if outcome.is_err() {
        print(format_args!("      log: {}", place.log.display()));
    }
    outcome
}

async fn steps(args: &Args, daemon: &Daemon, place: &Place, begun: Instant) -> Result<bool> {
    print(format_args!("      the daemon answers ({:.1}s)", begun.elapsed().as_secs_f64()));
    let set = demo::apply(daemon, args.scenario()).await?;
    print(format_args!(
        "      {} instances serve at {} ({:.1}s)",
        set.count("in-service"),
        set.load_balancer.as_deref().unwrap_or("no address"),
        begun.elapsed().as_secs_f64()
    ));
    args.begin(1, format_args!("driving load up and down for {} s", args.seconds));
    let length = Duration::from_secs(args.seconds);
    let outcome = demo::play(daemon, args.scenario(), &set, length).await?;
    args.begin(2, "why it scaled, and the summary");
    demo::explain(daemon).await?;
    Ok(demo::report(&outcome, std::slice::from_ref(&place.log)))
}

/// The signals that end the demo early. Caught from the begin on, so that none is lost between
/// two waits.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Signals {
    fn catch() -> Result<Self> {
        let caught = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
            hang_up: caught(SignalKind::hangup())?,
        })
    }

    /// Waits for one; what it means is an error for whatever was under way.
    async fn wait(&mut self) -> anyhow::Error {
        tokio::select! {
            _ = self.interrupt.recv() => anyhow!("interrupted"),
            _ = self.terminate.recv() => anyhow!("terminated"),
            _ = self.hang_up.recv() => anyhow!("the terminal is gone"),
        }
    }
}

/// Removes the set, ends the daemon, kills what is left, removes the data. Each step runs
/// whatever became of the one before.
async fn clean_up(args: &Args, daemon: Daemon, place: &Place) {
    if let Err(error) = demo::delete(&daemon, args.scenario().delete_limit).await {
        eprintln!("warning: {error:#}");
    }
    let programs = programs(args);
    if let Err(error) = daemon.stop().await {
        eprintln!("warning: {error:#}");
    }
    let left = daemon::sweep(&programs, &place.data);
    if left > 0 {
        eprintln!("warning: {left} processes were still there and were killed");
    }
    remove(&place.data);
}

/// The programs that the demo starts, directly or through the daemon.
fn programs(args: &Args) -> Vec<PathBuf> {
    let own = ["regatta", "regatta-chsim"].map(|name| args.bin.join(name));
    let given = args.vmm.split_once('=').map(|(_, path)| PathBuf::from(path));
    // It ends with the stand-in that started it; only those whose command line names our data are looked at.
    own.into_iter().chain(given).chain(on_path(QEMU)).filter_map(|path| path.canonicalize().ok()).collect()
}

fn remove(data: &Path) {
    if let Err(error) = fs::remove_dir_all(data) {
        eprintln!("warning: cannot remove {}: {error}", data.display());
    }
}

/// Says how to go on with what is left running.
fn keep(daemon: Daemon, binary: &Path, data: &Path) {
    let (binary, data) = (binary.display(), data.display());
    print(format_args!("      kept running; look around with"));
    print(format_args!("        {binary} get --data {data}"));
    print(format_args!("      and end it with"));
    print(format_args!("        {binary} delete web --yes --wait --data {data}"));
    if let Some(pid) = daemon.leave() {
        print(format_args!("        kill {pid} && rm -r {data}"));
    }
}
