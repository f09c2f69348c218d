//! Policies in the sandbox, as the daemon runs them.
//!
//! The built-in policies must have been built first (`cargo xtask policies`); the
//! fixtures of `tests/hostile` are put together here.

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
