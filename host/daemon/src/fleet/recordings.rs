//! Imported recordings: names that are neither those of sets nor of each other.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use regatta_core::manifest::name_problem;
use regatta_util::chain;

use super::{Fleet, error};
use crate::api::control::Answer;
use crate::api::recording_types::{ImportRecordingRequest, RecordingContent, RecordingInfo};
use crate::api::types::ErrorCode;
use crate::clock::now_ms;
use crate::recordings::{ImportError, Recordings};

impl Fleet {
    pub(super) async fn list_recordings(&self) -> Answer<Vec<RecordingInfo>> {
        self.with_recordings(Recordings::list).await
    }

    pub(super) async fn take_recording(
        &self,
        request: ImportRecordingRequest,
        actor: &str,
    ) -> Answer<RecordingInfo> {
        let path = PathBuf::from(request.path);
        if let Some(name) = &request.name
            && let Some(problem) = name_problem(name)
        {
            return Err(error(ErrorCode::Invalid, format!("the name of a recording {problem}")));
        }
        if !path.is_absolute() {
            return Err(error(ErrorCode::Invalid, "the path of a recording must be absolute"));
        }
        let checked = self.with_recordings(move |recordings| Ok(recordings.check(&path))).await?;
        let checked = checked.map_err(|why| {
            let code = match why {
                ImportError::Unwritable { .. } => ErrorCode::Unavailable,
                ImportError::Unreadable { .. } | ImportError::Unsound { .. } => ErrorCode::Invalid,
            };
            error(code, format!("nothing was imported: {}", chain(&why)))
        })?;
        let name = request.name.unwrap_or_else(|| checked.contents.set.clone());

        // No set and no other recording takes the name in between.
        let _one_at_a_time = self.names.lock(name.clone()).await;
        self.refuse_set_name(&name)?;
        self.refuse_recording_name(&name, "delete it first, or use another name (--as NAME)").await?;
        let info = self.with_recordings(move |recordings| recordings.keep(checked, &name, now_ms())).await?;
        tracing::info!(recording = info.name, set = info.set, ticks = info.ticks, actor, "imported");
        Ok(info)
    }

    fn refuse_set_name(&self, name: &str) -> Answer<()> {
        if !self.sets_now().contains_key(name) {
            return Ok(());
        }
        let message = format!("nothing was imported: {name} is a set; use another name (--as NAME)");
        Err(error(ErrorCode::Conflict, message))
    }

    /// Refuses a name that a recording has.
    pub(super) async fn refuse_recording_name(&self, name: &str, advice: &str) -> Answer<()> {
        if self.list_recordings().await?.iter().all(|known| known.name != name) {
            return Ok(());
        }
        Err(error(ErrorCode::Conflict, format!("a recording is named {name}: {advice}")))
    }

    pub(super) async fn forget_recording(&self, name: &str, actor: &str) -> Answer<RecordingInfo> {
        let _one_at_a_time = self.names.lock(name.to_owned()).await;
        let info = self.recording(name).await?;
        let removed = info.name.clone();
        self.with_recordings(move |recordings| recordings.remove(&removed)).await?;
        tracing::info!(recording = name, actor, "a recording was deleted");
        Ok(info)
    }

    pub(super) async fn read_recording(&self, name: &str, offset: u64) -> Answer<RecordingContent> {
        let name = self.recording(name).await?.name;
        let bytes = self.with_recordings(move |recordings| recordings.read(&name, offset)).await?;
        Ok(RecordingContent { base64: BASE64.encode(bytes) })
    }

    /// A name of a request is only ever compared: none can lead out of the directory.
    async fn recording(&self, name: &str) -> Answer<RecordingInfo> {
        let known = self.list_recordings().await?;
        let names: Vec<&str> = known.iter().map(|it| it.name.as_str()).collect();
        let names = match &names[..] {
            [] => "there is none yet: `regatta record import` creates one".to_owned(),
            names => format!("there are: {}", names.join(", ")),
        };
        let found = known.into_iter().find(|it| it.name == name);
        found.ok_or_else(|| error(ErrorCode::NotFound, format!("no recording is named {name}; {names}")))
    }

    async fn with_recordings<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Recordings) -> std::io::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let shared = Arc::clone(&self.shared);
        let failed = |why: &dyn std::error::Error, dir: &Path| {
            error(ErrorCode::Unavailable, format!("recordings in {}: {}", dir.display(), chain(why)))
        };
        match tokio::task::spawn_blocking(move || work(&shared.recordings)).await {
            Ok(done) => done.map_err(|why| failed(&why, &self.shared.dirs.recordings)),
            Err(why) => Err(failed(&why, &self.shared.dirs.recordings)),
        }
    }
}
