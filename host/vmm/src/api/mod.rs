//! Cloud Hypervisor's REST API: typed requests, lenient responses, classified errors, one serial client per VMM.
//!
//! Nothing of this leaves the crate but [`ApiError`] and [`ApiErrorKind`]: the daemon never sees Cloud Hypervisor's JSON.

pub(crate) mod client;
pub(crate) mod config;
mod connection;
mod error;
pub(crate) mod response;

pub(crate) use client::VmmClient;
pub(crate) use connection::{Listener, listener};
pub use error::{ApiError, ApiErrorKind};
