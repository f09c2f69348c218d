//! Which file of a directory is what. Pure: decides on names.

use std::path::{Component, Path, PathBuf};

use serde::Deserialize;

/// The file that says what a directory holds.
pub(super) const MANIFEST: &str = "image.yaml";
/// The file that holds the kernel's command line.
const CMDLINE: &str = "cmdline";

/// What an operator, or the `image.yaml` of a directory, says that an image is made
/// of. Paths in an `image.yaml` count from its directory and stay inside.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Said {
    pub(super) disk: Option<PathBuf>,
    pub(super) kernel: Option<PathBuf>,
    pub(super) initramfs: Option<PathBuf>,
    pub(super) firmware: Option<PathBuf>,
    pub(super) cmdline: Option<String>,
    pub(super) description: Option<String>,
}

/// What an image is made of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) disk: Option<PathBuf>,
    pub(super) kernel: Option<PathBuf>,
    pub(super) initramfs: Option<PathBuf>,
    pub(super) firmware: Option<PathBuf>,
    pub(super) cmdline: Option<Cmdline>,
    pub(super) description: String,
}

/// Where a command line comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cmdline {
    Text(String),
    File(PathBuf),
}

impl Said {
    /// The paths of an `image.yaml` in `dir`, made absolute.
    ///
    /// # Errors
    /// Each path that leads out of the directory.
    pub(super) fn within(self, dir: &Path) -> Result<Self, Vec<String>> {
        let mut problems = Vec::new();
        let mut inside = |what: &str, path: Option<PathBuf>| {
            let path = path?;
            let plain =
                path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            if !plain || path.as_os_str().is_empty() {
                problems.push(format!(
                    "{MANIFEST}: {what} must be the path of a file within the directory, is {path:?}"
                ));
            }
            Some(dir.join(path))
        };
        let said = Self {
            disk: inside("disk", self.disk),
            kernel: inside("kernel", self.kernel),
            initramfs: inside("initramfs", self.initramfs),
            firmware: inside("firmware", self.firmware),
            ..self
        };
        if problems.is_empty() { Ok(said) } else { Err(problems) }
    }

    /// This, and what the other says where this says nothing. Kernel and firmware
    /// are one question: who answers it with one rules out the other's other.
    pub(super) fn or(self, other: Self) -> Self {
        let (kernel, firmware) = if self.kernel.is_some() || self.firmware.is_some() {
            (self.kernel, self.firmware)
        } else {
            (other.kernel, other.firmware)
        };
        let by_firmware = firmware.is_some() && kernel.is_none();
        Self {
            disk: self.disk.or(other.disk),
            initramfs: self.initramfs.or(other.initramfs.filter(|_| !by_firmware)),
            cmdline: self.cmdline.or(other.cmdline.filter(|_| !by_firmware)),
            description: self.description.or(other.description),
            kernel,
            firmware,
        }
    }
}

/// What the image in `dir` is made of: what was said, and for the rest the files
/// with well-known names among `names`.
///
/// # Errors
/// Everything that is ambiguous, with all candidates, or missing.
pub(super) fn of_directory(dir: &Path, names: &[String], said: Said) -> Result<Layout, Vec<String>> {
    let mut problems = Vec::new();
    let mut find = |what: &str, known: &[fn(&str) -> bool]| {
        // The plainest names win; only among equals is there a question.
        let candidates = known.iter().map(|fits| matching(names, *fits)).find(|found| !found.is_empty())?;
        match &candidates[..] {
            [one] => Some(dir.join(one)),
            several => {
                problems.push(format!(
                    "several files could be the {what}: {}; say which in {MANIFEST} (`{what}: {}`)",
                    listed(several),
                    listed(&several[..1])
                ));
                None
            }
        }
    };
    let disk = said.disk.clone().or_else(|| find("disk", &[is_plain_disk, is_disk]));
    let (kernel, firmware) = match (&said.kernel, &said.firmware) {
        (None, None) => (find("kernel", &[is_plain_kernel, is_kernel]), find("firmware", &[is_firmware])),
        (kernel, firmware) => (kernel.clone(), firmware.clone()),
    };
    let said_which = said.kernel.is_some() || said.firmware.is_some();
    if let (Some(kernel), Some(firmware), false) = (&kernel, &firmware, said_which) {
        let (kernel, firmware) = (file_name(kernel), file_name(firmware));
        problems.push(format!(
            "it could start from the kernel {kernel} or the firmware {firmware}; say which in {MANIFEST} \
             (`kernel: {kernel}` or `firmware: {firmware}`)"
        ));
        return Err(problems);
    }
    let with_kernel = firmware.is_none();
    let initramfs = said
        .initramfs
        .clone()
        .or_else(|| if with_kernel { find("initramfs", &[is_initramfs]) } else { None });
    let cmdline = match said.cmdline {
        Some(text) => Some(Cmdline::Text(text)),
        None if with_kernel && names.iter().any(|name| name == CMDLINE) => {
            Some(Cmdline::File(dir.join(CMDLINE)))
        }
        None => None,
    };
    if !problems.is_empty() {
        return Err(problems);
    }
    let description = said.description.unwrap_or_default();
    let layout = Layout { disk, kernel, initramfs, firmware, cmdline, description };
    if layout.disk.is_none() && layout.kernel.is_none() && layout.firmware.is_none() {
        let found =
            if names.is_empty() { "it is empty".to_owned() } else { format!("it has {}", listed(names)) };
        return Err(vec![format!(
            "the directory holds no image: {found}; known are disk.qcow2, disk.raw, disk.img, vmlinux, vmlinuz, \
             bzImage, initramfs*, initrd*, cmdline and *.fd, others are named in {MANIFEST}"
        )]);
    }
    complete(&layout).map(|()| layout)
}

/// Whether instances can start from it.
///
/// # Errors
/// What is missing, or too much.
pub(super) fn complete(layout: &Layout) -> Result<(), Vec<String>> {
    let mut problems = Vec::new();
    match (&layout.kernel, &layout.firmware) {
        (Some(_), Some(_)) => problems.push("it has a kernel and a firmware; it can start from one only".to_owned()),
        (None, None) => problems.push(
            "there is nothing to start: it needs a kernel (--kernel, with --initramfs and --cmdline) or a firmware \
             (--firmware)"
                .to_owned(),
        ),
        (None, Some(_)) => {
            if layout.disk.is_none() {
                problems.push("a firmware needs a disk to start from".to_owned());
            }
            if layout.initramfs.is_some() {
                problems.push("an initramfs needs a kernel".to_owned());
            }
            if layout.cmdline.is_some() {
                problems.push("a command line needs a kernel; with a firmware the disk's boot loader decides".to_owned());
            }
        }
        (Some(_), None) => {}
    }
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn matching(names: &[String], fits: fn(&str) -> bool) -> Vec<&String> {
    let mut found: Vec<_> = names.iter().filter(|name| fits(name)).collect();
    found.sort();
    found
}

fn is_plain_disk(name: &str) -> bool {
    matches!(name, "disk.qcow2" | "disk.raw" | "disk.img")
}

fn is_disk(name: &str) -> bool {
    let ending = name.rsplit_once('.').map(|(_, ending)| ending);
    matches!(ending, Some("qcow2" | "raw" | "img")) && !is_initramfs(name)
}

fn is_plain_kernel(name: &str) -> bool {
    matches!(name, "vmlinux" | "vmlinuz" | "bzImage")
}

fn is_kernel(name: &str) -> bool {
    ["vmlinux-", "vmlinuz-", "bzImage-"].iter().any(|start| name.starts_with(start))
}

fn is_initramfs(name: &str) -> bool {
    name.starts_with("initramfs") || name.starts_with("initrd")
}

fn is_firmware(name: &str) -> bool {
    name.ends_with(".fd")
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| regatta_vmm::one_line(Path::new(name))).unwrap_or_default()
}

/// Names in one line, at most 20 of them; control characters are spelled out.
fn listed<T: AsRef<str>>(names: &[T]) -> String {
    const SHOWN: usize = 20;
    let mut text: Vec<String> =
        names.iter().take(SHOWN).map(|name| regatta_vmm::one_line(Path::new(name.as_ref()))).collect();
    if names.len() > SHOWN {
        text.push(format!("{} more", names.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(names: &[&str], said: Said) -> Result<Layout, Vec<String>> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        of_directory(Path::new("/d"), &names, said)
    }

    fn at(name: &str) -> Option<PathBuf> {
        Some(Path::new("/d").join(name))
    }

    #[test]
    fn well_known_names_are_found() {
        let found = layout(
            &["README", "disk.qcow2", "vmlinuz", "initrd.img-6.12", "cmdline", "other.raw", "config-6.12"],
            Said::default(),
        );
        let expected = Layout {
            disk: at("disk.qcow2"),
            kernel: at("vmlinuz"),
            initramfs: at("initrd.img-6.12"),
            cmdline: at("cmdline").map(Cmdline::File),
            ..Layout::default()
        };
        assert_eq!(found, Ok(expected));
        let by_firmware = layout(&["CLOUDHV.fd", "debian-13.img"], Said::default()).expect("a layout");
        assert_eq!((by_firmware.firmware, by_firmware.disk), (at("CLOUDHV.fd"), at("debian-13.img")));
        let versions = layout(&["vmlinuz-6.12.0", "initramfs.cpio.gz"], Said::default()).expect("a layout");
        assert_eq!((versions.kernel, versions.disk), (at("vmlinuz-6.12.0"), None));
    }

    #[test]
    fn what_is_ambiguous_names_all_candidates_at_once() {
        let problems = layout(
            &["disk.raw", "disk.img", "vmlinux", "bzImage", "initrd", "initramfs.img"],
            Said::default(),
        )
        .expect_err("ambiguous");
        assert_eq!(
            problems,
            [
                "several files could be the disk: disk.img, disk.raw; say which in image.yaml (`disk: disk.img`)",
                "several files could be the kernel: bzImage, vmlinux; say which in image.yaml (`kernel: bzImage`)",
                "several files could be the initramfs: initramfs.img, initrd; say which in image.yaml \
                 (`initramfs: initramfs.img`)",
            ]
        );
        let both = layout(&["disk.raw", "vmlinux", "a.fd"], Said::default()).expect_err("ambiguous");
        assert!(both[0].contains("the kernel vmlinux or the firmware a.fd"), "{both:?}");
        let odd = layout(&["a\nb.raw", "c.raw", "vmlinux"], Said::default()).expect_err("ambiguous");
        assert!(odd[0].contains(r"a\nb.raw, c.raw") && !odd[0].contains('\n'), "{odd:?}");
    }

    #[test]
    fn what_was_said_settles_it() {
        let names = ["disk.raw", "disk.img", "vmlinux", "a.fd", "initrd", "cmdline"];
        let said = Said { disk: at("disk.img"), firmware: at("a.fd"), ..Said::default() };
        let expected = Layout { disk: at("disk.img"), firmware: at("a.fd"), ..Layout::default() };
        assert_eq!(layout(&names, said), Ok(expected), "no initramfs and no command line beside a firmware");
        let said = Said {
            disk: at("disk.img"),
            kernel: Some("/elsewhere/k".into()),
            cmdline: Some("quiet".into()),
            ..Said::default()
        };
        let found = layout(&names, said).expect("a layout");
        assert_eq!(found.kernel, Some("/elsewhere/k".into()));
        assert_eq!(found.cmdline, Some(Cmdline::Text("quiet".into())));
        assert_eq!((found.firmware, found.initramfs), (None, at("initrd")));
    }

    #[test]
    fn an_option_outranks_the_file() {
        let file = Said {
            kernel: at("vmlinux"),
            initramfs: at("initrd"),
            cmdline: Some("quiet".into()),
            description: Some("from the file".into()),
            ..Said::default()
        };
        let option = Said { firmware: Some("/f.fd".into()), ..Said::default() };
        let both = option.or(file.clone());
        assert_eq!((both.kernel, both.firmware, both.initramfs), (None, Some("/f.fd".into()), None));
        assert_eq!((both.cmdline, both.description.as_deref()), (None, Some("from the file")));
        let option = Said { cmdline: Some("debug".into()), ..Said::default() };
        let both = option.or(file);
        assert_eq!((both.kernel, both.cmdline.as_deref()), (at("vmlinux"), Some("debug")));
    }

    #[test]
    fn what_is_missing_or_too_much_is_told() {
        let refused = |names: &[&str]| layout(names, Said::default()).expect_err("refused").join("; ");
        assert!(refused(&[]).contains("it is empty"));
        assert!(refused(&["README", "notes.txt"]).contains("it has README, notes.txt; known are disk.qcow2"));
        assert!(refused(&["disk.raw"]).contains("needs a kernel"));
        assert!(refused(&["CLOUDHV.fd"]).contains("needs a disk"));
        let said = Said { kernel: at("k"), firmware: at("f"), ..Said::default() };
        assert!(layout(&["disk.raw"], said).expect_err("both")[0].contains("one only"));
    }

    #[test]
    fn an_image_yaml_stays_in_its_directory() {
        let outside = Said {
            disk: Some("../disk.raw".into()),
            kernel: Some("/boot/vmlinuz".into()),
            initramfs: Some("".into()),
            firmware: Some("sub/./a.fd".into()),
            ..Said::default()
        };
        let problems = outside.within(Path::new("/d")).expect_err("outside");
        assert_eq!(problems.len(), 3, "{problems:?}");
        let inside = Said { disk: Some("sub/disk.raw".into()), ..Said::default() };
        assert_eq!(inside.within(Path::new("/d")).expect("inside").disk, at("sub/disk.raw"));
    }
}
