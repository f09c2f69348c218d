//! Properties of the pure core.

mod guards;
mod instance_state;
mod metric;
mod plan;
mod tick;
