//! Regatta: the daemon, its HTTP API and its command line.
//!
//! One binary of the same name starts from [`cli::run`]. The command line reaches
//! the daemon only through [`api`].

pub mod api;
pub mod cli;
pub mod paths;
