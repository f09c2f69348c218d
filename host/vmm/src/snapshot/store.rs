//! Where snapshots lie: `<snapshots>/<set>/<key>/`. One that is being put there has another name until it is whole.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::{
    CONFIG, CONFIG_BYTES_MAX, Facts, GoldenSnapshot, MEMORY, RootFacts, STATE, SnapshotError, SnapshotKey,
};
use crate::guarded::{Access, GuardedDir};

const FACTS: &str = "facts.json";
/// What is not whole yet begins with it; no key does.
const MAKING: &str = ".making-";

/// The directory (`<data>/snapshots/`) that holds the snapshots of all sets. All methods block.
#[derive(Clone, Debug)]
pub struct SnapshotStore {
    dir: PathBuf,
}

/// What a snapshot is put together from: files of a VMM that has ended.
pub(super) struct Parts {
    /// The directory that the VMM wrote its three files into.
    pub(super) written: PathBuf,
    /// The root disk and what is known of it.
    pub(super) root: Option<(PathBuf, RootFacts)>,
    pub(super) vmm_version: String,
}

impl SnapshotStore {
    /// The snapshots below `dir`, an absolute path; it is made when it is needed.
    #[must_use]
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The set's snapshot with this key, if it is there and whole.
    #[must_use]
    pub fn find(&self, set: &str, key: &SnapshotKey) -> Option<GoldenSnapshot> {
        let path = self.of_set(set).join(key.to_string());
        let facts: Facts = serde_json::from_slice(&fs::read(path.join(FACTS)).ok()?).ok()?;
        let whole = facts.lengths.iter().all(|(name, length)| {
            path.join(name).symlink_metadata().is_ok_and(|file| file.is_file() && file.len() == *length)
        });
        whole.then(|| GoldenSnapshot { path, key: key.clone(), facts })
    }

    /// Removes the snapshots of a set but for the one with the key `keep`. Instances that were restored from them run on.
    ///
    /// # Errors
    /// The file system refused.
    pub fn prune(&self, set: &str, keep: Option<&SnapshotKey>) -> io::Result<()> {
        let dir = self.of_set(set);
        for name in names(&dir)? {
            let key = SnapshotKey::parse(&name);
            if key.is_none() || key.as_ref() != keep {
                fs::remove_dir_all(dir.join(name))?;
            }
        }
        // Only works when it is empty, which is all that is wanted.
        let _ = fs::remove_dir(&dir);
        Ok(())
    }

    /// Removes what was being made when the daemon ended, and the snapshots of sets that are not among `sets`.
    ///
    /// # Errors
    /// The file system refused.
    pub fn sweep(&self, sets: &[&str]) -> io::Result<()> {
        for set in names(&self.dir)? {
            if !sets.contains(&set.as_str()) {
                self.prune(&set, None)?;
                continue;
            }
            for name in names(&self.of_set(&set))?.iter().filter(|name| name.starts_with(MAKING)) {
                fs::remove_dir_all(self.of_set(&set).join(name))?;
            }
        }
        Ok(())
    }

    /// Puts a snapshot together out of files in the same file system, which are moved. Whole or not at all.
    pub(super) fn take(
        &self,
        set: &str,
        key: &SnapshotKey,
        parts: Parts,
    ) -> Result<GoldenSnapshot, SnapshotError> {
        let making = self.of_set(set).join(format!("{MAKING}{key}"));
        let taken = self.put_together(set, key, &making, parts);
        if taken.is_err() {
            let _ = fs::remove_dir_all(&making);
        }
        taken
    }

    fn put_together(
        &self,
        set: &str,
        key: &SnapshotKey,
        making: &Path,
        parts: Parts,
    ) -> Result<GoldenSnapshot, SnapshotError> {
        let failed = |what, path: &Path| {
            let path = path.to_path_buf();
            move |source| SnapshotError::Io { what, path, source }
        };
        remove(making).map_err(failed("remove", making))?;
        // A guest's memory is nobody else's business.
        let mut private = fs::DirBuilder::new();
        private.recursive(true).mode(0o700).create(making).map_err(failed("make directory", making))?;
        let ours = GuardedDir::open(making).map_err(failed("open", making))?;
        let mut facts =
            Facts { vmm_version: parts.vmm_version, lengths: Vec::new(), disk_bytes: 0, root: None };
        let mut files: Vec<(PathBuf, String)> =
            [CONFIG, STATE, MEMORY].map(|name| (parts.written.join(name), name.to_owned())).into();
        if let Some((path, root)) = parts.root {
            files.push((path, format!("root.{}", root.format)));
            facts.root = Some(root);
        }
        for (from, name) in files {
            let to = making.join(&name);
            fs::rename(&from, &to).map_err(failed("move", &from))?;
            let file = make_ours(&ours, &to)?;
            let metadata = file.metadata().map_err(failed("look at", &to))?;
            facts.lengths.push((name, metadata.len()));
            facts.disk_bytes += metadata.blocks() * 512;
            file.sync_all().map_err(failed("write", &to))?;
        }
        let noted = making.join(FACTS);
        write_synced(&noted, &facts).map_err(failed("write", &noted))?;
        let path = self.of_set(set).join(key.to_string());
        remove(&path).map_err(failed("remove", &path))?;
        fs::rename(making, &path).map_err(failed("make", &path))?;
        let synced = File::open(self.of_set(set)).and_then(|dir| dir.sync_all());
        synced.map_err(failed("write", &path))?;
        Ok(GoldenSnapshot { path, key: key.clone(), facts })
    }

    fn of_set(&self, set: &str) -> PathBuf {
        self.dir.join(set)
    }
}

/// Makes a file of a VMM ours and read-only, and opens it. A VMM that its guest has taken over may have left anything there.
fn make_ours(dir: &GuardedDir, path: &Path) -> Result<File, SnapshotError> {
    let strange = |what| SnapshotError::Strange { path: path.to_path_buf(), what };
    let failed = |what| move |source| SnapshotError::Io { what, path: path.to_path_buf(), source };
    let name = path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or_default();
    let file = dir.any_file(name, Access::Read).map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => strange("no plain file"),
        _ => failed("open")(error),
    })?;
    let failed = failed("take over");
    let metadata = file.metadata().map_err(failed)?;
    if metadata.nlink() != 1 {
        return Err(strange("a file with other names"));
    }
    if name == CONFIG && metadata.len() > CONFIG_BYTES_MAX {
        return Err(strange("longer than any configuration"));
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if (metadata.uid(), metadata.gid()) != (uid.as_raw(), gid.as_raw()) {
        rustix::fs::fchown(&file, Some(uid), Some(gid)).map_err(|errno| failed(errno.into()))?;
    }
    file.set_permissions(Permissions::from_mode(0o444)).map_err(failed)?;
    Ok(file)
}

fn write_synced(path: &Path, facts: &Facts) -> io::Result<()> {
    let file = File::options().write(true).create_new(true).mode(0o400).open(path)?;
    serde_json::to_writer(&file, facts)?;
    file.sync_all()
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Names of the directories in a directory; none when it is not there.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let dirs = entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    Ok(dirs.filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_a_vmm_left_in_the_place_of_its_snapshot_is_refused() {
        let data = tempfile::tempdir().expect("temp dir");
        let store = SnapshotStore::new(&data.path().join("snapshots"));
        let key = SnapshotKey::parse(&"0a".repeat(16)).expect("a key");
        let written = data.path().join("snapshot");
        let take = |spoil: &dyn Fn(&Path)| {
            fs::create_dir(&written).expect("dir");
            for name in [CONFIG, STATE, MEMORY] {
                fs::write(written.join(name), "{}").expect("written");
            }
            spoil(&written.join(CONFIG));
            let parts = Parts { written: written.clone(), root: None, vmm_version: "53".to_owned() };
            let taken = store.take("web", &key, parts);
            fs::remove_dir_all(&written).expect("removed");
            taken
        };
        let refused = |spoil: &dyn Fn(&Path)| match take(spoil) {
            Err(SnapshotError::Strange { what, .. }) => what,
            other => panic!("{other:?}"),
        };
        let long = |path: &Path| {
            File::options().write(true).open(path).and_then(|file| file.set_len(1 << 40)).expect("sparse");
        };
        assert_eq!(refused(&long), "longer than any configuration");
        let linked = |path: &Path| fs::hard_link(path, path.with_extension("other")).expect("link");
        assert_eq!(refused(&linked), "a file with other names");
        let elsewhere = |path: &Path| {
            fs::remove_file(path).and_then(|()| symlink("/etc/hostname", path)).expect("link");
        };
        assert_eq!(refused(&elsewhere), "no plain file");
        assert_eq!(store.find("web", &key), None, "nothing is left of these");
        take(&|_| ()).expect("a good one is taken");
        assert!(store.find("web", &key).is_some());
    }
}
