//! The binary `regatta` as a command line.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
#![expect(clippy::disallowed_methods, reason = "tests make the files that they look at")]

#[path = "../../../api/tests/it/canned.rs"]
mod canned;
mod completions;
#[path = "../../../api/tests/it/server.rs"]
mod server;
