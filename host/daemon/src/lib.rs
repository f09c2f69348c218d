//! Regatta: the daemon, its HTTP API and its command line.
//!
//! One binary of the same name starts from [`cli::run`]. The command line reaches
//! the daemon only through [`api`]; [`serve`] is the daemon.

pub mod api;
mod catalogue;
mod chain;
pub mod cli;
mod clock;
mod fleet;
mod images;
mod node;
pub mod paths;
pub mod serve;
mod set;
mod shared;
mod stored;
