//! Router and client against a daemon with canned answers, over a real Unix socket.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod canned;
mod docs;
mod fuzz;
mod imports;
mod roles;
mod routes;
mod server;
