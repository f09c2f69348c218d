//! The arguments of `regatta replay` and `regatta record`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueHint};

use super::args::set_name;
use super::complete::sets;

/// Arguments of `replay`.
#[derive(Debug, Args)]
pub struct ReplayArgs {
    /// Set, imported recording, or file of a recording (its name has a dot or a slash)
    #[arg(value_name = "SET|RECORDING|FILE", value_hint = ValueHint::FilePath)]
    pub what: String,
    #[command(flatten)]
    pub span: Span,
}

/// `regatta record …`.
#[derive(Debug, Subcommand)]
pub enum RecordCommand {
    /// Write records and all that they refer to into a file
    ///
    /// The recording holds the manifests and policy modules of its ticks, so that `regatta replay FILE` decides them again on
    /// any machine.
    #[command(after_long_help = "\
Example:
  regatta record export web --since 1h --file incident.rec")]
    Export(ExportArgs),
    /// Keep an exported recording on the daemon's host
    ///
    /// The file is checked from its first line to its last before anything is stored. The recording is read-only and never
    /// a set: no VMs, no ticks. `replay`, `why`, `records` and `record export` take its name where they take that of a set.
    #[command(after_long_help = "\
Example:
  regatta record import incident.rec --as incident
  regatta replay incident")]
    Import(ImportArgs),
    /// List imported recordings
    List,
    /// Delete an imported recording
    Delete {
        /// The recording
        #[arg(value_name = "RECORDING", value_parser = set_name)]
        name: String,
    },
}

/// Arguments of `record export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Set or imported recording
    #[arg(value_name = "SET|RECORDING", value_parser = set_name, add = sets())]
    pub set: String,
    /// File to create
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub output_file: PathBuf,
    #[command(flatten)]
    pub span: Span,
}

/// Arguments of `record import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// File that `regatta record export` wrote, on the daemon's host
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Name [default: that of the recorded set]
    #[arg(long = "as", value_name = "NAME", value_parser = set_name)]
    pub name: Option<String>,
}

/// Which recorded ticks.
#[derive(Debug, Default, Args)]
pub struct Span {
    /// Only the last N ticks
    #[arg(long, value_name = "N", conflicts_with = "since")]
    pub last: Option<u64>,
    /// Only ticks of this long ago or less, for example 1h; in a recording, counted back from its last tick
    #[arg(long, value_name = "DURATION", value_parser = regatta_util::units::parse_duration)]
    pub since: Option<Duration>,
}
