//! Removing what nothing uses any more.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::PoisonError;

use super::digest::Digest;
use super::error::ImageError;
use super::store::Inner;

/// A stored file that nothing uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnusedFile {
    /// Its digest.
    pub digest: Digest,
    /// What it takes on disk; less than its length where it has holes.
    pub disk_bytes: u64,
}

impl Inner {
    pub(super) fn prune(&self, keep: &[Digest], dry_run: bool) -> Result<Vec<UnusedFile>, ImageError> {
        let write_error = |path: &Path| {
            let path = path.to_path_buf();
            move |source| ImageError::Write { path, source }
        };
        let _placing = self.placing();
        let mut unused = Vec::new();
        for entry in fs::read_dir(&self.dir).map_err(write_error(&self.dir))?.flatten() {
            let name = entry.file_name();
            let digest = name.to_str().and_then(|name| name.strip_prefix("sha256-")?.parse::<Digest>().ok());
            let Some(digest) = digest.filter(|digest| !keep.contains(digest)) else {
                continue;
            };
            let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            if held.get(&digest).is_some_and(|held| held.strong_count() > 0) {
                continue;
            }
            let disk_bytes = entry.metadata().map_or(0, |file| file.blocks() * 512);
            if !dry_run {
                fs::remove_file(entry.path()).map_err(write_error(&entry.path()))?;
                let _ = fs::remove_file(self.side_of(digest));
            }
            unused.push(UnusedFile { digest, disk_bytes });
        }
        unused.sort_by_key(|file| file.digest);
        Ok(unused)
    }
}
