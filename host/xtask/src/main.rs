//! `cargo xtask …`: set-up, guest builds, tests, demo. Run `cargo xtask help` for the list.
//!
//! This binary is compiled before it can say anything, so it has few dependencies; the parts of
//! the demo that need an async runtime are a second binary, built when they are asked for.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod apt;
mod bench;
mod build;
mod cargo;
mod check;
mod demo;
mod dependencies;
mod dst;
mod files;
mod fuzz;
mod guest_image;
mod languages;
mod policies;
mod proc;
mod quickstart;
mod setup;
mod ui;
mod workspace;

use workspace::Workspace;

/// Project tasks of Regatta.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// What can be asked for.
#[derive(Subcommand)]
enum Task {
    /// Install what is missing: the wasm32 guest target, cargo-nextest, rustfmt, clippy, qemu, nftables, xfsprogs, faketime.
    Setup(setup::Args),
    /// Build the guest crates under policies/ into target/policies/NAME.wasm, or the example policy in other languages.
    Policies(policies::Args),
    /// Make a real guest of Debian's packages: kernel, initramfs and golden disk.
    GuestImage(guest_image::Args),
    /// Set up, build the policies and the host binaries.
    Build(build::Args),
    /// Everything that must hold: fmt, clippy, guests, unit to end-to-end tests, docs.
    Test(check::Args),
    /// Feed the host what only a fuzzer thinks of: one target of tests/fuzz, or each for a while.
    Fuzz(fuzz::Args),
    /// Run seeded worlds of sets under faults and check every promise after each step.
    Dst(dst::Args),
    /// Drive load through a scale set on this machine and watch a policy size it.
    Demo(demo::Args),
    /// Measure the figures that Regatta promises, on an optimised build; prints JSON.
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match dispatch(cli.task) {
        Ok(code) => code,
        Err(error) => {
            ui::error(&error);
            ExitCode::FAILURE
        }
    }
}

fn dispatch(task: Task) -> Result<ExitCode> {
    let workspace = Workspace::locate()?;
    match task {
        Task::Setup(args) => setup::run(&workspace, &args)?,
        Task::Policies(args) => policies::run(&workspace, &args)?,
        Task::GuestImage(args) => guest_image::run(&workspace, &args)?,
        Task::Build(args) => build::run(&workspace, &args)?,
        Task::Test(args) => return check::run(&workspace, &args),
        Task::Dst(args) => return dst::run(&workspace, &args),
        Task::Fuzz(args) => fuzz::run(&workspace, &args)?,
        Task::Demo(args) => demo::run(&workspace, &args)?,
        Task::Bench(args) => bench::run(&workspace, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}
