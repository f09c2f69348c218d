//! What is measured, as text: the guests' Prometheus text, and the daemon's own exposition.
//!
//! * [`text`] reads the guests' Prometheus text,
//! * [`exposition`] shows the daemon's own metrics.
//!
//! Windows and rates are the core's ([`regatta_core::metrics`]). Nothing in this crate does I/O or reads a clock.

pub mod exposition;
mod lb_totals;
pub mod text;

pub use exposition::Exposition;
pub use lb_totals::LbTotals;
