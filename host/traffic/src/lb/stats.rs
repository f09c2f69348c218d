//! Counters of the load balancer, and what is read from them.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use regatta_metrics::LbTotals;

use super::backend::Endpoint;

/// Counters of a whole set, written by the frontend and its connections.
///
/// Every counter stands for itself; none orders anything else, hence `Relaxed`.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) accepted: AtomicU64,
    pub(super) active: AtomicU32,
    /// Accepted connections that are not with an endpoint yet.
    pub(super) waiting: AtomicU32,
    pub(super) refused: AtomicU64,
    pub(super) refused_of_client: AtomicU64,
    pub(super) unserved: AtomicU64,
    pub(super) retries: AtomicU64,
    pub(super) failed_connects: AtomicU64,
    pub(super) accept_errors: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) connect_us: AtomicU64,
    pub(super) closed_idle: AtomicU64,
    pub(super) closed_drained: AtomicU64,
    pub(super) closed_cut: AtomicU64,
    pub(super) closed_broken: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Ordering::Relaxed);
}

impl Counters {
    pub(super) fn read(&self) -> LbTotals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        LbTotals {
            accepted: get(&self.accepted),
            active: self.active.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            refused: get(&self.refused),
            refused_of_client: get(&self.refused_of_client),
            unserved: get(&self.unserved),
            retries: get(&self.retries),
            failed_connects: get(&self.failed_connects),
            accept_errors: get(&self.accept_errors),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
            connects: get(&self.connects),
            connect_us: get(&self.connect_us),
            closed_idle: get(&self.closed_idle),
            closed_drained: get(&self.closed_drained),
            closed_cut: get(&self.closed_cut),
            closed_broken: get(&self.closed_broken),
        }
    }
}

/// What the load balancer has done and holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LbStats {
    /// The whole set since the listener was bound, endpoints that have left included.
    pub totals: LbTotals,
    /// Endpoints that may get a connection.
    pub serving: u32,
    /// Endpoints in service, and those that have left but still have open
    /// connections; ordered by id.
    pub endpoints: Vec<EndpointStats>,
}

/// Counters of one endpoint since it came into service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointStats {
    /// Which.
    pub endpoint: Endpoint,
    /// It has left; its open connections go on.
    pub draining: bool,
    /// Connections open now, those being connected included.
    pub open: u32,
    /// Connections made.
    pub connects: u64,
    /// Connects refused or timed out.
    pub failed_connects: u64,
    /// Microseconds that all made connections together took to make.
    pub connect_us: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
}
