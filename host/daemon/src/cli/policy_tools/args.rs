//! Arguments of the tools for authors.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueHint};

/// What an author of policies does.
#[derive(Debug, Subcommand)]
pub enum PolicyToolCommand {
    /// Show what a module is: contract, imports, parameters, metrics, size
    ///
    /// Needs no daemon. A module that cannot be loaded is told as far as it can be read, with the reason.
    #[command(after_long_help = "\
Examples:
  regatta policy inspect my-policy.wasm
  regatta policy inspect my-policy.wasm -o json | jq .params_schema")]
    Inspect(InspectArgs),
    /// Measure what a module costs: compiling, instances, decisions, fuel
    ///
    /// Needs no daemon. Each size is measured for about two seconds, on ticks like those of a busy set, with a fresh
    /// instance for each decision as in the daemon.
    #[command(after_long_help = "\
Examples:
  regatta policy bench my-policy.wasm
  regatta policy bench my-policy.wasm --params '{\"target\": 0.6}' --instances 100,1000 -o json")]
    Bench(BenchArgs),
}

/// Arguments of `policy inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// The module
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub module: PathBuf,
}

/// Arguments of `policy bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The module
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub module: PathBuf,
    /// Parameters as JSON, or @FILE to read them [default: those of the policy's schema]
    #[arg(long, value_name = "JSON|@FILE")]
    pub params: Option<String>,
    /// Numbers of instances to measure with
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "10,100,1000,10000",
        value_parser = clap::value_parser!(u32).range(..=100_000))]
    pub instances: Vec<u32>,
}
