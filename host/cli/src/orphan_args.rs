//! The arguments of `regatta orphans`.

use clap::Subcommand;

/// What to do with orphans.
#[derive(Debug, Subcommand)]
pub enum OrphansCommand {
    /// List them (the default)
    List,
    /// Stop orphans and remove their directories and disks
    ///
    /// The guest's power button is pressed first; after 30 seconds the VM is killed.
    Delete {
        /// Orphans, as `regatta orphans` lists them; a set's name stands for all of that name
        #[arg(value_name = "SET/ID|SET", required = true)]
        names: Vec<String>,
        /// Skip confirmation; required when stdin is not a terminal
        #[arg(short, long)]
        yes: bool,
    },
}
