//! Properties of the pure core.

mod guards;
mod metric;
mod phase;
mod plan;
mod replay;
mod tick;
