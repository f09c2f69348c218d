//! The daemon's side of the API.

use std::time::Duration;

mod extract;
mod failure;
mod impatient;
mod import_stream;
mod openapi;
mod routes;
mod unix;

pub use openapi::openapi;
pub use routes::router;
pub use unix::{bind, serve_unix};

/// What the body of a request may have: bytes, and time until all of it has come.
#[derive(Debug, Clone, Copy)]
pub struct BodyLimit {
    /// Bytes.
    pub bytes: usize,
    /// From the end of the request's head to the end of its body.
    pub within: Duration,
}

/// Of most requests: a few fields.
pub const BODY_LIMIT: BodyLimit = BodyLimit { bytes: 1 << 20, within: Duration::from_secs(10) };

/// Of uploads: policy modules travel in them as base64.
pub const UPLOAD_LIMIT: BodyLimit = BodyLimit { bytes: 48 << 20, within: Duration::from_secs(60) };
