//! The store as the daemon uses it: real files, real processes.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on stops where it stands")]
#![allow(clippy::disallowed_methods, reason = "tests make the files that they look at")]

mod child;
mod copies;
mod crash;
mod disk_full;
mod groups;
mod make;
mod model;
mod opening;
mod realistic;
mod retention;
mod upgrade;
