//! Guests can print without end. Nobody else shortens their logs, so a thread of its own looks at them all the time: what a guest
//! can add is bounded by what it prints between two looks.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use regatta_util::chain;
use regatta_vmm::InstanceDir;

/// So much of each log is kept, from its end.
const KEPT_BYTES: u64 = 16 << 20;
/// And so much more before it is shortened again.
const SLACK_BYTES: u64 = 16 << 20;
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Looks at sizes between two looks for new instances.
const LOOKS_PER_LIST: u32 = 2;

/// Starts to keep the logs of all instances below `instances` short, until the process ends.
///
/// # Errors
/// A thread cannot be started.
pub(crate) fn keep_short(instances: &Path) -> std::io::Result<()> {
    let mut logs = Logs { instances: instances.to_owned(), dirs: Vec::new(), shortened_at: HashMap::new() };
    thread::Builder::new().name("regatta-logs".to_owned()).spawn(move || {
        loop {
            logs.list();
            for _ in 0..LOOKS_PER_LIST {
                thread::sleep(LOOK_EVERY);
                logs.shorten(KEPT_BYTES, SLACK_BYTES);
            }
        }
    })?;
    Ok(())
}

struct Logs {
    instances: PathBuf,
    dirs: Vec<InstanceDir>,
    /// How long the longest log of each directory was then.
    shortened_at: HashMap<PathBuf, u64>,
}

impl Logs {
    fn list(&mut self) {
        match InstanceDir::list(&self.instances) {
            Ok(dirs) => self.dirs = dirs,
            Err(error) => tracing::debug!(error = chain(&error), "the instances' logs cannot be looked at"),
        }
        self.shortened_at.retain(|path, _| self.dirs.iter().any(|dir| dir.path() == path));
    }

    fn shorten(&mut self, kept_bytes: u64, slack_bytes: u64) {
        for dir in &self.dirs {
            let length = dir.longest_log_bytes();
            // One that became shorter is another one.
            let before = self.shortened_at.get(dir.path()).copied().filter(|&before| before <= length);
            if length <= before.unwrap_or(kept_bytes).saturating_add(slack_bytes) {
                continue;
            }
            match dir.limit_logs(kept_bytes) {
                Ok(()) => drop(self.shortened_at.insert(dir.path().to_owned(), length)),
                Err(error) => {
                    tracing::debug!(
                        instance = dir.id(),
                        error = chain(&error),
                        "its logs cannot be shortened"
                    );
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_log_that_grows_takes_a_bounded_place() {
        let root = tempfile::tempdir().unwrap();
        let dir = InstanceDir::new(root.path(), "web", "1").unwrap();
        std::fs::create_dir_all(dir.path()).unwrap();
        let mut logs =
            Logs { instances: root.path().to_owned(), dirs: Vec::new(), shortened_at: HashMap::new() };
        logs.list();
        let takes = || std::fs::metadata(dir.serial_log()).unwrap().blocks() * 512;
        let chunk = vec![b'x'; 64 << 10];
        for _ in 0..64 {
            use std::io::Write;
            let log = std::fs::OpenOptions::new().create(true).append(true).open(dir.serial_log());
            log.unwrap().write_all(&chunk).unwrap();
            logs.shorten(128 << 10, 128 << 10);
            assert!(takes() <= 384 << 10, "{}", takes());
        }
        assert_eq!(std::fs::metadata(dir.serial_log()).unwrap().len(), 4 << 20);
        assert!(logs.shortened_at.len() == 1);
        std::fs::remove_dir_all(dir.path()).unwrap();
        logs.list();
        assert!(logs.shortened_at.is_empty());
    }
}
