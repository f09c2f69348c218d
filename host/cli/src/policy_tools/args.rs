//! Arguments of the tools for authors.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use regatta_core::manifest::{PolicyLimits, read_limits};
use regatta_policy_tools::Language;
use regatta_policy_tools::check::Property;

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
  regatta policy build my-policy --install --out web.wasm")]
    Build(BuildArgs),
    /// Show what a module is: contract, imports, parameters, metrics, size
    ///
    /// Needs no daemon. A module that cannot be loaded is told as far as it can be read, with the reason.
    #[command(after_long_help = "\
Examples:
  regatta policy inspect my-policy.wasm
  regatta policy inspect my-policy.wasm -o json | jq .params_schema")]
    Inspect(InspectArgs),
    /// Check whether a module is fit to scale a set
    ///
    /// Needs no daemon. Looks at the contract, at good and broken parameters, at decision vectors, at what every good
    /// policy does (stays in bounds, does not swing, recovers from a gap of its metrics ...) and at the worst case of
    /// fuel and memory, with the daemon's limits. Exits with 3 when something failed or --budget was too short; warnings
    /// do not count.
    #[command(after_long_help = "\
Examples:
  regatta policy check my-policy.wasm --params '{\"metric\": \"load\", \"target\": 0.6}'
  regatta policy check my-policy.wasm --params @params.json --vectors vectors.json
  regatta policy check my-policy.wasm --limits fuel=200000000,memory=128MiB
  regatta policy check my-policy.wasm --skip no-oscillation -o json | jq .findings")]
    Check(CheckArgs),
    /// Measure what a module costs: compiling, instances, decisions, fuel
    ///
    /// Needs no daemon. Each size is measured for about two seconds, on ticks like those of a busy set, with a fresh
    /// instance for each decision as in the daemon.
    #[command(after_long_help = "\
Examples:
  regatta policy bench my-policy.wasm
  regatta policy bench my-policy.wasm --params '{\"target\": 0.6}' --instances 100,1000 -o json
  regatta policy bench my-policy.wasm --limits fuel=200000000")]
    Bench(BenchArgs),
    /// Print the contract, for a language that has no template
    ///
    /// Needs no daemon. The WIT package is what component tooling starts from, the C header what C and C++ include, the
    /// JSON schema what goes through the memory of modules that exchange JSON.
    #[command(after_long_help = "\
Examples:
  regatta policy contract wit > policy.wit
  regatta policy contract c > regatta.h
  regatta policy contract json | jq '.\"$defs\" | keys'")]
    Contract(ContractArgs),
}

/// Arguments of `policy contract`.
#[derive(Debug, Args)]
pub struct ContractArgs {
    /// Form to print it in
    #[arg(value_name = "FORM")]
    pub form: ContractForm,
}

/// A form of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ContractForm {
    /// WIT package
    Wit,
    /// Header for C and C++
    C,
    /// JSON schema of the JSON ABI
    Json,
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

/// Arguments of `policy check`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The module
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub module: PathBuf,
    /// Parameters as JSON, or @FILE to read them [default: those of the policy's schema]
    #[arg(long, value_name = "JSON|@FILE")]
    pub params: Option<String>,
    /// Ticks with the decisions that it must make, as in vectors.json of a new project
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub vectors: Option<PathBuf>,
    /// A property that this policy need not have (repeatable)
    #[arg(long, value_name = "PROPERTY", value_parser = property())]
    pub skip: Vec<Property>,
    /// What the metric reads for an instance that is full [default: found out by trying]
    #[arg(long, value_name = "VALUE")]
    pub full_at: Option<f64>,
    /// Seed of the scenarios; the same seed gives the same ones
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub seed: u64,
    /// Limits of a decision, named as in `policy.limits` of a manifest [default: the manifest's]
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = read_limits)]
    pub limits: Option<PolicyLimits>,
    /// Time to try decisions; the check fails when it has not finished by then
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = regatta_util::units::parse_duration)]
    pub budget: Duration,
}

/// The properties as clap checks and completes them.
fn property() -> impl TypedValueParser<Value = Property> {
    PossibleValuesParser::new(Property::ALL.map(Property::name)).try_map(|name| name.parse::<Property>())
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
    /// Limits of a decision, named as in `policy.limits` of a manifest [default: the manifest's]
    #[arg(long, value_name = "NAME=VALUE,…", value_parser = read_limits)]
    pub limits: Option<PolicyLimits>,
}
