//! The `key=value,key=value` arguments of the command line, and the VM they describe. Source: `option_parser` and
//! `VmConfig::parse` in `vmm/src/config.rs` of v53.0.

use serde_json::{Map, Value, json};
use thiserror::Error;

use crate::config::VmConfig;

/// An argument that describes no VM.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum OptionsError {
    #[error("unknown option: {0}")]
    UnknownOption(String),
    #[error("invalid syntax: {0}")]
    InvalidSyntax(String),
    #[error("unable to convert {value} for {option}")]
    Conversion { option: String, value: String },
    #[error("invalid configuration: {0}")]
    Config(String),
}

type Result<T> = std::result::Result<T, OptionsError>;

/// How an option's text becomes a JSON value.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Number,
    Toggle,
    /// A size with K, M or G behind it; bytes.
    Size,
    /// One of these words, and what it is called in JSON.
    Word(&'static [(&'static str, &'static str)]),
}

/// `(option, field in JSON, kind)`.
type Table = &'static [(&'static str, &'static str, Kind)];

use Kind::{Number, Size, Text, Toggle, Word};

const CPUS: Table = &[
    ("boot", "boot_vcpus", Number),
    ("max", "max_vcpus", Number),
    ("max_phys_bits", "max_phys_bits", Number),
    ("kvm_hyperv", "kvm_hyperv", Toggle),
    ("nested", "nested", Toggle),
];
const MEMORY: Table = &[
    ("size", "size", Size),
    ("mergeable", "mergeable", Toggle),
    ("shared", "shared", Toggle),
    ("hugepages", "hugepages", Toggle),
    ("hugepage_size", "hugepage_size", Size),
    ("prefault", "prefault", Toggle),
    ("reserve", "reserve", Toggle),
    ("thp", "thp", Toggle),
    ("hotplug_size", "hotplug_size", Size),
    ("hotplug_method", "hotplug_method", Word(&[("acpi", "Acpi"), ("virtio-mem", "VirtioMem")])),
];
const IMAGE_TYPES: Kind = Word(&[("raw", "Raw"), ("qcow2", "Qcow2"), ("vhd", "FixedVhd"), ("vhdx", "Vhdx")]);
const DISK: Table = &[
    ("path", "path", Text),
    ("readonly", "readonly", Toggle),
    ("direct", "direct", Toggle),
    ("num_queues", "num_queues", Number),
    ("queue_size", "queue_size", Number),
    ("vhost_user", "vhost_user", Toggle),
    ("socket", "vhost_socket", Text),
    ("serial", "serial", Text),
    ("backing_files", "backing_files", Toggle),
    ("sparse", "sparse", Toggle),
    ("image_type", "image_type", IMAGE_TYPES),
    ("lock_granularity", "lock_granularity", Word(&[("byte-range", "ByteRange"), ("full", "Full")])),
    ("id", "id", Text),
    ("iommu", "iommu", Toggle),
    ("pci_segment", "pci_segment", Number),
    ("pci_device_id", "pci_device_id", Number),
];
const NET: Table = &[
    ("tap", "tap", Text),
    ("ip", "ip", Text),
    ("mask", "mask", Text),
    ("mac", "mac", Text),
    ("host_mac", "host_mac", Text),
    ("mtu", "mtu", Number),
    ("num_queues", "num_queues", Number),
    ("queue_size", "queue_size", Number),
    ("vhost_user", "vhost_user", Toggle),
    ("socket", "vhost_socket", Text),
    ("offload_tso", "offload_tso", Toggle),
    ("offload_ufo", "offload_ufo", Toggle),
    ("offload_csum", "offload_csum", Toggle),
    ("id", "id", Text),
    ("iommu", "iommu", Toggle),
    ("pci_segment", "pci_segment", Number),
    ("pci_device_id", "pci_device_id", Number),
];
const BALLOON: Table = &[
    ("size", "size", Size),
    ("deflate_on_oom", "deflate_on_oom", Toggle),
    ("free_page_reporting", "free_page_reporting", Toggle),
    ("id", "id", Text),
];
const VSOCK: Table = &[("cid", "cid", Number), ("socket", "socket", Text), ("id", "id", Text)];

/// Splits at commas that are outside quotes and brackets.
pub(crate) fn split(text: &str) -> Result<Vec<(String, String)>> {
    let (mut items, mut item, mut quoted, mut depth) = (Vec::new(), String::new(), false, 0u32);
    for c in text.trim().chars() {
        match c {
            '"' => quoted = !quoted,
            '[' if !quoted => depth += 1,
            ']' if !quoted => {
                depth = depth.checked_sub(1).ok_or_else(|| OptionsError::InvalidSyntax(text.to_owned()))?;
            }
            _ => {}
        }
        if c == ',' && !quoted && depth == 0 {
            items.push(std::mem::take(&mut item));
        } else if c != '"' {
            item.push(c);
        }
    }
    if quoted || depth > 0 {
        return Err(OptionsError::InvalidSyntax(text.to_owned()));
    }
    items.push(item);
    let pairs = items.iter().filter(|item| !item.is_empty());
    Ok(pairs
        .map(|item| item.split_once('=').unwrap_or((item, "")))
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect())
}

fn convert(option: &str, value: &str, kind: Kind) -> Result<Value> {
    let error = || OptionsError::Conversion { option: option.to_owned(), value: value.to_owned() };
    match kind {
        Text => Ok(json!(value)),
        Number => value.parse::<u64>().map(Value::from).map_err(|_| error()),
        Toggle => match value {
            "on" | "true" | "" => Ok(json!(true)),
            "off" | "false" => Ok(json!(false)),
            _ => Err(error()),
        },
        Size => {
            let (digits, shift) = match value.as_bytes().last() {
                Some(b'K') => (&value[..value.len() - 1], 10),
                Some(b'M') => (&value[..value.len() - 1], 20),
                Some(b'G') => (&value[..value.len() - 1], 30),
                _ => (value, 0),
            };
            let number: u64 = digits.parse().map_err(|_| error())?;
            number.checked_mul(1 << shift).map(Value::from).ok_or_else(error)
        }
        Word(words) => {
            let found = words.iter().find(|(word, _)| *word == value.to_ascii_lowercase());
            found.map(|(_, name)| json!(name)).ok_or_else(error)
        }
    }
}

fn object(text: &str, table: Table) -> Result<Value> {
    let mut object = Map::new();
    for (option, value) in split(text)? {
        let row = table.iter().find(|(name, ..)| *name == option);
        let (_, field, kind) = row.ok_or_else(|| OptionsError::UnknownOption(option.clone()))?;
        object.insert((*field).to_owned(), convert(&option, &value, *kind)?);
    }
    Ok(Value::Object(object))
}

/// `off`, `null`, `pty`, `tty`, `file=<path>` or `socket=<path>`.
fn console(text: &str) -> Result<Value> {
    let mut object = Map::new();
    for (option, value) in split(text)? {
        let mode = match option.as_str() {
            "off" => "Off",
            "null" => "Null",
            "pty" => "Pty",
            "tty" => "Tty",
            "file" => "File",
            "socket" => "Socket",
            _ => return Err(OptionsError::UnknownOption(option)),
        };
        object.insert("mode".to_owned(), json!(mode));
        if !value.is_empty() {
            object.insert(option, json!(value));
        }
    }
    Ok(Value::Object(object))
}

/// The arguments that describe a VM, as they came.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "VM options")]
pub(crate) struct VmArguments {
    /// Path to kernel to load
    #[arg(long)]
    pub(crate) kernel: Option<String>,
    /// Path to firmware that is loaded in an architectural specific way
    #[arg(long)]
    pub(crate) firmware: Option<String>,
    /// Path to initramfs image
    #[arg(long)]
    pub(crate) initramfs: Option<String>,
    /// Kernel command line
    #[arg(long, allow_hyphen_values = true)]
    pub(crate) cmdline: Option<String>,
    /// boot=BOOT_VCPUS,max=MAX_VCPUS,…
    #[arg(long)]
    pub(crate) cpus: Option<String>,
    /// size=GUEST_MEMORY_SIZE,…
    #[arg(long)]
    pub(crate) memory: Option<String>,
    /// path=DISK_IMAGE_PATH,readonly=on|off,image_type=raw|qcow2|vhd|vhdx,…
    #[arg(long, num_args = 1..)]
    pub(crate) disk: Vec<String>,
    /// tap=IF_NAME,mac=MAC_ADDR,…
    #[arg(long, num_args = 1..)]
    pub(crate) net: Vec<String>,
    /// off|null|pty|tty|file=PATH|socket=PATH
    #[arg(long)]
    pub(crate) serial: Option<String>,
    /// off|null|pty|tty|file=PATH
    #[arg(long)]
    pub(crate) console: Option<String>,
    /// size=BALLOON_SIZE,deflate_on_oom=on|off,…
    #[arg(long)]
    pub(crate) balloon: Option<String>,
    /// cid=CONTEXT_ID,socket=SOCKET_PATH
    #[arg(long)]
    pub(crate) vsock: Option<String>,
    /// Random source (ignored)
    #[arg(long)]
    pub(crate) rng: Option<String>,
    /// Enable virtio-watchdog
    #[arg(long)]
    pub(crate) watchdog: bool,
    /// Enable pvpanic device
    #[arg(long)]
    pub(crate) pvpanic: bool,
}

impl VmArguments {
    /// The VM these arguments describe; `None` when they name neither kernel nor firmware.
    pub(crate) fn to_config(&self) -> Result<Option<VmConfig>> {
        if self.kernel.is_none() && self.firmware.is_none() {
            return Ok(None);
        }
        let mut vm = Map::new();
        let mut payload = Map::new();
        let parts = [
            ("firmware", &self.firmware),
            ("kernel", &self.kernel),
            ("cmdline", &self.cmdline),
            ("initramfs", &self.initramfs),
        ];
        for (name, value) in parts {
            if let Some(value) = value {
                payload.insert(name.to_owned(), json!(value));
            }
        }
        vm.insert("payload".to_owned(), Value::Object(payload));
        if let Some(text) = &self.cpus {
            let mut cpus = object(text, CPUS)?;
            let boot = cpus.get("boot_vcpus").cloned().unwrap_or(json!(1));
            if let Some(cpus) = cpus.as_object_mut() {
                cpus.entry("boot_vcpus").or_insert(boot.clone());
                cpus.entry("max_vcpus").or_insert(boot);
            }
            vm.insert("cpus".to_owned(), cpus);
        }
        if let Some(text) = &self.memory {
            let mut memory = object(text, MEMORY)?;
            if let Some(memory) = memory.as_object_mut() {
                memory.entry("size").or_insert(json!(512u64 << 20));
            }
            vm.insert("memory".to_owned(), memory);
        }
        let list = |texts: &[String], table| {
            texts.iter().map(|text| object(text, table)).collect::<Result<Vec<_>>>()
        };
        if !self.disk.is_empty() {
            vm.insert("disks".to_owned(), list(&self.disk, DISK)?.into());
        }
        if !self.net.is_empty() {
            vm.insert("net".to_owned(), list(&self.net, NET)?.into());
        }
        for (name, text) in [("serial", &self.serial), ("console", &self.console)] {
            if let Some(text) = text {
                vm.insert(name.to_owned(), console(text)?);
            }
        }
        if let Some(text) = &self.balloon {
            vm.insert("balloon".to_owned(), object(text, BALLOON)?);
        }
        if let Some(text) = &self.vsock {
            vm.insert("vsock".to_owned(), object(text, VSOCK)?);
        }
        vm.insert("watchdog".to_owned(), json!(self.watchdog));
        vm.insert("pvpanic".to_owned(), json!(self.pvpanic));
        serde_json::from_value(Value::Object(vm))
            .map(Some)
            .map_err(|error| OptionsError::Config(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_become_a_configuration() {
        let arguments = VmArguments {
            kernel: Some("/k".into()),
            cmdline: Some("console=ttyS0".into()),
            cpus: Some("boot=2".into()),
            memory: Some("size=1G,shared=on".into()),
            disk: vec!["path=/d,image_type=qcow2,backing_files=on".into(), "path=/e,readonly=on".into()],
            serial: Some("file=/tmp/s".into()),
            console: Some("off".into()),
            ..VmArguments::default()
        };
        let config = arguments.to_config().unwrap().unwrap();
        assert_eq!((config.cpus.boot_vcpus, config.cpus.max_vcpus), (2, 2));
        assert_eq!(config.memory.size, 1 << 30);
        assert_eq!(config.disks.as_ref().map(Vec::len), Some(2));
        assert!(config.disks.iter().flatten().next().is_some_and(|disk| disk.backing_files));
        assert_eq!(config.serial.file.as_deref(), Some("/tmp/s".as_ref()));
    }

    #[test]
    fn mistakes_are_named() {
        let with = |disk: &str| VmArguments {
            kernel: Some("/k".into()),
            disk: vec![disk.into()],
            ..VmArguments::default()
        };
        assert_eq!(with("pat=/d").to_config(), Err(OptionsError::UnknownOption("pat".into())));
        assert_eq!(with("path=\"/d").to_config(), Err(OptionsError::InvalidSyntax("path=\"/d".into())));
        assert!(matches!(with("path=/d,readonly=maybe").to_config(), Err(OptionsError::Conversion { .. })));
        assert_eq!(VmArguments::default().to_config(), Ok(None));
    }

    #[test]
    fn commas_inside_quotes_and_brackets_do_not_split() {
        let pairs = split("path=\"/a,b\",queue_affinity=[0@[1,2]]").unwrap();
        assert_eq!(
            pairs,
            [
                ("path".into(), "/a,b".into()),
                ("queue_affinity".into(), "0@[1,2]".to_owned().replacen("0@[1,2]", "[0@[1,2]]", 1))
            ]
        );
    }
}
