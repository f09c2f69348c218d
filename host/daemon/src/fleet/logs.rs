//! Logs of instances, also of those that are gone.

use std::io;
use std::time::UNIX_EPOCH;

use regatta_vmm::{InstanceDir, KeptLogs, SERIAL_LOG, VMM_LOG};

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
        let log = match query.log {
            LogKind::Console => SERIAL_LOG,
            LogKind::Vmm => VMM_LOG,
        };
        if let Ok(dir) = InstanceDir::new(&self.shared.node.instances, set, &id.to_string())
            && let Some(text) = tail(move || dir.log_tail(log, bytes)).await?
        {
            return Ok(LogContent { kept_because: None, text });
        }
        for kept in self.kept_logs_of(set).await?.into_iter().filter(|kept| kept.id == id.to_string()) {
            let reason = kept.reason.clone();
            if let Some(text) = tail(move || kept.tail(log, bytes)).await? {
                return Ok(LogContent { kept_because: Some(reason.into()), text });
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
}

/// The end of a log; none when it is not there.
async fn tail(read: impl FnOnce() -> io::Result<Vec<u8>> + Send + 'static) -> Answer<Option<String>> {
    match tokio::task::spawn_blocking(read).await.map_err(io::Error::other).flatten() {
        Ok(tail) => Ok(Some(String::from_utf8_lossy(&tail).into_owned())),
        Err(why) if why.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(why) => Err(unreadable(&why)),
    }
}

fn info(kept: KeptLogs) -> Option<KeptLogInfo> {
    let since = kept.at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let at_ms = u64::try_from(since.as_millis()).unwrap_or(u64::MAX);
    Some(KeptLogInfo { id: kept.id.parse().ok()?, at_ms, reason: kept.reason.into() })
}

fn unreadable(why: &io::Error) -> crate::api::types::ApiError {
    error(ErrorCode::Internal, format!("the logs cannot be read: {why}"))
}
