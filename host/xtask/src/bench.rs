//! `bench`: the figures that Regatta promises, measured and printed as JSON.
//!
//! Here only the optimised build is made, with its progress on stderr; the rest is the program
//! `xtask-bench`, which then takes the place of this process and has stdout for itself.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow};

use crate::proc;
use crate::workspace::Workspace;

/// What cargo builds beside the host binaries.
pub(crate) const PROGRAM: [&str; 10] = [
    "--package",
    "xtask",
    "--features",
    "xtask/bench",
    "--bin",
    "xtask-bench",
    "--bin",
    "xtask-hosts",
    "--bin",
    "xtask-policies",
];

/// Options of `bench`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Measure only these: decision, worker, machine-tick, replay, swap, compile, fleet, steady, records, hosts or policies.
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// The same as NAME. May be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Measure as little as shows that everything still runs to its end, with the build that the tests use. The figures
    /// say nothing.
    #[arg(long)]
    quick: bool,
    /// Write the JSON to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// The task; returns only when it failed.
pub(crate) fn run(workspace: &Workspace, args: &Args) -> Result<()> {
    let this = std::env::current_exe().context("cannot find this program")?;
    let mut build = Command::new(this);
    build.args(["build", "--bench"]).stdout(Stdio::from(std::io::stderr()));
    if !args.quick {
        build.arg("--release");
    }
    proc::run(&mut build)?;
    Err(anyhow!(measuring(workspace, args).exec()).context("cannot start xtask-bench"))
}

/// As little as shows that everything still runs to its end, with programs that are built already.
pub(crate) fn quick(workspace: &Workspace) -> Result<()> {
    let args = Args { names: Vec::new(), only: Vec::new(), quick: true, json: None };
    proc::run(&mut measuring(workspace, &args))
}

fn measuring(workspace: &Workspace, args: &Args) -> Command {
    let bin = workspace.target.join(if args.quick { "debug" } else { "release" });
    let mut command = Command::new(bin.join("xtask-bench"));
    command.arg("--bin").arg(&bin).arg("--policies").arg(workspace.target.join("policies"));
    command.arg("--languages").arg(workspace.root.join("examples/languages"));
    command.arg("--logs").arg(workspace.target.join("bench"));
    for name in args.names.iter().chain(&args.only) {
        command.args(["--only", name]);
    }
    if args.quick {
        command.arg("--quick");
    }
    if let Some(file) = &args.json {
        command.arg("--json").arg(file);
    }
    command
}
