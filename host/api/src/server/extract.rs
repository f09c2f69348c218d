//! What handlers take from a request; whatever is wrong with it answers with an
//! `ApiError`, as everything does.

use std::convert::Infallible;

use axum::extract::rejection::{JsonRejection, PathRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, FromRequestParts, Request};
use axum::http::StatusCode;
use axum::http::request::Parts;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::failure::Failure;
use super::{BODY_LIMIT, BodyLimit, UPLOAD_LIMIT};
use crate::caller::Caller;
use crate::input::{Json, Query, QueryRules, Upload};

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        body(request, state, BODY_LIMIT).await.map(Self)
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Upload<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, state: &S) -> Result<Self, Failure> {
        body(request, state, UPLOAD_LIMIT).await.map(Self)
    }
}

/// Reads a body whole. What is too long or too slow ends the connection: the rest of it is not waited for.
async fn body<S: Send + Sync, T: DeserializeOwned>(
    mut request: Request,
    state: &S,
    limit: BodyLimit,
) -> Result<T, Failure> {
    DefaultBodyLimit::max(limit.bytes).apply(&mut request);
    match timeout(limit.within, axum::Json::from_request(request, state)).await {
        Ok(Ok(axum::Json(body))) => Ok(body),
        Ok(Err(rejection)) => Err(body_failure(&rejection, limit)),
        Err(_) => {
            let seconds = limit.within.as_secs();
            let what = format!("the body did not come within {seconds} s");
            Err(Failure::bad_request(StatusCode::REQUEST_TIMEOUT, what))
        }
    }
}

fn body_failure(rejection: &JsonRejection, limit: BodyLimit) -> Failure {
    match rejection.status() {
        StatusCode::PAYLOAD_TOO_LARGE => Failure::bad_request(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {} MiB", limit.bytes >> 20),
        ),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => Failure::bad_request(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "the body must be JSON, with the content type application/json",
        ),
        // Valid JSON of the wrong shape is 422 in axum; here 422 is for manifests
        // and policies with problems.
        _ => Failure::bad_request(StatusCode::BAD_REQUEST, sentence(&rejection.body_text())),
    }
}

impl<S: Send + Sync, T: DeserializeOwned + QueryRules> FromRequestParts<S> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let refused = |why| Failure::bad_request(StatusCode::BAD_REQUEST, why);
        let query = axum::extract::Query::<T>::from_request_parts(parts, state).await;
        let query = query.map_err(|rejection: QueryRejection| refused(sentence(&rejection.body_text())))?.0;
        query.check().map_err(refused)?;
        Ok(Self(query))
    }
}

/// The parameters in a path.
pub(super) struct Path<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        match axum::extract::Path::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(path)) => Ok(Self(path)),
            Err(rejection) => {
                let rejection: PathRejection = rejection;
                Err(Failure::bad_request(StatusCode::BAD_REQUEST, sentence(&rejection.body_text())))
            }
        }
    }
}

/// A parameter of a path: how it is taken from the address, and handed on.
pub(super) trait Parameter {
    type Owned: DeserializeOwned;
    type Handed<'a>;

    fn of(owned: &Self::Owned) -> Self::Handed<'_>;
}

impl Parameter for &str {
    type Owned = String;
    type Handed<'a> = &'a str;

    fn of(owned: &String) -> &str {
        owned
    }
}

macro_rules! number {
    ($($number:ident)*) => {
        $(impl Parameter for $number {
            type Owned = Self;
            type Handed<'a> = Self;

            fn of(owned: &Self) -> Self {
                *owned
            }
        })*
    };
}
number!(u32 u64);

/// Who calls: whom the server put into the extensions.
impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get().cloned().unwrap_or_else(Self::unknown))
    }
}

/// Messages are lower-case fragments here.
fn sentence(text: &str) -> String {
    let mut chars = text.trim_end_matches('.').chars();
    match chars.next() {
        Some(first) => first.to_lowercase().chain(chars).collect(),
        None => String::new(),
    }
}
