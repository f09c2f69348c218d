//! Policies in the sandbox, as the daemon runs them.
//!
//! The built-in policies must have been built first (`cargo xtask policies`); the
//! fixtures of `tests/hostile` are put together here.

#![expect(clippy::disallowed_methods, reason = "tests make the files that the crate must not trust")]

mod cache;
mod compile;
mod doors;
mod dry_run;
mod features;
mod fixtures;
mod fuzz;
mod hostile;
mod json_door;
mod languages;
mod modules;
mod parity;
mod sandbox;
mod wasi;
mod worker;
