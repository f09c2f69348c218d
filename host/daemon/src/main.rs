//! Regatta: the daemon and its command line in one binary.

mod api;

fn main() {}
