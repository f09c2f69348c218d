//! The binary `regatta` as a command line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../api/tests/it/canned.rs"]
mod canned;
mod completions;
#[path = "../../../api/tests/it/server.rs"]
mod server;
