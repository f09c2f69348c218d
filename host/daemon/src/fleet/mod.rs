//! All sets of the daemon, and what the API can ask of them.

mod apply;
mod conditions;
mod images;
mod logs;
mod orphans;
#[allow(
    clippy::disallowed_methods,
    reason = "modules go through the one door; the rest is the daemon's own file"
)]
mod policies;
mod queries;
mod recordings;
mod recover;
mod restart;
mod state_file;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use regatta_core::compare::Comparison;
use regatta_core::machine::{Command, CommandError, Done, InstanceAction, Start, UpgradeAction};
use regatta_core::record::TickRecord;
use regatta_policy_host::CompiledPolicy;
use regatta_util::KeyedLocks;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::api::Caller;
use crate::api::control::{Answer, Control};
use crate::api::image_types::{GcOutcome, GcRequest, ImageInfo, ImportImageRequest, ImportProgress};
use crate::api::log_types::{KeptLogInfo, LogContent, LogQuery};
use crate::api::recording_types::{ContentQuery, ImportRecordingRequest, RecordingContent, RecordingInfo};
use crate::api::recovery_types::{
    BackupOutcome, BackupRequest, ConditionKind, CopyInfo, DeleteOrphansOutcome, DeleteOrphansRequest,
    OrphanInfo, RecoverOutcome, RecoverRequest,
};
use crate::api::size_types::{FreezeRequest, HoldRequest, LimitsRequest};
use crate::api::types::{
    ApiError, ApplyOutcome, ApplyRequest, BlobContent, CanaryRequest, CompareQuery, DaemonStatus, ErrorCode,
    EventEntry, EventsQuery, InstanceActionRequest, InstanceInfo, PlacedOutcome, PolicyHistoryEntry,
    PolicyList, ProcessName, ProcessesInfo, ProcessesRequest, PromoteRequest, ProtectRequest, RecordsQuery,
    RollbackQuery, ScaleRequest, SetDetail, SetSummary, SwapOutcome, SwapRequest, VmmInfo, WhyQuery,
};
use crate::api::upgrade_types::{UpgradeInfo, UpgradeRequest, UpgradeVerb};
use crate::clock::now_ms;
use crate::set::{self, Answered, Call, SetHandle, Setup};
use crate::shared::Shared;

use self::orphans::Orphans;
pub(crate) use self::policies::PolicyDirs;
use self::policies::{Followed, Shelf};

/// All sets of the daemon.
pub(crate) struct Fleet {
    shared: Arc<Shared>,
    policy_dirs: PolicyDirs,
    /// What lies in the policy directories.
    shelf: Shelf,
    /// What was offered to policies that follow their file.
    followed: Followed,
    vmm: VmmInfo,
    started_ms: u64,
    sets: Arc<Mutex<BTreeMap<String, SetHandle>>>,
    /// Policies that were compiled last, the newest first.
    compiled_last: Mutex<VecDeque<Arc<CompiledPolicy>>>,
    /// What creates, changes and removes whatever has a set's name is worked on one at a time: each sees what the one before
    /// did. Other names do not wait.
    names: KeyedLocks<String>,
    /// Names of images are given and taken away one at a time.
    naming: tokio::sync::Mutex<()>,
    /// What no stored set knows.
    orphans: Mutex<Orphans>,
    /// Orphans are adopted and removed one order at a time.
    orphan_work: tokio::sync::Mutex<()>,
    shutdown: CancellationToken,
}

impl Fleet {
    /// A fleet without sets; [`Fleet::restart`] brings back those that are stored.
    #[must_use]
    pub(crate) fn new(
        shared: Arc<Shared>,
        policy_dirs: PolicyDirs,
        vmm: VmmInfo,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            followed: Followed::read(shared.dirs.followed.clone()),
            shared,
            policy_dirs,
            shelf: Shelf::default(),
            vmm,
            started_ms: now_ms(),
            sets: Arc::default(),
            compiled_last: Mutex::default(),
            names: KeyedLocks::default(),
            naming: tokio::sync::Mutex::new(()),
            orphans: Mutex::default(),
            orphan_work: tokio::sync::Mutex::new(()),
            shutdown,
        }
    }

    fn sets_now(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, SetHandle>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the loop of a set and forgets it when it has ended.
    fn start(&self, start: Start, setup: Setup) {
        let name = start.state.set.name.clone();
        let handle = set::start(Arc::clone(&self.shared), start, setup, self.shutdown.clone());
        self.sets_now().insert(name.clone(), handle.clone());
        let sets = Arc::clone(&self.sets);
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            handle.ended().await;
            sets.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
            shared.exposition.forget(&name);
        });
    }

    fn find(&self, set: &str) -> Answer<SetHandle> {
        let sets = self.sets_now();
        if let Some(handle) = sets.get(set) {
            return Ok(handle.clone());
        }
        let known: Vec<&str> = sets.keys().map(String::as_str).collect();
        let known = if known.is_empty() {
            "there is none yet: apply a manifest first".to_owned()
        } else {
            format!("there are: {}", known.join(", "))
        };
        Err(error(ErrorCode::NotFound, format!("no set is named {set}; {known}")))
    }

    /// Sends a command to a set and waits for its answer.
    /// An instance that a command was about.
    fn instance_of(&self, set: &str, id: u32) -> Answer<InstanceInfo> {
        let found = self.find(set)?.view().instances().into_iter().find(|instance| instance.id == id);
        found.ok_or_else(|| error(ErrorCode::NotFound, format!("{set}-{id} has just gone")))
    }

    async fn command(&self, set: &str, command: Command, actor: &str) -> Answer<Done> {
        let plain = |reply| Call { command, actor: actor.into(), modules: Vec::new(), images: None, reply };
        Ok(self.call(set, plain).await?.0)
    }

    /// Sends a command to a set with what it takes to carry it out. Returns what came of it, and how long it held the set.
    async fn call(
        &self,
        set: &str,
        make: impl FnOnce(oneshot::Sender<Answered>) -> Call,
    ) -> Answer<(Done, Duration)> {
        let handle = self.find(set)?;
        let (reply, answer) = oneshot::channel();
        let ended = || error(ErrorCode::NotFound, format!("set {set} was deleted"));
        handle.send(make(reply)).await.ok_or_else(ended)?;
        let Answered { result, held } = answer.await.map_err(|_| ended())?;
        Ok((result.map_err(refused)?, held))
    }

    async fn summary_of(&self, set: &str) -> Answer<SetSummary> {
        Ok(self.find(set)?.view().summary())
    }
}

/// Refuses a time that is over before it begins.
fn lasting(for_ms: Option<u64>) -> Answer<()> {
    match for_ms {
        Some(0) => Err(error(ErrorCode::Invalid, "the time that it lasts must be longer than 0")),
        _ => Ok(()),
    }
}

/// An error without problems.
#[must_use]
pub(crate) fn error(code: ErrorCode, message: impl Into<String>) -> ApiError {
    ApiError { code, message: message.into(), problems: Vec::new() }
}

/// Why a set did not carry out a command, as the API says it.
fn refused(command: CommandError) -> ApiError {
    match command {
        CommandError::Conflict(message) => error(ErrorCode::Conflict, message),
        CommandError::NotFound(message) => error(ErrorCode::NotFound, message),
        CommandError::Store(message) => error(
            ErrorCode::Unavailable,
            format!("nothing was changed; the store cannot be written: {message}"),
        ),
    }
}

#[async_trait]
impl Control for Fleet {
    async fn status(&self, _: &Caller) -> Answer<DaemonStatus> {
        let newest_copy = self.list_copies().await.into_iter().next();
        let conditions = self.conditions();
        let sets = self.sets_now().len();
        Ok(DaemonStatus {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started_ms: self.started_ms,
            data_dir: self.shared.dirs.root.display().to_string(),
            vmm: self.vmm.clone(),
            sets: u32::try_from(sets).unwrap_or(u32::MAX),
            conditions,
            newest_copy,
        })
    }

    async fn apply(&self, request: ApplyRequest, caller: &Caller) -> Answer<ApplyOutcome> {
        self.apply_manifest(request, &caller.name).await
    }

    async fn sets(&self, _: &Caller) -> Answer<Vec<SetSummary>> {
        Ok(self.sets_now().values().map(|handle| handle.view().summary()).collect())
    }

    async fn set(&self, set: &str, _: &Caller) -> Answer<SetDetail> {
        let mut detail = self.find(set)?.view().detail();
        detail.notes.extend(self.followed.refused(set));
        Ok(detail)
    }

    async fn instances(&self, set: &str, _: &Caller) -> Answer<Vec<InstanceInfo>> {
        Ok(self.find(set)?.view().instances())
    }

    async fn protect(
        &self,
        set: &str,
        id: u32,
        request: ProtectRequest,
        caller: &Caller,
    ) -> Answer<InstanceInfo> {
        let protection = request.protection.into();
        self.command(set, Command::Protect { id, protection }, &caller.name).await?;
        self.instance_of(set, id)
    }

    async fn processes(
        &self,
        set: &str,
        request: ProcessesRequest,
        caller: &Caller,
    ) -> Answer<ProcessesInfo> {
        let of = |names: Vec<ProcessName>| names.into_iter().map(Into::into).collect();
        let command = Command::Processes { suspend: of(request.suspend), resume: of(request.resume) };
        self.command(set, command, &caller.name).await?;
        let suspended = self.find(set)?.view().suspended();
        Ok(ProcessesInfo { suspended: suspended.map(Into::into).collect() })
    }

    async fn instance_action(
        &self,
        set: &str,
        id: u32,
        request: InstanceActionRequest,
        caller: &Caller,
    ) -> Answer<InstanceInfo> {
        let action = match request {
            InstanceActionRequest::Replace => InstanceAction::Replace,
            InstanceActionRequest::Restart => InstanceAction::Restart,
            InstanceActionRequest::Delete { shrink } => InstanceAction::Delete { shrink },
        };
        self.command(set, Command::Instance { id, action }, &caller.name).await?;
        self.instance_of(set, id)
    }

    async fn upgrade(&self, set: &str, _: &Caller) -> Answer<UpgradeInfo> {
        Ok(self.find(set)?.view().upgrade())
    }

    async fn change_upgrade(
        &self,
        set: &str,
        request: UpgradeRequest,
        caller: &Caller,
    ) -> Answer<UpgradeInfo> {
        let action = match request.action {
            UpgradeVerb::Start => UpgradeAction::Start,
            UpgradeVerb::Pause => UpgradeAction::Pause,
            UpgradeVerb::Resume => UpgradeAction::Resume,
            UpgradeVerb::Cancel => UpgradeAction::Cancel,
            UpgradeVerb::Rollback => UpgradeAction::RollBack,
        };
        self.command(set, Command::Upgrade(action), &caller.name).await?;
        Ok(self.find(set)?.view().upgrade())
    }

    async fn kept_logs(&self, set: &str, _: &Caller) -> Answer<Vec<KeptLogInfo>> {
        self.list_kept_logs(set).await
    }

    async fn instance_log(&self, set: &str, id: u32, query: LogQuery, _: &Caller) -> Answer<LogContent> {
        self.find_log(set, id, query).await
    }

    async fn scale(&self, set: &str, request: ScaleRequest, caller: &Caller) -> Answer<SetSummary> {
        self.command(set, Command::Scale { capacity: request.capacity }, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn hold(&self, set: &str, request: HoldRequest, caller: &Caller) -> Answer<SetSummary> {
        let HoldRequest { capacity, for_ms, reason } = request;
        lasting(for_ms)?;
        self.command(set, Command::Hold { capacity, for_ms, reason }, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn resume(&self, set: &str, caller: &Caller) -> Answer<SetSummary> {
        self.command(set, Command::Resume, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn override_limits(
        &self,
        set: &str,
        request: LimitsRequest,
        caller: &Caller,
    ) -> Answer<SetSummary> {
        let LimitsRequest { min, max, for_ms, reason } = request;
        lasting(for_ms)?;
        self.command(set, Command::Limits { min, max, for_ms, reason }, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn clear_limits(&self, set: &str, caller: &Caller) -> Answer<SetSummary> {
        self.command(set, Command::ClearLimits, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn freeze(&self, set: &str, request: FreezeRequest, caller: &Caller) -> Answer<SetSummary> {
        let FreezeRequest { for_ms, reason } = request;
        lasting(for_ms)?;
        self.command(set, Command::Freeze { for_ms, reason }, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn thaw(&self, set: &str, caller: &Caller) -> Answer<SetSummary> {
        self.command(set, Command::Thaw, &caller.name).await?;
        self.summary_of(set).await
    }

    async fn delete(&self, set: &str, caller: &Caller) -> Answer<SetSummary> {
        let before = self.summary_of(set).await?;
        self.command(set, Command::Delete, &caller.name).await?;
        Ok(self.summary_of(set).await.unwrap_or(before))
    }

    async fn swap_policy(&self, set: &str, request: SwapRequest, caller: &Caller) -> Answer<SwapOutcome> {
        self.swap(set, request, &caller.name).await
    }

    async fn rollback_policy(&self, set: &str, query: RollbackQuery, caller: &Caller) -> Answer<SwapOutcome> {
        self.rollback(set, query, &caller.name).await
    }

    async fn shadow_policy(&self, set: &str, request: SwapRequest, caller: &Caller) -> Answer<PlacedOutcome> {
        self.shadow(set, request, &caller.name).await
    }

    async fn canary_policy(
        &self,
        set: &str,
        request: CanaryRequest,
        caller: &Caller,
    ) -> Answer<PlacedOutcome> {
        self.canary(set, request, &caller.name).await
    }

    async fn promote_policy(
        &self,
        set: &str,
        request: PromoteRequest,
        caller: &Caller,
    ) -> Answer<SwapOutcome> {
        self.promote(set, request.number, &caller.name).await
    }

    async fn drop_policy(&self, set: &str, number: u64, caller: &Caller) -> Answer<PlacedOutcome> {
        self.drop_candidate(set, number, &caller.name).await
    }

    async fn policy_history(&self, set: &str, _: &Caller) -> Answer<Vec<PolicyHistoryEntry>> {
        self.history(set).await
    }

    async fn compare_policies(&self, set: &str, query: CompareQuery, _: &Caller) -> Answer<Comparison> {
        self.comparison(set, query).await
    }

    async fn policies(&self, set: &str, _: &Caller) -> Answer<PolicyList> {
        self.list_policies(set)
    }

    async fn why(&self, set: &str, query: WhyQuery, _: &Caller) -> Answer<TickRecord> {
        self.find_record(set, &query).await
    }

    async fn records(&self, set: &str, query: RecordsQuery, _: &Caller) -> Answer<Vec<TickRecord>> {
        self.list_records(set, &query).await
    }

    async fn blob(&self, sha256: &str, _caller: &Caller) -> Answer<BlobContent> {
        self.find_blob(sha256).await
    }

    async fn recordings(&self, _: &Caller) -> Answer<Vec<RecordingInfo>> {
        self.list_recordings().await
    }

    async fn import_recording(
        &self,
        request: ImportRecordingRequest,
        caller: &Caller,
    ) -> Answer<RecordingInfo> {
        self.take_recording(request, &caller.name).await
    }

    async fn delete_recording(&self, name: &str, caller: &Caller) -> Answer<RecordingInfo> {
        self.forget_recording(name, &caller.name).await
    }

    async fn recording_content(
        &self,
        name: &str,
        query: ContentQuery,
        _: &Caller,
    ) -> Answer<RecordingContent> {
        self.read_recording(name, query.offset).await
    }

    async fn events(&self, query: EventsQuery, _: &Caller) -> Answer<Vec<EventEntry>> {
        self.list_events(&query).await
    }

    async fn import_image(
        &self,
        request: ImportImageRequest,
        progress: watch::Sender<ImportProgress>,
        caller: &Caller,
    ) -> Answer<ImageInfo> {
        self.take_image(request, progress, &caller.name).await
    }

    async fn orphans(&self, _: &Caller) -> Answer<Vec<OrphanInfo>> {
        Ok(self.list_orphans())
    }

    async fn delete_orphans(
        &self,
        request: DeleteOrphansRequest,
        caller: &Caller,
    ) -> Answer<DeleteOrphansOutcome> {
        self.remove_orphans(request, &caller.name).await
    }

    async fn copies(&self, _: &Caller) -> Answer<Vec<CopyInfo>> {
        Ok(self.list_copies().await)
    }

    async fn backup(&self, request: BackupRequest, caller: &Caller) -> Answer<BackupOutcome> {
        self.back_up(request, &caller.name).await
    }

    async fn recover(&self, request: RecoverRequest, caller: &Caller) -> Answer<RecoverOutcome> {
        self.recover_sets(request, &caller.name).await
    }

    async fn images(&self, _: &Caller) -> Answer<Vec<ImageInfo>> {
        self.list_images().await
    }

    async fn image(&self, image: &str, _: &Caller) -> Answer<ImageInfo> {
        self.find_image(image).await
    }

    async fn remove_image(&self, name: &str, caller: &Caller) -> Answer<ImageInfo> {
        self.forget_image(name, &caller.name).await
    }

    async fn collect_images(&self, request: GcRequest, caller: &Caller) -> Answer<GcOutcome> {
        self.collect(request.dry_run, &caller.name).await
    }

    async fn metrics(&self, _: &Caller) -> Answer<String> {
        let stats =
            self.sets_now().iter().map(|(name, handle)| (name.clone(), handle.view())).collect::<Vec<_>>();
        for (name, view) in stats {
            self.shared.exposition.observe_stuck(&name, view.stuck().is_some());
            self.shared.exposition.observe_set(
                &name,
                &view.state,
                (view.limits.min, view.limits.max),
                &view.instances,
                view.traffic.as_ref().map(|traffic| &traffic.stats.totals),
            );
        }
        self.shared.exposition.observe_orphans(
            self.list_orphans().iter().map(|orphan| orphan.name.split('/').next().unwrap_or_default()),
        );
        let conditions = self.conditions();
        self.shared.exposition.observe_conditions(
            ConditionKind::ALL
                .iter()
                .map(|kind| (kind.as_str(), conditions.iter().any(|it| it.kind == *kind))),
        );
        self.shared.exposition.encode().map_err(|why| error(ErrorCode::Internal, why.to_string()))
    }
}
