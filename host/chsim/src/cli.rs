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

    /// Path to kernel to load
    #[arg(long, help_heading = "VM options")]
    kernel: Option<String>,
    /// Path to firmware that is loaded in an architectural specific way
    #[arg(long, help_heading = "VM options")]
    firmware: Option<String>,
    /// Path to initramfs image
    #[arg(long, help_heading = "VM options")]
    initramfs: Option<String>,
    /// Kernel command line
    #[arg(long, help_heading = "VM options", allow_hyphen_values = true)]
    cmdline: Option<String>,
    /// boot=BOOT_VCPUS,max=MAX_VCPUS,…
    #[arg(long, help_heading = "VM options")]
    cpus: Option<String>,
    /// size=GUEST_MEMORY_SIZE,…
    #[arg(long, help_heading = "VM options")]
    memory: Option<String>,
    /// path=DISK_IMAGE_PATH,readonly=on|off,image_type=raw|qcow2|vhd|vhdx,…
    #[arg(long, num_args = 1.., help_heading = "VM options")]
    disk: Vec<String>,
    /// tap=IF_NAME,mac=MAC_ADDR,…
    #[arg(long, num_args = 1.., help_heading = "VM options")]
    net: Vec<String>,
    /// off|null|pty|tty|file=PATH|socket=PATH
    #[arg(long, help_heading = "VM options")]
    serial: Option<String>,
    /// off|null|pty|tty|file=PATH
    #[arg(long, help_heading = "VM options")]
    console: Option<String>,
    /// size=BALLOON_SIZE,deflate_on_oom=on|off,…
    #[arg(long, help_heading = "VM options")]
    balloon: Option<String>,
    /// cid=CONTEXT_ID,socket=SOCKET_PATH
    #[arg(long, help_heading = "VM options")]
    vsock: Option<String>,
    /// Random source (ignored)
    #[arg(long, help_heading = "VM options")]
    rng: Option<String>,
    /// Enable virtio-watchdog
    #[arg(long, help_heading = "VM options")]
    watchdog: bool,
    /// Enable pvpanic device
    #[arg(long, help_heading = "VM options")]
    pvpanic: bool,

    /// Open API-SOCKET.sim, which moves the modelled clock and makes things go wrong
    #[arg(long, help_heading = "Stand-in options")]
    pub(crate) sim_control: bool,
}

impl Arguments {
    /// The arguments that describe a VM.
    pub(crate) fn vm(&self) -> VmArguments {
        VmArguments {
            kernel: self.kernel.clone(),
            firmware: self.firmware.clone(),
            initramfs: self.initramfs.clone(),
            cmdline: self.cmdline.clone(),
            cpus: self.cpus.clone(),
            memory: self.memory.clone(),
            disks: self.disk.clone(),
            net: self.net.clone(),
            serial: self.serial.clone(),
            console: self.console.clone(),
            balloon: self.balloon.clone(),
            vsock: self.vsock.clone(),
            watchdog: self.watchdog,
            pvpanic: self.pvpanic,
        }
    }
}
