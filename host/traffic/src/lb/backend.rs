//! The backends of a set: which endpoints there are, how busy each is, and which
//! may get the next connection.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use rand::rngs::SmallRng;
use tokio::sync::futures::Notified;
use tokio::sync::{Notify, watch};

use super::pick::pick;
use super::stats::{Counters, EndpointStats, LbStats};

/// For so long after a failed connect an endpoint is picked only if the other
/// choice failed too: one that swallows connects (time-out) would otherwise slow
/// its share of all connections until the probes find out.
const AVOID_AFTER_FAILURE_MS: u64 = 1_000;

/// Where an instance serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// Id of the instance, unique within the set.
    pub id: u32,
    /// Address of its service.
    pub addr: SocketAddr,
}

/// How far an endpoint's connections are from being finished.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DrainState {
    /// Connections still open; the endpoint is drained at 0.
    pub open: u32,
}

/// What is asked of the connections of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Go on.
    Serving,
    /// Finish; close when quiet.
    Draining,
    /// Finish; quiet or not.
    Waiting,
    /// Close at the next lull, and soon in any case.
    Cut,
}

#[derive(Debug)]
pub(super) struct EndpointState {
    pub(super) endpoint: Endpoint,
    phase: watch::Sender<Phase>,
    open: AtomicU32,
    connects: AtomicU64,
    failed_connects: AtomicU64,
    connect_us: AtomicU64,
    pub(super) bytes_in: AtomicU64,
    pub(super) bytes_out: AtomicU64,
    /// Milliseconds since the pool was made; 0 if it is not avoided.
    avoid_until_ms: AtomicU64,
}

impl EndpointState {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            endpoint,
            phase: watch::Sender::new(Phase::Serving),
            open: AtomicU32::new(0),
            connects: AtomicU64::new(0),
            failed_connects: AtomicU64::new(0),
            connect_us: AtomicU64::new(0),
            bytes_in: AtomicU64::new(0),
            bytes_out: AtomicU64::new(0),
            avoid_until_ms: AtomicU64::new(0),
        }
    }

    fn enter(&self, phase: Phase) {
        self.phase.send_if_modified(|present| std::mem::replace(present, phase) != phase);
    }

    fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    fn stats(&self) -> EndpointStats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        EndpointStats {
            endpoint: self.endpoint,
            draining: self.phase() != Phase::Serving,
            open: self.open(),
            connects: get(&self.connects),
            failed_connects: get(&self.failed_connects),
            connect_us: get(&self.connect_us),
            bytes_in: get(&self.bytes_in),
            bytes_out: get(&self.bytes_out),
        }
    }
}

/// The endpoints of a set, shared by its frontends.
#[derive(Debug)]
pub struct BackendPool {
    /// What may be picked, ordered by id. Swapped as a whole.
    serving: ArcSwap<Vec<Arc<EndpointState>>>,
    /// Those, and the ones that have left with connections open.
    known: Mutex<Vec<Arc<EndpointState>>>,
    /// Of which, once they have left, quiet connections may stay.
    waiting: ArcSwap<BTreeSet<u32>>,
    changed: Notify,
    pub(super) counters: Counters,
    started: Instant,
}

impl Default for BackendPool {
    fn default() -> Self {
        Self {
            serving: ArcSwap::default(),
            known: Mutex::default(),
            waiting: ArcSwap::default(),
            changed: Notify::new(),
            counters: Counters::default(),
            started: Instant::now(),
        }
    }
}

impl BackendPool {
    /// Replaces the endpoints. One that is missing from `endpoints` gets no new
    /// connection from now on and closes those that it has as they become quiet, unless they [wait](Self::set_waiting);
    /// one that comes back before they are gone keeps them. Of two endpoints
    /// with one id the last counts.
    pub fn set_endpoints(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        let wanted: BTreeMap<u32, SocketAddr> = endpoints.into_iter().map(|e| (e.id, e.addr)).collect();
        let mut known = self.known();
        let unchanged = {
            let serving = self.serving.load();
            serving.len() == wanted.len()
                && serving
                    .iter()
                    .zip(&wanted)
                    .all(|(state, (&id, &addr))| state.endpoint == Endpoint { id, addr })
        };
        if !unchanged {
            let serving: Vec<Arc<EndpointState>> = wanted
                .into_iter()
                .map(|(id, addr)| {
                    let endpoint = Endpoint { id, addr };
                    // A cut one is being emptied: what comes back starts anew.
                    let kept = known.iter().find(|s| s.endpoint == endpoint && s.phase() != Phase::Cut);
                    kept.map_or_else(|| Arc::new(EndpointState::new(endpoint)), Arc::clone)
                })
                .collect();
            for state in &serving {
                state.enter(Phase::Serving);
            }
            let serving = Arc::new(serving);
            self.serving.store(Arc::clone(&serving));
            for state in known.iter() {
                if state.phase() == Phase::Serving && !serving.iter().any(|s| Arc::ptr_eq(s, state)) {
                    state.enter(self.leaving(state));
                }
            }
            for state in serving.iter() {
                if !known.iter().any(|k| Arc::ptr_eq(k, state)) {
                    known.push(Arc::clone(state));
                }
            }
        }
        for state in known.iter().filter(|it| !matches!(it.phase(), Phase::Serving | Phase::Cut)) {
            state.enter(self.leaving(state));
        }
        known.retain(|state| state.phase() == Phase::Serving || state.open() > 0);
        drop(known);
        if !unchanged {
            self.changed.notify_waiters();
        }
    }

    /// Connections of these endpoints may stay while they are quiet, after the endpoint has left and until they are
    /// [cut](Self::cut). Those of others that have left are closed when quiet with no answer owed. Holds from the next
    /// [`Self::set_endpoints`] on.
    pub fn set_waiting(&self, ids: impl IntoIterator<Item = u32>) {
        self.waiting.store(Arc::new(ids.into_iter().collect()));
    }

    fn leaving(&self, state: &EndpointState) -> Phase {
        if self.waiting.load().contains(&state.endpoint.id) { Phase::Waiting } else { Phase::Draining }
    }

    /// How many endpoints may get a connection.
    #[must_use]
    pub fn serving(&self) -> usize {
        self.serving.load().len()
    }

    /// Connections open on the endpoint, in service or draining; 0 if unknown.
    #[must_use]
    pub fn drain_state(&self, id: u32) -> DrainState {
        let open = self.known().iter().filter(|s| s.endpoint.id == id).map(|s| s.open()).sum();
        DrainState { open }
    }

    /// Ends what is still open on an endpoint that has left: each connection at
    /// its next lull, and within [`super::Timing::cut_grace`] in any case. Without
    /// effect on an endpoint in service.
    pub fn cut(&self, id: u32) {
        for state in self.known().iter() {
            if state.endpoint.id == id && state.phase() != Phase::Serving {
                state.enter(Phase::Cut);
            }
        }
    }

    /// As [`Self::cut`], for every endpoint that has left.
    pub(super) fn cut_all(&self) {
        for state in self.known().iter() {
            if state.phase() != Phase::Serving {
                state.enter(Phase::Cut);
            }
        }
    }

    /// Counters as they stand.
    #[must_use]
    pub fn stats(&self) -> LbStats {
        let mut endpoints: Vec<EndpointStats> = self
            .known()
            .iter()
            .filter(|state| state.phase() == Phase::Serving || state.open() > 0)
            .map(|state| state.stats())
            .collect();
        endpoints.sort_by_key(|stats| stats.endpoint);
        let serving = u32::try_from(self.serving()).unwrap_or(u32::MAX);
        LbStats { totals: self.counters.read(), serving, endpoints }
    }

    /// Completes when the endpoints have changed after it was first polled or
    /// enabled.
    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    /// Wakes everyone who waits for an endpoint, to look at the state of the world again.
    pub(super) fn wake(&self) {
        self.changed.notify_waiters();
    }

    /// Takes a lease on one endpoint by the power of two choices, none of `tried`.
    pub(super) fn lease(self: &Arc<Self>, tried: &Tried, rng: &mut SmallRng) -> Option<Lease> {
        loop {
            let serving = self.serving.load();
            let tried = tried.indices_in(&serving);
            let now_ms = self.elapsed_ms(Duration::ZERO);
            let load = |index: usize| {
                let state = &serving[index];
                let avoided = state.avoid_until_ms.load(Ordering::Relaxed) > now_ms;
                u64::from(state.open()) + if avoided { 1 << 32 } else { 0 }
            };
            let state = Arc::clone(&serving[pick(serving.len(), &tried, load, rng)?]);
            drop(serving);
            // First counted, then looked whether it has left meanwhile: whoever
            // made it leave and then read 0 open connections may rely on it.
            state.open.fetch_add(1, Ordering::SeqCst);
            let lease = Lease { pool: Arc::clone(self), state };
            if lease.state.phase() == Phase::Serving {
                return Some(lease);
            }
        }
    }

    fn known(&self) -> MutexGuard<'_, Vec<Arc<EndpointState>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn elapsed_ms(&self, ahead: Duration) -> u64 {
        u64::try_from((self.started.elapsed() + ahead).as_millis()).unwrap_or(u64::MAX)
    }
}

/// The endpoints that one connection has already failed to reach.
#[derive(Debug, Default)]
pub(super) struct Tried(Vec<Arc<EndpointState>>);

impl Tried {
    pub(super) fn add(&mut self, lease: &Lease) {
        self.0.push(Arc::clone(&lease.state));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    fn indices_in(&self, serving: &[Arc<EndpointState>]) -> Vec<usize> {
        let is_tried = |state: &Arc<EndpointState>| self.0.iter().any(|tried| Arc::ptr_eq(tried, state));
        if self.0.is_empty() {
            return Vec::new();
        }
        serving.iter().enumerate().filter(|(_, state)| is_tried(state)).map(|(index, _)| index).collect()
    }
}

/// The right to carry one connection to an endpoint; counted as open until dropped.
#[derive(Debug)]
pub struct Lease {
    pub(super) pool: Arc<BackendPool>,
    pub(super) state: Arc<EndpointState>,
}

impl Lease {
    /// Where to connect to.
    #[must_use]
    pub fn endpoint(&self) -> Endpoint {
        self.state.endpoint
    }

    /// What is asked of the connection, and news of it.
    pub(super) fn phase(&self) -> watch::Receiver<Phase> {
        self.state.phase.subscribe()
    }

    /// The connection was made, in this time.
    pub(super) fn connected(&self, took: Duration) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.state.avoid_until_ms.store(0, Ordering::Relaxed);
        for counter in [&self.state.connects, &self.pool.counters.connects] {
            counter.fetch_add(1, Ordering::Relaxed);
        }
        for counter in [&self.state.connect_us, &self.pool.counters.connect_us] {
            counter.fetch_add(took_us, Ordering::Relaxed);
        }
    }

    /// The connection could not be made.
    pub(super) fn failed(&self) {
        let until_ms = self.pool.elapsed_ms(Duration::from_millis(AVOID_AFTER_FAILURE_MS));
        self.state.avoid_until_ms.store(until_ms, Ordering::Relaxed);
        for counter in [&self.state.failed_connects, &self.pool.counters.failed_connects] {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.state.open.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;

    fn endpoint(id: u32) -> Endpoint {
        Endpoint { id, addr: SocketAddr::from(([127, 0, 0, 1], 8000 + u16::try_from(id).unwrap())) }
    }

    fn pool(ids: &[u32]) -> Arc<BackendPool> {
        let pool = Arc::new(BackendPool::default());
        pool.set_endpoints(ids.iter().map(|&id| endpoint(id)));
        pool
    }

    fn lease(pool: &Arc<BackendPool>, tried: &Tried) -> Option<Lease> {
        pool.lease(tried, &mut SmallRng::seed_from_u64(7))
    }

    #[test]
    fn an_endpoint_that_left_gets_nothing_new_and_is_known_until_drained() {
        let pool = pool(&[1, 2]);
        let (a, b) = (lease(&pool, &Tried::default()).unwrap(), lease(&pool, &Tried::default()).unwrap());
        assert_ne!(a.endpoint(), b.endpoint(), "the second goes to the idle one");
        pool.set_endpoints([endpoint(2)]);
        assert_eq!(pool.drain_state(1), DrainState { open: 1 });
        let next = lease(&pool, &Tried::default()).unwrap();
        assert_eq!(next.endpoint().id, 2);
        assert_eq!(
            pool.stats().endpoints.iter().map(|e| (e.endpoint.id, e.draining, e.open)).collect::<Vec<_>>(),
            [(1, true, 1), (2, false, 2)]
        );
        drop((a, b));
        assert_eq!(pool.drain_state(1), DrainState { open: 0 });
        assert_eq!(pool.stats().endpoints.len(), 1);
    }

    #[test]
    fn what_comes_back_in_time_keeps_its_connections_but_not_after_a_cut() {
        let pool = pool(&[1]);
        let held = lease(&pool, &Tried::default()).unwrap();
        let phase = held.phase();
        pool.cut(1);
        assert_eq!(*phase.borrow(), Phase::Serving, "a cut is for what has left");
        pool.set_endpoints([]);
        assert_eq!(*phase.borrow(), Phase::Draining);
        pool.set_endpoints([endpoint(1)]);
        assert_eq!(*phase.borrow(), Phase::Serving);
        assert_eq!(pool.stats().endpoints[0].open, 1);
        pool.set_endpoints([]);
        pool.cut(1);
        pool.set_endpoints([endpoint(1)]);
        assert_eq!(*phase.borrow(), Phase::Cut);
        assert_eq!(pool.stats().endpoints.len(), 2, "the one being emptied and the new one");
        assert_eq!(pool.drain_state(1), DrainState { open: 1 });
    }

    #[test]
    fn another_address_is_another_endpoint() {
        let pool = pool(&[1]);
        let held = lease(&pool, &Tried::default()).unwrap();
        let moved = Endpoint { id: 1, addr: SocketAddr::from(([127, 0, 0, 9], 80)) };
        pool.set_endpoints([moved]);
        assert_eq!(*held.phase().borrow(), Phase::Draining);
        assert_eq!(lease(&pool, &Tried::default()).unwrap().endpoint(), moved);
    }

    #[test]
    fn each_endpoint_is_tried_once_and_a_failed_one_is_avoided_for_a_while() {
        let pool = pool(&[1, 2, 3]);
        let mut tried = Tried::default();
        let mut seen = Vec::new();
        while let Some(lease) = lease(&pool, &tried) {
            tried.add(&lease);
            seen.push(lease.endpoint().id);
        }
        seen.sort_unstable();
        assert_eq!(seen, [1, 2, 3]);

        let failed = lease(&pool, &Tried::default()).unwrap();
        failed.failed();
        let bad = failed.endpoint().id;
        drop(failed);
        let mut rng = SmallRng::seed_from_u64(1);
        let held: Vec<Lease> = (0..50).map(|_| pool.lease(&Tried::default(), &mut rng).unwrap()).collect();
        assert!(held.iter().all(|lease| lease.endpoint().id != bad));
    }
}
