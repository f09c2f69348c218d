//! Debian's cloud kernel: downloaded once, with the modules that a guest needs in the order in which they load.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::apt::{self, Apt};

/// The release whose kernel the guest is tested with: its modules are not compressed.
const SUITE: &str = "bookworm";
/// Depends on the newest kernel of the release.
const META_PACKAGE: &str = "linux-image-cloud-amd64";
/// Where the unpacked package is kept, below the output directory.
const DIRECTORY: &str = "kernel";
const VERSION: &str = "version";

/// What the guest needs; what these need comes along.
const WANTED: [&str; 13] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_net",
    "virtio_balloon",
    "virtio_rng",
    "virtio_console",
    // The file system of seed and root disk, and the character sets it asks for by default.
    "vfat",
    "nls_cp437",
    "nls_ascii",
    "nls_utf8",
    // The power button, and reading it.
    "button",
    "evdev",
    "pvpanic_pci",
];

/// An unpacked kernel package.
pub(super) struct Kernel {
    /// The package as `name=version`.
    pub(super) version: String,
    root: PathBuf,
}

/// A module's file.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

impl Kernel {
    /// The one that an earlier run unpacked.
    pub(super) fn there(out: &Path) -> Option<Self> {
        let root = out.join(DIRECTORY);
        let version = fs::read_to_string(root.join(VERSION)).ok()?;
        Some(Self { version: version.trim().to_owned(), root })
    }

    /// Downloads and unpacks the newest.
    pub(super) fn fetch(out: &Path) -> Result<Self> {
        let scratch = out.join(format!(".scratch.{}", std::process::id()));
        let fetched = Self::fetch_into(out, &scratch);
        // Whether it is gone is of no matter to what was fetched.
        let _ = fs::remove_dir_all(&scratch);
        fetched.context("Debian's cloud kernel cannot be had")
    }

    fn fetch_into(out: &Path, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let apt = Apt::create(scratch)?;
        let package = apt
            .search(&[SUITE], || Ok(image_package(&apt.dependencies(META_PACKAGE)?)))
            .with_context(|| format!("no mirror of the apt configuration has {SUITE} with {META_PACKAGE}"))?;
        println!("      downloading {package} (27 MB)");
        let file = apt.download(&package)?;
        let version = version(&file).unwrap_or(package);
        let unpacked = scratch.join("unpacked");
        apt::extract(&file, &unpacked, &["./boot/vmlinuz-*", "./lib/modules/*"])?;
        fs::write(unpacked.join(VERSION), format!("{version}\n"))?;
        let root = out.join(DIRECTORY);
        if root.exists() {
            fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
        }
        fs::rename(&unpacked, &root).with_context(|| format!("cannot write {}", root.display()))?;
        Ok(Self { version, root })
    }

    /// The kernel itself.
    pub(super) fn image(&self) -> Result<Vec<u8>> {
        let path = apt::only_entry(&self.root.join("boot"))?;
        fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// The modules that a guest needs, each after those that it depends on.
    pub(super) fn modules(&self) -> Result<Vec<Module>> {
        let mut paths = BTreeMap::new();
        let mut directories = vec![self.root.join("lib/modules")];
        while let Some(directory) = directories.pop() {
            let entries =
                fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
            for entry in entries {
                let entry = entry?;
                let path = entry.path();
                if entry.file_type()?.is_dir() {
                    directories.push(path);
                } else if path.extension().is_some_and(|extension| extension == "ko") {
                    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
                    paths.insert(canonical(stem), path);
                }
            }
        }
        let mut modules = Vec::new();
        for name in WANTED {
            add(name, &paths, &mut modules)?;
        }
        Ok(modules)
    }
}

fn add(name: &str, paths: &BTreeMap<String, PathBuf>, modules: &mut Vec<Module>) -> Result<()> {
    let name = canonical(name);
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let path = paths.get(&name).with_context(|| format!("the kernel package has no module {name}"))?;
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    // The graph has no cycles: the kernel could not load such modules either.
    for dependency in dependencies(&bytes) {
        add(&dependency, paths, modules)?;
    }
    modules.push(Module { name, bytes });
    Ok(())
}

/// Modules are named with `-` or `_`, which mean the same.
fn canonical(name: &str) -> String {
    name.replace('-', "_")
}

/// What a module says it depends on: `depends=a,b` among the zero-terminated texts of its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module[at + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let value = String::from_utf8_lossy(value);
    value.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// The kernel among the dependencies of the meta package.
fn image_package(table: &str) -> Option<String> {
    table
        .lines()
        .filter_map(|line| line.trim().strip_prefix("Depends: "))
        .find(|package| package.starts_with("linux-image-"))
        .map(str::to_owned)
}

/// `name=version` from the name of a package's file.
fn version(file: &Path) -> Option<String> {
    let mut parts = file.file_name()?.to_str()?.split('_');
    Some(format!("{}={}", parts.next()?, parts.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module() {
        let module = b"\x7fELF...license=GPL\0depends=virtio,virtio-ring\0retpoline=Y\0";
        assert_eq!(dependencies(module), ["virtio", "virtio-ring"]);
        assert!(dependencies(b"license=GPL\0depends=\0intree=Y\0").is_empty());
        assert!(dependencies(b"nothing").is_empty());
    }

    #[test]
    fn modules_come_after_what_they_need_and_once() {
        let directory = std::env::temp_dir().join(format!("xtask-modules-{}", std::process::id()));
        fs::create_dir_all(&directory).expect("directory");
        let mut paths = BTreeMap::new();
        for (name, needs) in [("fat", ""), ("vfat", "fat"), ("net-a", "vfat,fat")] {
            let path = directory.join(format!("{name}.ko"));
            fs::write(&path, format!("ELF\0depends={needs}\0")).expect("write");
            paths.insert(canonical(name), path);
        }
        let mut modules = Vec::new();
        add("net_a", &paths, &mut modules).expect("found");
        add("vfat", &paths, &mut modules).expect("there already");
        let missing = add("ext5", &paths, &mut modules);
        fs::remove_dir_all(&directory).expect("clean");
        let names: Vec<&str> = modules.iter().map(|module| module.name.as_str()).collect();
        assert_eq!(names, ["fat", "vfat", "net_a"]);
        assert!(missing.expect_err("missing").to_string().contains("ext5"));
    }

    #[test]
    fn the_package_is_found_and_named() {
        let table = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-40-cloud-amd64\n";
        assert_eq!(image_package(table).as_deref(), Some("linux-image-6.1.0-40-cloud-amd64"));
        let file = Path::new("/x/linux-image-6.1.0-40-cloud-amd64_6.1.153-1_amd64.deb");
        assert_eq!(version(file).as_deref(), Some("linux-image-6.1.0-40-cloud-amd64=6.1.153-1"));
    }
}
