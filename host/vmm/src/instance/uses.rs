//! Which files of the image store an instance stands on, noted in its directory: they must stay as long as the instance does, also when
//! its set has long had other images and the daemon was started anew.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::dir::{DirError, InstanceDir};
use super::notes::IMAGES;
use super::spec::{BootSource, LaunchSpec};
use crate::guarded::{Access, GuardedDir};
use crate::image::{Digest, PROBE_BYTES, QCOW2_MAGIC, backing_name};

/// An instance's own overlay, and that of the snapshot that it was restored from.
const OVERLAYS_MAX: usize = 2;

/// What an instance stands on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ImagesInUse {
    /// The golden disk under its overlay.
    pub disk: Option<Digest>,
    /// What it boots, and disks that it shares.
    pub others: Vec<Digest>,
}

impl ImagesInUse {
    /// All of it.
    pub fn all(&self) -> impl Iterator<Item = Digest> + '_ {
        self.disk.into_iter().chain(self.others.iter().copied())
    }
}

/// Writes down what a launch is about to use. Before anything uses it.
pub(super) fn note(dir: &InstanceDir, files: &[PathBuf]) -> Result<(), DirError> {
    let names = files.iter().filter_map(|file| digest_of(file)).map(|digest| format!("{digest}\n"));
    dir.write_note(IMAGES, names.collect::<String>().as_bytes())
}

/// The files that a launch uses.
pub(super) fn files_of(spec: &LaunchSpec) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = match &spec.boot {
        BootSource::Kernel { kernel, initramfs, .. } => {
            [Some(kernel), initramfs.as_ref()].into_iter().flatten().cloned().collect()
        }
        BootSource::Firmware { firmware } => vec![firmware.clone()],
    };
    files.extend(spec.root.as_ref().map(|root| root.image.path().to_path_buf()));
    files.extend(spec.shared_disks.iter().map(|disk| disk.path.clone()));
    files
}

/// The digest in the name of a file of the store; none for files of other places.
fn digest_of(file: &Path) -> Option<Digest> {
    file.file_name()?.to_str()?.strip_prefix("sha256-")?.parse().ok()
}

impl InstanceDir {
    /// What the instance stands on; nothing when nothing is left of it. Blocking.
    ///
    /// # Errors
    /// It cannot be read: then nothing may be taken for unused.
    pub fn images_in_use(&self) -> Result<ImagesInUse, DirError> {
        let noted = self.note(IMAGES)?.unwrap_or_default();
        let mut others: Vec<Digest> =
            String::from_utf8_lossy(&noted).lines().filter_map(|line| line.parse().ok()).collect();
        // The overlay itself knows best what lies under it; but its VMM may have written anything there.
        let mut disk = None;
        let mut overlay = "root.qcow2".to_owned();
        for _ in 0..OVERLAYS_MAX {
            let head = self.read_start(&overlay, PROBE_BYTES as u64)?;
            let backing = head.starts_with(&QCOW2_MAGIC).then(|| backing_name(&head)).flatten();
            let Some(backing) = backing.map(PathBuf::from) else { break };
            disk = digest_of(&backing);
            // Below that of a restored instance lies that of the snapshot's guest.
            match backing.strip_prefix(self.path()).ok().and_then(Path::to_str) {
                Some(below) if disk.is_none() => below.clone_into(&mut overlay),
                _ => break,
            }
        }
        others.retain(|digest| Some(*digest) != disk);
        Ok(ImagesInUse { disk, others })
    }

    /// The first bytes of a disk of ours in the directory; none when there is no such file.
    fn read_start(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, DirError> {
        let read = || -> io::Result<Vec<u8>> {
            let mut bytes = Vec::new();
            let file = GuardedDir::open(self.path())?.file(name, Access::Read)?;
            file.take(limit_bytes).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        match read() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => {
                other.map_err(|source| DirError::Io { what: "read", path: self.path().join(name), source })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_was_noted_and_what_lies_under_the_overlay_is_in_use() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        assert_eq!(dir.images_in_use().expect("nothing there"), ImagesInUse::default());
        dir.prepare().expect("made");
        let (base, kernel) = (Digest::of(b"base"), Digest::of(b"kernel"));
        let stored = |digest: Digest| PathBuf::from(format!("/store/sha256-{}", digest.hex()));
        note(&dir, &[stored(kernel), "/elsewhere/firmware".into(), stored(base)]).expect("noted");
        let used = dir.images_in_use().expect("read");
        assert_eq!(used, ImagesInUse { disk: None, others: vec![kernel, base] });
        let plan = crate::overlay::qcow2::plan(&stored(base), crate::image::ImageFormat::Raw, 1 << 20);
        crate::overlay::qcow2::write(&dir.path().join("root.qcow2"), &plan.expect("plan")).expect("written");
        let used = dir.images_in_use().expect("read");
        assert_eq!(used, ImagesInUse { disk: Some(base), others: vec![kernel] });
        let (root, below) = (dir.path().join("root.qcow2"), dir.base(crate::image::ImageFormat::Qcow2));
        fs::rename(&root, &below).expect("moved");
        let plan = crate::overlay::qcow2::plan(&below, crate::image::ImageFormat::Qcow2, 1 << 20);
        crate::overlay::qcow2::write(&root, &plan.expect("plan")).expect("written");
        let used = dir.images_in_use().expect("read");
        assert_eq!(
            used,
            ImagesInUse { disk: Some(base), others: vec![kernel] },
            "also of one that was restored"
        );
        let note = dir.note_path(IMAGES);
        fs::remove_file(&note).expect("removed");
        assert_eq!(dir.images_in_use().expect("read").all().collect::<Vec<_>>(), [base]);
        fs::create_dir(&note).expect("made");
        assert!(dir.images_in_use().is_err(), "what cannot be read is not taken for unused");
    }

    #[test]
    fn what_a_vmm_puts_under_its_overlay_is_neither_waited_for_nor_followed() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("made");
        let root = dir.path().join("root.qcow2");
        let on = |below: &Path| {
            let plan = crate::overlay::qcow2::plan(below, crate::image::ImageFormat::Qcow2, 1 << 20);
            let _ = fs::remove_file(&root);
            crate::overlay::qcow2::write(&root, &plan.expect("plan")).expect("written");
        };
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("pipe");
        on(&pipe);
        dir.images_in_use().expect_err("a pipe is no disk, and nobody waits for its writer");
        fs::remove_file(&pipe).expect("removed");
        std::os::unix::fs::symlink("/dev/zero", &pipe).expect("link");
        dir.images_in_use().expect_err("a link");
        on(&dir.path().join("../../escape"));
        fs::write(data.path().join("escape"), "secret").expect("written");
        dir.images_in_use().expect_err("it leads out of the directory");
    }
}
