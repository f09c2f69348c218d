//! The HTTP API: its types, the trait that the daemon implements, and the routes
//! that join the two.

pub mod control;
pub mod types;
