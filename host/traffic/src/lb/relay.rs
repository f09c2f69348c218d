//! Carries bytes between a client and an endpoint, and knows when the connection
//! may be closed without cutting an answer short.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use super::backend::{Lease, Phase};
use super::stats::add;

/// Requests are small, answers are not.
const CLIENT_BUFFER_BYTES: usize = 8 << 10;
const SERVER_BUFFER_BYTES: usize = 16 << 10;

/// When a connection is closed that neither side closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Without a byte in either direction; default 5 min.
    pub idle: Duration,
    /// The same before the first byte; default 30 s.
    pub first_byte: Duration,
    /// Quiet for so long with no answer owed, on an endpoint that has left and does
    /// not wait; default 200 ms.
    pub drain_idle: Duration,
    /// The same once the drain deadline has passed; default 10 ms.
    pub cut_idle: Duration,
    /// After the drain deadline, quiet or not; default 500 ms.
    pub cut_grace: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(300),
            first_byte: Duration::from_secs(30),
            drain_idle: Duration::from_millis(200),
            cut_idle: Duration::from_millis(10),
            cut_grace: Duration::from_millis(500),
        }
    }
}

/// How a connection ended.
#[derive(Debug)]
pub(super) enum End {
    /// Both sides had finished.
    Finished,
    /// Idle for too long.
    Idle,
    /// Its endpoint has left, and it was between two answers.
    Drained,
    /// Its endpoint has left, and its time was up.
    Cut,
    /// A side broke off.
    Broken(io::Error),
}

/// What is known of a connection at one moment.
#[derive(Debug, Clone, Copy)]
struct Sight {
    phase: Phase,
    /// How long no byte has moved.
    quiet: Duration,
    /// A byte has moved.
    spoken: bool,
    /// Every byte read was passed on, and the last word was the server's: by
    /// the habits of request and answer, no answer is owed.
    settled: bool,
    /// How long since the cut; zero before.
    since_cut: Duration,
}

/// Whether the connection is to be closed now, and as what. Pure.
fn verdict(sight: Sight, timing: &Timing) -> Option<End> {
    match sight.phase {
        _ if sight.quiet >= timing.patience(sight.spoken) => Some(End::Idle),
        Phase::Serving | Phase::Waiting => None,
        Phase::Draining => (sight.settled && sight.quiet >= timing.drain_idle).then_some(End::Drained),
        Phase::Cut if sight.settled && sight.quiet >= timing.cut_idle => Some(End::Drained),
        Phase::Cut => (sight.since_cut >= timing.cut_grace).then_some(End::Cut),
    }
}

impl Timing {
    fn patience(&self, spoken: bool) -> Duration {
        if spoken { self.idle } else { self.idle.min(self.first_byte) }
    }
}

/// How long until the connection is looked at again. Pure.
fn next_look(sight: Sight, timing: &Timing) -> Duration {
    let pause = match sight.phase {
        // A byte is only noticed at the next look, so a connection may be idle for that much longer.
        Phase::Serving | Phase::Waiting => {
            let patience = timing.patience(sight.spoken);
            (patience / 16).min(patience.saturating_sub(sight.quiet))
        }
        Phase::Draining => timing.drain_idle / 4,
        Phase::Cut => timing.cut_idle / 4,
    };
    pause.clamp(Duration::from_millis(1), Duration::from_secs(15))
}

/// Carries bytes until both sides have finished (one may finish before the
/// other), or until it is time to close. The caller closes the streams.
pub(super) async fn relay(
    client: &mut TcpStream,
    server: &mut TcpStream,
    lease: &Lease,
    timing: &Timing,
    idle_ms: &AtomicU64,
) -> End {
    let flow = Flow {
        lease,
        moved: AtomicU64::new(0),
        held: AtomicU64::new(0),
        answer_owed: AtomicBool::new(false),
    };
    let mut client = Counted { stream: client, flow: &flow, side: Side::Client };
    let mut server = Counted { stream: server, flow: &flow, side: Side::Server };
    tokio::select! {
        done = copy_bidirectional_with_sizes(&mut client, &mut server, CLIENT_BUFFER_BYTES, SERVER_BUFFER_BYTES) => {
            done.map_or_else(End::Broken, |_| End::Finished)
        }
        end = watch_over(&flow, lease.phase(), timing, idle_ms) => end,
    }
}

async fn watch_over(
    flow: &Flow<'_>,
    mut phase: watch::Receiver<Phase>,
    timing: &Timing,
    idle_ms: &AtomicU64,
) -> End {
    let mut moved = 0;
    let mut last_move = Instant::now();
    let mut cut_at = None;
    loop {
        let present = *phase.borrow_and_update();
        let now = Instant::now();
        let moved_by_now = flow.moved.load(Ordering::Relaxed);
        if moved_by_now != moved {
            (moved, last_move) = (moved_by_now, now);
        }
        let since_cut = match present {
            Phase::Cut => now - *cut_at.get_or_insert(now),
            Phase::Serving | Phase::Draining | Phase::Waiting => Duration::ZERO,
        };
        let timing = Timing { idle: Duration::from_millis(idle_ms.load(Ordering::Relaxed)), ..*timing };
        let sight = Sight {
            phase: present,
            quiet: now - last_move,
            spoken: moved > 0,
            settled: flow.settled(),
            since_cut,
        };
        if let Some(end) = verdict(sight, &timing) {
            return end;
        }
        // The sender lives in the lease, so a change can only be news.
        let _ = tokio::time::timeout(next_look(sight, &timing), phase.changed()).await;
    }
}

/// What has moved through one connection. Written by its own task only; atomic
/// because two futures of the task share it.
struct Flow<'a> {
    lease: &'a Lease,
    /// Bytes read and written, both directions.
    moved: AtomicU64,
    /// Bytes read and not yet written.
    held: AtomicU64,
    /// The client has said something since the server last did.
    answer_owed: AtomicBool,
}

impl Flow<'_> {
    fn settled(&self) -> bool {
        self.held.load(Ordering::Relaxed) == 0 && !self.answer_owed.load(Ordering::Relaxed)
    }

    fn read(&self, side: Side, n: usize) {
        let n = n as u64;
        let (endpoint, set) = (&self.lease.state, &self.lease.pool.counters);
        let (of_endpoint, of_set) = match side {
            Side::Client => (&endpoint.bytes_in, &set.bytes_in),
            Side::Server => (&endpoint.bytes_out, &set.bytes_out),
        };
        add(of_endpoint, n);
        add(of_set, n);
        add(&self.moved, n);
        add(&self.held, n);
        self.answer_owed.store(side == Side::Client, Ordering::Relaxed);
    }

    fn written(&self, n: usize) {
        add(&self.moved, n as u64);
        self.held.fetch_sub(n as u64, Ordering::Relaxed);
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Side {
    Client,
    Server,
}

/// A stream that tells its flow what passes.
struct Counted<'a> {
    stream: &'a mut TcpStream,
    flow: &'a Flow<'a>,
    side: Side,
}

impl AsyncRead for Counted<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let polled = Pin::new(&mut *self.stream).poll_read(cx, buf);
        let n = buf.filled().len() - before;
        if n > 0 {
            self.flow.read(self.side, n);
        }
        polled
    }
}

impl AsyncWrite for Counted<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut *self.stream).poll_write(cx, buf);
        if let Poll::Ready(Ok(n)) = polled {
            self.flow.written(n);
        }
        polled
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(phase: Phase, quiet_ms: u64, settled: bool, since_cut_ms: u64) -> Sight {
        Sight {
            phase,
            quiet: Duration::from_millis(quiet_ms),
            spoken: true,
            settled,
            since_cut: Duration::from_millis(since_cut_ms),
        }
    }

    #[test]
    fn verdicts() {
        let timing = Timing::default();
        let of = |sight| verdict(sight, &timing).map_or("go on".to_owned(), |end| format!("{end:?}"));
        // Serving: only the idle time-out ends it.
        assert_eq!(of(sight(Phase::Serving, 299_999, true, 0)), "go on");
        assert_eq!(of(sight(Phase::Serving, 300_000, false, 0)), "Idle");
        // Nobody has said anything yet.
        let silent = |quiet_ms| Sight { spoken: false, ..sight(Phase::Serving, quiet_ms, true, 0) };
        assert_eq!(of(silent(29_999)), "go on");
        assert_eq!(of(silent(30_000)), "Idle");
        // Waiting: it may be quiet for as long as the drain lasts.
        assert_eq!(of(sight(Phase::Waiting, 299_999, true, 0)), "go on");
        assert_eq!(of(sight(Phase::Waiting, 300_000, true, 0)), "Idle");
        // Draining: between two answers, and quiet.
        assert_eq!(of(sight(Phase::Draining, 199, true, 0)), "go on");
        assert_eq!(of(sight(Phase::Draining, 200, true, 0)), "Drained");
        assert_eq!(of(sight(Phase::Draining, 30_000, false, 0)), "go on", "an answer is owed");
        // Cut: the next lull, or the end of the grace.
        assert_eq!(of(sight(Phase::Cut, 9, true, 100)), "go on");
        assert_eq!(of(sight(Phase::Cut, 10, true, 100)), "Drained");
        assert_eq!(of(sight(Phase::Cut, 10, false, 499)), "go on");
        assert_eq!(of(sight(Phase::Cut, 0, false, 500)), "Cut");
    }

    #[test]
    fn looks_are_spaced_by_what_is_waited_for_and_never_busy() {
        let timing = Timing::default();
        let look = |phase, quiet: Duration| {
            let quiet_ms = u64::try_from(quiet.as_millis()).unwrap_or(u64::MAX);
            next_look(sight(phase, quiet_ms, true, 0), &timing)
        };
        assert_eq!(look(Phase::Serving, Duration::ZERO), Duration::from_secs(15));
        assert_eq!(look(Phase::Serving, timing.idle - Duration::from_secs(2)), Duration::from_secs(2));
        assert_eq!(look(Phase::Draining, Duration::ZERO), Duration::from_millis(50));
        let zero = Timing { cut_idle: Duration::ZERO, ..timing };
        assert_eq!(next_look(sight(Phase::Cut, 0, true, 0), &zero), Duration::from_millis(1));
    }
}
