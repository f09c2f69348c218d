//! How the daemon's file descriptors are shared out. What strangers can use up (connections of load balancers) never takes
//! those of the API, of probes and of launches.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// For the store, logs, listeners, compilations, imports and everything else that comes and goes.
const RESERVE: u64 = 128;
/// Connections of the API, where there are descriptors enough.
const API_MOST: u64 = 256;
/// A connection through a load balancer takes one to the client and one to the instance.
const PER_CONNECTION: u64 = 2;

/// Who may have how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shares {
    /// Connections of the API.
    pub(crate) api: usize,
    /// Descriptors of instances: launches, probes, scrapes, their VMMs' sockets.
    pub(crate) instances: u64,
    /// Connections of all load balancers together.
    pub(crate) connections: u32,
}

impl Shares {
    /// Raises the limit as far as the daemon may, and shares it out.
    pub(crate) fn take() -> Self {
        let limit = getrlimit(Resource::Nofile);
        // The usual soft limit of 1,024 is there for programs that use `select`.
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(why) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%why, "the limit on open files stays at {:?}", limit.current);
        }
        let limit = getrlimit(Resource::Nofile).current;
        let shares = Self::of(limit.unwrap_or(u64::MAX));
        tracing::info!(
            limit,
            instances = shares.instances,
            load_balancer_connections = shares.connections,
            api_connections = shares.api,
            "file descriptors"
        );
        shares
    }

    fn of(limit: u64) -> Self {
        let api = (limit / 8).min(API_MOST);
        let instances = limit.saturating_sub(RESERVE + api) / 2;
        Self {
            api: usize::try_from(api).unwrap_or(usize::MAX).max(1),
            instances,
            connections: u32::try_from(instances / PER_CONNECTION).unwrap_or(u32::MAX).max(1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shares_fit_into_the_limit_and_nobody_is_left_without() {
        for limit in [200, 256, 400, 1_024, 4_096, 20_000, 1_048_576, u64::MAX] {
            let shares = Shares::of(limit);
            let taken = shares.api as u64 + shares.instances + u64::from(shares.connections) * PER_CONNECTION;
            assert!(taken <= limit - RESERVE, "{limit}: {shares:?}");
            assert!(shares.api > 0 && shares.connections > 0, "{limit}: {shares:?}");
        }
        assert_eq!(Shares::of(400), Shares { api: 50, instances: 111, connections: 55 });
        assert_eq!(Shares::of(20_000), Shares { api: 256, instances: 9_808, connections: 4_904 });
    }
}
