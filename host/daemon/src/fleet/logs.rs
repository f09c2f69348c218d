//! Logs of instances, also of those that are gone.

use std::io;
use std::path::Path;
use std::time::UNIX_EPOCH;

use regatta_vmm::{InstanceDir, KeptLogs, read_tail};

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::log_types::{KeptLogInfo, LOG_BYTES_MAX, LogContent, LogKind, LogQuery};
use crate::api::types::ErrorCode;

impl Fleet {
    pub(super) async fn list_kept_logs(&self, set: &str) -> Answer<Vec<KeptLogInfo>> {
        let kept = self.kept_logs_of(set).await?;
        if kept.is_empty() {
            self.find(set)?;
        }
        Ok(kept.into_iter().filter_map(info).collect())
    }

    /// What an instance runs on counts before what was kept of one that failed.
    pub(super) async fn find_log(&self, set: &str, id: u32, query: LogQuery) -> Answer<LogContent> {
        let bytes = query.bytes.unwrap_or(LOG_BYTES_MAX).min(LOG_BYTES_MAX);
        if let Ok(dir) = InstanceDir::new(&self.shared.node.instances, set, &id.to_string())
            && let Some(text) = self.tail(&log_in(&dir, dir.path(), query.log), bytes).await?
        {
            return Ok(LogContent { kept_because: None, text });
        }
        for kept in self.kept_logs_of(set).await?.into_iter().filter(|kept| kept.id == id.to_string()) {
            let Ok(dir) = InstanceDir::new(&self.shared.node.instances, set, &kept.id) else { continue };
            if let Some(text) = self.tail(&log_in(&dir, &kept.dir, query.log), bytes).await? {
                return Ok(LogContent { kept_because: Some(kept.reason), text });
            }
        }
        let message = format!(
            "no such log of {set}-{id}: only instances that failed or were replaced leave theirs, the last few of a set; \
             `regatta logs {set}` lists them"
        );
        Err(error(ErrorCode::NotFound, message))
    }

    async fn kept_logs_of(&self, set: &str) -> Answer<Vec<KeptLogs>> {
        let (failed, set) = (self.shared.node.vmms.failed_logs().clone(), set.to_owned());
        let listed = tokio::task::spawn_blocking(move || failed.of_set(&set)).await;
        listed.map_err(io::Error::other).flatten().map_err(|why| unreadable(&why))
    }

    /// The end of a file; none when it is not there.
    async fn tail(&self, path: &Path, bytes: u64) -> Answer<Option<String>> {
        let path = path.to_owned();
        let read = tokio::task::spawn_blocking(move || read_tail(&path, bytes)).await;
        match read.map_err(io::Error::other).flatten() {
            Ok(tail) => Ok(Some(String::from_utf8_lossy(&tail).into_owned())),
            Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(unreadable(&why)),
        }
    }
}

/// The log as it is named in an instance's directory, below `place`.
fn log_in(dir: &InstanceDir, place: &Path, log: LogKind) -> std::path::PathBuf {
    let named = match log {
        LogKind::Console => dir.serial_log(),
        LogKind::Vmm => dir.vmm_log(),
    };
    place.join(named.file_name().unwrap_or_default())
}

fn info(kept: KeptLogs) -> Option<KeptLogInfo> {
    let since = kept.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Some(KeptLogInfo { id: kept.id.parse().ok()?, at_ms, reason: kept.reason })
}

fn unreadable(why: &io::Error) -> crate::api::types::ApiError {
    error(ErrorCode::Internal, format!("the logs cannot be read: {why}"))
}
