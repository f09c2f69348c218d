//! The disks of an instance that are not its root disk: its own empty ones, shared ones, and its seed.

use std::fs::File;
use std::io;
use std::path::PathBuf;

use super::dir::{DirError, InstanceDir};
use super::spec::{DataDisk, LaunchSpec, Seed};
use crate::seed::{self, SeedError};

/// A virtio disk's serial number holds no more.
const SERIAL_LIMIT_BYTES: usize = 20;
/// The root disk's device id.
pub(crate) const ROOT_ID: &str = "root";
/// The seed's device id.
pub(crate) const SEED_ID: &str = "seed";

/// A disk of an instance could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// One of its own empty disks.
    #[error("data disk {disk}")]
    Data {
        /// The disk's id.
        disk: String,
        /// Why.
        #[source]
        source: DirError,
    },
    /// The seed.
    #[error("seed disk")]
    Seed(#[source] SeedError),
}

/// What [`OwnDisks::prepare`] makes, taken out of a specification.
#[derive(Debug)]
pub(crate) struct OwnDisks {
    dir: InstanceDir,
    data: Vec<DataDisk>,
    seed: Option<Seed>,
}

impl OwnDisks {
    pub(crate) fn of(spec: &LaunchSpec) -> Self {
        Self { dir: spec.dir.clone(), data: spec.data_disks.clone(), seed: spec.seed.clone() }
    }

    /// Makes what is not there yet; an earlier attempt may have made some of it. Blocking.
    pub(crate) fn prepare(&self) -> Result<(), DiskError> {
        for disk in &self.data {
            let path = self.dir.data_disk(&disk.id);
            make_sparse(&path, disk.size_bytes).map_err(|source| DiskError::Data {
                disk: disk.id.clone(),
                source: DirError::Io { what: "make", path, source },
            })?;
        }
        match &self.seed {
            Some(seed) => {
                let _span = tracing::debug_span!("seed", instance = self.dir.id()).entered();
                seed::write(&self.dir.seed(), seed).map_err(DiskError::Seed)
            }
            None => Ok(()),
        }
    }
}

/// Makes a file that is all hole; one that is there keeps what it holds, and grows if an interrupted attempt left it short.
fn make_sparse(path: &PathBuf, size_bytes: u64) -> io::Result<()> {
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    if file.metadata()?.len() < size_bytes {
        file.set_len(size_bytes)?;
    }
    Ok(())
}

/// What is wrong with the disks of a specification, if anything.
pub(crate) fn problem(spec: &LaunchSpec) -> Option<&'static str> {
    let shared = spec.shared_disks.iter().map(|disk| disk.id.as_str());
    let mut ids: Vec<&str> = spec.data_disks.iter().map(|disk| disk.id.as_str()).chain(shared).collect();
    ids.sort_unstable();
    if ids.iter().any(|id| !plain(id)) {
        Some(
            "a disk has an id with other characters than letters, digits, '.', '_' and '-', or none, or too many",
        )
    } else if ids.iter().any(|id| reserved(id)) {
        Some("a disk has a reserved id (root, seed, net… or __…)")
    } else if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        Some("two disks have the same id")
    } else if spec.data_disks.iter().any(|disk| disk.id.len() > SERIAL_LIMIT_BYTES) {
        Some("a data disk has an id of more than 20 bytes, which cannot be its serial number")
    } else if spec.data_disks.iter().any(|disk| disk.size_bytes == 0 || !disk.size_bytes.is_multiple_of(512))
    {
        Some("a data disk has a size that is zero or not a multiple of 512")
    } else {
        None
    }
}

/// Ids become parts of file names, and of names that the guest's udev makes.
fn plain(id: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    !id.is_empty() && id.len() <= 64 && id.chars().all(plain)
}

fn reserved(id: &str) -> bool {
    // `__` is Cloud Hypervisor's own; network devices are called net0, net1, …
    matches!(id, ROOT_ID | SEED_ID) || id.starts_with("__") || id.starts_with("net")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn ids_that_could_not_be_told_apart_or_used_are_refused() {
        for (id, good) in [
            ("data", true),
            ("logs-1.a_b", true),
            ("a", true),
            ("", false),
            ("root", false),
            ("seed", false),
            ("net0", false),
            ("__rng", false),
            ("a/b", false),
            ("../x", false),
            ("ä", false),
        ] {
            assert_eq!(plain(id) && !reserved(id), good, "{id}");
        }
    }

    #[test]
    fn data_disks_are_sparse_and_keep_what_they_hold() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("dir");
        let disk = DataDisk { id: "db".to_owned(), size_bytes: 10 << 40 };
        let disks = OwnDisks { dir: dir.clone(), data: vec![disk], seed: None };
        disks.prepare().expect("made");
        let path = dir.data_disk("db");
        let metadata = path.metadata().expect("stat");
        assert_eq!((metadata.len(), metadata.blocks()), (10 << 40, 0));
        std::fs::OpenOptions::new()
            .write(true)
            .open(&path)
            .and_then(|mut file| io::Write::write_all(&mut file, b"kept"))
            .expect("write");
        disks.prepare().expect("again");
        let mut head = [0; 4];
        io::Read::read_exact(&mut File::open(&path).expect("open"), &mut head).expect("read");
        assert_eq!(&head, b"kept");

        let unwritable = OwnDisks { dir: InstanceDir::new(data.path(), "s", "no").expect("dir"), ..disks };
        let error = unwritable.prepare().expect_err("no directory");
        assert!(matches!(error, DiskError::Data { disk, .. } if disk == "db"));
    }
}
