//! Load balancer, health probes and metric scrapes of a scale set.
//!
//! ```text
//!   clients ──► LoadBalancer (frontend: listener, relay) ──► BackendPool ──► instances
//!                                                              ▲   │            ▲  ▲
//!   daemon ── set_endpoints / cut ─────────────────────────────┘   └─► stats    │  │
//!   daemon ◄─ ProbeReport ── Prober ── GuestClient ─────────────────────────────┘  │
//!   daemon ◄─ ScrapeReport ── Scraper ── GuestClient (the same connection) ────────┘
//! ```
//!
//! Probers and scrapers run on the [`WatchRuntime`] if they are started on it.
//!
//! Nothing here calls the reconciler. The load balancer reads the endpoints that
//! it was given and shows counters; probers and scrapers report into a queue that
//! the caller made. Decisions (which endpoint, when a connection may be closed,
//! when an instance is healthy) are pure functions beside their thin runners.

mod guest_client;
mod host_error;
pub mod lb;
pub mod probe;
mod scrape;
mod sys;
mod watch_runtime;

pub use guest_client::{GuestClient, GuestError, GuestReply, GuestRequest};
pub use lb::{
    BackendPool, DrainState, Endpoint, EndpointStats, LbConfig, LbError, LbStats, Listeners, LoadBalancer,
    Timing,
};
pub use probe::{
    ProbeEvent, ProbeFailure, ProbeOutcome, ProbePhase, ProbeReport, ProbeState, ProbeStatus, ProbeTarget,
    Prober,
};
pub use scrape::{ScrapeReport, ScrapeTarget, Scraper};
pub use watch_runtime::WatchRuntime;
