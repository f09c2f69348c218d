//! Logs of instances that failed or were replaced, kept for a post-mortem: the newest few, the rest goes.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::dir::{InstanceDir, LOGS};
use crate::guarded::{Access, GuardedDir, read_tail};
use regatta_util::Said;

/// Logs are cut to their last part when kept: a guest can print without end.
const LOG_LIMIT_BYTES: u64 = 1 << 20;
const REASON: &str = "reason.txt";

/// The directory (`<data>/failed/`) that keeps the logs of failed instances.
#[derive(Clone, Debug)]
pub struct FailedLogs {
    dir: PathBuf,
    keep: usize,
    keep_of_set: usize,
}

/// Kept logs of one instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptLogs {
    /// Name of the instance within its set.
    pub id: String,
    /// When it failed.
    pub at: SystemTime,
    /// Why.
    pub reason: Said,
    /// Where its logs are.
    pub dir: PathBuf,
}

impl KeptLogs {
    /// The last `limit_bytes` of a log, by its name in the directory of an instance.
    ///
    /// # Errors
    /// It was not kept, or cannot be read.
    pub fn tail(&self, log: &str, limit_bytes: u64) -> io::Result<Vec<u8>> {
        tail_in(&self.dir, log, limit_bytes)
    }
}

fn tail_in(dir: &Path, file: &str, limit_bytes: u64) -> io::Result<Vec<u8>> {
    read_tail(GuardedDir::open(dir)?.file(file, Access::Read)?, limit_bytes)
}

impl FailedLogs {
    /// Keeps the logs of the last `keep` failures in `dir`, of one set at most `keep_of_set`; of none when 0.
    #[must_use]
    pub fn new(dir: &Path, keep: usize, keep_of_set: usize) -> Self {
        Self { dir: dir.to_path_buf(), keep, keep_of_set }
    }

    /// What is kept of a set, the newest first.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn of_set(&self, set: &str) -> io::Result<Vec<KeptLogs>> {
        let kept = |(at, dir): (SystemTime, PathBuf)| {
            let (of, id) = named(&dir)?;
            let reason = tail_in(&dir, REASON, LOG_LIMIT_BYTES).ok()?;
            let reason = String::from_utf8_lossy(&reason).trim_end().into();
            (of == set).then(|| KeptLogs { id: id.to_owned(), at, reason, dir: dir.clone() })
        };
        Ok(self.places()?.into_iter().rev().filter_map(kept).collect())
    }

    /// All places, the oldest first.
    fn places(&self) -> io::Result<Vec<(SystemTime, PathBuf)>> {
        let mut places: Vec<_> = fs::read_dir(&self.dir)?
            .flatten()
            .filter_map(|entry| Some((entry.metadata().ok()?.modified().ok()?, entry.path())))
            .collect();
        places.sort();
        Ok(places)
    }

    /// Copies the end of `vmm.log`, `serial.log` and `events.json` of an instance here, with `reason` beside them, and returns where to.
    /// Best effort: a failure to keep logs must not hide the failure itself. `None` if nothing was kept.
    pub fn keep(&self, instance: &InstanceDir, reason: &Said) -> Option<PathBuf> {
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

    fn try_keep(&self, instance: &InstanceDir, reason: &Said) -> io::Result<Option<PathBuf>> {
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
        fs::write(place.join(REASON), format!("{reason}\n"))?;
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
        let (mut kept, mut of_sets) = (0, HashMap::new());
        for (_, place) in self.places()?.into_iter().rev() {
            let set = named(&place).map(|(set, _)| set.to_owned());
            let of_set: &mut usize = of_sets.entry(set).or_default();
            if kept < self.keep && *of_set < self.keep_of_set {
                kept += 1;
                *of_set += 1;
                continue;
            }
            // Two failures may both find the same oldest one.
            match fs::remove_dir_all(place) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Set and instance of a place.
fn named(place: &Path) -> Option<(&str, &str)> {
    let (set, rest) = place.file_name()?.to_str()?.split_once('+')?;
    // A later failure of the same instance has a number.
    Some((set, rest.split_once('.').map_or(rest, |(id, _)| id)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_failures_are_kept_and_long_logs_are_cut() {
        let data = tempfile::tempdir().expect("temp dir");
        let failed = FailedLogs::new(&data.path().join("failed"), 9, 2);
        let instance = InstanceDir::new(data.path(), "web", "a").expect("dir");
        let mut places = Vec::new();
        for round in 0..3 {
            instance.prepare().expect("prepare");
            assert_eq!(failed.keep(&instance, &"nothing to keep".into()), None);
            fs::write(instance.vmm_log(), format!("round {round}")).expect("write");
            fs::write(instance.serial_log(), vec![b'x'; (LOG_LIMIT_BYTES + 5) as usize]).expect("write");
            places.push(failed.keep(&instance, &"boot failed".into()).expect("kept"));
        }
        assert!(!places[0].exists(), "the oldest is gone");
        for place in &places[1..] {
            assert_eq!(fs::metadata(place.join("serial.log")).expect("log").len(), LOG_LIMIT_BYTES);
            assert_eq!(fs::read_to_string(place.join("reason.txt")).expect("reason"), "boot failed\n");
        }
        assert_eq!(fs::read_to_string(places[2].join("vmm.log")).expect("log"), "round 2");
        let kept = failed.of_set("web").expect("read");
        let told = |logs: &KeptLogs| (logs.id.clone(), logs.reason.to_string(), logs.dir.clone());
        let expected = |place: &PathBuf| ("a".to_owned(), "boot failed".to_owned(), place.clone());
        assert_eq!(kept.iter().map(told).collect::<Vec<_>>(), [expected(&places[2]), expected(&places[1])]);
        assert_eq!(failed.of_set("we").expect("read"), []);

        // A set whose instances crash all the time costs others nothing; all together have an end, too.
        for id in ["b", "c"] {
            let other = InstanceDir::new(data.path(), "db", id).expect("dir");
            other.prepare().expect("prepare");
            fs::write(other.vmm_log(), "db").expect("write");
            failed.keep(&other, &"exited".into()).expect("kept");
        }
        assert_eq!(failed.of_set("web").expect("read").len(), 2);
        let fewer = FailedLogs { keep: 3, ..failed };
        instance.prepare().expect("prepare");
        fs::write(instance.vmm_log(), "the last").expect("write");
        fewer.keep(&instance, &"boot failed".into()).expect("kept");
        assert_eq!(fewer.of_set("web").expect("read").len(), 1, "the newest three are of both sets");
        assert_eq!(fewer.of_set("db").expect("read").len(), 2);
        assert_eq!(FailedLogs::new(data.path(), 0, 9).keep(&instance, &"x".into()), None);
    }
}
