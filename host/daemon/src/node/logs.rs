//! Guests can print without end. Nobody else shortens their logs, so a thread of its own looks at them all the time: what a guest
//! can add is bounded by what it prints between two looks.

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
    let mut logs = Logs { instances: instances.to_owned(), dirs: Vec::new() };
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
}

impl Logs {
    fn list(&mut self) {
        match InstanceDir::list(&self.instances) {
            Ok(dirs) => self.dirs = dirs,
            Err(error) => tracing::debug!(error = chain(&error), "the instances' logs cannot be looked at"),
        }
    }

    fn shorten(&mut self, kept_bytes: u64, slack_bytes: u64) {
        for dir in &self.dirs {
            if dir.largest_log_disk_bytes() <= kept_bytes.saturating_add(slack_bytes) {
                continue;
            }
            if let Err(error) = dir.limit_logs(kept_bytes) {
                tracing::debug!(instance = dir.id(), error = chain(&error), "its logs cannot be shortened");
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
        let mut logs = Logs { instances: root.path().to_owned(), dirs: Vec::new() };
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
        // It need not become longer to take more.
        let log = std::fs::OpenOptions::new().write(true).open(dir.serial_log()).unwrap();
        log.set_len(1 << 40).unwrap();
        logs.shorten(128 << 10, 128 << 10);
        std::os::unix::fs::FileExt::write_all_at(&log, &vec![b'x'; 4 << 20], 0).unwrap();
        logs.shorten(128 << 10, 128 << 10);
        assert!(takes() <= 384 << 10, "{}", takes());
    }
}
