//! What instances are made of, kept beside them: with it and `instance.json` a set can be had again without the store.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use regatta_core::digest::Digest;
use regatta_core::recovery::Origin;

use crate::named_file;

/// A manifest has at most 1 MiB.
const BYTES_MAX: u64 = 8 << 20;

/// The directory of [`Origin`]s, one file for each, named by digest: instances of one generation share one.
#[derive(Debug, Clone)]
pub(crate) struct Origins {
    dir: PathBuf,
}

impl Origins {
    pub(crate) fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// Makes sure that an origin is on disk. Returns its digest. Blocking, the first time for each.
    ///
    /// # Errors
    /// It cannot be written.
    pub(crate) fn keep(&self, origin: &Origin) -> Result<Digest, String> {
        let (digest, json) = origin.file();
        let path = self.path(&digest);
        if !path.exists() {
            self.write(&path, &json).map_err(|why| format!("cannot write {}: {why}", path.display()))?;
        }
        Ok(digest)
    }

    /// Reads an origin. Blocking.
    ///
    /// # Errors
    /// Why it cannot be read.
    pub(crate) fn read(&self, digest: &str) -> Result<Origin, String> {
        if digest.is_empty() {
            return Err("an earlier version launched it and kept no manifest beside it".to_owned());
        }
        if digest.len() != 64 || !digest.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err("its directory names no manifest".to_owned());
        }
        let path = self.path(digest);
        let failed = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", path.display());
        let json = named_file::read(&path, BYTES_MAX).map_err(|why| failed(&why))?;
        if Digest::of(&json) != digest {
            return Err(failed(&"it is damaged: its contents do not match its name"));
        }
        serde_json::from_slice(&json).map_err(|why| failed(&why))
    }

    /// Removes the origins that no instance has.
    pub(crate) fn sweep(&self, used: &BTreeSet<String>) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for path in entries.flatten().map(|entry| entry.path()) {
            let is_used =
                path.file_stem().and_then(|stem| stem.to_str()).is_some_and(|stem| used.contains(stem));
            if !is_used && let Err(why) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %why, "a manifest that nobody needs stays");
            }
        }
    }

    fn path(&self, digest: &str) -> PathBuf {
        self.dir.join(format!("{digest}.json"))
    }

    #[expect(clippy::disallowed_methods, reason = "the data directory is the daemon's alone")]
    fn write(&self, path: &Path, json: &[u8]) -> io::Result<()> {
        // Manifests hold what guests are told at their first boot: for the owner only.
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir)?;
        let unfinished = path.with_extension("new");
        let mut file =
            File::options().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(json)?;
        file.sync_all()?;
        fs::rename(&unfinished, path)?;
        File::open(&self.dir)?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use regatta_core::manifest::read_manifest;
    use regatta_core::state::ImageDigests;

    use super::*;

    #[test]
    fn origins_are_kept_once_checked_when_read_and_swept_when_nobody_has_them() {
        let text = "version: regatta/v1\nname: web\ncapacity: { min: 1, max: 2 }\nimage: { kernel: k }\npolicy: { module: step }\n";
        let manifest = read_manifest(text.as_bytes(), "set.yaml", "/")
            .unwrap_or_else(|why| panic!("{}", why.render()))
            .set;
        let origin = Origin { manifest, image: ImageDigests::default() };
        let data = tempfile::tempdir().unwrap();
        let origins = Origins::new(&data.path().join("manifests"));
        let digest = origins.keep(&origin).unwrap();
        assert_eq!(origins.keep(&origin), Ok(digest.clone()));
        assert_eq!(origins.read(&digest), Ok(origin));
        for not_one in ["", "../../etc/passwd", &"a".repeat(64)] {
            assert!(origins.read(not_one).is_err(), "{not_one}");
        }
        origins.sweep(&BTreeSet::from([digest.to_string()]));
        let file = origins.path(&digest);
        fs::write(&file, fs::read_to_string(&file).unwrap().replace("web", "wed")).unwrap();
        assert!(origins.read(&digest).unwrap_err().contains("do not match"));
        origins.sweep(&BTreeSet::new());
        assert!(!file.exists());
    }
}
