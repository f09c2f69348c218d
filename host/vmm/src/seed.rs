//! The disk that cloud-init's NoCloud source looks for: a small FAT volume labelled `CIDATA` with two or three files.

use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};

use fatfs::{Date, DateTime, FileSystem, FormatVolumeOptions, FsOptions, Time, TimeProvider};

use crate::instance::Seed;

/// cloud-init finds the volume by this label (FAT pads it to 11 bytes).
const LABEL: [u8; 11] = *b"CIDATA     ";
/// Any fixed number: the same seed must always be the same bytes, so that a change can be told by digest.
const VOLUME_ID: u32 = 0x5245_4741;
/// The largest file; cloud providers stop at 16 to 64 KiB, so this is generous, and it bounds the disk.
const FILE_LIMIT_BYTES: usize = 512 << 10;
const UNIT_BYTES: usize = 1 << 20;
/// Boot sector, both allocation tables, root directory, and the unused ends of clusters, with much to spare.
const OVERHEAD_BYTES: usize = 128 << 10;

/// A seed disk could not be made. Nothing of it is left.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// One of its files is too large.
    #[error(
        "{file} has {len} bytes, {FILE_LIMIT_BYTES} are possible; have it fetch the rest (#include, or a script)"
    )]
    TooLarge {
        /// Name of the file.
        file: &'static str,
        /// Its size in bytes.
        len: usize,
    },
    /// Writing failed.
    #[error("cannot write the seed disk {}", path.display())]
    Io {
        /// The disk.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Writes the seed disk `path`, whole or not at all. One that is there is left as it is: a VM may run on it.
pub(crate) fn write(path: &Path, seed: &Seed) -> Result<(), SeedError> {
    if path.exists() {
        return Ok(());
    }
    let error = |source| SeedError::Io { path: path.to_path_buf(), source };
    check(seed)?;
    let image = image(seed).map_err(error)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    let mut temp = tempfile::NamedTempFile::new_in(dir).map_err(error)?;
    temp.write_all(&image).map_err(error)?;
    temp.persist(path).map_err(|failed| error(failed.error))?;
    Ok(())
}

/// Whether every file fits. Pure.
pub(crate) fn check(seed: &Seed) -> Result<(), SeedError> {
    for (file, text) in files(seed) {
        if text.len() > FILE_LIMIT_BYTES {
            return Err(SeedError::TooLarge { file, len: text.len() });
        }
    }
    Ok(())
}

fn files(seed: &Seed) -> impl Iterator<Item = (&'static str, &str)> {
    let network = seed.network_config.as_deref().map(|text| ("network-config", text));
    [("meta-data", seed.meta_data.as_str()), ("user-data", seed.user_data.as_str())]
        .into_iter()
        .chain(network)
}

/// The bytes of the disk; the same seed always gives the same ones.
fn image(seed: &Seed) -> io::Result<Vec<u8>> {
    let content: usize = files(seed).map(|(_, text)| text.len()).sum();
    let mut bytes = vec![0; (content + OVERHEAD_BYTES).next_multiple_of(UNIT_BYTES)];
    let options = FormatVolumeOptions::new().volume_label(LABEL).volume_id(VOLUME_ID);
    fatfs::format_volume(Cursor::new(&mut bytes), options)?;
    let options = FsOptions::new().time_provider(&Always);
    let volume = FileSystem::new(Cursor::new(&mut bytes), options)?;
    for (name, text) in files(seed) {
        let mut file = volume.root_dir().create_file(name)?;
        file.write_all(text.as_bytes())?;
        file.flush()?;
    }
    volume.unmount()?;
    Ok(bytes)
}

/// The first moment that FAT can tell.
#[derive(Debug)]
struct Always;

impl TimeProvider for Always {
    fn get_current_date(&self) -> Date {
        Date { year: 1980, month: 1, day: 1 }
    }

    fn get_current_date_time(&self) -> DateTime {
        DateTime { date: self.get_current_date(), time: Time { hour: 0, min: 0, sec: 0, millis: 0 } }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    fn seed(user_data: &str) -> Seed {
        Seed {
            meta_data: "instance-id: web-3\nlocal-hostname: web-3\n".to_owned(),
            user_data: user_data.to_owned(),
            network_config: Some("version: 2\n".to_owned()),
        }
    }

    fn read_back(bytes: &mut Vec<u8>) -> Vec<(String, String)> {
        let volume = FileSystem::new(Cursor::new(bytes), FsOptions::new()).expect("a FAT volume");
        assert_eq!(volume.volume_label(), "CIDATA");
        assert_eq!(volume.read_volume_label_from_root_dir().expect("read").as_deref(), Some("CIDATA"));
        let root = volume.root_dir();
        let entries = root.iter().map(|entry| entry.expect("entry"));
        entries
            .map(|entry| {
                let mut text = String::new();
                entry.to_file().read_to_string(&mut text).expect("read");
                (entry.file_name(), text)
            })
            .collect()
    }

    #[test]
    fn the_files_read_back_and_the_bytes_are_always_the_same() {
        let seed = seed("#cloud-config\nhostname: wéb\n");
        let mut bytes = image(&seed).expect("made");
        assert_eq!(bytes.len(), 1 << 20);
        assert_eq!(bytes, image(&seed).expect("made again"));
        let expected = files(&seed).map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(read_back(&mut bytes), expected.collect::<Vec<_>>());
    }

    #[test]
    fn the_largest_files_fit_and_one_byte_more_is_refused_by_name() {
        let full = "x".repeat(FILE_LIMIT_BYTES);
        let mut largest = seed(&full);
        largest.meta_data.clone_from(&full);
        largest.network_config = Some(full.clone());
        check(&largest).expect("fits");
        let mut bytes = image(&largest).expect("made");
        assert!(read_back(&mut bytes).iter().all(|(_, text)| *text == full));

        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("seed.img");
        let error = write(&path, &seed(&format!("{full}x"))).expect_err("too large").to_string();
        assert!(error.starts_with("user-data has 524289 bytes"), "{error}");
        assert_eq!(std::fs::read_dir(dir.path()).expect("dir").count(), 0, "nothing is left");
    }

    #[test]
    fn a_seed_that_is_there_is_left_alone() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("seed.img");
        write(&path, &seed("one")).expect("written");
        let before = std::fs::read(&path).expect("read");
        write(&path, &seed("two")).expect("nothing to do");
        assert_eq!(std::fs::read(&path).expect("read"), before);
    }

    /// Tools that know nothing of our library must see the same volume: util-linux, the kernel, mtools.
    #[test]
    fn others_see_the_label_and_the_files() {
        let dir = tempfile::tempdir().expect("temp dir");
        let path = dir.path().join("seed.img");
        let seed = seed(&"#cloud-config\n".repeat(5_000));
        write(&path, &seed).expect("written");
        let path = path.to_str().expect("utf-8");

        match said("blkid", &["-p", "-o", "export", path]) {
            Ok(facts) => {
                for fact in ["LABEL=CIDATA", "TYPE=vfat", "UUID=5245-4741"] {
                    assert!(facts.lines().any(|line| line == fact), "no {fact} in {facts}");
                }
            }
            Err(why) => eprintln!("skipped: blkid: {why}"),
        }
        match said("fsck.vfat", &["-n", "-v", path]) {
            Ok(report) => assert!(!report.to_lowercase().contains("dirty"), "{report}"),
            Err(why) => eprintln!("skipped: fsck.vfat: {why}"),
        }
        match said("mtype", &["-i", path, "::user-data"]) {
            Ok(text) => assert_eq!(text, seed.user_data),
            Err(why) => eprintln!("skipped: mtype: {why}"),
        }
        // In a mount namespace of its own: nothing is left mounted whatever happens.
        let mount = "mount -o loop,ro -t vfat \"$0\" \"$1\" && cat \"$1/meta-data\" \"$1/user-data\" \"$1/network-config\"";
        let place = dir.path().join("mnt");
        std::fs::create_dir(&place).expect("dir");
        match said("unshare", &["-m", "sh", "-c", mount, path, place.to_str().expect("utf-8")]) {
            Ok(text) => assert_eq!(text, format!("{}{}version: 2\n", seed.meta_data, seed.user_data)),
            Err(why) => eprintln!("skipped: no vfat loop mount here: {why}"),
        }
    }

    fn said(program: &str, args: &[&str]) -> Result<String, String> {
        let output = Command::new(program).args(args).output().map_err(|error| error.to_string())?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().replace('\n', " ");
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            Err(format!("{}: {}", output.status, text(&output.stderr)))
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn any_text_of_any_size_reads_back(size in 0usize..FILE_LIMIT_BYTES, text in "\\PC{1,40}") {
            let mut user_data = text.repeat(size / text.len() + 1);
            user_data.truncate(user_data.floor_char_boundary(size));
            let seed = Seed { network_config: None, ..seed(&user_data) };
            let mut bytes = image(&seed).expect("made");
            let files = read_back(&mut bytes);
            prop_assert_eq!(files.len(), 2);
            prop_assert_eq!(&files[1].1, &user_data);
        }
    }
}
