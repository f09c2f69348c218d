//! The golden disk: a small FAT file system with the application and a marker.

use std::io::{Cursor, Write};

use anyhow::{Context, Result};
use fatfs::{FileSystem, FormatVolumeOptions, FsOptions};

/// Room for the program and for what guests write.
const DISK_BYTES: usize = 8 << 20;
/// How the guest finds it; padded to eleven bytes.
const LABEL: &[u8; 11] = b"REGATTA    ";
/// The same file system from the same sources: nothing of it is random.
const VOLUME_ID: u32 = 0x5245_4741;

/// The disk's bytes.
pub(super) fn pack(program: &[u8], build_id: &str) -> Result<Vec<u8>> {
    let mut image = Cursor::new(vec![0; DISK_BYTES]);
    let options = FormatVolumeOptions::new().volume_label(*LABEL).volume_id(VOLUME_ID);
    fatfs::format_volume(&mut image, options).context("cannot make the file system of the golden disk")?;
    {
        let disk = FileSystem::new(&mut image, FsOptions::new())?;
        let root = disk.root_dir();
        for (name, bytes) in [("regatta-guest", program), ("build-id", build_id.as_bytes())] {
            let mut file = root.create_file(name)?;
            file.write_all(bytes).with_context(|| format!("cannot put {name} on the golden disk"))?;
            file.flush()?;
        }
    }
    Ok(image.into_inner())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn the_disk_is_the_same_each_time_and_readable() {
        let disk = pack(&[7; 100_000], "abc").expect("packed");
        assert_eq!(disk, pack(&[7; 100_000], "abc").expect("packed"));
        let disk = FileSystem::new(Cursor::new(disk), FsOptions::new()).expect("file system");
        assert_eq!(disk.volume_label(), "REGATTA");
        let mut marker = String::new();
        disk.root_dir().open_file("build-id").expect("there").read_to_string(&mut marker).expect("read");
        assert_eq!(marker, "abc");
    }
}
