//! The arguments of `regatta scale`, `hold`, `limits` and `freeze`.

use std::time::Duration;

use clap::Args;

use super::args::{WaitArgs, set_name};
use super::complete::sets;

/// Arguments of `scale`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Instances in service; within the set's min and max
    pub capacity: u32,
    /// Whether to wait until they are in service.
    #[command(flatten)]
    pub wait: WaitArgs,
}

/// For how long something counts, and why.
#[derive(Debug, Args)]
pub struct TermArgs {
    /// End by itself after this long, for example 90m or 2h
    #[arg(long = "for", value_name = "TIME", value_parser = regatta_util::units::parse_duration)]
    pub for_time: Option<Duration>,
    /// Why, shown to others
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub reason: String,
}

impl TermArgs {
    /// For how long, milliseconds; none until it is ended.
    pub(super) fn for_ms(&self) -> Option<u64> {
        self.for_time.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }
}

/// Arguments of `hold`.
#[derive(Debug, Args)]
pub struct HoldArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Set this capacity first; within the set's min and max [default: the present one]
    #[arg(long, value_name = "N")]
    pub capacity: Option<u32>,
    /// For how long, and why.
    #[command(flatten)]
    pub term: TermArgs,
}

/// Arguments of `limits`.
#[derive(Debug, Args)]
pub struct LimitsArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Least capacity [default: the manifest's]
    #[arg(long, value_name = "N")]
    pub min: Option<u32>,
    /// Greatest capacity [default: the manifest's]
    #[arg(long, value_name = "N")]
    pub max: Option<u32>,
    /// End the override: the manifest's limits count again
    #[arg(long, conflicts_with_all = ["min", "max", "for_time", "reason"])]
    pub clear: bool,
    /// For how long, and why.
    #[command(flatten)]
    pub term: TermArgs,
}

/// Arguments of `freeze`.
#[derive(Debug, Args)]
pub struct FreezeArgs {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// End the freeze
    #[arg(long, conflicts_with_all = ["for_time", "reason"])]
    pub end: bool,
    /// For how long, and why.
    #[command(flatten)]
    pub term: TermArgs,
}
