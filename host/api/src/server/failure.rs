//! Errors of the API as HTTP answers.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

use crate::types::{ApiError, ErrorCode};

/// An error with the status that it is answered with.
#[derive(Debug)]
pub(crate) struct Failure {
    status: StatusCode,
    error: ApiError,
}

impl Failure {
    /// A request that is not understood; `status` says in which way.
    pub(super) fn bad_request(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::new(ErrorCode::BadRequest, message) }
    }
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, error }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.status, Json(self.error)).into_response()
    }
}
