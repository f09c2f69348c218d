//! The HTTP API of a Regatta daemon.
//!
//! [`Endpoint`] has the table of all endpoints, each said once: method, path, required role, types and summary.
//! Client, router, OpenAPI document and the trait [`Control`] that the daemon implements are made from it.
//! Clients need no feature; `server` adds the daemon's side.

mod caller;
pub mod client;
#[cfg(feature = "server")]
pub mod control;
mod endpoints;
mod error;
pub mod image_types;
#[cfg_attr(not(feature = "server"), expect(dead_code, reason = "only the daemon checks queries"))]
mod input;
pub mod log_types;
pub mod paths;
pub mod recording_types;
pub mod recovery_types;
#[cfg(feature = "server")]
mod server;
pub mod size_types;
pub mod types;
pub mod upgrade_types;

pub use caller::{Caller, Role};
pub use client::{Client, ClientError};
#[cfg(feature = "server")]
pub use control::{Answer, Control};
pub use endpoints::{ENDPOINTS, Endpoint};
#[cfg(feature = "server")]
pub use server::{BODY_LIMIT, BodyLimit, UPLOAD_LIMIT, bind, openapi, router, serve_unix};
