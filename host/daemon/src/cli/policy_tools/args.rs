//! Arguments of the tools for authors.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};
use regatta_policy_tools::Language;

/// What an author of policies does.
#[derive(Debug, Subcommand)]
pub enum PolicyToolCommand {
    /// Make a project for a policy of your own
    ///
    /// Needs no daemon. The project builds as it is: it keeps a metric at its target, within a tolerance, and comes
    /// with ticks to check it on.
    #[command(after_long_help = "\
Examples:
  regatta policy new --language rust my-policy
  regatta policy new --language python my-policy --dir policies/mine")]
    New(NewArgs),
    /// Build a project's module with the language's own tools
    ///
    /// Needs no daemon. The tools are looked for in the project (node_modules/.bin, .venv/bin), in the directory that
    /// REGATTA_TOOLS names, and on PATH; one that is missing is named with the way to it.
    #[command(after_long_help = "\
Examples:
  regatta policy build
  regatta policy build my-policy --install -o web.wasm")]
    Build(BuildArgs),
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

/// Arguments of `policy new`.
#[derive(Debug, Args)]
pub struct NewArgs {
    /// Language to write it in
    #[arg(long, short, value_name = "LANGUAGE", value_parser = language())]
    pub language: Language,
    /// Name of the policy: lower-case letters, digits and -, at most 64
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Directory to make; it may be there when it is empty [default: the name]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub dir: Option<PathBuf>,
}

/// The languages as clap checks and completes them.
fn language() -> impl TypedValueParser<Value = Language> {
    PossibleValuesParser::new(Language::ALL.map(Language::as_str)).try_map(|name| name.parse::<Language>())
}

/// Arguments of `policy build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// The project: the directory with its policy.yaml
    #[arg(value_name = "DIR", default_value = ".", value_hint = ValueHint::DirPath)]
    pub dir: PathBuf,
    /// File to make [default: as policy.yaml says]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// When a tool is missing, install it into the project with npm or pip
    #[arg(long)]
    pub install: bool,
    /// Directory with tools of languages, beside the project's own and PATH
    #[arg(long, env = "REGATTA_TOOLS", hide_env_values = true, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub tools: Option<PathBuf>,
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
