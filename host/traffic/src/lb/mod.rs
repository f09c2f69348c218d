//! The load balancer of a set: a frontend that accepts connections and a pool of
//! backends that it leases them from.
//!
//! The seam for other frontends (HTTP, TLS) is [`BackendPool`]: a frontend takes
//! a lease on an endpoint, carries traffic, and drops the lease. Picking,
//! draining and counting stay on the pool's side.

mod backend;
mod clients;
mod connect;
mod frontend;
mod listeners;
mod pick;
mod relay;
mod stats;

pub use backend::{BackendPool, DrainState, Endpoint, Lease};
pub use frontend::{LbConfig, LbError, LoadBalancer};
pub use listeners::Listeners;
pub use relay::Timing;
pub use stats::{EndpointStats, LbStats};

pub(crate) use connect::connect_to;
