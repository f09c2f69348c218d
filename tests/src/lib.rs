//! What the end-to-end tests share: a daemon in a directory of its own, its
//! command line, HTTP clients, and waiting on conditions.
//!
//! The programs under test are found in `REGATTA_BIN_DIR`, else beside the test
//! (`target/debug`); the policies in `REGATTA_POLICIES`, else in
//! `target/policies`. `cargo xtask test` builds both.

/// For a manifest: a policy that keeps the size that a set has.
pub const IDLE: &str =
    "policy: { module: target-tracking, params: { metric: cpu, target: 1000000, scale_in: false } }";

mod clients;
mod daemon;
mod http;
mod namespace;
mod wait;

pub use clients::Clients;
pub use daemon::{CommandOutput, Daemon, bin_dir, policies_dir};
pub use http::{Answer, get, get_on};
pub use namespace::{enter_own_network, traces_in_own_network};
pub use wait::{PATIENCE, wait_for, wait_within};
