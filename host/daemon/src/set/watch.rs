//! Probes and scrapes of one instance; they end when this is dropped.

use std::net::SocketAddr;
use std::time::Duration;

use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::{Probe, ScaleSet};
use regatta_core::state::InstanceRecord;
use regatta_traffic::{
    GuestClient, ProbeOutcome, ProbePhase, ProbeReport, ProbeTarget, Prober, ScrapeReport, ScrapeTarget,
    Scraper, WatchRuntime,
};
use tokio::sync::mpsc;

use crate::chain::chain;

/// A scrape without an answer by then has failed.
const SCRAPE_TIMEOUT: Duration = Duration::from_secs(2);

/// Probes and scrapes of one instance.
#[derive(Debug)]
pub(super) struct Watch {
    prober: Prober,
    _scraper: Option<Scraper>,
}

impl Watch {
    /// What the last probe came to.
    #[must_use]
    pub(super) fn last_probe(&self) -> Option<String> {
        self.prober.status().last.as_ref().map(describe)
    }
}

/// Begins to watch an instance. None when the manifest's paths are none, which
/// the manifest's reader has ruled out.
pub(super) fn start(
    on: &WatchRuntime,
    set: &ScaleSet,
    instance: &InstanceRecord,
    probes: &mpsc::Sender<ProbeReport>,
    scrapes: &mpsc::Sender<ScrapeReport>,
) -> Option<Watch> {
    let _on = on.enter();
    let at = |port: u16| GuestClient::new(SocketAddr::from((instance.address, port)));
    // Without a network there is neither probe nor scrape, and nothing is ever asked.
    let service_port = set.network.port().unwrap_or(0);
    let service = at(service_port);
    let probe_port = match set.health.probe {
        Some(Probe::Http { port, .. } | Probe::Tcp { port }) => port,
        None => service_port,
    };
    let client = if probe_port == service_port { service.clone() } else { at(probe_port) };
    let phase = match instance.state {
        InstanceState::InService | InstanceState::Standby | InstanceState::Draining => ProbePhase::Healthy,
        InstanceState::Unhealthy => ProbePhase::Unhealthy,
        InstanceState::Initializing => ProbePhase::Answering,
        _ => ProbePhase::Booting,
    };
    let seed = u64::from(u32::from(instance.address)) << 32 | u64::from(instance.id);
    let target = ProbeTarget { id: instance.id, client, phase };
    let prober = Prober::start(target, &set.health, seed, probes.clone())
        .inspect_err(|error| tracing::error!(set = set.name, error = chain(error), "no probes"))
        .ok()?;
    let scraper = ScrapeTarget::new(&set.metrics, SCRAPE_TIMEOUT)
        .inspect_err(|error| tracing::error!(set = set.name, error = chain(error), "no scrapes"))
        .ok()
        .filter(|target| !target.is_empty())
        .map(|target| {
            let interval = Duration::from_millis(set.tick_ms);
            Scraper::start(instance.id, service, target, interval, seed, scrapes.clone())
        });
    Some(Watch { prober, _scraper: scraper })
}

/// The outcome of a probe for people.
#[must_use]
pub(super) fn describe(outcome: &ProbeOutcome) -> String {
    match outcome {
        ProbeOutcome::Passed => "passed".to_owned(),
        ProbeOutcome::Failed(failure) => failure.to_string(),
    }
}
