//! Cloud Hypervisor's REST API: typed requests, lenient responses, classified errors, one serial client per VMM.
//!
//! Nothing of this leaves the crate but [`ApiError`] and [`ApiErrorKind`]: the daemon never sees Cloud Hypervisor's JSON.

pub(crate) mod client;
pub(crate) mod config;
mod error;
pub(crate) mod response;

pub(crate) use client::VmmClient;
pub use error::{ApiError, ApiErrorKind};
