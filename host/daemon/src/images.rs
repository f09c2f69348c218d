//! From the manifest's image to files in the image store, and from those to what
//! a launch needs.

mod look;

use std::net::Ipv4Addr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use regatta_core::agent::Identity;
use regatta_core::catalogue::{NamedDisk, NamedFile, NamedImage};
use regatta_core::cloud_init::{instance_name, seed_files, smbios_serial};
use regatta_core::manifest::{
    self, FileRef, GuestAddress, Image, Network, Overlay, ScaleSet, isolated_gateway,
};
use regatta_core::state::ImageDigests;
use regatta_vmm::{
    BootSource, BridgedNetwork, DataDisk, Digest, GoldenImage, ImageError, ImageStore, InstanceDir,
    IsolatedNetwork, LaunchSpec, NetworkSpec, Outbound, OverlayKind, RootDisk, Seed, SharedDisk, Smbios,
    StartFrom, StoredFile,
};

use regatta_util::chain;

use self::look::too_small;

/// What the instances of a set start from, held as long as this lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetImages {
    disk: Option<GoldenImage>,
    kernel: Option<StoredFile>,
    initramfs: Option<StoredFile>,
    firmware: Option<StoredFile>,
    shared_disks: Vec<GoldenImage>,
    /// Command line of the named image that this is.
    cmdline: Option<String>,
    /// Why nothing can be launched.
    problem: Option<String>,
}

/// A golden disk, as the catalogue keeps it.
pub(crate) fn named_disk(disk: &GoldenImage) -> NamedDisk {
    NamedDisk {
        file: NamedFile { digest: disk.digest().to_string().into(), size_bytes: disk.size_bytes() },
        format: disk.format().name().to_owned(),
        virtual_size_bytes: disk.virtual_size_bytes(),
    }
}

/// Another file, likewise.
pub(crate) fn named_file(file: &StoredFile) -> NamedFile {
    NamedFile { digest: file.digest().to_string().into(), size_bytes: file.size_bytes() }
}

/// An image file that cannot be used: its place in the manifest, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageProblem {
    /// JSON pointer, for example `/image/kernel`.
    pub pointer: String,
    /// Why.
    pub message: String,
    /// What to do.
    pub hint: Option<String>,
}

impl SetImages {
    /// Takes the files of a manifest into the store. `named` is what the name of its
    /// image means, if it has one.
    ///
    /// # Errors
    /// Every file that is missing, broken or has another digest.
    pub(crate) async fn take(
        store: &ImageStore,
        set: &ScaleSet,
        named: Option<Result<ImageDigests, ImageProblem>>,
    ) -> Result<Self, Vec<ImageProblem>> {
        let mut problems = Vec::new();
        let mut images = match named {
            None => Self::import(store, &set.image, &mut problems).await,
            Some(Ok(digests)) => {
                note(Self::open(store, &digests).await, "/image/name", &mut problems).unwrap_or_default()
            }
            Some(Err(problem)) => {
                problems.push(problem);
                Self::default()
            }
        };
        problems.extend(images.disk.as_ref().and_then(|disk| too_small(set, disk.virtual_size_bytes())));
        for (index, disk) in set.instance.shared_disks.iter().enumerate() {
            let imported = match digest_of(&disk.file) {
                Ok(expected) => {
                    store.import(Path::new(&disk.file.path), expected).await.map_err(|error| chain(&error))
                }
                Err(why) => Err(why),
            };
            let pointer = format!("/instance/shared_disks/{index}");
            images.shared_disks.extend(note(imported, &pointer, &mut problems));
        }
        if problems.is_empty() { Ok(images) } else { Err(problems) }
    }

    async fn import(store: &ImageStore, image: &Image, problems: &mut Vec<ImageProblem>) -> Self {
        let mut images = Self::default();
        if let Some(disk) = &image.disk {
            let imported = match digest_of(&disk.file) {
                Ok(expected) => {
                    store.import(Path::new(&disk.file.path), expected).await.map_err(|error| chain(&error))
                }
                Err(why) => Err(why),
            };
            images.disk = note(imported, "/image/disk", problems);
        }
        images.kernel = import_file(store, image.kernel.as_ref(), "/image/kernel", problems).await;
        images.initramfs = import_file(store, image.initramfs.as_ref(), "/image/initramfs", problems).await;
        images.firmware = import_file(store, image.firmware.as_ref(), "/image/firmware", problems).await;
        images
    }

    /// Finds the files of a stored set again. What is missing becomes a problem
    /// of the set: its instances run on, new ones cannot be launched.
    pub(crate) async fn load(store: &ImageStore, digests: &ImageDigests) -> Self {
        Self::open(store, digests).await.unwrap_or_else(|why| Self {
            problem: Some(format!("the image cannot be used, nothing is launched: {why}")),
            ..Self::default()
        })
    }

    /// Opens files that are in the store.
    ///
    /// # Errors
    /// The first one that is missing or corrupt.
    async fn open(store: &ImageStore, digests: &ImageDigests) -> Result<Self, String> {
        let disk = async |digest: &str| {
            let digest = digest.parse().map_err(|error: regatta_vmm::DigestError| chain(&error))?;
            store.get(digest).await.map_err(|error| chain(&error))
        };
        let file = async |digest: Option<&str>| match parse(digest)? {
            Some(digest) => store.get_file(digest).await.map(Some).map_err(|error| chain(&error)),
            None => Ok::<_, String>(None),
        };
        let mut shared_disks = Vec::new();
        for digest in &digests.shared_disks {
            shared_disks.push(disk(digest).await?);
        }
        Ok(Self {
            disk: match &digests.disk {
                Some(digest) => Some(disk(digest).await?),
                None => None,
            },
            kernel: file(digests.kernel.as_deref()).await?,
            initramfs: file(digests.initramfs.as_deref()).await?,
            firmware: file(digests.firmware.as_deref()).await?,
            shared_disks,
            cmdline: digests.cmdline.clone(),
            problem: None,
        })
    }

    /// These files under a name.
    ///
    /// # Errors
    /// They are not all there.
    pub(crate) fn named(&self, name: &str, source: String, imported_ms: u64) -> Result<NamedImage, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        Ok(NamedImage {
            name: name.to_owned(),
            description: String::new(),
            source,
            imported_ms,
            disk: self.disk.as_ref().map(named_disk),
            kernel: self.kernel.as_ref().map(named_file),
            initramfs: self.initramfs.as_ref().map(named_file),
            cmdline: self.cmdline.clone().unwrap_or_default(),
            firmware: self.firmware.as_ref().map(named_file),
        })
    }

    /// The digests to store.
    #[must_use]
    pub(crate) fn digests(&self) -> ImageDigests {
        let of = |file: &Option<StoredFile>| file.as_ref().map(|file| file.digest().to_string().into());
        ImageDigests {
            disk: self.disk.as_ref().map(|disk| disk.digest().to_string().into()),
            kernel: of(&self.kernel),
            initramfs: of(&self.initramfs),
            firmware: of(&self.firmware),
            shared_disks: self.shared_disks.iter().map(|disk| disk.digest().to_string().into()).collect(),
            cmdline: self.cmdline.clone(),
        }
    }

    /// Why nothing can be launched, if so.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// Disk space that an instance takes from the start, bytes: a copy of the image takes what the image takes, an overlay next to nothing.
    #[expect(clippy::disallowed_methods, reason = "a stored image: nobody else can write there")]
    #[must_use]
    pub(crate) fn disk_demand_bytes(&self, set: &ScaleSet) -> u64 {
        const OVERLAY_BYTES: u64 = 1 << 20;
        match (&self.disk, set.image.overlay()) {
            (Some(disk), Overlay::Raw) => {
                OVERLAY_BYTES
                    + std::fs::metadata(disk.path()).map_or(0, |file| file.blocks().saturating_mul(512))
            }
            _ => OVERLAY_BYTES,
        }
    }

    fn shared_disks(&self, set: &ScaleSet) -> Vec<SharedDisk> {
        let named = set.instance.shared_disks.iter().zip(&self.shared_disks);
        named
            .map(|(disk, image)| SharedDisk {
                id: disk.name.clone(),
                path: image.path().to_owned(),
                format: image.format(),
            })
            .collect()
    }

    /// What to launch for an instance.
    ///
    /// # Errors
    /// Why nothing can be launched.
    pub(crate) fn launch_spec(
        &self,
        set: &ScaleSet,
        instance: &Identity,
        dir: InstanceDir,
    ) -> Result<LaunchSpec, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let name = instance_name(&set.name, instance.id);
        let guest = set.network.guest_address(instance.address);
        let boot = match (&self.kernel, &self.firmware) {
            (Some(kernel), _) => BootSource::Kernel {
                kernel: kernel.path().to_owned(),
                initramfs: self.initramfs.as_ref().map(|file| file.path().to_owned()),
                cmdline: kernel_cmdline(
                    self.cmdline.as_ref().unwrap_or(&set.image.cmdline),
                    &name,
                    &set.network,
                    instance,
                ),
            },
            (None, Some(firmware)) => BootSource::Firmware { firmware: firmware.path().to_owned() },
            (None, None) => return Err("the image has neither kernel nor firmware".to_owned()),
        };
        let size_bytes = set.image.disk_size_bytes();
        let overlay = match set.image.overlay() {
            Overlay::Raw => OverlayKind::Copy,
            Overlay::Qcow2 => OverlayKind::Qcow2,
        };
        Ok(LaunchSpec {
            dir,
            identity: serde_json::to_string(instance).ok(),
            start: StartFrom::Boot,
            vcpus: set.instance.vcpus,
            memory_bytes: set.instance.memory_bytes,
            boot,
            root: self.disk.clone().map(|image| RootDisk { image, overlay, size_bytes }),
            data_disks: set.instance.data_disks.iter().map(data_disk).collect(),
            shared_disks: self.shared_disks(set),
            seed: seed_files(set, instance).map(|files| Seed {
                meta_data: files.meta_data,
                user_data: files.user_data,
                network_config: files.network_config,
            }),
            smbios: smbios_serial(set, instance)
                .map(|serial| Smbios { serial, uuid: system_uuid(&name, instance.created_ms) }),
            network: network_spec(&set.network, instance, guest),
            require_isolation: set.instance.require_isolation,
            id: name,
            boot_timeout: Duration::from_millis(set.instance.boot_timeout_ms),
            keep_failed_logs: true,
        })
    }
}

/// The guest learns address, name and port from its command line, as any Linux
/// kernel does (`Documentation/admin-guide/nfs/nfsroot.rst`).
fn kernel_cmdline(base: &str, name: &str, network: &Network, instance: &Identity) -> String {
    let own = match (network.guest_address(instance.address), network.port()) {
        (Some(guest), Some(port)) => {
            let GuestAddress { address, prefix, gateway, .. } = guest;
            let gateway = gateway.map(|gateway| gateway.to_string()).unwrap_or_default();
            let mask = Ipv4Addr::from(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0));
            format!("ip={address}::{gateway}:{mask}:{name}:eth0:off regatta.port={port}")
        }
        (None, Some(port)) => {
            format!("ip={}:::255.0.0.0:{name}:eth0:off regatta.port={port}", instance.address)
        }
        (_, None) => return base.to_owned(),
    };
    if base.is_empty() { own } else { format!("{base} {own}") }
}

fn network_spec(network: &Network, instance: &Identity, guest: Option<GuestAddress>) -> NetworkSpec {
    let Some(GuestAddress { mac, gateway, .. }) = guest else {
        return if matches!(network, Network::Loopback { .. }) {
            NetworkSpec::Host
        } else {
            NetworkSpec::None
        };
    };
    match network {
        Network::Isolated { guest, guest_prefix, outbound, published, .. } => {
            NetworkSpec::Isolated(IsolatedNetwork {
                address: instance.address,
                guest: *guest,
                prefix: *guest_prefix,
                gateway: gateway.unwrap_or_else(|| isolated_gateway(*guest, *guest_prefix)),
                mac,
                outbound: self::outbound(outbound),
                published: *published,
            })
        }
        Network::Bridge { bridge, managed, subnet_prefix, peers, .. } => {
            NetworkSpec::Bridged(BridgedNetwork {
                bridge: bridge.clone(),
                managed: managed.map(|address| (address, *subnet_prefix)),
                address: instance.address,
                mac,
                peers: *peers,
            })
        }
        Network::Loopback { .. } => NetworkSpec::Host,
        Network::None => NetworkSpec::None,
    }
}

fn outbound(outbound: &manifest::Outbound) -> Option<Outbound> {
    let nets = |nets: &[manifest::Ipv4Net]| nets.iter().map(|net| (net.base, net.prefix)).collect();
    match outbound {
        manifest::Outbound::Switch(open) => open.then(Outbound::default),
        manifest::Outbound::Limited { allow, deny } => {
            Some(Outbound { allow: nets(allow), deny: nets(deny) })
        }
    }
}

fn data_disk(disk: &regatta_core::manifest::DataDisk) -> DataDisk {
    DataDisk { id: disk.name.clone(), size_bytes: disk.size_bytes }
}

/// A UUID (version 8, RFC 9562) that is the same whenever it is asked for, and of no other instance.
fn system_uuid(name: &str, created_ms: u64) -> String {
    // FNV-1a: no secret, only few collisions.
    let hash = |seed: u64| {
        name.bytes()
            .chain(created_ms.to_le_bytes())
            .fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
    };
    let bits = u128::from(hash(0xcbf2_9ce4_8422_2325)) << 64 | u128::from(hash(0x9e37_79b9_7f4a_7c15));
    let bits = bits & !(0xf << 76 | 0x3 << 62) | 0x8 << 76 | 0x2 << 62;
    let hex = format!("{bits:032x}");
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

async fn import_file(
    store: &ImageStore,
    file: Option<&FileRef>,
    pointer: &str,
    problems: &mut Vec<ImageProblem>,
) -> Option<StoredFile> {
    let file = file?;
    let imported = match digest_of(file) {
        Ok(expected) => store
            .import_file(Path::new(&file.path), expected)
            .await
            .map_err(|error: ImageError| chain(&error)),
        Err(why) => Err(why),
    };
    note(imported, pointer, problems)
}

fn note<T>(result: Result<T, String>, pointer: &str, problems: &mut Vec<ImageProblem>) -> Option<T> {
    let problem = |message| ImageProblem { pointer: pointer.to_owned(), message, hint: None };
    result.map_err(|message| problems.push(problem(message))).ok()
}

fn digest_of(file: &FileRef) -> Result<Option<Digest>, String> {
    parse(file.sha256.as_deref())
}

fn parse(digest: Option<&str>) -> Result<Option<Digest>, String> {
    digest.map(|digest| digest.parse().map_err(|error: regatta_vmm::DigestError| chain(&error))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_carries_address_name_and_port() {
        let instance = Identity {
            set: "web".into(),
            id: 7,
            uid: "1-7".into(),
            epoch: 1,
            generation: 1,
            created_ms: 0,
            address: Ipv4Addr::new(127, 40, 0, 7),
        };
        let loopback = Network::Loopback { base: Ipv4Addr::new(127, 40, 0, 0), prefix: 24, port: 8080 };
        assert_eq!(
            kernel_cmdline("console=ttyS0", "web-7", &loopback, &instance),
            "console=ttyS0 ip=127.40.0.7:::255.0.0.0:web-7:eth0:off regatta.port=8080"
        );
        assert!(kernel_cmdline("", "web-7", &loopback, &instance).starts_with("ip="));
        assert_eq!(kernel_cmdline("a", "web-7", &Network::None, &instance), "a");
        let isolated = Network::Isolated {
            base: Ipv4Addr::new(10, 213, 0, 0),
            prefix: 16,
            guest: Ipv4Addr::new(10, 88, 0, 2),
            guest_prefix: 24,
            outbound: manifest::Outbound::Switch(false),
            published: false,
            dns: Vec::new(),
            port: 80,
        };
        assert_eq!(
            kernel_cmdline("", "web-7", &isolated, &instance),
            "ip=10.88.0.2::10.88.0.1:255.255.255.0:web-7:eth0:off regatta.port=80"
        );
    }

    #[test]
    fn uuids_are_well_formed_and_differ() {
        let one = system_uuid("web-1", 5);
        assert_eq!(one, system_uuid("web-1", 5));
        assert_ne!(one, system_uuid("web-1", 6));
        assert_ne!(one, system_uuid("web-2", 5));
        let marks: Vec<_> = one.char_indices().filter(|(_, c)| *c == '-').map(|(at, _)| at).collect();
        assert_eq!((one.len(), marks), (36, vec![8, 13, 18, 23]));
        assert_eq!((&one[14..15], "89ab".contains(&one[19..20])), ("8", true));
    }
}
