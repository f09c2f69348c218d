//! The table of endpoints: everything that the API can be asked, said once.
//!
//! `endpoints!(consumer)` hands the table to the macro `consumer`. There are five: the list of [`Endpoint`]s below,
//! the trait `Control`, the [`Client`](crate::Client), the router and the OpenAPI document. A row reads
//!
//! ```text
//! /// Summary; after an empty line, details.
//! method "path" [tag, required role, time a client allows it]
//! name(parameters of the path) input: how it travels<its type> => type of the answer;
//! ```
//!
//! Rows after `@by_hand` do not answer with one JSON value: what is special about them is written out in `Control`,
//! client and router.

use crate::caller::Role;

/// One endpoint of the API. The constants are the rows of the table, named as the calls are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the call, and the operation's id in the OpenAPI document.
    pub name: &'static str,
    /// HTTP method in lower case.
    pub method: &'static str,
    /// Path, with parameters in braces.
    pub path: &'static str,
    /// What it is about.
    pub tag: &'static str,
    /// The least role that may call it.
    pub role: Role,
    /// Its documentation, line by line: a summary, an empty line, details.
    pub doc: &'static [&'static str],
}

macro_rules! endpoints {
    ($consumer:ident) => {
        $consumer! {
            /// What runs here.
            get "/v1/status" [daemon, Viewer, SHORT]
            status() => DaemonStatus;

            /// Creates or changes a set; with `dry_run`, only says what would change.
            post "/v1/apply" [sets, Operator, LONG]
            apply() request: Upload<ApplyRequest> => ApplyOutcome;

            /// All sets, by name.
            get "/v1/sets" [sets, Viewer, SHORT]
            sets() => Vec<SetSummary>;

            /// One set with everything that is known of it now.
            get "/v1/sets/{set}" [sets, Viewer, SHORT]
            set(set: &str) => SetDetail;

            /// Begins to remove a set and all its instances.
            delete "/v1/sets/{set}" [sets, Operator, SHORT]
            delete(set: &str) => SetSummary;

            /// Sets the capacity now; the policy continues from there.
            post "/v1/sets/{set}/scale" [sets, Operator, SHORT]
            scale(set: &str) request: Json<ScaleRequest> => SetSummary;

            /// The upgrade of a set's instances, and those that are outdated.
            get "/v1/sets/{set}/upgrade" [instances, Viewer, SHORT]
            upgrade(set: &str) => UpgradeInfo;

            /// Starts, pauses, resumes, cancels or rolls back the upgrade of a set's instances.
            post "/v1/sets/{set}/upgrade" [instances, Operator, SHORT]
            change_upgrade(set: &str) request: Json<UpgradeRequest> => UpgradeInfo;

            /// Holds the size: policies are asked and recorded, and change nothing. Replaces a hold that is in force.
            put "/v1/sets/{set}/hold" [sets, Operator, SHORT]
            hold(set: &str) request: Json<HoldRequest> => SetSummary;

            /// Ends a hold: policies decide the size again.
            delete "/v1/sets/{set}/hold" [sets, Operator, SHORT]
            resume(set: &str) => SetSummary;

            /// Puts other limits in the place of the manifest's, for a while.
            put "/v1/sets/{set}/limits" [sets, Operator, SHORT]
            override_limits(set: &str) request: Json<LimitsRequest> => SetSummary;

            /// The limits of the manifest count again.
            delete "/v1/sets/{set}/limits" [sets, Operator, SHORT]
            clear_limits(set: &str) => SetSummary;

            /// Freezes a set: nothing that serves is removed, by scale-in, repair or roll-out.
            put "/v1/sets/{set}/freeze" [sets, Operator, SHORT]
            freeze(set: &str) request: Json<FreezeRequest> => SetSummary;

            /// Ends a freeze.
            delete "/v1/sets/{set}/freeze" [sets, Operator, SHORT]
            thaw(set: &str) => SetSummary;

            /// The instances of a set that are not gone, by id.
            get "/v1/sets/{set}/instances" [instances, Viewer, SHORT]
            instances(set: &str) => Vec<InstanceInfo>;

            /// Protects an instance from scale-in or from all actions of its set, or no longer.
            put "/v1/sets/{set}/instances/{id}/protection" [instances, Operator, SHORT]
            protect(set: &str, id: u32) request: Json<ProtectRequest> => InstanceInfo;

            /// Suspends what a set does by itself, or resumes it.
            put "/v1/sets/{set}/processes" [sets, Operator, SHORT]
            processes(set: &str) request: Json<ProcessesRequest> => ProcessesInfo;

            /// Replaces, restarts or deletes an instance, whatever protects it.
            post "/v1/sets/{set}/instances/{id}/action" [instances, Operator, SHORT]
            instance_action(set: &str, id: u32) request: Json<InstanceActionRequest> => InstanceInfo;

            /// Instances of a set that failed or were replaced and whose logs are kept, the newest first.
            get "/v1/sets/{set}/logs" [instances, Viewer, SHORT]
            kept_logs(set: &str) => Vec<KeptLogInfo>;

            /// The end of a log of an instance, also of one that failed or was replaced.
            get "/v1/sets/{set}/instances/{id}/log" [instances, Viewer, SHORT]
            instance_log(set: &str, id: u32) query: Query<LogQuery> => LogContent;

            /// The policies of a set, and the modules that can be named.
            get "/v1/sets/{set}/policy" [policy, Viewer, SHORT]
            policies(set: &str) => PolicyList;

            /// Replaces the active policy between two ticks.
            post "/v1/sets/{set}/policy/swap" [policy, Operator, LONG]
            swap_policy(set: &str) request: Upload<SwapRequest> => SwapOutcome;

            /// Rolls back to the previous policy.
            post "/v1/sets/{set}/policy/rollback" [policy, Operator, LONG]
            rollback_policy(set: &str) query: Query<RollbackQuery> => SwapOutcome;

            /// Runs another policy as a shadow: judged at each tick, never applied.
            post "/v1/sets/{set}/policy/shadow" [policy, Operator, LONG]
            shadow_policy(set: &str) request: Upload<SwapRequest> => PlacedOutcome;

            /// Runs another policy as a canary, never further than `within` from the active one. It
            /// is taken out again when it fails.
            post "/v1/sets/{set}/policy/canary" [policy, Operator, LONG]
            canary_policy(set: &str) request: Upload<CanaryRequest> => PlacedOutcome;

            /// Makes a shadow or canary the active policy.
            post "/v1/sets/{set}/policy/promote" [policy, Operator, LONG]
            promote_policy(set: &str) request: Json<PromoteRequest> => SwapOutcome;

            /// Takes a shadow or a canary out.
            delete "/v1/sets/{set}/policy/candidates/{number}" [policy, Operator, SHORT]
            drop_policy(set: &str, number: u64) => PlacedOutcome;

            /// Who changed the policies of a set, when, and what came of it; the oldest first.
            get "/v1/sets/{set}/policy/history" [policy, Viewer, SHORT]
            policy_history(set: &str) => Vec<PolicyHistoryEntry>;

            /// Each shadow beside the policy whose place it would take, over recorded ticks.
            get "/v1/sets/{set}/policy/compare" [policy, Viewer, LONG]
            compare_policies(set: &str) query: Query<CompareQuery> => Comparison;

            /// The record of the tick that answers "why": the last one, one by number, or the
            /// last one that changed the capacity.
            get "/v1/sets/{set}/why" [records, Viewer, SHORT]
            why(set: &str) query: Query<WhyQuery> => TickRecord;

            /// Records in the order of their ticks.
            get "/v1/sets/{set}/records" [records, Viewer, SHORT]
            records(set: &str) query: Query<RecordsQuery> => Vec<TickRecord>;

            /// A manifest or a module that records refer to, by its SHA-256.
            get "/v1/blobs/{sha256}" [records, Viewer, LONG]
            blob(sha256: &str) => BlobContent;

            /// Recordings that were imported, by name.
            get "/v1/recordings" [records, Viewer, SHORT]
            recordings() => Vec<RecordingInfo>;

            /// Imports a recording. All of it is checked before anything is stored.
            post "/v1/recordings" [records, Operator, LONG]
            import_recording() request: Upload<ImportRecordingRequest> => RecordingInfo;

            /// Deletes an imported recording.
            delete "/v1/recordings/{recording}" [records, Operator, SHORT]
            delete_recording(recording: &str) => RecordingInfo;

            /// Part of an imported recording's file, beginning at `offset`.
            get "/v1/recordings/{recording}/content" [records, Viewer, LONG]
            recording_content(recording: &str) query: Query<ContentQuery> => RecordingContent;

            /// Events in their order; with `wait_ms`, waits for one when there is none.
            get "/v1/events" [events, Viewer, SHORT]
            events() query: Query<EventsQuery> => Vec<EventEntry>;

            /// VMs and instance directories that no stored set knows.
            get "/v1/orphans" [orphans, Viewer, SHORT]
            orphans() => Vec<OrphanInfo>;

            /// Stops orphans and removes them. Nothing else ever does.
            post "/v1/orphans/delete" [orphans, Operator, LONG]
            delete_orphans() request: Json<DeleteOrphansRequest> => DeleteOrphansOutcome;

            /// The copies of the state that the daemon has made by itself, the newest first.
            get "/v1/copies" [daemon, Viewer, SHORT]
            copies() => Vec<CopyInfo>;

            /// Writes a backup of the whole state to a file of the daemon's host.
            post "/v1/backup" [daemon, Admin, LONG]
            backup() request: Json<BackupRequest> => BackupOutcome;

            /// Recovers sets that the store has lost from their orphans; with `dry_run`, only says which.
            post "/v1/recover" [orphans, Operator, LONG]
            recover() request: Json<RecoverRequest> => RecoverOutcome;

            /// All golden images of the catalogue, by name.
            get "/v1/images" [images, Viewer, SHORT]
            images() => Vec<ImageInfo>;

            /// One golden image, by its name or by the digest of one of its files (at least
            /// the first 6 digits).
            get "/v1/images/{image}" [images, Viewer, SHORT]
            image(image: &str) => ImageInfo;

            /// Takes the name of a golden image away. Its files stay until a collection, and
            /// what runs on them runs on.
            delete "/v1/images/{image}" [images, Admin, SHORT]
            remove_image(image: &str) => ImageInfo;

            /// Removes the stored files that no image of the catalogue, no set and no instance
            /// uses; with `dry_run`, only says which.
            post "/v1/images/gc" [images, Admin, LONG]
            collect_images() request: Json<GcRequest> => GcOutcome;

            @by_hand

            /// Takes a golden image into the catalogue.
            ///
            /// What fails at once answers with an error's status. Else the answer is one JSON
            /// object a line: progress at least every 5 s, then `done` or `failed`. The import
            /// goes to its end, also when the client goes away.
            post "/v1/images" [images, Admin, SHORT]
            import_image() request: Json<ImportImageRequest> => ImportLines;

            /// The daemon's own metrics.
            get "/metrics" [daemon, Viewer, SHORT]
            metrics() => OpenMetrics;
        }
    };
}
pub(crate) use endpoints;

macro_rules! list {
    ($(
        $(@$by_hand:ident)?
        $(#[doc = $doc:literal])+
        $method:ident $path:literal [$tag:ident, $role:ident, $time:ident]
        $name:ident $parameters:tt $($input:ident: $carrier:ident<$input_type:ty>)? => $answer:ty;
    )*) => {
        #[expect(non_upper_case_globals, reason = "named as the calls are")]
        impl Endpoint {
            $(
                $(#[doc = $doc])+
                pub const $name: Self = Self {
                    name: stringify!($name),
                    method: stringify!($method),
                    path: $path,
                    tag: stringify!($tag),
                    role: Role::$role,
                    doc: &[$($doc),+],
                };
            )*
        }

        /// All endpoints.
        pub const ENDPOINTS: &[Endpoint] = &[$(Endpoint::$name),*];
    };
}
endpoints!(list);
