//! The TCP frontend: accepts connections and carries each to an endpoint.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use regatta_util::Seldom;
use thiserror::Error;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use super::backend::{BackendPool, DrainState, Endpoint};
use super::clients::Clients;
use super::connect::{Attempts, connect};
use super::listeners::Listeners;
use super::relay::{End, Timing, relay};
use super::stats::{LbStats, add};

/// Connections that the kernel holds until they are accepted, also while one daemon follows another.
const BACKLOG: u32 = 4_096;
/// Pause after an accept failed for want of resources (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long a client that was sent the end may take to send its own.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 << 10;
/// How long a load balancer that closes waits for accepted connections to get their endpoint.
const PLACED_WITHIN: Duration = Duration::from_secs(1);

/// Failed accepts are told once in such a period.
static ACCEPTS_FAIL: Seldom = Seldom::new(Duration::from_secs(10));

/// How a load balancer behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LbConfig {
    /// Connections at once, of which one client address may hold half, if that is more than 16; more are reset as soon as
    /// they are accepted. Default 10,000.
    pub max_connections: u32,
    /// One connect to an endpoint; default 1 s.
    pub connect_timeout: Duration,
    /// From the first try to a connection with an endpoint; default 5 s. Then the client is closed.
    pub connect_within: Duration,
    /// How long a connection waits while there is no endpoint; default 30 s. Then the client is closed.
    pub queue_timeout: Duration,
    /// Endpoints tried in a row before a pause; default 5.
    pub tries_in_a_row: usize,
    /// When connections are closed that neither side closes.
    pub timing: Timing,
    /// Seed of the picks.
    pub seed: u64,
}

impl Default for LbConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            connect_timeout: Duration::from_secs(1),
            connect_within: Duration::from_secs(5),
            queue_timeout: Duration::from_secs(30),
            tries_in_a_row: 5,
            timing: Timing::default(),
            seed: 0,
        }
    }
}

/// Why a load balancer cannot be had.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LbError {
    /// The address is taken, not ours, or not permitted.
    #[error("cannot listen on {listen}")]
    Bind {
        /// The address asked for.
        listen: SocketAddr,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
}

/// The load balancer of one set, layer 4: one connection of a client is one
/// connection to one endpoint.
///
/// Must be made and used within a tokio runtime. When dropped it stops accepting
/// and cuts what is open.
#[derive(Debug)]
pub struct LoadBalancer {
    shared: Arc<Shared>,
    acceptor: Mutex<Acceptor>,
    listeners: Arc<Listeners>,
    /// The socket is left to the next daemon.
    handed_over: AtomicBool,
}

#[derive(Debug)]
struct Acceptor {
    listen: SocketAddr,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Shared {
    pool: Arc<BackendPool>,
    listeners: Arc<Listeners>,
    clients: Clients,
    config: LbConfig,
    max_connections: AtomicU32,
    idle_ms: AtomicU64,
    queue_timeout_ms: AtomicU64,
    /// A connection has ended, or got its endpoint.
    moved_on: Notify,
    closing: AtomicBool,
}

impl LoadBalancer {
    /// Listens on `listen` (port 0 takes a free one) and begins to accept. Until
    /// endpoints are set, connections wait for one.
    ///
    /// # Errors
    /// [`LbError::Bind`].
    pub fn bind(listen: SocketAddr, config: LbConfig) -> Result<Self, LbError> {
        Self::bind_kept(listen, config, Arc::default())
    }

    /// As [`Self::bind`], with a socket that the daemon before has left, if there is one, and that the next may have.
    ///
    /// # Errors
    /// [`LbError::Bind`].
    pub fn bind_kept(
        listen: SocketAddr,
        config: LbConfig,
        listeners: Arc<Listeners>,
    ) -> Result<Self, LbError> {
        let (listener, bound) = listen_on(listen, &listeners)?;
        let shared = Arc::new(Shared {
            pool: Arc::default(),
            listeners: Arc::clone(&listeners),
            clients: Clients::default(),
            config,
            max_connections: AtomicU32::new(config.max_connections.max(1)),
            idle_ms: AtomicU64::new(millis(config.timing.idle)),
            queue_timeout_ms: AtomicU64::new(millis(config.queue_timeout)),
            moved_on: Notify::new(),
            closing: AtomicBool::new(false),
        });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        let acceptor = Mutex::new(Acceptor { listen: bound, task });
        Ok(Self { shared, acceptor, listeners, handed_over: AtomicBool::new(false) })
    }

    /// Moves to another address. The new listener is bound before the old one is
    /// closed; open connections go on. Nothing happens if the address is the same.
    ///
    /// # Errors
    /// [`LbError::Bind`]; the load balancer then goes on where it was.
    pub fn rebind(&self, listen: SocketAddr) -> Result<(), LbError> {
        let mut acceptor = self.acceptor();
        if acceptor.listen != listen {
            let (listener, bound) = listen_on(listen, &self.listeners)?;
            acceptor.task.abort();
            self.listeners.forget(acceptor.listen);
            let task = tokio::spawn(accept(listener, Arc::clone(&self.shared)));
            *acceptor = Acceptor { listen: bound, task };
        }
        Ok(())
    }

    /// Where it listens.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.acceptor().listen
    }

    /// Changes how many connections may be open at once, for how long without a byte, and how long new ones wait for an
    /// endpoint. What is open and above the number stays.
    pub fn set_limits(&self, max_connections: u32, idle: Duration, queue_timeout: Duration) {
        self.shared.max_connections.store(max_connections.max(1), Ordering::SeqCst);
        self.shared.idle_ms.store(millis(idle), Ordering::SeqCst);
        self.shared.queue_timeout_ms.store(millis(queue_timeout), Ordering::SeqCst);
    }

    /// The endpoints, shared with other frontends.
    #[must_use]
    pub fn pool(&self) -> &Arc<BackendPool> {
        &self.shared.pool
    }

    /// See [`BackendPool::set_endpoints`].
    pub fn set_endpoints(&self, endpoints: impl IntoIterator<Item = Endpoint>) {
        self.shared.pool.set_endpoints(endpoints);
    }

    /// See [`BackendPool::set_waiting`].
    pub fn set_waiting(&self, ids: impl IntoIterator<Item = u32>) {
        self.shared.pool.set_waiting(ids);
    }

    /// See [`BackendPool::stats`].
    #[must_use]
    pub fn stats(&self) -> LbStats {
        self.shared.pool.stats()
    }

    /// See [`BackendPool::drain_state`].
    #[must_use]
    pub fn drain_state(&self, id: u32) -> DrainState {
        self.shared.pool.drain_state(id)
    }

    /// See [`BackendPool::cut`].
    pub fn cut(&self, id: u32) {
        self.shared.pool.cut(id);
    }

    /// Stops accepting, lets open connections finish for up to `grace`, then cuts
    /// them, and returns when none is left. Those that are quiet with no answer owed are closed at once.
    pub async fn shutdown(&self, grace: Duration) {
        let deadline = Instant::now() + grace;
        self.acceptor().task.abort();
        if !self.handed_over.load(Ordering::SeqCst) {
            self.listeners.close(self.local_addr());
        }
        // What is accepted still gets its endpoint.
        let placed = self.shared.until(|| self.shared.waiting().load(Ordering::SeqCst) == 0);
        _ = tokio::time::timeout_at(deadline.min(Instant::now() + PLACED_WITHIN), placed).await;
        self.close();
        if tokio::time::timeout_at(deadline, self.shared.no_connection()).await.is_err() {
            self.shared.pool.cut_all();
            self.shared.no_connection().await;
        }
    }

    /// As [`Self::shutdown`], but the listening socket stays for the next daemon, with the service manager if there is one that
    /// keeps it: clients that connect meanwhile wait.
    pub async fn hand_over(&self, grace: Duration) {
        self.handed_over.store(true, Ordering::SeqCst);
        self.shutdown(grace).await;
    }

    fn close(&self) {
        self.acceptor().task.abort();
        self.shared.closing.store(true, Ordering::SeqCst);
        self.shared.pool.set_waiting([]);
        self.shared.pool.set_endpoints([]);
        self.shared.pool.wake();
    }

    fn acceptor(&self) -> MutexGuard<'_, Acceptor> {
        self.acceptor.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LoadBalancer {
    fn drop(&mut self) {
        self.close();
        self.shared.pool.cut_all();
        if !self.handed_over.load(Ordering::SeqCst) {
            self.listeners.forget(self.local_addr());
        }
    }
}

fn listen_on(listen: SocketAddr, listeners: &Listeners) -> Result<(TcpListener, SocketAddr), LbError> {
    let bind = || {
        if let Some(left) = listeners.take(listen) {
            return Ok((TcpListener::from_std(left)?, listen));
        }
        let socket = if listen.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // Connections of a former daemon in TIME-WAIT must not keep the port.
        socket.set_reuseaddr(true)?;
        socket.bind(listen)?;
        let listener = socket.listen(BACKLOG)?;
        let bound = listener.local_addr()?;
        Ok((listener, bound))
    };
    let (listener, bound): (TcpListener, _) = bind().map_err(|source| LbError::Bind { listen, source })?;
    listeners.keep(listener.as_fd(), bound);
    Ok((listener, bound))
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut seeds = SmallRng::seed_from_u64(shared.config.seed);
    loop {
        match listener.accept().await {
            Ok((client, _)) if shared.is_full() => {
                add(&shared.pool.counters.refused, 1);
                // Without it the client would take a connection that is closed in good order for an empty answer.
                let _ = client.set_zero_linger();
            }
            Ok((client, from)) if !shared.clients.allow(from.ip(), shared.client_max()) => {
                add(&shared.pool.counters.refused_of_client, 1);
                let _ = client.set_zero_linger();
            }
            Ok((client, from)) => {
                // Meanwhile clients wait in the kernel's queue, which costs no descriptor.
                let room = shared.listeners.room().await;
                add(&shared.pool.counters.accepted, 1);
                let connection = Connection::open(Arc::clone(&shared), from.ip(), room);
                let rng = SmallRng::seed_from_u64(seeds.next_u64());
                tokio::spawn(connection.serve(client, rng));
            }
            Err(error) => {
                add(&shared.pool.counters.accept_errors, 1);
                // The client gave up between the handshake and the accept.
                if error.kind() == io::ErrorKind::ConnectionAborted {
                    continue;
                }
                if let Some(more) = ACCEPTS_FAIL.due(std::time::Instant::now()) {
                    tracing::warn!(%error, more, "load balancers cannot accept connections, pausing");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

impl Shared {
    fn active(&self) -> &AtomicU32 {
        &self.pool.counters.active
    }

    fn waiting(&self) -> &AtomicU32 {
        &self.pool.counters.waiting
    }

    async fn until(&self, holds: impl Fn() -> bool) {
        loop {
            let mut moved_on = pin!(self.moved_on.notified());
            moved_on.as_mut().enable();
            if holds() {
                return;
            }
            moved_on.await;
        }
    }

    fn is_full(&self) -> bool {
        self.active().load(Ordering::SeqCst) >= self.max_connections.load(Ordering::SeqCst)
    }

    /// Of how many connections one client may hold half.
    fn client_max(&self) -> u32 {
        self.max_connections.load(Ordering::SeqCst).min(self.listeners.connections_max())
    }

    async fn no_connection(&self) {
        self.until(|| self.active().load(Ordering::SeqCst) == 0).await;
    }
}

/// One client's connection; counted as active until dropped.
struct Connection {
    shared: Arc<Shared>,
    client: IpAddr,
    _room: Option<OwnedSemaphorePermit>,
}

impl Connection {
    fn open(shared: Arc<Shared>, client: IpAddr, room: Option<OwnedSemaphorePermit>) -> Self {
        shared.clients.enter(client);
        shared.active().fetch_add(1, Ordering::SeqCst);
        shared.waiting().fetch_add(1, Ordering::SeqCst);
        Self { shared, client, _room: room }
    }

    async fn serve(self, mut client: TcpStream, mut rng: SmallRng) {
        let shared = &*self.shared;
        let counters = &shared.pool.counters;
        let attempts = Attempts {
            connect_timeout: shared.config.connect_timeout,
            connect_within: shared.config.connect_within,
            queue_timeout: Duration::from_millis(shared.queue_timeout_ms.load(Ordering::SeqCst)),
            in_a_row: shared.config.tries_in_a_row.max(1),
        };
        // Fails only if the client has gone already, which the relay will find out.
        let _ = client.set_nodelay(true);
        let connected = connect(&shared.pool, attempts, &shared.closing, &mut rng).await;
        shared.waiting().fetch_sub(1, Ordering::SeqCst);
        shared.moved_on.notify_waiters();
        let Some((lease, mut server)) = connected else {
            add(&counters.unserved, 1);
            return;
        };
        let end = relay(&mut client, &mut server, &lease, &shared.config.timing, &shared.idle_ms).await;
        match &end {
            End::Finished => {}
            End::Idle => add(&counters.closed_idle, 1),
            End::Drained => add(&counters.closed_drained, 1),
            End::Cut => add(&counters.closed_cut, 1),
            End::Broken(error) => {
                tracing::debug!(endpoint = ?lease.endpoint(), %error, "connection broke");
                add(&counters.closed_broken, 1);
            }
        }
        drop(server);
        drop(lease);
        if matches!(end, End::Idle | End::Drained) {
            linger(client).await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.shared.clients.leave(self.client);
        self.shared.active().fetch_sub(1, Ordering::SeqCst);
        self.shared.moved_on.notify_waiters();
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Says goodbye and reads what the client still sends. Closing at once would
/// answer bytes on their way with a reset, which may destroy the end of the last
/// answer in the client's receive queue.
async fn linger(mut client: TcpStream) {
    if client.shutdown().await.is_err() {
        return;
    }
    let drain = async {
        let mut discarded = 0;
        let mut buffer = [0; 2 << 10];
        while let Ok(n @ 1..) = client.read(&mut buffer).await {
            discarded += n;
            if discarded > LINGER_BYTES {
                break;
            }
        }
    };
    let _ = timeout(LINGER, drain).await;
}
