//! Logs of instances that failed, kept for a post-mortem: the newest few, the rest goes.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::dir::{InstanceDir, LOGS};
use crate::guarded::{Access, read_tail};

/// Logs are cut to their last part when kept: a guest can print without end.
const LOG_LIMIT_BYTES: u64 = 1 << 20;

/// The directory (`<data>/failed/`) that keeps the logs of failed instances.
#[derive(Clone, Debug)]
pub struct FailedLogs {
    dir: PathBuf,
    keep: usize,
}

impl FailedLogs {
    /// Keeps the logs of the last `keep` failures in `dir`; of none when 0.
    #[must_use]
    pub fn new(dir: &Path, keep: usize) -> Self {
        Self { dir: dir.to_path_buf(), keep }
    }

    /// Copies the end of `vmm.log`, `serial.log` and `events.json` of an instance here, with `reason` beside them, and returns where to.
    /// Best effort: a failure to keep logs must not hide the failure itself. `None` if nothing was kept.
    pub fn keep(&self, instance: &InstanceDir, reason: &str) -> Option<PathBuf> {
        if self.keep == 0 {
            return None;
        }
        match self.try_keep(instance, reason) {
            Ok(kept) => kept,
            Err(error) => {
                tracing::warn!(instance = instance.id(), dir = %self.dir.display(), %error, "logs of a failed instance are lost");
                None
            }
        }
    }

    fn try_keep(&self, instance: &InstanceDir, reason: &str) -> io::Result<Option<PathBuf>> {
        let mut logs = Vec::new();
        for name in LOGS {
            match instance.open_log(name, Access::Read) {
                Ok(log) => logs.push((name, log)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if logs.is_empty() {
            return Ok(None);
        }
        fs::create_dir_all(&self.dir)?;
        let place = self.free_place(&instance.flat_name())?;
        for (name, log) in logs {
            // Copied, not moved: the VMM's user can open the file of the instance for as long as it is there.
            fs::write(place.join(name), read_tail(log, LOG_LIMIT_BYTES)?)?;
        }
        fs::write(place.join("reason.txt"), format!("{reason}\n"))?;
        self.drop_oldest()?;
        Ok(Some(place))
    }

    fn free_place(&self, name: &str) -> io::Result<PathBuf> {
        for number in 0..1000 {
            let place = self.dir.join(if number == 0 { name.to_owned() } else { format!("{name}.{number}") });
            match fs::create_dir(&place) {
                Ok(()) => return Ok(place),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "a thousand failures of one instance are kept already",
        ))
    }

    fn drop_oldest(&self) -> io::Result<()> {
        let mut places: Vec<_> = fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        places.sort();
        let surplus = places.len().saturating_sub(self.keep);
        for (_, place) in &places[..surplus] {
            // Two failures may both find the same oldest one.
            match fs::remove_dir_all(place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failures_are_kept_and_long_logs_are_cut() {
        let data = tempfile::tempdir().expect("temp dir");
        let failed = FailedLogs::new(&data.path().join("failed"), 2);
        let instance = InstanceDir::new(data.path(), "web", "a").expect("dir");
        let mut places = Vec::new();
        for round in 0..3 {
            instance.prepare().expect("prepare");
            assert_eq!(failed.keep(&instance, "nothing to keep"), None);
            fs::write(instance.vmm_log(), format!("round {round}")).expect("write");
            fs::write(instance.serial_log(), vec![b'x'; (LOG_LIMIT_BYTES + 5) as usize]).expect("write");
            places.push(failed.keep(&instance, "boot failed").expect("kept"));
        }
        assert!(!places[0].exists(), "the oldest is gone");
        for place in &places[1..] {
            assert_eq!(fs::metadata(place.join("serial.log")).expect("log").len(), LOG_LIMIT_BYTES);
            assert_eq!(fs::read_to_string(place.join("reason.txt")).expect("reason"), "boot failed\n");
        }
        assert_eq!(fs::read_to_string(places[2].join("vmm.log")).expect("log"), "round 2");
        assert_eq!(FailedLogs::new(data.path(), 0).keep(&instance, "x"), None);
    }
}
