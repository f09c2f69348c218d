//! The routes: from HTTP to [`Control`] and back, and nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Router};
use futures::FutureExt;
use tokio::sync::watch;
use utoipa::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::caller::Caller;
use super::control::{Answer, Control};
use super::error::{BODY_LIMIT_BYTES, Failure};
use super::extract::{Json, Path, Query};
use super::image_types::{GcOutcome, GcRequest, ImageInfo, ImportEvent, ImportImageRequest, ImportProgress};
use super::import_stream;
use super::types::{
    ApiError, ApplyOutcome, ApplyRequest, CanaryRequest, CompareQuery, DaemonStatus, EventEntry, EventsQuery,
    InstanceInfo, PlacedOutcome, PolicyHistoryEntry, PolicyList, PromoteRequest, ProtectRequest,
    RecordsQuery, ScaleRequest, SetDetail, SetSummary, SlotQuery, SwapOutcome, SwapRequest, WhyQuery,
};

/// Most records or events of one answer.
const LIMIT_MAX: u32 = 1_000;

/// Longest wait of one call for events.
const WAIT_MAX_MS: u64 = 30_000;

/// The `server` header of every answer; clients see from it whom they talk to.
pub(super) const SERVER: &str = concat!("regatta/", env!("CARGO_PKG_VERSION"));

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Regatta",
        description = "The API of a Regatta daemon, on its Unix socket. Times are Unix milliseconds. \
            Every error, also that of an unknown route, has an ApiError as its body."
    ),
    components(schemas(ApiError))
)]
struct Document;

type Shared = State<Arc<dyn Control>>;
type Who = Option<Extension<Caller>>;
type Reply<T> = Result<axum::Json<T>, Failure>;

fn documented() -> OpenApiRouter<Arc<dyn Control>> {
    OpenApiRouter::with_openapi(Document::openapi())
        .routes(routes!(status))
        .routes(routes!(apply))
        .routes(routes!(sets))
        .routes(routes!(set, delete))
        .routes(routes!(scale))
        .routes(routes!(instances))
        .routes(routes!(protect))
        .routes(routes!(policies))
        .routes(routes!(swap_policy))
        .routes(routes!(rollback_policy))
        .routes(routes!(shadow_policy))
        .routes(routes!(canary_policy))
        .routes(routes!(promote_policy))
        .routes(routes!(drop_policy))
        .routes(routes!(policy_history))
        .routes(routes!(compare_policies))
        .routes(routes!(why))
        .routes(routes!(records))
        .routes(routes!(events))
        .routes(routes!(images, import_image))
        .routes(routes!(image, remove_image))
        .routes(routes!(collect_images))
        .routes(routes!(metrics))
}

/// The OpenAPI document of the routes.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    documented().into_openapi()
}

/// The API in front of `control`.
///
/// Needs a tokio runtime. Put [`Caller`] into the extensions of a request to name
/// its user, as [`super::serve_unix`] does.
pub fn router(control: Arc<dyn Control>) -> Router {
    let (router, document) = documented().split_for_parts();
    // The types of the document cannot fail to serialize.
    let document = document.to_json().unwrap_or_default();
    router
        .route("/openapi.json", axum::routing::get(move || openapi_json(document.clone())))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(DefaultBodyLimit::max(BODY_LIMIT_BYTES))
        .layer(from_fn(finish))
        .with_state(control)
}

/// Puts our name on every answer, and makes one of a panic.
async fn finish(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| Failure::from(panicked()).into_response());
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

fn panicked() -> ApiError {
    ApiError::internal("the daemon failed while it answered; its log has more")
}

/// Runs what changes something to its end, also when the client goes away: a
/// dropped connection must not leave it half-done.
async fn to_the_end<T: Send + 'static>(work: impl Future<Output = Answer<T>> + Send + 'static) -> Reply<T> {
    match tokio::spawn(work).await {
        Ok(answer) => Ok(axum::Json(answer?)),
        Err(_) => Err(panicked().into()),
    }
}

fn actor(who: Who) -> String {
    who.map_or_else(Caller::unknown, |Extension(caller)| caller).name
}

async fn no_route(uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::bad_request(StatusCode::NOT_FOUND, format!("there is no route {path}; see /openapi.json"))
}

async fn no_method(method: Method, uri: Uri) -> Failure {
    let path: String = uri.path().chars().take(200).collect();
    Failure::bad_request(
        StatusCode::METHOD_NOT_ALLOWED,
        format!("{path} has no method {method}; see /openapi.json"),
    )
}

async fn openapi_json(document: String) -> Response {
    ([(header::CONTENT_TYPE, "application/json")], document).into_response()
}

/// Refuses a `limit` that no answer may reach.
fn check_limit(limit: Option<u32>) -> Result<(), Failure> {
    match limit {
        Some(limit) if !(1..=LIMIT_MAX).contains(&limit) => Err(Failure::bad_request(
            StatusCode::BAD_REQUEST,
            format!("limit is {limit}, it must be from 1 to {LIMIT_MAX}"),
        )),
        _ => Ok(()),
    }
}

/// What runs here.
#[utoipa::path(get, path = "/v1/status", tag = "daemon",
    responses((status = 200, body = DaemonStatus), (status = "default", body = ApiError)))]
async fn status(State(control): Shared) -> Reply<DaemonStatus> {
    Ok(axum::Json(control.status().await?))
}

/// Creates or changes a set; with `dry_run`, only says what would change.
#[utoipa::path(post, path = "/v1/apply", tag = "sets", request_body = ApplyRequest,
    responses((status = 200, body = ApplyOutcome), (status = "default", body = ApiError)))]
async fn apply(State(control): Shared, who: Who, Json(request): Json<ApplyRequest>) -> Reply<ApplyOutcome> {
    to_the_end(async move { control.apply(request, &actor(who)).await }).await
}

/// All sets, by name.
#[utoipa::path(get, path = "/v1/sets", tag = "sets",
    responses((status = 200, body = Vec<SetSummary>), (status = "default", body = ApiError)))]
async fn sets(State(control): Shared) -> Reply<Vec<SetSummary>> {
    Ok(axum::Json(control.sets().await?))
}

/// One set with everything that is known of it now.
#[utoipa::path(get, path = "/v1/sets/{set}", tag = "sets",
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = SetDetail), (status = "default", body = ApiError)))]
async fn set(State(control): Shared, Path(set): Path<String>) -> Reply<SetDetail> {
    Ok(axum::Json(control.set(&set).await?))
}

/// Begins to remove a set and all its instances.
#[utoipa::path(delete, path = "/v1/sets/{set}", tag = "sets",
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = SetSummary), (status = "default", body = ApiError)))]
async fn delete(State(control): Shared, who: Who, Path(set): Path<String>) -> Reply<SetSummary> {
    to_the_end(async move { control.delete(&set, &actor(who)).await }).await
}

/// Sets the capacity in force now; the policy goes on from there.
#[utoipa::path(post, path = "/v1/sets/{set}/scale", tag = "sets", request_body = ScaleRequest,
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = SetSummary), (status = "default", body = ApiError)))]
async fn scale(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Json(request): Json<ScaleRequest>,
) -> Reply<SetSummary> {
    to_the_end(async move { control.scale(&set, request.capacity, &actor(who)).await }).await
}

/// The instances of a set that are not gone, by id.
#[utoipa::path(get, path = "/v1/sets/{set}/instances", tag = "instances",
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = Vec<InstanceInfo>), (status = "default", body = ApiError)))]
async fn instances(State(control): Shared, Path(set): Path<String>) -> Reply<Vec<InstanceInfo>> {
    Ok(axum::Json(control.instances(&set).await?))
}

/// Protects an instance from scale-in, or no longer.
#[utoipa::path(put, path = "/v1/sets/{set}/instances/{id}/protection", tag = "instances",
    request_body = ProtectRequest,
    params(("set" = String, Path, description = "Name of the set"),
        ("id" = u32, Path, description = "Ordinal of the instance within the set")),
    responses((status = 200, body = InstanceInfo), (status = "default", body = ApiError)))]
async fn protect(
    State(control): Shared,
    who: Who,
    Path((set, id)): Path<(String, u32)>,
    Json(request): Json<ProtectRequest>,
) -> Reply<InstanceInfo> {
    to_the_end(async move { control.protect(&set, id, request.protected, &actor(who)).await }).await
}

/// The policies of a set, and the modules that can be named.
#[utoipa::path(get, path = "/v1/sets/{set}/policy", tag = "policy",
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = PolicyList), (status = "default", body = ApiError)))]
async fn policies(State(control): Shared, Path(set): Path<String>) -> Reply<PolicyList> {
    Ok(axum::Json(control.policies(&set).await?))
}

/// Puts another policy in charge between two ticks.
#[utoipa::path(post, path = "/v1/sets/{set}/policy/swap", tag = "policy", request_body = SwapRequest,
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = SwapOutcome), (status = "default", body = ApiError)))]
async fn swap_policy(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Json(request): Json<SwapRequest>,
) -> Reply<SwapOutcome> {
    to_the_end(async move { control.swap_policy(&set, request, &actor(who)).await }).await
}

/// Puts the previous policy in charge again.
#[utoipa::path(post, path = "/v1/sets/{set}/policy/rollback", tag = "policy",
    params(("set" = String, Path, description = "Name of the set"), SlotQuery),
    responses((status = 200, body = SwapOutcome), (status = "default", body = ApiError)))]
async fn rollback_policy(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Query(query): Query<SlotQuery>,
) -> Reply<SwapOutcome> {
    to_the_end(async move { control.rollback_policy(&set, query.slot, &actor(who)).await }).await
}

/// Judges another policy at each tick, beside the one in charge; it is never applied.
#[utoipa::path(post, path = "/v1/sets/{set}/policy/shadow", tag = "policy", request_body = SwapRequest,
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = PlacedOutcome), (status = "default", body = ApiError)))]
async fn shadow_policy(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Json(request): Json<SwapRequest>,
) -> Reply<PlacedOutcome> {
    to_the_end(async move { control.shadow_policy(&set, request, &actor(who)).await }).await
}

/// Lets another policy act, never further than `within` from the one in charge. It
/// is taken out again when it fails.
#[utoipa::path(post, path = "/v1/sets/{set}/policy/canary", tag = "policy", request_body = CanaryRequest,
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = PlacedOutcome), (status = "default", body = ApiError)))]
async fn canary_policy(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Json(request): Json<CanaryRequest>,
) -> Reply<PlacedOutcome> {
    to_the_end(async move { control.canary_policy(&set, request, &actor(who)).await }).await
}

/// Puts a shadow or a canary in charge.
#[utoipa::path(post, path = "/v1/sets/{set}/policy/promote", tag = "policy", request_body = PromoteRequest,
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = SwapOutcome), (status = "default", body = ApiError)))]
async fn promote_policy(
    State(control): Shared,
    who: Who,
    Path(set): Path<String>,
    Json(request): Json<PromoteRequest>,
) -> Reply<SwapOutcome> {
    to_the_end(async move { control.promote_policy(&set, request.number, &actor(who)).await }).await
}

/// Takes a shadow or a canary out.
#[utoipa::path(delete, path = "/v1/sets/{set}/policy/candidates/{number}", tag = "policy",
    params(("set" = String, Path, description = "Name of the set"),
        ("number" = u64, Path, description = "Number of its activation")),
    responses((status = 200, body = PlacedOutcome), (status = "default", body = ApiError)))]
async fn drop_policy(
    State(control): Shared,
    who: Who,
    Path((set, number)): Path<(String, u64)>,
) -> Reply<PlacedOutcome> {
    to_the_end(async move { control.drop_policy(&set, number, &actor(who)).await }).await
}

/// Who changed the policies of a set, when, and what came of it; the oldest first.
#[utoipa::path(get, path = "/v1/sets/{set}/policy/history", tag = "policy",
    params(("set" = String, Path, description = "Name of the set")),
    responses((status = 200, body = Vec<PolicyHistoryEntry>), (status = "default", body = ApiError)))]
async fn policy_history(State(control): Shared, Path(set): Path<String>) -> Reply<Vec<PolicyHistoryEntry>> {
    Ok(axum::Json(control.policy_history(&set).await?))
}

/// Each shadow beside the policy whose place it would take, over recorded ticks.
#[utoipa::path(get, path = "/v1/sets/{set}/policy/compare", tag = "policy",
    params(("set" = String, Path, description = "Name of the set"), CompareQuery),
    responses((status = 200, body = Object, description = "A comparison"), (status = "default", body = ApiError)))]
async fn compare_policies(
    State(control): Shared,
    Path(set): Path<String>,
    Query(query): Query<CompareQuery>,
) -> Reply<regatta_core::compare::Comparison> {
    if query.target.is_some_and(|target| !target.is_finite() || target <= 0.0) {
        return Err(Failure::bad_request(StatusCode::BAD_REQUEST, "target must be a number above 0"));
    }
    Ok(axum::Json(control.compare_policies(&set, query).await?))
}

/// The record of the tick that answers "why": the last one, one by number, or the
/// last one that changed the capacity.
#[utoipa::path(get, path = "/v1/sets/{set}/why", tag = "records",
    params(("set" = String, Path, description = "Name of the set"), WhyQuery),
    responses((status = 200, body = Object, description = "A tick record"), (status = "default", body = ApiError)))]
async fn why(
    State(control): Shared,
    Path(set): Path<String>,
    Query(query): Query<WhyQuery>,
) -> Reply<regatta_core::record::TickRecord> {
    if query.tick.is_some() && query.last.is_some() {
        return Err(Failure::bad_request(StatusCode::BAD_REQUEST, "tick and last exclude each other"));
    }
    Ok(axum::Json(control.why(&set, query).await?))
}

/// Records in the order of their ticks.
#[utoipa::path(get, path = "/v1/sets/{set}/records", tag = "records",
    params(("set" = String, Path, description = "Name of the set"), RecordsQuery),
    responses((status = 200, body = Vec<Object>, description = "Tick records"),
        (status = "default", body = ApiError)))]
async fn records(
    State(control): Shared,
    Path(set): Path<String>,
    Query(query): Query<RecordsQuery>,
) -> Reply<Vec<regatta_core::record::TickRecord>> {
    check_limit(query.limit)?;
    Ok(axum::Json(control.records(&set, query).await?))
}

/// Events in their order; with `wait_ms`, waits for one when there is none.
#[utoipa::path(get, path = "/v1/events", tag = "events", params(EventsQuery),
    responses((status = 200, body = Vec<EventEntry>), (status = "default", body = ApiError)))]
async fn events(State(control): Shared, Query(query): Query<EventsQuery>) -> Reply<Vec<EventEntry>> {
    check_limit(query.limit)?;
    if query.wait_ms > WAIT_MAX_MS {
        let message = format!("wait_ms is {}, it must be at most {WAIT_MAX_MS}", query.wait_ms);
        return Err(Failure::bad_request(StatusCode::BAD_REQUEST, message));
    }
    Ok(axum::Json(control.events(query).await?))
}

/// All golden images of the catalogue, by name.
#[utoipa::path(get, path = "/v1/images", tag = "images",
    responses((status = 200, body = Vec<ImageInfo>), (status = "default", body = ApiError)))]
async fn images(State(control): Shared) -> Reply<Vec<ImageInfo>> {
    Ok(axum::Json(control.images().await?))
}

/// Takes a golden image into the catalogue.
///
/// What fails at once answers with an error's status. Else the answer is one JSON
/// object a line: progress at least every 5 s, then `done` or `failed`. The import
/// goes to its end, also when the client goes away.
#[utoipa::path(post, path = "/v1/images", tag = "images", request_body = ImportImageRequest,
    responses((status = 200, body = ImportEvent, content_type = "application/x-ndjson",
        description = "One ImportEvent a line"), (status = "default", body = ApiError)))]
async fn import_image(
    State(control): Shared,
    who: Who,
    Json(request): Json<ImportImageRequest>,
) -> Result<Response, Failure> {
    let (progress, seen) = watch::channel(ImportProgress::default());
    let work = tokio::spawn(async move { control.import_image(request, progress, &actor(who)).await });
    import_stream::answer(work, seen).await
}

/// One golden image, by its name or by the digest of one of its files (at least
/// the first 6 digits).
#[utoipa::path(get, path = "/v1/images/{image}", tag = "images",
    params(("image" = String, Path, description = "Name, or digest of a file")),
    responses((status = 200, body = ImageInfo), (status = "default", body = ApiError)))]
async fn image(State(control): Shared, Path(image): Path<String>) -> Reply<ImageInfo> {
    Ok(axum::Json(control.image(&image).await?))
}

/// Takes the name of a golden image away. Its files stay until a collection, and
/// what runs on them runs on.
#[utoipa::path(delete, path = "/v1/images/{image}", tag = "images",
    params(("image" = String, Path, description = "Name")),
    responses((status = 200, body = ImageInfo), (status = "default", body = ApiError)))]
async fn remove_image(State(control): Shared, who: Who, Path(image): Path<String>) -> Reply<ImageInfo> {
    to_the_end(async move { control.remove_image(&image, &actor(who)).await }).await
}

/// Removes the stored files that no image of the catalogue, no set and no instance
/// uses; with `dry_run`, only says which.
#[utoipa::path(post, path = "/v1/images/gc", tag = "images", request_body = GcRequest,
    responses((status = 200, body = GcOutcome), (status = "default", body = ApiError)))]
async fn collect_images(
    State(control): Shared,
    who: Who,
    Json(request): Json<GcRequest>,
) -> Reply<GcOutcome> {
    to_the_end(async move { control.collect_images(request, &actor(who)).await }).await
}

/// The daemon's own metrics.
#[utoipa::path(get, path = "/metrics", tag = "daemon",
    responses((status = 200, body = String, content_type = "application/openmetrics-text"),
        (status = "default", body = ApiError)))]
async fn metrics(State(control): Shared) -> Result<Response, Failure> {
    let text = control.metrics().await?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}
