//! Probes and scrapes of one instance; they end when this is dropped.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use regatta_core::agent::Watch;
use regatta_core::manifest::{Network, Probe};
use regatta_core::phase::Phase;
use regatta_traffic::{
    GuestClient, ProbeOutcome, ProbePhase, ProbeTarget, Prober, ScrapeTarget, Scraper, WatchRuntime,
};

use super::Ears;
use regatta_util::chain;

/// A scrape without an answer by then has failed.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes and scrapes of one instance.
#[derive(Debug)]
pub(super) struct Watching {
    prober: Prober,
    _scraper: Option<Scraper>,
}

impl Watching {
    /// What the last probe came to.
    pub(super) fn last_probe(&self) -> Option<String> {
        self.prober.status().last.as_ref().map(describe)
    }

    /// Why this host could not ask the last time; none if it could.
    pub(super) fn not_asked(&self) -> Option<String> {
        match self.prober.status().last? {
            ProbeOutcome::NotAsked(why) => Some(why),
            ProbeOutcome::Passed | ProbeOutcome::Failed(_) => None,
        }
    }
}

/// Begins to watch an instance. None when the manifest's paths are invalid, which
/// the manifest's reader has ruled out.
pub(super) fn start(
    on: &WatchRuntime,
    id: u32,
    address: Ipv4Addr,
    phase: Phase,
    watch: &Watch,
    network: &Network,
    ears: &Ears,
) -> Option<Watching> {
    let _on = on.enter();
    let at = |port: u16| GuestClient::new(SocketAddr::from((address, port)));
    // Without a network there is neither probe nor scrape, and nothing is ever asked.
    let service_port = network.port().unwrap_or(0);
    let service = at(service_port);
    let probe_port = match watch.health.probe {
        Some(Probe::Http { port: Some(port), .. } | Probe::Tcp { port: Some(port) }) => port,
        _ => service_port,
    };
    let client = if probe_port == service_port { service.clone() } else { at(probe_port) };
    let phase = match phase {
        Phase::InService | Phase::Standby | Phase::Draining => ProbePhase::Healthy,
        Phase::Unhealthy => ProbePhase::Unhealthy,
        Phase::Initializing => ProbePhase::Answering,
        _ => ProbePhase::Booting,
    };
    let seed = u64::from(u32::from(address)) << 32 | u64::from(id);
    let target = ProbeTarget { id, client, phase };
    let prober = Prober::start(target, &watch.health, seed, ears.probes.clone())
        .inspect_err(|error| tracing::error!(instance = id, error = chain(error), "no probes"))
        .ok()?;
    let scraper = ScrapeTarget::new(&watch.metrics, SCRAPE_TIMEOUT)
        .inspect_err(|error| tracing::error!(instance = id, error = chain(error), "no scrapes"))
        .ok()
        .filter(|target| !target.is_empty())
        .map(|target| {
            let interval = Duration::from_millis(watch.scrape_interval_ms);
            Scraper::start(id, service, target, interval, seed, ears.scrapes.clone())
        });
    Some(Watching { prober, _scraper: scraper })
}

/// The outcome of a probe for people.
#[must_use]
pub(crate) fn describe(outcome: &ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Passed => "passed".to_owned(),
        ProbeOutcome::Failed(failure) => failure.to_string(),
        ProbeOutcome::NotAsked(why) => format!("not asked: {why}"),
    }
}
