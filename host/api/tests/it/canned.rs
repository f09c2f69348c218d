//! A daemon with canned answers. The tests of the command line and of the binary use this file too.

#![allow(dead_code, reason = "not every test program uses all of it")]

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use regatta_api::image_types::*;
use regatta_api::log_types::*;
use regatta_api::recording_types::*;
use regatta_api::recovery_types::*;
use regatta_api::size_types::*;
use regatta_api::types::*;
use regatta_api::upgrade_types::*;
use regatta_api::{Answer, Caller, Control};
use regatta_core::combine::Combined;
use regatta_core::compare::{Comparison, LoadBasis, Pair, Side};
use regatta_core::decision::{Decision, PolicyRun, Reason};
use regatta_core::guard::{GuardMemory, GuardName, GuardStep, GuardTrail};
use regatta_core::instance_state::InstanceState;
use regatta_core::metric::MetricValue;
use regatta_core::node::Placement;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::plan::{Action, CreateCause, Plan};
use regatta_core::record::{InstanceChange, PlanFacts, TickRecord};
use serde_json::json;
use tokio::sync::{Notify, watch};

/// The time of all tests: 2026-11-23 14:31:07.250Z.
pub(crate) const NOW_MS: u64 = 1_795_444_267_250;

/// What the daemon has and was asked.
#[derive(Default)]
pub(crate) struct Canned {
    /// Every call with its arguments and actor.
    pub(crate) calls: Mutex<Vec<String>>,
    /// What `sets` answers.
    pub(crate) sets: Mutex<Vec<SetSummary>>,
    /// What `set` answers, one after the other; the last one stays. None: not found.
    pub(crate) script: Mutex<VecDeque<Option<SetSummary>>>,
    /// The event log.
    pub(crate) events: Mutex<Vec<EventEntry>>,
    /// What `instances` answers; two when there are none.
    pub(crate) instances: Mutex<Vec<InstanceInfo>>,
    /// The catalogue.
    pub(crate) images: Mutex<Vec<ImageInfo>>,
    /// Lets a swap to `slow`, and an import of `big`, go on.
    pub(crate) released: Notify,
    /// Rung when an event is added.
    pub(crate) rung: Notify,
}

impl Canned {
    /// With the set `web`.
    pub(crate) fn with_web() -> Self {
        let canned = Self::default();
        *canned.sets.lock().unwrap() = vec![web()];
        *canned.images.lock().unwrap() = vec![debian(), tiny()];
        canned.script.lock().unwrap().push_back(Some(web()));
        *canned.events.lock().unwrap() = vec![
            event(7, "scale-out", None, "3 → 5: utilization is above its target", "daemon"),
            event(8, "in-service", Some(4), "web-4 is in service", "daemon"),
        ];
        canned
    }

    pub(crate) fn push_event(&self, event: EventEntry) {
        self.events.lock().unwrap().push(event);
        self.rung.notify_waiters();
    }

    /// So many instances, the last of them unhealthy.
    #[allow(dead_code, reason = "the tests of the routes do without")]
    pub(crate) fn add_instances(&self, count: u32, unhealthy: u32) {
        let state = |id| if id > count - unhealthy { "unhealthy" } else { "in-service" };
        *self.instances.lock().unwrap() = (1..=count).map(|id| instance(id, state(id), &[])).collect();
    }

    pub(crate) fn called(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn note(&self, call: String) {
        self.calls.lock().unwrap().push(call);
    }

    fn known(&self, set: &str) -> Answer<SetSummary> {
        let mut script = self.script.lock().unwrap();
        let now = if script.len() > 1 { script.pop_front() } else { script.front().cloned() };
        match now.flatten() {
            Some(summary) if summary.name == set => Ok(summary),
            _ => Err(ApiError::not_found(format!("no set is named {set}"))),
        }
    }
}

pub(crate) fn event(seq: u64, kind: &str, instance: Option<u32>, text: &str, actor: &str) -> EventEntry {
    EventEntry {
        seq,
        at_ms: NOW_MS - 60_000 + seq * 1_000,
        set: "web".into(),
        kind: kind.into(),
        instance,
        text: text.into(),
        actor: actor.into(),
    }
}

pub(crate) fn policy(name: &str, activation: u64) -> PolicyInfo {
    PolicyInfo {
        slot: "load".into(),
        activation,
        name: name.into(),
        version: "0.1.0".into(),
        digest: format!("{activation:064x}").replace('0', "a").into(),
        source: name.into(),
        params: json!({"metric": "utilization", "target": 0.6}),
        since_ms: NOW_MS - 192_000,
    }
}

/// A copy of the state, so many minutes old.
fn copy(minutes: u64) -> CopyInfo {
    let at_ms = NOW_MS - minutes * 60_000;
    CopyInfo {
        path: format!("/var/lib/regatta/copies/state-{at_ms}-{}.redb", 900 - minutes),
        at_ms,
        bytes: 1 << 20,
    }
}

/// Of each role one.
fn entries() -> Vec<PolicyEntry> {
    let entry = |role, policy, within| PolicyEntry { role, policy, within, failure: None };
    vec![
        entry(PolicyRole::Active, policy("target-tracking", 2), None),
        entry(PolicyRole::Canary, policy("step", 5), Some(2)),
        entry(PolicyRole::Previous, policy("step", 1), None),
        PolicyEntry {
            failure: Some("returned no decision (trap): in decide(), line 7".into()),
            ..entry(PolicyRole::Shadow, policy("step", 4), None)
        },
    ]
}

/// A module that is not yet looked at, one that is good, or one that is none.
fn available(name: &str) -> AvailablePolicy {
    AvailablePolicy {
        name: name.into(),
        path: format!("/policies/{name}.wasm"),
        version: (name == "step").then(|| "0.1.0".into()),
        digest: (name == "step").then(|| "e".repeat(64).into()),
        problem: (name == "half-written").then(|| "not a valid WebAssembly module or component".into()),
    }
}

fn placed() -> PlacedOutcome {
    PlacedOutcome {
        policy: policy("step", 4),
        after_tick: 421,
        rehearsed_ticks: 20,
        decided_ticks: 18,
        warnings: vec!["step asks for metric lod, which set web does not have; did you mean load?".into()],
        state: "built from the recorded ticks".into(),
        prepare_ms: 42,
    }
}

fn manifest_size() -> SizeInfo {
    SizeInfo { min_from: "manifest".into(), max_from: "manifest".into(), ..SizeInfo::default() }
}

pub(crate) fn web() -> SetSummary {
    SetSummary {
        name: "web".into(),
        generation: 3,
        min: 2,
        max: 10,
        desired: 5,
        instances: BTreeMap::from([("in-service".into(), 4), ("booting".into(), 1)]),
        stuck: None,
        policies: vec![policy("target-tracking", 2)],
        tick_ms: 1_000,
        last_tick: 421,
        load_balancer: Some("127.0.0.1:8080".into()),
        deleting: false,
        upgrade: None,
        outdated: 0,
        problems: Vec::new(),
        steady_ms: 0,
        size: manifest_size(),
    }
}

/// `web` with these instances, having ticked once more.
pub(crate) fn web_with(desired: u32, last_tick: u64, instances: &[(&str, u32)]) -> Option<SetSummary> {
    let instances = instances.iter().map(|&(state, count)| (state.to_owned(), count)).collect();
    Some(SetSummary { desired, last_tick, instances, ..web() })
}

fn instance(id: u32, state: &str, metrics: &[(&str, f64)]) -> InstanceInfo {
    InstanceInfo {
        name: format!("web-{id}"),
        id,
        state: state.into(),
        state_since_ms: NOW_MS - 3_725_000,
        created_ms: NOW_MS - 3_730_000,
        generation: 3,
        address: format!("127.40.0.{id}:8080"),
        pid: Some(4_000 + id),
        protected: false,
        protection: ProtectionLevel::None,
        requested: None,
        connections: 12,
        metrics: metrics.iter().map(|&(name, value)| (name.to_owned(), value)).collect(),
        not_contained: Vec::new(),
        detail: None,
        start: None,
    }
}

pub(crate) fn record(tick: u64) -> TickRecord {
    let mut instances = InstanceTable::default();
    for id in 1..=3 {
        instances.push(InstanceRow {
            id,
            state: InstanceState::InService,
            state_since_ms: NOW_MS - 50_000,
            created_ms: NOW_MS - 60_000,
            generation: 3,
            protected: false,
        });
    }
    let reason = |code: &str, text: &str, evidence: &[(&str, &str)]| Reason {
        code: code.into(),
        text: text.into(),
        evidence: evidence.iter().map(|&(name, value)| (name.into(), value.into())).collect(),
    };
    let above =
        reason("above-target", "utilization is above its target", &[("mean", "0.85"), ("target", "0.6")]);
    let create = |id| Action::Create {
        id,
        cause: CreateCause::ScaleOut,
        generation: 3,
        placement: Placement::default(),
    };
    TickRecord {
        canaries: Vec::new(),
        shadows: Vec::new(),
        v: regatta_core::record::RECORD_VERSION,
        wall_ms: NOW_MS,
        manifest: "f".repeat(64).into(),
        wanted_metrics: vec!["utilization".into()],
        observation: Observation {
            set: "web".into(),
            tick,
            now_ms: NOW_MS,
            generation: 3,
            min: 2,
            max: 5,
            desired: 3,
            instances,
            metrics: vec![MetricObservation {
                name: "utilization".into(),
                scope: MetricScope::Instance,
                values: vec![MetricValue::Fresh(0.9), MetricValue::Fresh(0.8), MetricValue::Missing],
                window: Vec::new(),
            }],
            last: None,
            schedule: Vec::new(),
        },
        changes: vec![InstanceChange {
            id: 3,
            at_ms: NOW_MS - 1_000,
            event: InstanceEvent::Booted,
            from: Phase::Creating,
            to: Phase::Booting,
            detail: None,
        }],
        facts: PlanFacts { next_id: 4, ..PlanFacts::default() },
        runs: vec![PolicyRun {
            slot: String::new(),
            name: "target-tracking".into(),
            version: "0.1.0".into(),
            digest: "0123456789abcdef".into(),
            params: "{}".into(),
            state_in: String::new(),
            result: Ok(Decision {
                capacity: 6,
                standby: None,
                victims: Vec::new(),
                wake_after_ms: None,
                reasons: vec![above.clone()],
            }),
            fuel: 1_234,
            duration_us: 87,
            log: Vec::new(),
        }],
        combined: Combined {
            decided_by_digest: None,
            votes: Vec::new(),
            capacity: Some(6),
            standby: None,
            victims: Vec::new(),
            wake_after_ms: None,
            reasons: vec![above],
            decided_by: Some("target-tracking".into()),
        },
        guards: GuardTrail {
            steps: vec![GuardStep {
                guard: GuardName::Limits,
                before: Some(6),
                after: 5,
                reason: reason("limits", "the set's max is 5", &[]),
            }],
            granted: 5,
            limits: Vec::new(),
            memory: GuardMemory::default(),
        },
        plan: Plan { actions: vec![create(4), create(5)], notes: Vec::new(), ..Plan::default() },
        operator: Vec::new(),
    }
}

/// An imported recording.
fn recording(name: &str) -> RecordingInfo {
    RecordingInfo {
        name: name.into(),
        set: "web".into(),
        ticks: 720,
        first_tick: 1_001,
        last_tick: 1_720,
        recorded_ms: NOW_MS - 3 * 24 * 3_600_000,
        imported_ms: NOW_MS - 2 * 3_600_000,
        size_bytes: 3 << 20,
    }
}

/// An image with everything, used by `web`.
pub(crate) fn debian() -> ImageInfo {
    let file = |digit: &str, size_bytes| ImageFileInfo {
        digest: format!("sha256:{}", digit.repeat(64)).into(),
        size_bytes,
    };
    ImageInfo {
        name: "debian-13".into(),
        description: "Debian 13 with nginx".into(),
        source: "/srv/images/debian-13".into(),
        imported_ms: NOW_MS - 93_600_000,
        disk: Some(ImageDiskInfo {
            digest: format!("sha256:{}", "a1".repeat(32)).into(),
            size_bytes: 3 << 29,
            format: "qcow2".into(),
            virtual_size_bytes: 10 << 30,
        }),
        kernel: Some(file("b", 12 << 20)),
        initramfs: Some(file("c", 30 << 20)),
        cmdline: "console=ttyS0 root=/dev/vda1".into(),
        firmware: None,
        size_bytes: (3 << 29) + (42 << 20),
        used_by: vec!["web".into()],
    }
}

/// A kernel with everything inside.
pub(crate) fn tiny() -> ImageInfo {
    let kernel =
        Some(ImageFileInfo { digest: format!("sha256:{}", "d".repeat(64)).into(), size_bytes: 5 << 20 });
    ImageInfo {
        name: "tiny".into(),
        description: String::new(),
        source: "/srv/images/tiny.elf".into(),
        imported_ms: NOW_MS - 60_000,
        disk: None,
        kernel,
        initramfs: None,
        cmdline: String::new(),
        firmware: None,
        size_bytes: 5 << 20,
        used_by: Vec::new(),
    }
}

/// Two problems, as the manifest's reader renders them.
fn problems(source: &str) -> Vec<Problem> {
    let problem = |line, column, path: &str, message: &str, text: &str| Problem {
        path: path.into(),
        line,
        column,
        message: message.into(),
        hint: None,
        rendered: format!("{source}:{line}:{column}: {path}: {message}\n{line:>4} | {text}\n     |   ^"),
    };
    vec![
        problem(3, 3, "capacity.min", "is greater than max", "  min: 9"),
        problem(7, 3, "colour", "unknown field", "  colour: red"),
    ]
}

#[async_trait]
impl Control for Canned {
    async fn status(&self, _: &Caller) -> Answer<DaemonStatus> {
        Ok(DaemonStatus {
            version: "0.1.0".into(),
            pid: 4321,
            started_ms: NOW_MS - 93_600_000,
            data_dir: "/var/lib/regatta".into(),
            vmm: VmmInfo {
                path: "/usr/bin/regatta-chsim".into(),
                version: "v53.0".into(),
                chosen_because: "/dev/kvm cannot be used".into(),
            },
            sets: 1,
            conditions: vec![DaemonCondition {
                kind: ConditionKind::Orphans,
                message: "2 orphans that no stored set knows, 1 running (web/3, web/4)".into(),
            }],
            newest_copy: Some(copy(2)),
        })
    }

    async fn orphans(&self, _: &Caller) -> Answer<Vec<OrphanInfo>> {
        let orphan = |id: u32, pid| OrphanInfo {
            name: format!("web/{id}"),
            uid: Some(format!("00000000000000a7-{id}")),
            generation: Some(2),
            since_ms: NOW_MS - 60_000,
            address: Some(format!("127.64.0.{id}")),
            pid,
            why: "its set is not in the store".into(),
        };
        Ok(vec![orphan(3, Some(1234)), orphan(4, None)])
    }

    async fn copies(&self, _: &Caller) -> Answer<Vec<CopyInfo>> {
        Ok(vec![copy(2), copy(62)])
    }

    async fn backup(
        &self,
        request: BackupRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<BackupOutcome> {
        self.note(format!("backup {} by {actor}", request.path));
        Ok(BackupOutcome { path: request.path, bytes: 3 << 20 })
    }

    async fn recover(
        &self,
        request: RecoverRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<RecoverOutcome> {
        let RecoverRequest { sets, dry_run } = request;
        self.note(format!("recover {} dry_run={dry_run} by {actor}", sets.join(" ")));
        let web = RecoveredSet {
            set: "web".into(),
            generation: 2,
            capacity: 1,
            adopted: vec![3],
            notes: vec!["web/4 stays an orphan: its VMM has ended; its directory is kept".into()],
        };
        let why = "policy load: no policy is named load".into();
        let failed = if dry_run { Vec::new() } else { vec![FailedRecovery { set: "db".into(), why }] };
        Ok(RecoverOutcome { dry_run, recovered: vec![web], failed })
    }

    async fn delete_orphans(
        &self,
        request: DeleteOrphansRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<DeleteOrphansOutcome> {
        self.note(format!("delete orphans {} by {actor}", request.names.join(" ")));
        let failed = FailedOrphan { name: "web/4".into(), why: "process 7 is in its place".into() };
        let removed = RemovedOrphan { name: "web/3".into(), how: "its guest shut down".into() };
        Ok(DeleteOrphansOutcome { removed: vec![removed], failed: vec![failed] })
    }

    async fn apply(
        &self,
        request: ApplyRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<ApplyOutcome> {
        let ApplyRequest { source, base_dir, text, dry_run, force: _ } = request;
        self.note(format!("apply {source} in {base_dir} dry_run={dry_run} by {actor}"));
        if text.contains("broken") {
            return Err(ApiError::invalid(
                format!("{source} has 2 problems; nothing was applied"),
                problems(&source),
            ));
        }
        if text.contains("full disk") && !dry_run {
            return Err(ApiError::unavailable("the store cannot be written: no space left on device"));
        }
        let set = text.lines().find_map(|line| line.strip_prefix("name: ")).unwrap_or("web");
        let set = set.split_whitespace().next().unwrap_or("web").to_owned();
        let change =
            |path: &str, before: Option<&str>, after: Option<&str>, new_instances_only| FieldChange {
                path: path.into(),
                before: before.map(str::to_owned),
                after: after.map(str::to_owned),
                new_instances_only,
            };
        if text.contains("changed") {
            let changes = vec![
                change("capacity.max", Some("5"), Some("10"), false),
                change("instance.memory_bytes", Some("67108864"), Some("134217728"), true),
                change("repair.grace_ms", None, Some("5000"), false),
            ];
            return Ok(ApplyOutcome {
                set,
                result: ApplyResult::Updated,
                generation: 4,
                changes,
                upgrade: Some(UpgradePreview {
                    mode: "rolling".into(),
                    outdated: outdated(),
                    batch: 1,
                    surge: 1,
                    unavailable: 0,
                }),
                warnings: Vec::new(),
            });
        }
        let result = if text.contains("as it was") { ApplyResult::Unchanged } else { ApplyResult::Created };
        let warnings = match text.contains("lod") {
            true => vec![
                "policy step asks for metric lod, which set web does not have; did you mean load?".into(),
            ],
            false => Vec::new(),
        };
        Ok(ApplyOutcome { set, result, generation: 1, changes: Vec::new(), upgrade: None, warnings })
    }

    async fn sets(&self, _: &Caller) -> Answer<Vec<SetSummary>> {
        Ok(self.sets.lock().unwrap().clone())
    }

    async fn set(&self, set: &str, _: &Caller) -> Answer<SetDetail> {
        let summary = self.known(set)?;
        Ok(SetDetail {
            summary,
            manifest: json!({
                "name": "web", "tick": "1s", "capacity": {"min": 2, "max": 10, "initial": 2},
                "instance": {"vcpus": 1, "memory": "64MiB", "boot_timeout": "90s"},
                "metrics": [{"name": "queue"}], "image": {"kernel": "/k"}
            }),
            policies: entries(),
            metrics: vec![
                MetricNow {
                    name: "utilization".into(),
                    mean: Some(0.612_345),
                    min: Some(0.5),
                    max: Some(0.75),
                    fresh: 3,
                    stale: 1,
                    missing: 0,
                },
                MetricNow {
                    name: "queue".into(),
                    mean: None,
                    min: None,
                    max: None,
                    fresh: 0,
                    stale: 0,
                    missing: 4,
                },
            ],
            traffic: Some(TrafficInfo {
                listen: "127.0.0.1:8080".into(),
                endpoints: 4,
                accepted: 10_234,
                open: 12,
                unserved: 0,
                retries: 1,
            }),
            notes: vec!["1 unhealthy: repair is off".into()],
        })
    }

    async fn instances(&self, set: &str, _: &Caller) -> Answer<Vec<InstanceInfo>> {
        self.known(set)?;
        let many = self.instances.lock().unwrap().clone();
        if !many.is_empty() {
            return Ok(many);
        }
        let mut booting = instance(11, "booting", &[]);
        booting.state_since_ms = NOW_MS - 2_000;
        booting.detail = Some("launched 1 s ago".into());
        booting.pid = None;
        let mut guarded = instance(4, "in-service", &[("cpu", 0.25), ("utilization", 0.512_34)]);
        guarded.protected = true;
        guarded.protection = ProtectionLevel::ScaleIn;
        Ok(vec![guarded, booting])
    }

    async fn protect(
        &self,
        set: &str,
        id: u32,
        ProtectRequest { protection }: ProtectRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<InstanceInfo> {
        self.note(format!("protect {set} {id} {protection:?} by {actor}"));
        let protected = protection != ProtectionLevel::None;
        match id {
            4 => Ok(InstanceInfo { protected, protection, ..instance(4, "in-service", &[]) }),
            id => Err(ApiError::not_found(format!("{set} has no instance {id}"))),
        }
    }

    async fn processes(
        &self,
        set: &str,
        request: ProcessesRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<ProcessesInfo> {
        self.known(set)?;
        self.note(format!("processes {set} {request:?} by {actor}"));
        Ok(ProcessesInfo { suspended: request.suspend })
    }

    async fn instance_action(
        &self,
        set: &str,
        id: u32,
        request: InstanceActionRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<InstanceInfo> {
        self.note(format!("instance action {set} {id} {request:?} by {actor}"));
        let requested = match request {
            InstanceActionRequest::Replace => "replace",
            InstanceActionRequest::Restart => "restart",
            InstanceActionRequest::Delete { .. } => "delete",
        };
        match id {
            4 => Ok(InstanceInfo { requested: Some(requested.into()), ..instance(4, "in-service", &[]) }),
            id => Err(ApiError::not_found(format!("{set} has no instance {id}"))),
        }
    }

    async fn upgrade(&self, set: &str, _: &Caller) -> Answer<UpgradeInfo> {
        self.known(set)?;
        Ok(upgrade_info("rolling", None))
    }

    async fn change_upgrade(
        &self,
        set: &str,
        UpgradeRequest { action }: UpgradeRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<UpgradeInfo> {
        self.note(format!("upgrade {set} {action:?} by {actor}"));
        match action {
            UpgradeVerb::Pause => Ok(upgrade_info("paused", Some("by an operator"))),
            _ => Err(ApiError::conflict(format!("no upgrade of {set} is under way"))),
        }
    }

    async fn kept_logs(&self, set: &str, _: &Caller) -> Answer<Vec<KeptLogInfo>> {
        self.note(format!("kept logs of {set}"));
        let reason = "unhealthy: connection refused".to_owned();
        Ok(vec![KeptLogInfo { id: 3, at_ms: NOW_MS - 60_000, reason }])
    }

    async fn instance_log(&self, set: &str, id: u32, query: LogQuery, _: &Caller) -> Answer<LogContent> {
        self.note(format!("log of {set}-{id}: {query:?}"));
        let text = "booting\nout of \u{1b}[31mmemory\n".to_owned();
        match id {
            3 => Ok(LogContent { kept_because: Some("unhealthy: connection refused".to_owned()), text }),
            4 => Ok(LogContent { kept_because: None, text }),
            id => Err(ApiError::not_found(format!("no log of {set}-{id} is kept"))),
        }
    }

    async fn scale(
        &self,
        set: &str,
        ScaleRequest { capacity }: ScaleRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SetSummary> {
        self.note(format!("scale {set} {capacity} by {actor}"));
        if capacity > 10 {
            return Err(ApiError::conflict(format!("{capacity} is more than the max of {set}, 10")));
        }
        Ok(SetSummary { desired: capacity, ..web() })
    }

    async fn hold(
        &self,
        set: &str,
        request: HoldRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SetSummary> {
        self.note(format!("hold {set} {request:?} by {actor}"));
        let HoldRequest { capacity, for_ms, reason } = request;
        let until_ms = for_ms.map(|for_ms| NOW_MS + for_ms);
        let hold = Some(TermInfo { since_ms: NOW_MS, until_ms, actor: actor.clone(), reason });
        let size = SizeInfo { hold, ..manifest_size() };
        Ok(SetSummary { desired: capacity.unwrap_or(5), size, ..web() })
    }

    async fn resume(&self, set: &str, Caller { name: actor, .. }: &Caller) -> Answer<SetSummary> {
        self.note(format!("resume {set} by {actor}"));
        Ok(web())
    }

    async fn override_limits(
        &self,
        set: &str,
        request: LimitsRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SetSummary> {
        self.note(format!("limits {set} {request:?} by {actor}"));
        let LimitsRequest { min, max, for_ms, reason } = request;
        let from = |limit: Option<u32>| limit.map_or("manifest", |_| "override").to_owned();
        let until_ms = for_ms.map(|for_ms| NOW_MS + for_ms);
        let limits = Some(TermInfo { since_ms: NOW_MS, until_ms, actor: actor.clone(), reason });
        let size = SizeInfo { min_from: from(min), max_from: from(max), limits, ..manifest_size() };
        Ok(SetSummary { min: min.unwrap_or(2), max: max.unwrap_or(10), size, ..web() })
    }

    async fn clear_limits(&self, set: &str, Caller { name: actor, .. }: &Caller) -> Answer<SetSummary> {
        self.note(format!("clear limits of {set} by {actor}"));
        Ok(web())
    }

    async fn freeze(
        &self,
        set: &str,
        request: FreezeRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SetSummary> {
        self.note(format!("freeze {set} {request:?} by {actor}"));
        let FreezeRequest { for_ms, reason } = request;
        let until_ms = for_ms.map(|for_ms| NOW_MS + for_ms);
        let freeze = Some(TermInfo { since_ms: NOW_MS, until_ms, actor: actor.clone(), reason });
        Ok(SetSummary { size: SizeInfo { freeze, ..manifest_size() }, ..web() })
    }

    async fn thaw(&self, set: &str, Caller { name: actor, .. }: &Caller) -> Answer<SetSummary> {
        self.note(format!("thaw {set} by {actor}"));
        Ok(web())
    }

    async fn delete(&self, set: &str, Caller { name: actor, .. }: &Caller) -> Answer<SetSummary> {
        self.note(format!("delete {set} by {actor}"));
        if set == "busy" {
            return Err(ApiError::conflict("busy is being deleted already"));
        }
        Ok(SetSummary { deleting: true, ..web() })
    }

    async fn swap_policy(
        &self,
        set: &str,
        request: SwapRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SwapOutcome> {
        let SwapRequest { source, module, params, slot, force } = request;
        let slot = slot.map(|slot| format!(" for {slot}")).unwrap_or_default();
        let module =
            module.map_or_else(|| "none".to_owned(), |module| format!("{} characters", module.len()));
        let params = params.map_or_else(|| "as they are".to_owned(), |params| params.to_string());
        let force = if force { ", forced" } else { "" };
        self.note(format!(
            "swap {set}{slot} to {source}{force}, module {module}, params {params} by {actor}"
        ));
        match source.as_str() {
            "panic" => panic!("as the test wants"),
            "slow" => {
                self.released.notified().await;
                self.note("the slow swap is done".to_owned());
            }
            _ => {}
        }
        Ok(SwapOutcome {
            slot: "load".into(),
            from: policy("target-tracking", 2),
            to: policy("step", 3),
            after_tick: 421,
            rehearsed_ticks: 20,
            decided_ticks: 20,
            warnings: Vec::new(),
            state: "empty: another policy".into(),
            prepare_ms: 42,
            switch_us: 310,
        })
    }

    async fn shadow_policy(
        &self,
        set: &str,
        request: SwapRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<PlacedOutcome> {
        self.note(format!("shadow {set} by {} by {actor}", request.source));
        Ok(placed())
    }

    async fn canary_policy(
        &self,
        set: &str,
        request: CanaryRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<PlacedOutcome> {
        let CanaryRequest { policy, within } = request;
        self.note(format!("canary {set} by {} within {within} by {actor}", policy.source));
        Ok(placed())
    }

    async fn promote_policy(
        &self,
        set: &str,
        PromoteRequest { number }: PromoteRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SwapOutcome> {
        self.note(format!("promote {number:?} of {set} by {actor}"));
        match number {
            Some(number) => Err(ApiError::not_found(format!("{set} has no shadow or canary #{number}"))),
            None => Err(ApiError::conflict(format!("{set} has several: say which one is meant of #4, #5"))),
        }
    }

    async fn drop_policy(
        &self,
        set: &str,
        number: u64,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<PlacedOutcome> {
        self.note(format!("drop {number} of {set} by {actor}"));
        Ok(placed())
    }

    async fn policy_history(&self, _set: &str, _: &Caller) -> Answer<Vec<PolicyHistoryEntry>> {
        let entry = |age_ms: u64, kind: &str, digest: Option<&str>, outcome: &str| PolicyHistoryEntry {
            at_ms: NOW_MS - age_ms,
            actor: "ann".into(),
            kind: kind.into(),
            slot: digest.map(|_| "load".into()),
            name: Some("step".into()),
            version: Some("0.1.0".into()),
            digest: digest.map(Into::into),
            activation: (kind == "policy-swapped").then_some(2),
            params: (kind == "policy-swapped").then(|| serde_json::json!({ "step": 1 })),
            outcome: outcome.into(),
        };
        Ok(vec![
            entry(90_000, "policy-refused", Some(&"c".repeat(64)), "./x.wasm is refused: it traps"),
            entry(60_000, "policy-swapped", Some(&"a".repeat(64)), "target-tracking 0.1.0 → step 0.1.0"),
            entry(30_000, "policy-failed", None, "step gave no decision (trap)"),
        ])
    }

    async fn compare_policies(&self, set: &str, query: CompareQuery, _: &Caller) -> Answer<Comparison> {
        self.note(format!("compare {set} over {:?}", query.ticks));
        let side = |name: &str, hours: f64| Side {
            name: name.into(),
            version: "0.1.0".into(),
            digest: "d".repeat(64).into(),
            failures: 1,
            unknown_metrics: if name == "step" { vec!["lod".into()] } else { Vec::new() },
            instance_seconds: hours * 3600.0,
            short_instance_seconds: query.metric.as_ref().map(|_| 90.0),
            spare_instance_seconds: query.metric.as_ref().map(|_| 7_200.0),
            mean_fuel: 41_339,
            mean_duration_us: 123,
        };
        Ok(Comparison {
            ticks: Some((1, 1000)),
            load: query
                .metric
                .clone()
                .map(|metric| LoadBasis { metric, target: query.target.unwrap_or(1.0) }),
            pairs: vec![Pair {
                number: 4,
                slot: "load".into(),
                judged: 990,
                agreed: 900,
                mean_difference: -0.25,
                greatest_difference: Some((-3, 412)),
                shadow: side("step", 3.5),
                active: side("target-tracking", 4.0),
            }],
        })
    }

    async fn rollback_policy(
        &self,
        set: &str,
        RollbackQuery { slot, to }: RollbackQuery,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<SwapOutcome> {
        assert_eq!((slot, to), (None, None), "no test names one");
        self.note(format!("rollback {set} by {actor}"));
        Err(ApiError::conflict(format!("{set} has no policy to go back to")))
    }

    async fn policies(&self, set: &str, _: &Caller) -> Answer<PolicyList> {
        self.known(set)?;
        Ok(PolicyList {
            policies: entries(),
            combine: "any-out-all-in".into(),
            available: ["half-written", "step", "target-tracking"].map(available).into(),
            notes: Vec::new(),
        })
    }

    async fn why(&self, set: &str, query: WhyQuery, _: &Caller) -> Answer<TickRecord> {
        self.note(format!("why {set} {:?} {:?}", query.tick, query.last));
        match query {
            WhyQuery { last: Some(WhyLast::ScaleIn), .. } => {
                Err(ApiError::not_found(format!("{set} has not scaled in yet")))
            }
            query => Ok(record(query.tick.unwrap_or(421))),
        }
    }

    async fn records(&self, set: &str, query: RecordsQuery, _: &Caller) -> Answer<Vec<TickRecord>> {
        self.note(format!("records {set} after {} limit {:?}", query.after, query.limit));
        let limit = u64::from(query.limit.unwrap_or(100));
        Ok((query.after + 1..=421).take(usize::try_from(limit).unwrap()).map(record).collect())
    }

    async fn events(&self, query: EventsQuery, _: &Caller) -> Answer<Vec<EventEntry>> {
        self.note(format!("events {:?} after {:?} wait {}", query.set, query.after, query.wait_ms));
        let deadline = tokio::time::Instant::now() + Duration::from_millis(query.wait_ms);
        loop {
            let rung = self.rung.notified();
            tokio::pin!(rung);
            rung.as_mut().enable();
            let found: Vec<_> = {
                let events = self.events.lock().unwrap();
                let (after, before) = (query.after.unwrap_or(0), query.before.unwrap_or(u64::MAX));
                let limit = query.limit.map_or(100, |limit| limit as usize);
                let found = events.iter().filter(|event| event.seq > after && event.seq < before);
                let found: Vec<_> = found.cloned().collect();
                found[found.len().saturating_sub(limit)..].to_vec()
            };
            if !found.is_empty() || tokio::time::timeout_at(deadline, rung).await.is_err() {
                return Ok(found);
            }
        }
    }

    async fn import_image(
        &self,
        request: ImportImageRequest,
        progress: watch::Sender<ImportProgress>,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<ImageInfo> {
        self.note(format!("import {request:?} by {actor}"));
        let file = request.path.rsplit('/').next().unwrap_or_default();
        if file.starts_with("big") {
            progress.send_replace(ImportProgress {
                file: "disk".into(),
                done_bytes: 512 << 20,
                total_bytes: 2 << 30,
            });
            self.released.notified().await;
            self.note("the big import is done".to_owned());
        }
        match file {
            "bad" => {
                let problem = |message: &str| Problem {
                    path: String::new(),
                    line: 0,
                    column: 0,
                    message: message.into(),
                    hint: None,
                    rendered: message.into(),
                };
                let problems =
                    vec![problem("several files could be the disk"), problem("there is no kernel")];
                Err(ApiError::invalid(format!("{} cannot be imported: 2 problems", request.path), problems))
            }
            "big-bad" => Err(ApiError::unavailable("nothing was imported: no space left on device")),
            "panic" | "big-panic" => panic!("as the test wants"),
            _ => Ok(ImageInfo { name: request.name.unwrap_or("debian-13".into()), ..debian() }),
        }
    }

    async fn blob(&self, sha256: &str, _: &Caller) -> Answer<BlobContent> {
        Ok(BlobContent { sha256: sha256.into(), base64: "e30=".to_owned() })
    }

    async fn recordings(&self, _: &Caller) -> Answer<Vec<RecordingInfo>> {
        Ok(vec![recording("incident")])
    }

    async fn import_recording(
        &self,
        request: ImportRecordingRequest,
        caller: &Caller,
    ) -> Answer<RecordingInfo> {
        self.note(format!("import recording {} by {}", request.path, caller.name));
        Ok(recording(request.name.as_deref().unwrap_or("web")))
    }

    async fn delete_recording(&self, name: &str, caller: &Caller) -> Answer<RecordingInfo> {
        self.note(format!("delete recording {name} by {}", caller.name));
        Ok(recording(name))
    }

    async fn recording_content(
        &self,
        recording: &str,
        query: ContentQuery,
        _: &Caller,
    ) -> Answer<RecordingContent> {
        self.note(format!("content of {recording} from {}", query.offset));
        Ok(RecordingContent { base64: String::new() })
    }

    async fn images(&self, _: &Caller) -> Answer<Vec<ImageInfo>> {
        Ok(self.images.lock().unwrap().clone())
    }

    async fn image(&self, image: &str, _: &Caller) -> Answer<ImageInfo> {
        let images = self.images.lock().unwrap();
        let found = images.iter().find(|known| known.name == image).cloned();
        found.ok_or_else(|| {
            ApiError::not_found(format!("no image is named {image}; there are: debian-13, tiny"))
        })
    }

    async fn remove_image(&self, name: &str, caller: &Caller) -> Answer<ImageInfo> {
        self.note(format!("remove image {name} by {}", caller.name));
        self.image(name, caller).await
    }

    async fn collect_images(
        &self,
        request: GcRequest,
        Caller { name: actor, .. }: &Caller,
    ) -> Answer<GcOutcome> {
        self.note(format!("collect dry_run={} by {actor}", request.dry_run));
        let file = |digit: &str, disk_bytes| GcFile {
            digest: format!("sha256:{}", digit.repeat(64)).into(),
            disk_bytes,
        };
        let removed = if self.images.lock().unwrap().is_empty() {
            Vec::new()
        } else {
            vec![file("e", 3 << 29), file("f", 12 << 20)]
        };
        let freed_bytes = removed.iter().map(|file| file.disk_bytes).sum();
        Ok(GcOutcome { dry_run: request.dry_run, removed, freed_bytes })
    }

    async fn metrics(&self, _: &Caller) -> Answer<String> {
        Ok("# EOF\n".into())
    }
}

fn outdated() -> Vec<OutdatedInstance> {
    let one = |id: u32, differs_in: &[&str]| OutdatedInstance {
        name: format!("web-{id}"),
        id,
        differs_in: differs_in.iter().map(|&path| path.to_owned()).collect(),
    };
    vec![one(4, &["image.disk"]), one(5, &["image.disk", "instance.memory"]), one(9, &["image.disk"])]
}

fn upgrade_info(status: &str, why: Option<&str>) -> UpgradeInfo {
    UpgradeInfo {
        set: "web".into(),
        generation: 4,
        mode: "rolling".into(),
        upgrade: Some(UpgradeRun {
            status: status.into(),
            why: why.map(Into::into),
            from: 3,
            to: 4,
            started_ms: NOW_MS - 90_000,
            ended_ms: None,
            total: 5,
            replaced: 2,
            batch_end: 3,
            failed: vec![11],
        }),
        waits_for: Some("upgrade: 2 of 5 replaced; the next batch begins in 30 s".into()),
        outdated: outdated(),
    }
}
