//! The store as the daemon uses it: real files, real processes.

mod crash;
mod disk_full;
mod groups;
mod make;
mod model;
mod opening;
mod realistic;
mod retention;
