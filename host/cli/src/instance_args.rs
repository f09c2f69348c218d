//! The arguments of `regatta instance`.

use clap::{Args, Subcommand};

use super::args::set_name;
use super::complete::sets;

/// What to do with one instance.
#[derive(Debug, Subcommand)]
pub enum InstanceCommand {
    /// Replace an instance: it drains and goes, a new one comes
    #[command(after_long_help = "\
Example:
  regatta instance replace web 3")]
    Replace(InstanceArg),
    /// Restart the guest of an instance
    ///
    /// It drains first, as for a removal. Then the VM is reset: the guest is not asked to shut down, and keeps its disks, its
    /// address and its number.
    #[command(after_long_help = "\
Example:
  regatta instance restart web web-3")]
    Restart(InstanceArg),
    /// Delete an instance
    ///
    /// The set keeps its capacity, so a new instance takes its place, unless `--shrink` is given.
    #[command(after_long_help = "\
Example:
  regatta instance delete web 3 --shrink")]
    Delete {
        /// Which
        #[command(flatten)]
        instance: InstanceArg,
        /// Lower the desired capacity by one as well
        #[arg(long)]
        shrink: bool,
    },
}

/// An instance of a set.
#[derive(Debug, Args)]
pub struct InstanceArg {
    /// The set
    #[arg(value_parser = set_name, add = sets())]
    pub set: String,
    /// Instance number or name
    #[arg(value_name = "ID")]
    pub instance: String,
}
