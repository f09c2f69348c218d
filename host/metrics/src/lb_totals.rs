//! Counters of a set's load balancer.

/// What a set's load balancer has done since it was started, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LbTotals {
    /// Connections accepted from clients.
    pub accepted: u64,
    /// Client connections open now, those that wait for an endpoint included.
    pub active: u32,
    /// Of those, the ones that wait for an endpoint.
    pub waiting: u32,
    /// Connections reset at once because as many were open as may be.
    pub refused: u64,
    /// Connections reset at once because one client held as many as it may.
    pub refused_of_client: u64,
    /// Connections closed because no endpoint could be reached in time.
    pub unserved: u64,
    /// Connects that failed and were followed by another try.
    pub retries: u64,
    /// Connects to endpoints refused or timed out.
    pub failed_connects: u64,
    /// Accepts that failed, for example for want of file descriptors.
    pub accept_errors: u64,
    /// Bytes from clients.
    pub bytes_in: u64,
    /// Bytes to clients.
    pub bytes_out: u64,
    /// Connects to endpoints that succeeded.
    pub connects: u64,
    /// Microseconds that those took together.
    pub connect_us: u64,
    /// Connections closed for being idle too long.
    pub closed_idle: u64,
    /// Connections closed between two answers because their endpoint was leaving.
    pub closed_drained: u64,
    /// Connections closed because the drain deadline had passed.
    pub closed_cut: u64,
    /// Connections that a side broke off.
    pub closed_broken: u64,
}
