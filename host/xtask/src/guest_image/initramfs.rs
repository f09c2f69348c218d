//! The initramfs: our program as `/init`, and the kernel's modules.

use std::io::Cursor;

use anyhow::Result;
use cpio::{NewcBuilder, write_cpio};

use super::kernel::Module;

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const FILE: u32 = 0o100_644;
const CHARACTER_DEVICE: u32 = 0o020_600;
/// Where the guest looks for modules.
const MODULES: &str = "modules";

/// The archive, not compressed: unpacking costs a simulated processor more than reading.
pub(super) fn pack(program: &[u8], modules: &[Module]) -> Result<Vec<u8>> {
    let mut entries = Vec::new();
    let mut inode = 0;
    let mut add = |name: &str, mode: u32, bytes: Vec<u8>| {
        inode += 1;
        entries.push((NewcBuilder::new(name).ino(inode).mode(mode).nlink(1), Cursor::new(bytes)));
    };
    for directory in ["dev", "proc", "sys", "run", "disk", "seed", MODULES] {
        add(directory, DIRECTORY, Vec::new());
    }
    add("init", PROGRAM, program.to_vec());
    let order: String = modules.iter().map(|module| format!("{}.ko\n", module.name)).collect();
    add(&format!("{MODULES}/order"), FILE, order.into_bytes());
    for module in modules {
        add(&format!("{MODULES}/{}.ko", module.name), FILE, module.bytes.clone());
    }
    // Where output goes before /dev is mounted.
    inode += 1;
    let console = NewcBuilder::new("dev/console")
        .ino(inode)
        .mode(CHARACTER_DEVICE)
        .nlink(1)
        .rdev_major(5)
        .rdev_minor(1);
    entries.push((console, Cursor::new(Vec::new())));
    Ok(write_cpio(entries.into_iter(), Vec::new())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_in_it_in_order() {
        let modules = ["virtio", "virtio_pci"]
            .map(|name| Module { name: name.to_owned(), bytes: name.as_bytes().to_vec() });
        let archive = pack(b"\x7fELF", &modules).expect("packed");
        let mut names = Vec::new();
        let mut input = Cursor::new(archive);
        loop {
            let reader = cpio::NewcReader::new(input).expect("entry");
            if reader.entry().is_trailer() {
                break;
            }
            names.push((reader.entry().name().to_owned(), reader.entry().mode()));
            input = reader.finish().expect("next");
        }
        assert!(names.contains(&("init".to_owned(), PROGRAM)), "{names:?}");
        assert!(names.contains(&("dev/console".to_owned(), CHARACTER_DEVICE)), "{names:?}");
        assert!(names.contains(&("modules/virtio_pci.ko".to_owned(), FILE)), "{names:?}");
    }
}
