//! Arguments of `regatta serve`.

use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{Args, ValueEnum};
use regatta_core::manifest::units::{parse_duration, parse_size_bytes};

/// How the daemon runs.
#[derive(Debug, Clone, PartialEq, Args)]
pub struct ServeArgs {
    /// Data directory; from the global `--data` or `REGATTA_DATA`, else
    /// [`regatta_api::paths::default_data_dir`].
    #[arg(skip)]
    pub data: Option<PathBuf>,
    /// Socket of the API; from the global `--socket` or `REGATTA_SOCKET`, else
    /// [`regatta_api::paths::socket_in`] of the data directory.
    #[arg(skip)]
    pub socket: Option<PathBuf>,
    /// The VMM to run instances with: `sim` (the built-in simulator), `cloud-hypervisor` (found on PATH),
    /// `cloud-hypervisor=/path`, or `auto`: cloud-hypervisor when it is on PATH and /dev/kvm can be used,
    /// else sim
    #[arg(long, env = "REGATTA_VMM", hide_env_values = true, value_name = "VMM", default_value = "auto")]
    pub vmm: VmmChoice,
    /// Guest engine of the simulator: `model` (an HTTP service that behaves like one; the default), or `qemu` (a
    /// real machine under qemu-system-x86_64, without KVM if need be); only with `--vmm sim`
    #[arg(long, value_name = "ENGINE")]
    pub guest: Option<GuestEngine>,
    /// Directory with policy modules that manifests and `policy swap` may name (repeatable; in the
    /// environment separated by colons)
    #[arg(long, env = "REGATTA_POLICIES", hide_env_values = true, value_name = "DIR", value_delimiter = ':')]
    pub policies: Vec<PathBuf>,
    /// Memory overcommit: total guest memory as a multiple of host memory
    #[arg(long, env = "REGATTA_MEMORY_OVERCOMMIT", hide_env_values = true, value_name = "RATIO", default_value = "1", value_parser = ratio)]
    pub memory_overcommit: f64,
    /// Memory reserved for the host
    #[arg(long, env = "REGATTA_MEMORY_RESERVE", hide_env_values = true, value_name = "SIZE", default_value = "512MiB", value_parser = size)]
    pub memory_reserve: u64,
    /// CPU overcommit: total virtual CPUs as a multiple of host CPUs
    #[arg(long, env = "REGATTA_CPU_OVERCOMMIT", hide_env_values = true, value_name = "RATIO", default_value = "16", value_parser = ratio)]
    pub cpu_overcommit: f64,
    /// User and group ids of VMMs, one each, and the last of them for policies; they need not exist, and nothing else
    /// may use them
    #[arg(long, env = "REGATTA_VM_IDS", hide_env_values = true, value_name = "FIRST-LAST", default_value_t)]
    pub vm_ids: VmIds,
    /// Run VMMs as root where they cannot have users of their own: a guest that takes over its VMM then owns this host
    #[arg(long, env = "REGATTA_ALLOW_ROOT_VMMS", hide_env_values = true)]
    pub allow_root_vmms: bool,
    /// Disk space to keep free [default: 5% of the file system, at most 1GiB]
    #[arg(long, env = "REGATTA_DISK_RESERVE", hide_env_values = true, value_name = "SIZE", value_parser = size)]
    pub disk_reserve: Option<u64>,
    /// Time for load-balancer connections to finish when the daemon stops; then they are cut
    #[arg(long, env = "REGATTA_SHUTDOWN_GRACE", hide_env_values = true, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub shutdown_grace: Duration,
    /// Take over from the daemon that runs on this data directory: its load balancers refuse and cut no connection
    #[arg(long)]
    pub hot_restart: bool,
    /// Log format on standard error
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub log_format: LogFormat,
}

/// A range of user ids, written `FIRST-LAST`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmIds(RangeInclusive<u32>);

impl VmIds {
    /// Those of VMMs, one each.
    #[must_use]
    pub fn vms(&self) -> RangeInclusive<u32> {
        *self.0.start()..=self.0.end() - 1
    }

    /// The last: of the processes that compile and run policies.
    #[must_use]
    pub fn policies(&self) -> u32 {
        *self.0.end()
    }
}

impl Default for VmIds {
    fn default() -> Self {
        Self(500_000..=565_535)
    }
}

impl fmt::Display for VmIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0.start(), self.0.end())
    }
}

impl FromStr for VmIds {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ids =
            text.split_once('-').and_then(|(first, last)| Some(first.parse().ok()?..=last.parse().ok()?));
        let ids: RangeInclusive<u32> = ids.ok_or("expected two ids such as 500000-565535")?;
        if ids.is_empty() {
            return Err("the last id is less than the first".to_owned());
        }
        if ids.start() == ids.end() {
            return Err("two ids are needed: the last is that of the process that runs policies".to_owned());
        }
        if *ids.start() < 1_000 {
            return Err("ids below 1000 belong to the host".to_owned());
        }
        Ok(Self(ids))
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = text.parse().map_err(|_| "expected a number such as 1.5".to_owned())?;
    if ratio.is_finite() && ratio > 0.0 { Ok(ratio) } else { Err("must be greater than 0".to_owned()) }
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).map_err(|error| format!("{error}: for example 500ms or 10s"))
}

fn size(text: &str) -> Result<u64, String> {
    parse_size_bytes(text).map_err(|error| format!("{error}: for example 512MiB or 2GiB"))
}

/// Which VMM to run instances with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum VmmChoice {
    /// `cloud-hypervisor` from PATH when /dev/kvm is usable, else the simulator.
    #[default]
    Auto,
    /// The built-in simulator.
    Sim,
    /// Cloud Hypervisor: at this path, or found on PATH.
    CloudHypervisor(Option<PathBuf>),
}

impl FromStr for VmmChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            None if text == "auto" => Ok(Self::Auto),
            None if text == "sim" => Ok(Self::Sim),
            None if text == "cloud-hypervisor" => Ok(Self::CloudHypervisor(None)),
            Some(("cloud-hypervisor", "")) => Err("the path after cloud-hypervisor= is empty".to_owned()),
            Some(("cloud-hypervisor", path)) => Ok(Self::CloudHypervisor(Some(path.into()))),
            _ => Err("expected auto, sim, cloud-hypervisor or cloud-hypervisor=/path".to_owned()),
        }
    }
}

/// How the stand-in runs guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "kebab-case")]
pub enum GuestEngine {
    /// A service with a capacity model.
    Model,
    /// A machine under QEMU.
    Qemu,
}

impl GuestEngine {
    /// Its name, as the simulator reads it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Model => "model",
            Self::Qemu => "qemu",
        }
    }
}

/// Form of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum LogFormat {
    /// Human-readable.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_a_range_above_those_of_the_host() {
        assert_eq!("500000-565535".parse(), Ok(VmIds(500_000..=565_535)));
        assert_eq!("1000-1001".parse(), Ok(VmIds(1_000..=1_001)));
        let ids = VmIds::default();
        assert_eq!((ids.vms(), ids.policies()), (500_000..=565_534, 565_535));
        assert_eq!(ids.to_string().parse(), Ok(ids));
        for wrong in ["1000-1000", "", "5", "2000-1999", "0-5000", "a-b", "1000-99999999999"] {
            assert!(wrong.parse::<VmIds>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_vmm_is_a_kind_and_for_cloud_hypervisor_perhaps_a_path() {
        assert_eq!("auto".parse(), Ok(VmmChoice::Auto));
        assert_eq!("sim".parse(), Ok(VmmChoice::Sim));
        assert_eq!("cloud-hypervisor".parse(), Ok(VmmChoice::CloudHypervisor(None)));
        assert_eq!("cloud-hypervisor=/a=b".parse(), Ok(VmmChoice::CloudHypervisor(Some("/a=b".into()))));
        for wrong in ["", "qemu", "sim=/x", "cloud-hypervisor="] {
            assert!(wrong.parse::<VmmChoice>().is_err(), "{wrong}");
        }
    }
}
