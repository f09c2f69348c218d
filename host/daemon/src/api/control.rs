//! What the API can ask of the daemon. The fleet implements it; tests of the
//! routes and of the command line implement it with canned answers.

use async_trait::async_trait;
use regatta_core::compare::Comparison;
use regatta_core::record::TickRecord;
use tokio::sync::watch;

use super::image_types::{GcOutcome, GcRequest, ImageInfo, ImportImageRequest, ImportProgress};
use super::types::{
    ApiError, ApplyOutcome, ApplyRequest, CanaryRequest, CompareQuery, DaemonStatus, EventEntry, EventsQuery,
    InstanceInfo, PlacedOutcome, PolicyHistoryEntry, PolicyList, RecordsQuery, SetDetail, SetSummary,
    SwapOutcome, SwapRequest, WhyQuery,
};

/// A result as the API gives it.
pub type Answer<T> = Result<T, ApiError>;

/// Everything that a client may ask.
#[async_trait]
pub trait Control: Send + Sync + 'static {
    /// What runs here.
    async fn status(&self) -> Answer<DaemonStatus>;

    /// Creates or changes a set. With `dry_run`, only says what would change.
    async fn apply(&self, request: ApplyRequest, actor: &str) -> Answer<ApplyOutcome>;

    /// All sets, by name.
    async fn sets(&self) -> Answer<Vec<SetSummary>>;

    /// One set with everything that is known of it now.
    async fn set(&self, set: &str) -> Answer<SetDetail>;

    /// The instances of a set that are not gone, by id.
    async fn instances(&self, set: &str) -> Answer<Vec<InstanceInfo>>;

    /// Protects an instance from scale-in, or no longer.
    async fn protect(&self, set: &str, instance: u32, protected: bool, actor: &str) -> Answer<InstanceInfo>;

    /// Sets the capacity in force now; the policy goes on from there.
    async fn scale(&self, set: &str, capacity: u32, actor: &str) -> Answer<SetSummary>;

    /// Begins to remove a set and all its instances.
    async fn delete(&self, set: &str, actor: &str) -> Answer<SetSummary>;

    /// Puts another policy in charge between two ticks.
    async fn swap_policy(&self, set: &str, request: SwapRequest, actor: &str) -> Answer<SwapOutcome>;

    /// Puts the previous policy in charge again.
    async fn rollback_policy(&self, set: &str, slot: Option<String>, actor: &str) -> Answer<SwapOutcome>;

    /// Judges another policy beside the one in charge.
    async fn shadow_policy(&self, set: &str, request: SwapRequest, actor: &str) -> Answer<PlacedOutcome>;

    /// Lets another policy act, within bounds.
    async fn canary_policy(&self, set: &str, request: CanaryRequest, actor: &str) -> Answer<PlacedOutcome>;

    /// Puts a shadow or a canary in charge; none for the only one.
    async fn promote_policy(&self, set: &str, number: Option<u64>, actor: &str) -> Answer<SwapOutcome>;

    /// Takes a shadow or a canary out.
    async fn drop_policy(&self, set: &str, number: u64, actor: &str) -> Answer<PlacedOutcome>;

    /// What was done with the policies of a set, the oldest first.
    async fn policy_history(&self, set: &str) -> Answer<Vec<PolicyHistoryEntry>>;

    /// Each shadow beside the policy whose place it would take.
    async fn compare_policies(&self, set: &str, query: CompareQuery) -> Answer<Comparison>;

    /// The policies of a set, and the modules that can be named.
    async fn policies(&self, set: &str) -> Answer<PolicyList>;

    /// The record that answers "why".
    async fn why(&self, set: &str, query: WhyQuery) -> Answer<TickRecord>;

    /// Records in the order of their ticks.
    async fn records(&self, set: &str, query: RecordsQuery) -> Answer<Vec<TickRecord>>;

    /// Events in their order; waits for one up to `query.wait_ms` when there is none.
    async fn events(&self, query: EventsQuery) -> Answer<Vec<EventEntry>>;

    /// Takes a golden image into the catalogue; tells `progress` how far it is.
    async fn import_image(
        &self,
        request: ImportImageRequest,
        progress: watch::Sender<ImportProgress>,
        actor: &str,
    ) -> Answer<ImageInfo>;

    /// All golden images of the catalogue, by name.
    async fn images(&self) -> Answer<Vec<ImageInfo>>;

    /// One golden image, by its name or by the digest of one of its files.
    async fn image(&self, image: &str) -> Answer<ImageInfo>;

    /// Takes the name of a golden image away. Its files stay until a collection.
    async fn remove_image(&self, name: &str, actor: &str) -> Answer<ImageInfo>;

    /// Removes the stored files that nothing uses.
    async fn collect_images(&self, request: GcRequest, actor: &str) -> Answer<GcOutcome>;

    /// The daemon's own metrics as OpenMetrics text.
    async fn metrics(&self) -> Answer<String>;
}
