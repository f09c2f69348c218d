//! `cargo xtask dst`: the deterministic simulation test of host/lab, optimized.

use std::process::ExitCode;

use anyhow::{Context, Result};

use crate::cargo;
use crate::workspace::Workspace;

/// What `dst` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of seeds
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// Run only this seed
    #[arg(long)]
    seed: Option<u64>,
    /// Steps of each seed before faults stop
    #[arg(long, default_value_t = 300)]
    steps: u64,
    /// Print the whole story of a single seed
    #[arg(long, requires = "seed")]
    verbose: bool,
}

/// Builds and runs it; its exit code is that of the test.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<ExitCode> {
    let mut command = cargo::command();
    command.current_dir(&workspace.root).args(["run", "--release", "--quiet", "-p", "regatta-lab"]);
    command.args(["--bin", "regatta-dst", "--"]);
    command.args(["--seeds", &args.seeds.to_string(), "--steps", &args.steps.to_string()]);
    if let Some(seed) = args.seed {
        command.args(["--seed", &seed.to_string()]);
    }
    if args.verbose {
        command.arg("--verbose");
    }
    let status = command.status().context("cannot start cargo")?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
