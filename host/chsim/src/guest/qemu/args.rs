//! From a VM's configuration to the command line of `qemu-system-x86_64`. Pure.

use std::os::fd::RawFd;
use std::path::Path;

use serde_json::{Value, json};

use crate::config::{CpuTopology, DiskConfig, ImageType, NetConfig, PciDevice, PlatformConfig, VmConfig};
use crate::host::Layer;

/// What executes the guest's instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Accelerator {
    /// QEMU's own translator: works everywhere.
    #[default]
    Tcg,
    Kvm,
}

impl Accelerator {
    /// Reads `tcg` or `kvm`; empty is the default.
    pub(crate) fn parse(name: &str) -> Result<Self, String> {
        match name {
            "" | "tcg" => Ok(Self::Tcg),
            "kvm" => Ok(Self::Kvm),
            _ => Err(format!("unknown accelerator {name:?}: expected `tcg` or `kvm`")),
        }
    }
}

/// A machine to be started, with all that its configuration does not say. Descriptors are inherited by number.
#[derive(Debug)]
pub(crate) struct Plan<'a> {
    pub(crate) config: &'a VmConfig,
    pub(crate) accelerator: Accelerator,
    /// Connected socket of the machine protocol.
    pub(crate) qmp: RawFd,
    /// Connected sockets of serial port and console; none is a device that goes nowhere.
    pub(crate) serial: Option<RawFd>,
    pub(crate) console: Option<RawFd>,
    /// For each disk of the configuration, the files it stands on, the nearest first.
    pub(crate) backing: Vec<&'a [Layer]>,
    /// For each network device of the configuration, its tap's descriptors.
    pub(crate) taps: Vec<Vec<RawFd>>,
    /// Firmware that is an ELF file (it starts as a kernel does) and no ROM image.
    pub(crate) firmware_is_elf: bool,
    /// Whether the host has what virtual sockets need.
    pub(crate) vsock: bool,
}

/// Host memory for translated code, MiB: QEMU's default grows with the host, and there are many guests.
const TRANSLATION_CACHE_MIB: u32 = 32;

/// QEMU's names of disks and network devices: ids of the configuration may hold what QEMU's may not.
pub(crate) fn disk_name(index: usize) -> String {
    format!("disk{index}")
}

/// See [`disk_name`].
pub(crate) fn net_name(index: usize) -> String {
    format!("net{index}")
}

/// Where a device's virtio part is found in QEMU's object tree.
pub(crate) fn virtio_path(name: &str) -> String {
    format!("/machine/peripheral/{name}/virtio-backend")
}

/// The virtio devices that the machine will have: id in the VMM's device tree, and QEMU's name.
pub(crate) fn devices(config: &VmConfig) -> Vec<(String, String)> {
    let disks = config.disks.iter().flatten().enumerate();
    let net = config.net.iter().flatten().enumerate();
    let id = |device: Option<&str>, index: usize| device.map_or_else(|| index.to_string(), str::to_owned);
    let mut devices: Vec<(String, String)> =
        disks.map(|(index, disk)| (id(disk.id(), index), disk_name(index))).collect();
    devices.extend(net.map(|(index, net)| (id(net.id(), index), net_name(index))));
    devices.push(("__rng".to_owned(), "rng".to_owned()));
    if config.balloon.is_some() {
        devices.push(("__balloon".to_owned(), "balloon".to_owned()));
    }
    devices
}

/// What the configuration asks for and this engine has not, in words.
pub(crate) fn unsupported(config: &VmConfig) -> Option<&'static str> {
    fn any<T>(list: &Option<Vec<T>>) -> bool {
        list.as_ref().is_some_and(|list| !list.is_empty())
    }
    [
        (any(&config.fs), "virtio-fs devices"),
        (any(&config.pmem), "persistent memory"),
        (any(&config.devices), "passed-through devices"),
        (any(&config.user_devices), "vfio-user devices"),
        (any(&config.vdpa), "vDPA devices"),
        (any(&config.generic_vhost_user), "vhost-user devices"),
        (config.disks.iter().flatten().any(|disk| disk.vhost_user), "vhost-user disks"),
        (config.net.iter().flatten().any(|net| net.vhost_user), "vhost-user network devices"),
        (config.tpm.is_some(), "TPM"),
        (any(&config.numa), "NUMA nodes"),
    ]
    .into_iter()
    .find_map(|(wanted, name)| wanted.then_some(name))
}

/// The arguments.
pub(crate) fn arguments(plan: &Plan<'_>) -> Vec<String> {
    let config = plan.config;
    let mut arguments = Arguments::default();
    for flag in ["-no-user-config", "-nodefaults", "-no-reboot", "-no-shutdown", "-S"] {
        arguments.0.push(flag.to_owned());
    }
    arguments.add("-display", "none");
    arguments.add("-machine", "q35,usb=off,sata=off,smbus=off,vmport=off,hpet=off,graphics=off");
    match plan.accelerator {
        Accelerator::Tcg => {
            arguments.add("-accel", &format!("tcg,thread=multi,tb-size={TRANSLATION_CACHE_MIB}"));
            arguments.add("-cpu", "max");
        }
        Accelerator::Kvm => {
            arguments.add("-accel", "kvm");
            arguments.add("-cpu", "host");
        }
    }
    // As upstream, a guest that panicked is left to itself; whoever watches is told.
    arguments.add("-action", "panic=none");
    arguments.add("-smp", &processors(config.cpus.boot_vcpus, config.cpus.topology.as_ref()));
    arguments.add("-m", &format!("size={}B", config.memory.boot_bytes()));
    arguments.add("-chardev", &format!("socket,id=qmp,fd={}", plan.qmp));
    arguments.add("-mon", "chardev=qmp,mode=control");
    payload(plan, &mut arguments);
    consoles(plan, &mut arguments);
    for (index, disk) in config.disks.iter().flatten().enumerate() {
        let backing = plan.backing.get(index).copied().unwrap_or_default();
        add_disk(index, disk, backing, &mut arguments);
    }
    for (index, net) in config.net.iter().flatten().enumerate() {
        add_net(index, net, plan.taps.get(index).map_or(&[], Vec::as_slice), &mut arguments);
    }
    arguments
        .json("-object", &json!({"qom-type": "rng-random", "id": "entropy", "filename": config.rng.src}));
    arguments.device(json!({"driver": "virtio-rng-pci", "id": "rng", "rng": "entropy"}));
    if let Some(balloon) = &config.balloon {
        arguments.device(json!({
            "driver": "virtio-balloon-pci",
            "id": "balloon",
            "deflate-on-oom": balloon.deflate_on_oom,
            "free-page-reporting": balloon.free_page_reporting,
        }));
    }
    if let Some(vsock) = config.vsock.as_ref().filter(|_| plan.vsock) {
        arguments.device(json!({"driver": "vhost-vsock-pci", "id": "vsock", "guest-cid": vsock.cid}));
    }
    if config.pvpanic {
        arguments.json("-device", &json!({"driver": "pvpanic-pci", "id": "pvpanic"}));
    }
    if let Some(platform) = &config.platform {
        smbios(platform, &mut arguments);
    }
    arguments.0
}

#[derive(Default)]
struct Arguments(Vec<String>);

impl Arguments {
    fn add(&mut self, option: &str, value: &str) {
        self.0.extend([option.to_owned(), value.to_owned()]);
    }

    fn json(&mut self, option: &str, value: &Value) {
        self.add(option, &value.to_string());
    }

    /// A virtio device: only as modern as upstream's, and without a boot ROM.
    fn device(&mut self, mut device: Value) {
        device["disable-legacy"] = json!("on");
        self.json("-device", &device);
    }
}

/// A value inside a comma-separated list.
fn escaped(text: &str) -> String {
    text.replace(',', ",,")
}

fn processors(vcpus: u32, topology: Option<&CpuTopology>) -> String {
    let plain = format!("cpus={vcpus}");
    let Some(topology) = topology else { return plain };
    let (packages, dies) = (topology.packages, topology.dies_per_package);
    let (cores, threads) = (topology.cores_per_die, topology.threads_per_core);
    // A topology of more processors than there are is one for hot-plugged ones.
    if [packages, dies, cores, threads].iter().fold(1, |all, part| all * u64::from(*part)) != u64::from(vcpus)
    {
        return plain;
    }
    format!("{plain},sockets={packages},dies={dies},cores={cores},threads={threads}")
}

fn payload(plan: &Plan<'_>, arguments: &mut Arguments) {
    let Some(payload) = &plan.config.payload else { return };
    let path = |path: &Path| path.display().to_string();
    if let Some(firmware) = &payload.firmware {
        arguments.add(if plan.firmware_is_elf { "-kernel" } else { "-bios" }, &path(firmware));
    }
    if let Some(kernel) = &payload.kernel {
        arguments.add("-kernel", &path(kernel));
        arguments.add("-append", plan.config.cmdline());
    }
    if let Some(initramfs) = &payload.initramfs {
        arguments.add("-initrd", &path(initramfs));
    }
}

fn consoles(plan: &Plan<'_>, arguments: &mut Arguments) {
    if let Some(fd) = plan.serial {
        arguments.add("-chardev", &format!("socket,id=serial,fd={fd}"));
        arguments.add("-serial", "chardev:serial");
    }
    if let Some(fd) = plan.console {
        arguments.add("-chardev", &format!("socket,id=console,fd={fd}"));
        arguments.device(json!({"driver": "virtio-serial-pci", "id": "consoles"}));
        arguments.json("-device", &json!({"driver": "virtconsole", "chardev": "console"}));
    }
}

/// A disk with every file of its chain, so that QEMU opens what was checked, and takes no locks beside the VMM's.
fn add_disk(index: usize, disk: &DiskConfig, backing: &[Layer], arguments: &mut Arguments) {
    let name = disk_name(index);
    let path = disk.path.clone().unwrap_or_default();
    let mut below = Value::Null;
    for layer in backing.iter().rev() {
        below = node(&layer.path, layer.format, true, disk.direct, below);
    }
    let mut top = node(&path, disk.image_type, disk.readonly, disk.direct, below);
    top["node-name"] = json!(name);
    if disk.sparse && !disk.readonly {
        top["discard"] = json!("unmap");
        top["file"]["discard"] = json!("unmap");
    }
    arguments.json("-blockdev", &top);
    // The first place belongs to a kernel that is given.
    let mut device = json!({
        "driver": "virtio-blk-pci",
        "id": name,
        "drive": name,
        "num-queues": disk.num_queues,
        "queue-size": disk.queue_size,
        "bootindex": index + 1,
    });
    if let Some(serial) = &disk.serial {
        device["serial"] = json!(serial);
    }
    arguments.device(device);
}

fn node(path: &Path, format: ImageType, readonly: bool, direct: bool, below: Value) -> Value {
    let driver = match format {
        ImageType::Qcow2 => "qcow2",
        ImageType::FixedVhd => "vpc",
        ImageType::Vhdx => "vhdx",
        ImageType::Raw | ImageType::Unknown => "raw",
    };
    let mut node = json!({
        "driver": driver,
        "read-only": readonly,
        "cache": {"direct": direct},
        "file": {
            "driver": "file",
            "filename": path,
            "locking": "off",
            "read-only": readonly,
            "cache": {"direct": direct},
        },
    });
    if driver == "qcow2" {
        node["backing"] = below;
    }
    node
}

fn add_net(index: usize, net: &NetConfig, tap: &[RawFd], arguments: &mut Arguments) {
    let name = net_name(index);
    let fds: Vec<String> = tap.iter().map(RawFd::to_string).collect();
    let (option, fds) = if fds.len() > 1 { ("fds", fds.join(":")) } else { ("fd", fds.concat()) };
    arguments.add("-netdev", &format!("tap,id=tap-{name},{option}={fds},vhost=off"));
    let mut device = json!({
        "driver": "virtio-net-pci",
        "id": name,
        "netdev": format!("tap-{name}"),
        "mac": net.mac.to_string(),
        "mq": tap.len() > 1,
        "csum": net.offload_csum,
        "romfile": "",
    });
    if !net.offload_tso {
        for feature in ["guest_tso4", "guest_tso6", "host_tso4", "host_tso6"] {
            device[feature] = json!(false);
        }
    }
    if !net.offload_ufo {
        for feature in ["guest_ufo", "host_ufo"] {
            device[feature] = json!(false);
        }
    }
    if let Some(mtu) = net.mtu {
        device["host_mtu"] = json!(mtu);
    }
    arguments.device(device);
}

fn smbios(platform: &PlatformConfig, arguments: &mut Arguments) {
    if let Some(uuid) = &platform.system_uuid {
        arguments.add("-uuid", uuid);
    }
    let fields = [
        ("serial", &platform.system_serial_number),
        ("manufacturer", &platform.system_manufacturer),
        ("product", &platform.system_product_name),
        ("version", &platform.system_version),
        ("family", &platform.system_family),
        ("sku", &platform.system_sku_number),
    ];
    let mut system = "type=1".to_owned();
    for (name, value) in fields {
        if let Some(value) = value {
            system += &format!(",{name}={}", escaped(value));
        }
    }
    arguments.add("-smbios", &system);
    if let Some(tag) = &platform.chassis_asset_tag {
        arguments.add("-smbios", &format!("type=3,asset={}", escaped(tag)));
    }
    for text in platform.oem_strings.iter().flatten() {
        arguments.add("-smbios", &format!("type=11,value={}", escaped(text)));
    }
}
