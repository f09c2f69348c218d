//! The router: from HTTP to [`Control`] and back, and nothing else.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, delete, get, post, put};
use futures::FutureExt;
use tokio::sync::watch;

use super::extract::{Parameter, Path};
use super::failure::Failure;
use super::{import_stream, openapi};
use crate::caller::Caller;
use crate::control::{Answer, Control};
use crate::endpoints::{Endpoint, endpoints};
use crate::image_types::*;
use crate::input::{Json, Query, Upload};
use crate::log_types::*;
use crate::recording_types::*;
use crate::recovery_types::*;
use crate::size_types::*;
use crate::types::*;
use crate::upgrade_types::*;

/// The `server` header of every answer; clients see from it whom they talk to.
const SERVER: &str = concat!("regatta/", env!("CARGO_PKG_VERSION"));

type Shared = Arc<dyn Control>;

macro_rules! routes {
    ($(
        $(#[doc = $doc:literal])+
        $method:ident $path:literal $attributes:tt
        $name:ident($($parameter:ident: $parameter_type:ty),*) $($input:ident: $carrier:ident<$input_type:ty>)? => $answer:ty;
    )* @by_hand $($by_hand:tt)*) => {
        /// A route per endpoint.
        fn routes() -> Router<Shared> {
            let router = Router::new();
            $(
                let handler = async |
                    State(control): State<Shared>,
                    caller: Caller,
                    Path(($($parameter,)*)): Path<($(<$parameter_type as Parameter>::Owned,)*)>,
                    $($carrier($input): $carrier<$input_type>,)?
                | {
                    finish(Endpoint::$name, async move {
                        control.$name($(<$parameter_type as Parameter>::of(&$parameter),)* $($input,)? &caller).await
                    })
                    .await
                };
                let router = route(router, Endpoint::$name, $method(handler));
            )*
            let router = route(router, Endpoint::import_image, post(import_image));
            route(router, Endpoint::metrics, get(metrics))
        }
    };
}
endpoints!(routes);

/// The API in front of `control`.
///
/// Needs a tokio runtime. Put [`Caller`] into the extensions of a request to name its user and role, as
/// [`super::serve_unix`] does; without one, it may only look.
pub fn router(control: Arc<dyn Control>) -> Router {
    // The types of the document cannot fail to serialize.
    let document = openapi().to_json().unwrap_or_default();
    routes()
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], document)))
        .fallback(no_route)
        .method_not_allowed_fallback(no_method)
        .layer(from_fn(sign))
        .with_state(control)
}

/// Adds an endpoint, for callers with its role only.
fn route(router: Router<Shared>, endpoint: Endpoint, handler: MethodRouter<Shared>) -> Router<Shared> {
    let admit = from_fn(move |caller: Caller, request, next| admit(endpoint, caller, request, next));
    router.route(endpoint.path, handler.route_layer(admit))
}

async fn admit(
    endpoint: Endpoint,
    caller: Caller,
    request: Request,
    next: Next,
) -> Result<Response, Failure> {
    if caller.role >= endpoint.role {
        return Ok(next.run(request).await);
    }
    let (needs, has) = (endpoint.role.as_str(), caller.role.as_str());
    let what = format!("{} needs the role {needs}, {} has the role {has}", endpoint.name, caller.name);
    Err(ApiError::forbidden(what).into())
}

/// Answers with what comes of `work`. What changes something runs to its end, also when the client goes away: a
/// dropped connection must not leave it half-done.
async fn finish<T: Send + 'static>(
    endpoint: Endpoint,
    work: impl Future<Output = Answer<T>> + Send + 'static,
) -> Result<axum::Json<T>, Failure> {
    let answer = match endpoint.method {
        "get" => work.await,
        _ => tokio::spawn(work).await.map_err(|_| panicked())?,
    };
    Ok(axum::Json(answer?))
}

async fn import_image(
    State(control): State<Shared>,
    caller: Caller,
    Json(request): Json<ImportImageRequest>,
) -> Result<Response, Failure> {
    let (progress, seen) = watch::channel(ImportProgress::default());
    let work = tokio::spawn(async move { control.import_image(request, progress, &caller).await });
    import_stream::answer(work, seen).await
}

async fn metrics(State(control): State<Shared>, caller: Caller) -> Result<Response, Failure> {
    let text = control.metrics(&caller).await?;
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, content_type)], text).into_response())
}

/// Puts our name on every answer, and makes one of a panic.
async fn sign(request: Request, next: Next) -> Response {
    let answer = AssertUnwindSafe(next.run(request)).catch_unwind().await;
    let mut response = answer.unwrap_or_else(|_| Failure::from(panicked()).into_response());
    response.headers_mut().insert(header::SERVER, HeaderValue::from_static(SERVER));
    response
}

fn panicked() -> ApiError {
    ApiError::internal("the daemon failed while it answered; its log has more")
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
