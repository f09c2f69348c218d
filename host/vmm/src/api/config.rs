//! The body of `vm.create`, serialised exactly as Cloud Hypervisor wants it.
//!
//! Unknown fields are silently ignored by Cloud Hypervisor, so bodies are only built from these structs, and [`lost_fields`] compares
//! what was sent with what `vm.info` shows afterwards. Ids are always explicit, the image type too.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use crate::instance::disks::{ROOT_ID, SEED_ID};
use crate::instance::{BootSource, LaunchSpec, StartFrom};
use crate::overlay::PreparedDisk;

#[derive(Debug, Serialize)]
pub(crate) struct VmConfig {
    pub(crate) cpus: CpusConfig,
    pub(crate) memory: MemoryConfig,
    pub(crate) payload: PayloadConfig,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) disks: Vec<DiskConfig>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) net: Vec<NetConfig>,
    pub(crate) rng: RngConfig,
    pub(crate) serial: ConsoleConfig,
    pub(crate) console: ConsoleConfig,
    /// Tells of guest panics by the event `guest/panic`.
    pub(crate) pvpanic: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<PlatformConfig>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) landlock_enable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) landlock_rules: Vec<LandlockRule>,
}

#[derive(Debug, Serialize)]
pub(crate) struct CpusConfig {
    pub(crate) boot_vcpus: u32,
    pub(crate) max_vcpus: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct MemoryConfig {
    pub(crate) size: u64,
}

#[derive(Debug, Default, Serialize)]
pub(crate) struct PayloadConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) firmware: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kernel: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) cmdline: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) initramfs: Option<PathBuf>,
}

/// How the bytes of a disk are laid out. Never left to detection: a detected raw disk refuses writes to sector 0, a detected
/// qcow2 loses its backing file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(crate) enum ImageType {
    Raw,
    Qcow2,
}

#[derive(Debug, Serialize)]
pub(crate) struct DiskConfig {
    pub(crate) id: String,
    pub(crate) path: PathBuf,
    pub(crate) readonly: bool,
    pub(crate) image_type: ImageType,
    pub(crate) backing_files: bool,
    /// What the guest sees as the disk's serial number (`/dev/disk/by-id/virtio-…`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) serial: Option<String>,
}

#[derive(Debug, Serialize)]
pub(crate) struct NetConfig {
    pub(crate) id: String,
    pub(crate) tap: String,
    pub(crate) mac: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct RngConfig {
    pub(crate) src: &'static str,
}

/// What the guest reads from its SMBIOS tables.
#[derive(Debug, Serialize)]
pub(crate) struct PlatformConfig {
    pub(crate) system_serial_number: String,
    pub(crate) system_uuid: String,
}

/// A path that the VMM may use beside those in its configuration.
#[derive(Debug, Serialize)]
pub(crate) struct LandlockRule {
    pub(crate) path: PathBuf,
    pub(crate) access: &'static str,
}

#[derive(Debug, Serialize)]
pub(crate) struct ConsoleConfig {
    pub(crate) mode: ConsoleMode,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) enum ConsoleMode {
    Off,
    File,
}

/// The body for `spec`, with its root disk and network device as prepared and its serial console written to `serial_log`. With `landlock` the VMM gives up
/// every file that it does not need.
pub(crate) fn vm_config(
    spec: &LaunchSpec,
    root: Option<&PreparedDisk>,
    net: Option<NetConfig>,
    serial_log: &Path,
    landlock: bool,
) -> VmConfig {
    let payload = match &spec.boot {
        BootSource::Kernel { kernel, initramfs, cmdline } => PayloadConfig {
            firmware: None,
            kernel: Some(kernel.clone()),
            cmdline: Some(cmdline.clone()),
            initramfs: initramfs.clone(),
        },
        BootSource::Firmware { firmware } => {
            PayloadConfig { firmware: Some(firmware.clone()), ..PayloadConfig::default() }
        }
    };
    let net: Vec<NetConfig> = net.into_iter().collect();
    VmConfig {
        cpus: CpusConfig { boot_vcpus: spec.vcpus, max_vcpus: spec.vcpus },
        memory: MemoryConfig { size: spec.memory_bytes },
        payload,
        disks: disk_configs(spec, root),
        landlock_enable: landlock,
        landlock_rules: if landlock { landlock_rules(spec, root, &net) } else { Vec::new() },
        net,
        rng: RngConfig { src: "/dev/urandom" },
        serial: ConsoleConfig { mode: ConsoleMode::File, file: Some(serial_log.to_path_buf()) },
        console: ConsoleConfig { mode: ConsoleMode::Off, file: None },
        pvpanic: true,
        platform: spec.smbios.as_ref().map(|smbios| PlatformConfig {
            system_serial_number: smbios.serial.clone(),
            system_uuid: smbios.uuid.clone(),
        }),
    }
}

/// What Cloud Hypervisor opens beside the paths in its configuration: what lies below an overlay, where it writes a snapshot, and the flags of a tap that it can
/// see in sysfs (one in a network namespace of its own it cannot see, and then does not look).
fn landlock_rules(spec: &LaunchSpec, root: Option<&PreparedDisk>, net: &[NetConfig]) -> Vec<LandlockRule> {
    let backed = root.is_some_and(|disk| disk.has_backing_file);
    let golden = spec.root.as_ref().filter(|_| backed).map(|root| root.image.path().to_path_buf());
    let taps = net.iter().map(|net| Path::new("/sys/class/net").join(&net.tap)).filter(|path| path.exists());
    let read = |path| LandlockRule { path, access: "r" };
    let (mut base, mut written) = (None, None);
    match &spec.start {
        StartFrom::Snapshot(snapshot) if backed => {
            base = snapshot.root().map(|(_, root)| read(spec.dir.base(root.format)));
        }
        StartFrom::BootForSnapshot => {
            written = Some(LandlockRule { path: spec.dir.snapshot(), access: "rw" });
        }
        StartFrom::Boot | StartFrom::BootInstead(_) | StartFrom::Snapshot(_) => {}
    }
    golden.into_iter().chain(taps).map(read).chain(base).chain(written).collect()
}

/// Root disk, own disks, shared disks, seed: the order in which the guest finds them.
fn disk_configs(spec: &LaunchSpec, root: Option<&PreparedDisk>) -> Vec<DiskConfig> {
    let raw = |id: &str, path: PathBuf, readonly| DiskConfig {
        id: id.to_owned(),
        path,
        readonly,
        image_type: ImageType::Raw,
        backing_files: false,
        serial: None,
    };
    let root = root.map(|disk| DiskConfig {
        image_type: disk.format.into(),
        backing_files: disk.has_backing_file,
        ..raw(ROOT_ID, disk.path.clone(), false)
    });
    let own = spec.data_disks.iter().map(|disk| DiskConfig {
        serial: Some(disk.id.clone()),
        ..raw(&disk.id, spec.dir.data_disk(&disk.id), false)
    });
    let shared = spec
        .shared_disks
        .iter()
        .map(|disk| DiskConfig { image_type: disk.format.into(), ..raw(&disk.id, disk.path.clone(), true) });
    let seed = spec.seed.as_ref().map(|_| raw(SEED_ID, spec.dir.seed(), true));
    root.into_iter().chain(own).chain(shared).chain(seed).collect()
}

impl From<crate::image::ImageFormat> for ImageType {
    fn from(format: crate::image::ImageFormat) -> Self {
        match format {
            crate::image::ImageFormat::Raw => Self::Raw,
            crate::image::ImageFormat::Qcow2 => Self::Qcow2,
        }
    }
}

/// The paths of the fields of `sent` that `kept` (the `config` of `vm.info`) lacks or shows with another value. Defaults that were
/// added do not count. Empty when all was kept.
pub(crate) fn lost_fields(sent: &Value, kept: &Value) -> Vec<String> {
    fn walk(path: &str, sent: &Value, kept: &Value, lost: &mut Vec<String>) {
        match (sent, kept) {
            (Value::Object(sent), Value::Object(kept)) => {
                for (key, value) in sent {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, kept.get(key).unwrap_or(&Value::Null), lost);
                }
            }
            (Value::Array(sent), Value::Array(kept)) if sent.len() == kept.len() => {
                for (index, (sent, kept)) in sent.iter().zip(kept).enumerate() {
                    walk(&format!("{path}[{index}]"), sent, kept, lost);
                }
            }
            _ if sent == kept => {}
            _ => lost.push(path.to_owned()),
        }
    }
    let mut lost = Vec::new();
    walk("", sent, kept, &mut lost);
    lost
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lost_fields_names_what_is_missing_or_changed_and_ignores_additions() {
        let sent = json!({"cpus": {"boot_vcpus": 2}, "disks": [{"id": "root", "image_type": "Raw"}]});
        let kept = json!({"cpus": {"boot_vcpus": 2, "nested": true}, "disks": [{"id": "root", "image_type": "Raw", "direct": false}], "rng": {}});
        assert_eq!(lost_fields(&sent, &kept), Vec::<String>::new());
        let kept = json!({"cpus": {"boot_vcpus": 1}, "disks": [{"id": "root"}]});
        assert_eq!(lost_fields(&sent, &kept), ["cpus.boot_vcpus", "disks[0].image_type"]);
        assert_eq!(lost_fields(&sent, &json!({"cpus": {"boot_vcpus": 2}, "disks": []})), ["disks"]);
        assert_eq!(lost_fields(&sent, &Value::Null), [""]);
    }
}
