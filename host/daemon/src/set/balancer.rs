//! The load balancer of a set, if its manifest has one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_core::machine::{self, SetMachine, TrafficReading};
use regatta_core::manifest::{self, DrainMode};
use regatta_core::phase::Phase;
use regatta_traffic::{Endpoint, LbConfig, LbError, Listeners, LoadBalancer, Timing};

use super::Traffic;

/// The load balancer of a set, or none.
pub(super) struct Balancer(pub(super) Option<LoadBalancer>);

impl Balancer {
    /// Listens where a manifest wants it. A listener that moves keeps its open connections.
    pub(super) fn listen(
        &mut self,
        spec: Option<&manifest::LoadBalancer>,
        listeners: &Arc<Listeners>,
    ) -> Result<(), LbError> {
        match (spec, &self.0) {
            (Some(spec), Some(present)) => present.rebind(spec.listen)?,
            (Some(spec), None) => self.0 = Some(bind(spec, listeners)?),
            (None, _) => self.0 = None,
        }
        Ok(())
    }

    pub(super) fn limit(&self, spec: Option<&manifest::LoadBalancer>) {
        if let (Some(load_balancer), Some(spec)) = (&self.0, spec) {
            let (idle, queue_timeout) = times(spec);
            load_balancer.set_limits(spec.max_connections, idle, queue_timeout);
        }
    }

    /// Ends the connections of an instance.
    pub(super) fn cut(&self, id: u32) {
        if let Some(load_balancer) = &self.0 {
            load_balancer.cut(id);
        }
    }

    /// What a tick may know of it.
    pub(super) fn reading(&self, machine: &SetMachine) -> Option<TrafficReading> {
        let load_balancer = self.0.as_ref()?;
        let stats = load_balancer.stats();
        let mut open: BTreeMap<u32, u32> =
            stats.endpoints.iter().map(|endpoint| (endpoint.endpoint.id, endpoint.open)).collect();
        for draining in machine.instances().filter(|record| record.phase == Phase::Draining) {
            open.insert(draining.id, load_balancer.drain_state(draining.id).open);
        }
        let totals = stats.totals;
        Some(TrafficReading {
            accepted: totals.accepted,
            refused: totals.refused,
            active: totals.active,
            waiting: totals.waiting,
            unserved: totals.unserved,
            open,
        })
    }

    /// Sends new connections to the endpoints that the set has now.
    pub(super) fn follow(&self, machine: &SetMachine) -> Option<Arc<Traffic>> {
        let load_balancer = self.0.as_ref()?;
        let waits =
            machine.manifest().load_balancer.as_ref().is_some_and(|it| it.drain_mode == DrainMode::Wait);
        let draining = machine.instances().filter(|record| waits && record.phase == Phase::Draining);
        load_balancer.set_waiting(draining.map(|record| record.id));
        let endpoints = machine.endpoints();
        load_balancer.set_endpoints(endpoints.map(|machine::Endpoint { id, addr }| Endpoint { id, addr }));
        Some(Arc::new(Traffic { listen: load_balancer.local_addr(), stats: load_balancer.stats() }))
    }

    /// Lets connections finish, and leaves the listening socket to the next daemon.
    pub(super) async fn hand_over(&self, grace: Duration) {
        if let Some(load_balancer) = &self.0 {
            load_balancer.hand_over(grace).await;
        }
    }

    pub(super) async fn shut_down(&self) {
        if let Some(load_balancer) = &self.0 {
            load_balancer.shutdown(Duration::ZERO).await;
        }
    }
}

/// Listens for a set's traffic.
///
/// # Errors
/// The address is taken, not ours, or not permitted.
pub(crate) fn bind(
    spec: &manifest::LoadBalancer,
    listeners: &Arc<Listeners>,
) -> Result<LoadBalancer, LbError> {
    let (idle, queue_timeout) = times(spec);
    let timing = Timing { idle, ..Timing::default() };
    let max_connections = spec.max_connections;
    let config = LbConfig { max_connections, queue_timeout, timing, ..LbConfig::default() };
    LoadBalancer::bind_kept(spec.listen, config, Arc::clone(listeners))
}

/// How long a connection may be idle, and wait for an instance.
fn times(spec: &manifest::LoadBalancer) -> (Duration, Duration) {
    (Duration::from_millis(spec.idle_timeout_ms), Duration::from_millis(spec.queue_timeout_ms))
}
