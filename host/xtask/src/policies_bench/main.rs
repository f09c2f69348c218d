//! What a policy in the sandbox costs, beside the same decision in native code, by a plugin over gRPC and by a webhook.
//! Started by `cargo xtask bench policies`; starts itself again as the plugin and as the webhook.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};

mod compare;
mod decider;
#[path = "../measure/effort.rs"]
mod effort;
#[path = "../measure/figure.rs"]
mod figure;
mod grpc;
mod handshake;
mod messages;
mod modules;
#[path = "../measure/observed.rs"]
#[expect(dead_code, reason = "the bench of a swap takes them as recorded ticks")]
mod observed;
mod peer;
#[path = "../measure/pinned.rs"]
mod pinned;
mod report;
mod tables;
mod verdicts;
mod webhook;

/// Started by `xtask-bench`.
#[derive(Parser)]
#[command(name = "xtask-policies")]
struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Measure, and print JSON.
    Measure(report::Args),
    /// Be the plugin: say where on stdout, then answer until stdin ends.
    Plugin {
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
        /// Where the socket goes.
        #[arg(long)]
        directory: PathBuf,
    },
    /// Be the webhook: say where on stdout, then answer until stdin ends.
    Webhook {
        /// The CPU to run on.
        #[arg(long)]
        cpu: usize,
    },
}

fn main() -> ExitCode {
    // One thread: on the CPU that it is pinned to, more would only wait for each other.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let done = runtime.context("cannot start the async runtime").and_then(|runtime| run(&runtime));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(runtime: &tokio::runtime::Runtime) -> Result<()> {
    match Args::parse().what {
        What::Measure(args) => report::run(runtime, &args),
        What::Plugin { cpu, directory } => {
            let _pinned = pinned::Pinned::to(cpu)?;
            peer::end_with_stdin()?;
            runtime.block_on(grpc::serve(&directory))
        }
        What::Webhook { cpu } => {
            let _pinned = pinned::Pinned::to(cpu)?;
            peer::end_with_stdin()?;
            runtime.block_on(webhook::serve())
        }
    }
}
