//! The command line of v53, as far as a stand-in can honour it; what it cannot is accepted and ignored, so that a
//! command line written for the real binary works.

use std::path::PathBuf;

use clap::{ArgAction, Parser};

use crate::options::VmArguments;

#[derive(Debug, Parser)]
#[command(name = "cloud-hypervisor", disable_version_flag = true, about = "Launch a cloud-hypervisor VMM.")]
pub(crate) struct Arguments {
    /// HTTP API socket (UNIX domain socket): path=PATH or fd=FD
    #[arg(long)]
    pub(crate) api_socket: Option<String>,
    /// File to report events on: path=PATH or fd=FD
    #[arg(long)]
    pub(crate) event_monitor: Option<String>,
    /// Log file. Standard error is used if not specified
    #[arg(long)]
    pub(crate) log_file: Option<PathBuf>,
    /// Format of log lines (ignored)
    #[arg(long)]
    pub(crate) log_format: Option<String>,
    /// Sets the level of debugging output
    #[arg(short, action = ArgAction::Count)]
    pub(crate) v: u8,
    /// seccomp mode (ignored: there is no filter)
    #[arg(long, default_value = "true", value_parser = ["true", "false", "log", "errno"])]
    pub(crate) seccomp: String,
    /// Keep the VMM process running when the guest powers off
    #[arg(long)]
    pub(crate) no_shutdown: bool,
    /// enable/disable Landlock (ignored: there are no rules)
    #[arg(long)]
    pub(crate) landlock: bool,
    /// Rules for Landlock (ignored)
    #[arg(long, num_args = 1..)]
    pub(crate) landlock_rules: Vec<String>,
    /// Print version
    #[arg(short = 'V', long)]
    pub(crate) version: bool,
    /// Restore from a VM snapshot: source_url=URL with ,prefault=on|off and ,resume=true|false
    #[arg(long)]
    pub(crate) restore: Option<String>,

    #[command(flatten)]
    pub(crate) vm: VmArguments,

    /// Open API-SOCKET.sim, which moves the modelled clock and makes things go wrong
    #[arg(long, help_heading = "Stand-in options")]
    pub(crate) sim_control: bool,
}
