//! The daemon's side of the API.

mod extract;
mod failure;
mod import_stream;
mod openapi;
mod routes;
mod unix;

pub use openapi::openapi;
pub use routes::router;
pub use unix::{bind, serve_unix};

/// Greatest body of a request: policy modules travel in it as base64.
pub const BODY_LIMIT_BYTES: usize = 48 << 20;
