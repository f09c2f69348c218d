//! The state on disk: copies of it, and whether the open file is still the one that the next daemon will find.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regatta_core::batch::Batch;
use regatta_store::{CopyOf, Named};
use tokio_util::sync::CancellationToken;

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::recovery_types::{BackupOutcome, BackupRequest, ConditionKind, CopyInfo, DaemonCondition};
use crate::api::types::ErrorCode;
use crate::clock;
use crate::copies::StateCopy;
use regatta_util::chain;

/// Between two looks at the file.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// Between two copies.
const COPY_EVERY: Duration = Duration::from_secs(3_600);
/// How long sets may take to end before the state is put back without their last tick.
const END_WITHIN: Duration = Duration::from_secs(5);

impl Fleet {
    /// Looks after the state until the daemon stops.
    pub(crate) async fn look_after_state(self: Arc<Self>, shutdown: CancellationToken) {
        let mut looks = tokio::time::interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let (mut before, mut copied) = (Named::AsOpened, None::<tokio::time::Instant>);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = looks.tick() => {}
            }
            let named = self.shared.file.named();
            let changed = named != before;
            before = named;
            if changed {
                match message(named, self.shared.file.path()) {
                    Some(message) => tracing::error!("{message}"),
                    None => tracing::info!("the state file is in its place again"),
                }
            }
            // What is open is all that there is when its file has no name: not for long.
            if changed || copied.is_none_or(|copied| copied.elapsed() >= COPY_EVERY) {
                copied = self.copy_state().await.then(tokio::time::Instant::now);
            }
        }
    }

    /// Returns whether the state is among the copies; a copy that failed is not tried again at once.
    async fn copy_state(&self) -> bool {
        let (store, copies) = (Arc::clone(&self.shared.file), self.shared.copies.clone());
        // What there are orphans of may only be in old copies.
        let may_go = self.orphans_now().is_empty();
        let make = move || copies.make(&store, clock::now_ms(), may_go);
        let made = tokio::task::spawn_blocking(make).await.map_err(|why| why.to_string()).flatten();
        made.unwrap_or_else(|why| {
            tracing::warn!(why, "the state was not copied; the next attempt is in an hour");
            true
        })
    }

    /// What `status` says of the state file.
    pub(super) fn state_condition(&self) -> Option<DaemonCondition> {
        let named = self.shared.file.named();
        let kind = match named {
            Named::AsOpened => return None,
            Named::FileLost | Named::FileReplaced => ConditionKind::StateFile,
            Named::DirectoryLost | Named::LockLost => ConditionKind::DataDirectory,
        };
        Some(DaemonCondition { kind, message: message(named, self.shared.file.path())? })
    }

    pub(super) async fn back_up(&self, request: BackupRequest, actor: &str) -> Answer<BackupOutcome> {
        let path = PathBuf::from(&request.path);
        if !path.is_absolute() {
            return Err(error(
                ErrorCode::Invalid,
                format!("backup: {} is not an absolute path", request.path),
            ));
        }
        if path.exists() {
            let message = format!("backup: {} exists; choose another name", request.path);
            return Err(error(ErrorCode::Conflict, message));
        }
        let store = Arc::clone(&self.shared.file);
        let target = path.clone();
        let copy = move || store.copy_to(&target, CopyOf::Everything);
        let copied = tokio::task::spawn_blocking(copy).await;
        let failed = |why: String| error(ErrorCode::Unavailable, format!("no backup was written: {why}"));
        let bytes = copied.map_err(|why| failed(why.to_string()))?.map_err(|why| failed(chain(&why)))?;
        tracing::info!(path = %path.display(), bytes, actor, "the state was backed up");
        Ok(BackupOutcome { path: request.path, bytes })
    }

    pub(super) async fn list_copies(&self) -> Vec<CopyInfo> {
        let copies = self.shared.copies.clone();
        let listed = tokio::task::spawn_blocking(move || copies.list()).await.unwrap_or_default();
        listed.iter().map(info).collect()
    }

    /// Waits for the sets to end, and puts the state back to its place if it lost it.
    pub(crate) async fn end(&self) {
        let handles: Vec<_> = self.sets_now().values().cloned().collect();
        let ends = futures::future::join_all(handles.iter().map(crate::set::SetHandle::ended));
        if tokio::time::timeout(self.shared.shutdown_grace + END_WITHIN, ends).await.is_err() {
            tracing::warn!("some sets have not ended yet");
        }
        if self.shared.file.named() == Named::AsOpened {
            return;
        }
        // Behind everything that still waits to be stored.
        _ = self.shared.commit(Batch::default()).await;
        match self.shared.file.save_back(clock::now_ms()) {
            Ok(told) => told.into_iter().for_each(|told| tracing::warn!("{told}")),
            Err(why) => tracing::error!(
                why = chain(&why), copies = %self.shared.copies.dir().display(),
                "the state could not be put back; its last copy is among the copies, and `regatta recover` adopts what runs"
            ),
        }
    }
}

/// What is wrong, and what to do about it.
fn message(named: Named, path: &Path) -> Option<String> {
    let directory = path.parent().unwrap_or(path).display();
    let path = path.display();
    Some(match named {
        Named::AsOpened => return None,
        Named::FileLost => format!(
            "{path} was removed or moved away while the daemon has it open: all sets are still managed; stop the daemon \
             with SIGTERM and it writes the file back, do not kill it"
        ),
        Named::FileReplaced => format!(
            "another file took the name {path} while the daemon has its own open: all sets are still managed; stop the \
             daemon with SIGTERM and it puts its own back and keeps the other beside it, do not kill it"
        ),
        Named::DirectoryLost => format!(
            "the data directory {directory} was moved, removed or replaced: put it back before the daemon stops; nothing \
             is written to a directory that took its name"
        ),
        Named::LockLost => format!(
            "{directory}/daemon.lock was removed or replaced: a second daemon could start on the same VMs; restart this \
             one (SIGTERM, then start), its VMs keep running"
        ),
    })
}

fn info(copy: &StateCopy) -> CopyInfo {
    CopyInfo { path: copy.path.display().to_string(), at_ms: copy.name.at_ms, bytes: copy.bytes }
}
