//! Asks one instance when its state machine says so, and reports what changed.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use regatta_core::manifest::{Health, Probe};
use regatta_util::chain;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::state::{ProbeEvent, ProbeFailure, ProbeOutcome, ProbePhase, ProbeState};
use crate::guest_client::{GuestClient, GuestError, GuestRequest};
use crate::host_error::of_host;
use crate::lb::connect_to;

/// Of the answer to a probe; only its status matters.
const BODY_LIMIT_BYTES: usize = 64 << 10;

/// A time-out that comes so late says something about this host and nothing about the guest.
const STOPPED: Duration = Duration::from_secs(1);

/// Which instance is probed.
#[derive(Debug, Clone)]
pub struct ProbeTarget {
    /// Id of the instance.
    pub id: u32,
    /// A client for its address; its port must be the probe's. Share it with the
    /// scraper of the same port to share connections.
    pub client: GuestClient,
    /// Where its probes begin: `Booting` for a new one, what was recorded for one
    /// that a restarted daemon has adopted.
    pub phase: ProbePhase,
}

/// Something that probes have found out about an instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProbeReport {
    /// Id of the instance.
    pub id: u32,
    /// What changed.
    pub event: ProbeEvent,
    /// What the last probe came to; says why it became unhealthy.
    pub outcome: ProbeOutcome,
}

/// The last probe of an instance, for those who look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProbeStatus {
    /// Probes so far.
    pub probes: u64,
    /// Probes that did not pass.
    pub failures: u64,
    /// What the last one came to; none before the first.
    pub last: Option<ProbeOutcome>,
    /// How long the last one took, microseconds.
    pub took_us: u64,
}

/// Probes one instance until dropped.
#[derive(Debug)]
pub struct Prober {
    task: JoinHandle<()>,
    status: watch::Receiver<ProbeStatus>,
}

impl Prober {
    /// Begins to probe; changes go to `reports`. When that queue is full the
    /// prober waits, when it is closed the prober ends. Without a probe in
    /// `health` the instance is reported healthy at once.
    ///
    /// Must be called within a tokio runtime. `seed` spreads the instances over
    /// time; give each its own.
    ///
    /// # Errors
    /// [`GuestError::Path`] if the path of the probe is none.
    pub fn start(
        target: ProbeTarget,
        health: &Health,
        seed: u64,
        reports: mpsc::Sender<ProbeReport>,
    ) -> Result<Self, GuestError> {
        let timeout = Duration::from_millis(health.timeout_ms.max(1));
        let asking = match &health.probe {
            None => Asking::Nothing,
            Some(Probe::Tcp { .. }) => Asking::Tcp { addr: target.client.addr(), timeout },
            Some(Probe::Http { path, .. }) => Asking::Http {
                client: target.client.clone(),
                request: GuestRequest::new(path, timeout, BODY_LIMIT_BYTES)?,
            },
        };
        let clock = Instant::now();
        let state = ProbeState::new(health, target.phase, seed, 0);
        let (status_sender, status) = watch::channel(ProbeStatus::default());
        let run = Run { id: target.id, asking, state, clock, status: status_sender, reports };
        Ok(Self { task: tokio::spawn(run.run()), status })
    }

    /// The last probe.
    #[must_use]
    pub fn status(&self) -> ProbeStatus {
        self.status.borrow().clone()
    }
}

impl Drop for Prober {
    fn drop(&mut self) {
        self.task.abort();
    }
}

enum Asking {
    Nothing,
    Http { client: GuestClient, request: GuestRequest },
    Tcp { addr: SocketAddr, timeout: Duration },
}

impl Asking {
    fn timeout(&self) -> Duration {
        match self {
            Self::Nothing => Duration::MAX,
            Self::Http { request, .. } => request.timeout,
            Self::Tcp { timeout, .. } => *timeout,
        }
    }

    async fn ask(&self) -> ProbeOutcome {
        match self {
            Self::Nothing => ProbeOutcome::Passed,
            Self::Http { client, request } => match client.get(request).await {
                Ok(reply) if (200..300).contains(&reply.status) => ProbeOutcome::Passed,
                Ok(reply) => ProbeOutcome::Failed(ProbeFailure::Status(reply.status)),
                Err(error) => outcome_of(&error, failure_of_guest),
            },
            Self::Tcp { addr, timeout } => match connect_to(*addr, *timeout).await {
                Ok(_) => ProbeOutcome::Passed,
                Err(error) => outcome_of(&error, failure_of_io),
            },
        }
    }
}

fn outcome_of<E: Error + 'static>(error: &E, failure: impl FnOnce(&E) -> ProbeFailure) -> ProbeOutcome {
    match of_host(error) {
        Some(lacking) => ProbeOutcome::NotAsked(lacking.to_string()),
        None => ProbeOutcome::Failed(failure(error)),
    }
}

fn failure_of_guest(error: &GuestError) -> ProbeFailure {
    match error {
        GuestError::Connect { source, .. } => failure_of_io(source),
        GuestError::TimedOut { .. } => ProbeFailure::TimedOut,
        other => ProbeFailure::Other(chain(other)),
    }
}

fn failure_of_io(error: &io::Error) -> ProbeFailure {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => ProbeFailure::Refused,
        io::ErrorKind::TimedOut => ProbeFailure::TimedOut,
        _ => ProbeFailure::Other(error.to_string()),
    }
}

struct Run {
    id: u32,
    asking: Asking,
    state: ProbeState,
    clock: Instant,
    status: watch::Sender<ProbeStatus>,
    reports: mpsc::Sender<ProbeReport>,
}

impl Run {
    async fn run(mut self) {
        loop {
            tokio::time::sleep_until(self.clock + Duration::from_millis(self.state.due_ms())).await;
            let asked = Instant::now();
            let mut outcome = self.asking.ask().await;
            if outcome == ProbeOutcome::Failed(ProbeFailure::TimedOut)
                && asked.elapsed() > self.asking.timeout().saturating_add(STOPPED)
            {
                // This process did not run meanwhile: nobody knows whether the guest answered in time.
                outcome = ProbeOutcome::NotAsked("the daemon did not run in time".to_owned());
            }
            let took_us = u64::try_from(asked.elapsed().as_micros()).unwrap_or(u64::MAX);
            let now_ms = u64::try_from(self.clock.elapsed().as_millis()).unwrap_or(u64::MAX);
            let events = self.state.on_result(&outcome, now_ms);
            self.status.send_modify(|status| {
                status.probes += 1;
                status.failures += u64::from(matches!(outcome, ProbeOutcome::Failed(_)));
                status.last = Some(outcome.clone());
                status.took_us = took_us;
            });
            for event in events {
                let report = ProbeReport { id: self.id, event, outcome: outcome.clone() };
                if self.reports.send(report).await.is_err() {
                    return;
                }
            }
            // Without a probe there is nothing more to learn.
            if matches!(self.asking, Asking::Nothing) && self.state.phase() == ProbePhase::Healthy {
                return;
            }
        }
    }
}
