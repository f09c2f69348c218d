//! The catalogue of golden images: what stands behind a name.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::state::ImageDigests;

/// Longest name, in bytes.
const NAME_BYTES_MAX: usize = 32;

/// A named golden image, as it is stored: everything that an instance starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedImage {
    /// Its name; the rules are those of sets.
    pub name: String,
    /// One line for people; may be empty.
    pub description: String,
    /// The file or directory that it was imported from, absolute.
    pub source: String,
    /// When it was imported, Unix milliseconds.
    pub imported_ms: u64,
    /// The golden disk; none for a kernel with everything inside.
    pub disk: Option<NamedDisk>,
    /// Kernel; exactly one of kernel and firmware.
    pub kernel: Option<NamedFile>,
    /// Initial RAM disk.
    pub initramfs: Option<NamedFile>,
    /// Kernel command line; may be empty.
    pub cmdline: String,
    /// Firmware.
    pub firmware: Option<NamedFile>,
}

/// A file of a named image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedFile {
    /// `sha256:` and 64 hex digits; its name in the image store.
    pub digest: Digest,
    /// Its length.
    pub size_bytes: u64,
}

/// The disk of a named image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDisk {
    /// The file.
    pub file: NamedFile,
    /// `raw` or `qcow2`.
    pub format: String,
    /// Size of the disk that a guest sees.
    pub virtual_size_bytes: u64,
}

impl NamedImage {
    /// What a set that names this image starts from; shared disks are the set's own affair.
    #[must_use]
    pub fn digests(&self) -> ImageDigests {
        let of = |file: &Option<NamedFile>| file.as_ref().map(|file| file.digest.clone());
        ImageDigests {
            disk: self.disk.as_ref().map(|disk| disk.file.digest.clone()),
            kernel: of(&self.kernel),
            initramfs: of(&self.initramfs),
            firmware: of(&self.firmware),
            shared_disks: Vec::new(),
            cmdline: Some(self.cmdline.clone()),
        }
    }

    /// Its files with what each is: `disk`, `kernel`, `initramfs` or `firmware`.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &NamedFile)> {
        let disk = self.disk.as_ref().map(|disk| ("disk", &disk.file));
        let others = [("kernel", &self.kernel), ("initramfs", &self.initramfs), ("firmware", &self.firmware)];
        disk.into_iter().chain(others.into_iter().filter_map(|(what, file)| Some((what, file.as_ref()?))))
    }
}

/// A name made from that of a file or directory: `Ubuntu_24.04-server.qcow2` gives
/// `ubuntu-24-04-server`. None when too little is left for a name.
#[must_use]
pub fn name_from(file_name: &str) -> Option<String> {
    const ENDINGS: [&str; 8] = ["qcow2", "raw", "img", "vmlinux", "vmlinuz", "bzimage", "elf", "fd"];
    let lower = file_name.to_lowercase();
    let stem = match lower.rsplit_once('.') {
        Some((stem, ending)) if ENDINGS.contains(&ending) => stem,
        _ => &lower,
    };
    let mut name = String::new();
    for c in stem.chars() {
        match c {
            'a'..='z' => name.push(c),
            '0'..='9' if !name.is_empty() => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(NAME_BYTES_MAX);
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::manifest::name_problem;

    #[test]
    fn names_are_what_is_left_of_file_names() {
        for (file, name) in [
            ("Ubuntu_24.04-server.qcow2", Some("ubuntu-24-04-server")),
            ("disk.raw", Some("disk")),
            ("vmlinuz", Some("vmlinuz")),
            ("vmlinuz-6.12.0-amd64", Some("vmlinuz-6-12-0-amd64")),
            ("web", Some("web")),
            ("v1.2", Some("v1-2")),
            ("2024-web (1)!.img", Some("web-1")),
            ("größe.raw", Some("gr-e")),
            ("a-very-long-name-that-goes-on-and-on.raw", Some("a-very-long-name-that-goes-on-an")),
            ("123.raw", None),
            ("...", None),
            ("", None),
        ] {
            assert_eq!(name_from(file).as_deref(), name, "{file}");
        }
    }

    proptest! {
        #[test]
        fn whatever_a_file_is_called_its_name_keeps_the_rules(file in any::<String>()) {
            if let Some(name) = name_from(&file) {
                prop_assert_eq!(name_problem(&name), None, "{}", name);
            }
        }
    }
}
