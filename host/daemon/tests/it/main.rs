//! The API and the command line against a daemon with canned answers, over a real
//! Unix socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod canned;
mod cli;
mod completions;
mod docs;
mod events;
mod fuzz;
mod harness;
mod images;
mod routes;
mod wait;
