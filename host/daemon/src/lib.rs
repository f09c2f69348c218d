//! Regatta: the daemon, and the binary that joins it with its command line.
//!
//! [`serve`] is the daemon behind [`api`]; [`cli`] reaches it only through that.

#![cfg_attr(test, allow(clippy::disallowed_methods, reason = "tests make the files that they look at"))]

mod catalogue;
mod clock;
mod copies;
mod descriptors;
pub mod doctor;
mod fleet;
mod hot_restart;
mod images;
mod named_file;
mod node;
mod origins;
pub mod paths;
mod recordings;
pub mod restore;
pub mod serve;
mod set;
mod shared;
mod stored;

pub use regatta_api as api;
pub use regatta_cli as cli;
