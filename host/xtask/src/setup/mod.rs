//! `setup`: whatever a fresh machine misses, each step saying what it does and how long it took.
//!
//! Every step looks first and changes nothing when there is nothing to do, so running it again
//! is free; a lock file makes parallel runs wait for each other.

use anyhow::{Result, bail};
use regatta_util::program::on_path;

use crate::cargo;
use crate::proc;
use crate::ui::Steps;
use crate::workspace::Workspace;

mod debian;
mod programs;
mod target;
mod toolchain;

pub(crate) use programs::{programs, there};
pub(crate) use target::guest_target;

/// The nextest this project is tested with; newer ones may need a newer compiler.
const NEXTEST_VERSION: &str = "0.9.143";

/// How many steps [`guest_target`], [`tools`] and [`programs()`] take together.
pub(crate) const STEPS: usize = 4;

/// Options of `setup`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only what guests need: the wasm32 standard library.
    #[arg(long)]
    guest_only: bool,
}

/// The task.
pub(crate) fn run(_workspace: &Workspace, args: &Args) -> Result<()> {
    let mut steps = Steps::new(if args.guest_only { 1 } else { STEPS });
    guest_target(&mut steps)?;
    if !args.guest_only {
        tools(&mut steps)?;
        programs(&mut steps)?;
    }
    Ok(())
}

/// What the tests need: rustfmt, clippy, cargo-nextest. Two steps.
pub(crate) fn tools(steps: &mut Steps) -> Result<()> {
    let step = steps.begin("looking for rustfmt and clippy");
    let missing: Vec<&str> = [("fmt", "rustfmt"), ("clippy", "clippy")]
        .into_iter()
        .filter(|(subcommand, _)| !has(subcommand))
        .map(|(_, component)| component)
        .collect();
    if missing.is_empty() {
        step.done("present");
    } else if on_path("rustup").is_some() {
        let mut command = std::process::Command::new("rustup");
        command.args(["component", "add"]).args(&missing);
        proc::limited(&mut command, target::RUSTUP_LIMIT)?;
        step.done(format_args!("added {}", missing.join(", ")));
    } else {
        bail!(
            "{} missing: install the toolchain with rustup, or Debian's packages rustfmt and \
             rust-clippy of the same version as rustc",
            missing.join(" and ")
        );
    }

    let step = steps.begin("looking for cargo-nextest");
    if has("nextest") {
        step.done("present");
    } else {
        println!("      not found: compiling it, which takes several minutes (once per machine)");
        let mut command = cargo::command();
        command.args(["install", "cargo-nextest", "--locked", "--version"]);
        proc::run(command.arg(NEXTEST_VERSION))?;
        step.done(format_args!("installed cargo-nextest {NEXTEST_VERSION}"));
    }
    Ok(())
}

/// Whether `cargo <subcommand>` works.
fn has(subcommand: &str) -> bool {
    proc::capture(cargo::command().args([subcommand, "--version"])).is_ok()
}
