//! The command line against a daemon with canned answers, over a real Unix socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../api/tests/it/canned.rs"]
mod canned;
mod cli;
mod docs;
mod events;
mod harness;
mod images;
#[path = "../../../api/tests/it/server.rs"]
mod server;
mod wait;
