//! Regatta: the daemon, and the binary that joins it with its command line.
//!
//! [`serve`] is the daemon behind [`api`]; [`cli`] reaches it only through that.

mod addresses;
mod catalogue;
mod chain;
mod clock;
pub mod doctor;
mod fleet;
mod host_ledger;
mod images;
pub mod paths;
pub mod serve;
mod set;
mod shared;

pub use regatta_api as api;
pub use regatta_cli as cli;
