//! The HTTP API: its types, the trait that the daemon implements, the routes that
//! join the two, the server on a Unix socket and the client.

mod caller;
pub mod client;
pub mod control;
mod error;
mod extract;
pub mod image_types;
mod import_stream;
pub mod routes;
pub mod server;
pub mod types;

pub use caller::Caller;
pub use client::{Client, ClientError};
pub use control::{Answer, Control};
pub use error::BODY_LIMIT_BYTES;
pub use routes::{openapi, router};
pub use server::{bind, serve_unix};
