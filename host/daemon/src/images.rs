//! From the manifest's image to files in the image store, and from those to what
//! a launch needs.

use std::path::Path;
use std::time::Duration;

use regatta_core::manifest::{FileRef, Image, Overlay, ScaleSet};
use regatta_core::state::{ImageDigests, InstanceRecord};
use regatta_vmm::{
    BootSource, Digest, GoldenImage, ImageError, ImageStore, InstanceDir, LaunchSpec, NetworkSpec,
    OverlayKind, RootDisk, StoredFile,
};

use crate::chain::chain;

/// What the instances of a set start from, held as long as this lives.
#[derive(Debug, Clone, Default)]
pub(crate) struct SetImages {
    disk: Option<GoldenImage>,
    kernel: Option<StoredFile>,
    initramfs: Option<StoredFile>,
    firmware: Option<StoredFile>,
    /// Why nothing can be launched.
    problem: Option<String>,
}

/// An image file that cannot be used: its place in the manifest, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImageProblem {
    /// JSON pointer, for example `/image/kernel`.
    pub pointer: &'static str,
    /// Why.
    pub message: String,
}

impl SetImages {
    /// Takes the files of a manifest into the store.
    ///
    /// # Errors
    /// Every file that is missing, broken or has another digest.
    pub(crate) async fn import(store: &ImageStore, image: &Image) -> Result<Self, Vec<ImageProblem>> {
        let mut problems = Vec::new();
        let mut images = Self::default();
        if let Some(disk) = &image.disk {
            let imported = match digest_of(&disk.file) {
                Ok(expected) => {
                    store.import(Path::new(&disk.file.path), expected).await.map_err(|error| chain(&error))
                }
                Err(why) => Err(why),
            };
            images.disk = note(imported, "/image/disk", &mut problems);
        }
        images.kernel = import_file(store, image.kernel.as_ref(), "/image/kernel", &mut problems).await;
        images.initramfs =
            import_file(store, image.initramfs.as_ref(), "/image/initramfs", &mut problems).await;
        images.firmware = import_file(store, image.firmware.as_ref(), "/image/firmware", &mut problems).await;
        if problems.is_empty() { Ok(images) } else { Err(problems) }
    }

    /// Finds the files of a stored set again. What is missing becomes a problem
    /// of the set: its instances run on, new ones cannot be launched.
    pub(crate) async fn load(store: &ImageStore, digests: &ImageDigests) -> Self {
        let mut images = Self::default();
        let loaded = async {
            if let Some(digest) = parse(digests.disk.as_ref())? {
                images.disk = Some(store.get(digest).await.map_err(|error| chain(&error))?);
            }
            for (digest, slot) in [
                (&digests.kernel, &mut images.kernel),
                (&digests.initramfs, &mut images.initramfs),
                (&digests.firmware, &mut images.firmware),
            ] {
                if let Some(digest) = parse(digest.as_ref())? {
                    *slot = Some(store.get_file(digest).await.map_err(|error| chain(&error))?);
                }
            }
            Ok::<(), String>(())
        };
        let problem = loaded.await.err();
        images.problem = problem.map(|why| format!("the image cannot be used, nothing is launched: {why}"));
        images
    }

    /// The digests to store.
    #[must_use]
    pub(crate) fn digests(&self) -> ImageDigests {
        let of = |file: &Option<StoredFile>| file.as_ref().map(|file| file.digest().to_string());
        ImageDigests {
            disk: self.disk.as_ref().map(|disk| disk.digest().to_string()),
            kernel: of(&self.kernel),
            initramfs: of(&self.initramfs),
            firmware: of(&self.firmware),
        }
    }

    /// Why nothing can be launched, if so.
    #[must_use]
    pub(crate) fn problem(&self) -> Option<&str> {
        self.problem.as_deref()
    }

    /// What to launch for an instance.
    ///
    /// # Errors
    /// Why nothing can be launched.
    pub(crate) fn launch_spec(
        &self,
        set: &ScaleSet,
        instance: &InstanceRecord,
        dir: InstanceDir,
    ) -> Result<LaunchSpec, String> {
        if let Some(problem) = &self.problem {
            return Err(problem.clone());
        }
        let name = format!("{}-{}", set.name, instance.id);
        let boot = match (&self.kernel, &self.firmware) {
            (Some(kernel), _) => BootSource::Kernel {
                kernel: kernel.path().to_owned(),
                initramfs: self.initramfs.as_ref().map(|file| file.path().to_owned()),
                cmdline: kernel_cmdline(&set.image.cmdline, &name, instance, set.network.port()),
            },
            (None, Some(firmware)) => BootSource::Firmware { firmware: firmware.path().to_owned() },
            (None, None) => return Err("the image has neither kernel nor firmware".to_owned()),
        };
        let overlay = match set.image.disk.as_ref().map(|disk| disk.overlay) {
            Some(Overlay::Raw) => OverlayKind::Copy,
            Some(Overlay::Qcow2) | None => OverlayKind::Qcow2,
        };
        Ok(LaunchSpec {
            id: name,
            dir,
            vcpus: set.instance.vcpus,
            memory_bytes: set.instance.memory_bytes,
            boot,
            root: self.disk.clone().map(|image| RootDisk { image, overlay, size_bytes: None }),
            data_disks: Vec::new(),
            shared_disks: Vec::new(),
            seed: None,
            smbios: None,
            network: NetworkSpec::None,
            require_isolation: false,
            boot_timeout: Duration::from_millis(set.instance.boot_timeout_ms),
            keep_failed_logs: true,
        })
    }
}

/// The guest learns address, name and port from its command line, as any Linux
/// kernel does (`Documentation/admin-guide/nfs/nfsroot.rst`).
fn kernel_cmdline(base: &str, name: &str, instance: &InstanceRecord, port: u16) -> String {
    let own = format!("ip={}:::255.0.0.0:{name}:eth0:off regatta.port={port}", instance.address);
    if base.is_empty() { own } else { format!("{base} {own}") }
}

async fn import_file(
    store: &ImageStore,
    file: Option<&FileRef>,
    pointer: &'static str,
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

fn note<T>(result: Result<T, String>, pointer: &'static str, problems: &mut Vec<ImageProblem>) -> Option<T> {
    result.map_err(|message| problems.push(ImageProblem { pointer, message })).ok()
}

fn digest_of(file: &FileRef) -> Result<Option<Digest>, String> {
    parse(file.sha256.as_ref())
}

fn parse(digest: Option<&String>) -> Result<Option<Digest>, String> {
    digest.map(|digest| digest.parse().map_err(|error: regatta_vmm::DigestError| chain(&error))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_carries_address_name_and_port() {
        let instance = InstanceRecord::pending(7, 0, 1, std::net::Ipv4Addr::new(127, 40, 0, 7));
        assert_eq!(
            kernel_cmdline("console=ttyS0", "web-7", &instance, 8080),
            "console=ttyS0 ip=127.40.0.7:::255.0.0.0:web-7:eth0:off regatta.port=8080"
        );
        assert!(kernel_cmdline("", "web-7", &instance, 1).starts_with("ip="));
    }
}
