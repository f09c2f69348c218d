//! The arguments of `regatta process`.

use clap::{Args, Subcommand, ValueEnum};

use super::args::set_name;
use super::complete::sets;

/// What to do with processes of a set.
#[derive(Debug, Subcommand)]
pub enum ProcessCommand {
    /// Suspend processes until they are resumed
    #[command(after_long_help = "\
Example:
  regatta process suspend web repair terminate")]
    Suspend(ProcessesArg),
    /// Resume suspended processes
    #[command(after_long_help = "\
Example:
  regatta process resume web repair terminate")]
    Resume(ProcessesArg),
}

/// Processes of a set.
#[derive(Debug, Args)]
pub struct ProcessesArg {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// What the set does by itself
    #[arg(value_name = "PROCESS", required = true)]
    pub processes: Vec<Process>,
}

/// Something that a set does by itself.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum Process {
    /// Create instances, replacements included
    Launch,
    /// Drain and remove instances, whatever the reason
    Terminate,
    /// Take instances for unhealthy, or for too slow to boot
    Health,
    /// Repair unhealthy instances
    Repair,
    /// Ask the policies; without it the capacity stays
    Policy,
}
