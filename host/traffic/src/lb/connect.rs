//! From an accepted client to an open connection with an endpoint.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use super::backend::{BackendPool, Lease, Tried};
use super::stats::add;
use crate::host_error::is_of_host;

/// First pause before the endpoints that all failed are tried again; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// How long and how often a connection is attempted.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempts {
    /// One connect.
    pub(super) connect_timeout: Duration,
    /// All of them, from the first on.
    pub(super) connect_within: Duration,
    /// The wait while there is no endpoint.
    pub(super) queue_timeout: Duration,
    /// Endpoints in a row without a pause.
    pub(super) in_a_row: usize,
}

/// Connects to one of the pool's endpoints. A refused or timed-out connect goes
/// on to another one, so that an instance that has just died costs no client its
/// connection; with none left it waits for the endpoints to change, or pauses and
/// begins again (the instance may be on its way back). An error of this host is
/// held against no endpoint. None at the deadline or
/// when `closing`.
pub(super) async fn connect(
    pool: &Arc<BackendPool>,
    attempts: Attempts,
    closing: &AtomicBool,
    rng: &mut SmallRng,
) -> Option<(Lease, TcpStream)> {
    let mut deadline = Instant::now() + attempts.queue_timeout;
    let mut connecting = false;
    let mut tried = Tried::default();
    let mut pause = FIRST_PAUSE;
    loop {
        // Listens before it looks, so that no change falls between the two.
        let mut changed = pin!(pool.changed());
        changed.as_mut().enable();
        let now = Instant::now();
        if closing.load(Ordering::SeqCst) || now >= deadline {
            return None;
        }
        let lease = if tried.len() < attempts.in_a_row { pool.lease(&tried, rng) } else { None };
        let Some(lease) = lease else {
            let none_at_all = tried.len() == 0;
            let until = if none_at_all { deadline } else { deadline.min(now + pause) };
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(until) => {}
            }
            tried.clear();
            pause = LONGEST_PAUSE.min(pause * 2);
            continue;
        };
        if !std::mem::replace(&mut connecting, true) {
            deadline = now + attempts.connect_within;
        }
        let limit = attempts.connect_timeout.min(deadline - now);
        match connect_to(lease.endpoint().addr, limit).await {
            Ok(stream) => {
                lease.connected(now.elapsed());
                return Some((lease, stream));
            }
            Err(error) if is_of_host(&error) => {
                drop(lease);
                add(&pool.counters.retries, 1);
                tokio::time::sleep_until(deadline.min(now + pause)).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            Err(error) => {
                tracing::debug!(endpoint = ?lease.endpoint(), %error, "connect failed, trying another endpoint");
                lease.failed();
                add(&pool.counters.retries, 1);
                tried.add(&lease);
            }
        }
    }
}

/// Connects with a time-out and without Nagle's delay.
///
/// # Errors
/// Whatever `connect(2)` says; `TimedOut` after `limit`.
pub(crate) async fn connect_to(addr: SocketAddr, limit: Duration) -> io::Result<TcpStream> {
    let connected = timeout(limit, TcpStream::connect(addr)).await;
    let stream = connected.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
    // A connect to a free port in the ephemeral range of one's own address may be
    // given that very port as its source, and so reach itself.
    if addr.ip().is_loopback() && stream.local_addr()? == addr {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    stream.set_nodelay(true)?;
    Ok(stream)
}
