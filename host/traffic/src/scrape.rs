//! Fetches the guests' metrics at an interval.

use std::sync::Arc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use regatta_core::manifest::GuestMetric;
use regatta_core::metrics::{NoValue, NoValueKind, Reading};
use regatta_metrics::text::{self, SeriesError};
use regatta_util::chain;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::guest_client::{GuestClient, GuestError, GuestRequest};

/// Scrapes come this much earlier or later than the interval, at most.
const JITTER: f64 = 0.1;

/// Which metrics a set's instances are asked for; made once, shared by them.
#[derive(Debug, Clone)]
pub struct ScrapeTarget {
    pages: Arc<[Page]>,
    metrics: usize,
}

#[derive(Debug)]
struct Page {
    path: String,
    request: GuestRequest,
    series: Vec<String>,
    /// Place of each series among the manifest's metrics.
    places: Vec<usize>,
}

impl ScrapeTarget {
    /// The pages that hold `metrics`, each fetched once per scrape.
    ///
    /// # Errors
    /// [`GuestError::Path`] if a path is none.
    pub fn new(metrics: &[GuestMetric], timeout: Duration) -> Result<Self, GuestError> {
        let mut pages: Vec<Page> = Vec::new();
        for (place, metric) in metrics.iter().enumerate() {
            let known = pages.iter().position(|page| page.path == metric.path);
            let index = match known {
                Some(index) => index,
                None => {
                    let request = GuestRequest::new(&metric.path, timeout, text::LIMIT_BYTES)?;
                    let path = metric.path.clone();
                    pages.push(Page { path, request, series: Vec::new(), places: Vec::new() });
                    pages.len() - 1
                }
            };
            pages[index].series.push(metric.series.clone());
            pages[index].places.push(place);
        }
        Ok(Self { pages: pages.into(), metrics: metrics.len() })
    }

    /// Whether there is nothing to ask for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Asks one instance now. One reading per metric of the manifest, in its order.
    pub async fn scrape(&self, client: &GuestClient) -> Vec<Reading> {
        let mut readings = vec![Ok(0.0); self.metrics];
        for page in self.pages.iter() {
            let found = page.fetch(client).await;
            for (&place, reading) in page.places.iter().zip(found) {
                readings[place] = reading;
            }
        }
        readings
    }
}

impl Page {
    /// One reading per series of the page.
    async fn fetch(&self, client: &GuestClient) -> Vec<Reading> {
        let path = &self.path;
        let whole = |kind, text| vec![Err(Arc::new(NoValue { kind, text })); self.series.len()];
        let reply = match client.get(&self.request).await {
            Ok(reply) if reply.status == 200 => reply,
            Ok(reply) => {
                return whole(NoValueKind::Status, format!("status {} for `{path}`", reply.status).into());
            }
            Err(error) => return whole(NoValueKind::NoAnswer, chain(&error).to_string().into()),
        };
        let found = match text::scan(&reply.body, &self.series) {
            Ok(found) => found,
            Err(error) => {
                return whole(NoValueKind::Unreadable, format!("`{path}` is not usable: {error}").into());
            }
        };
        let named = |(found, series): (Result<f64, SeriesError>, &String)| {
            found.map_err(|error| {
                let kind = match error {
                    SeriesError::Absent { .. } => NoValueKind::NoSeries,
                    SeriesError::Syntax { .. } => NoValueKind::Unreadable,
                    SeriesError::OutOfRange { .. } => NoValueKind::OutOfRange,
                };
                Arc::new(NoValue { kind, text: format!("`{series}` at `{path}`: {error}").into() })
            })
        };
        found.into_iter().zip(&self.series).map(named).collect()
    }
}

/// One scrape of one instance.
#[derive(Debug)]
pub struct ScrapeReport {
    /// Id of the instance.
    pub id: u32,
    /// When it was complete.
    pub at: std::time::Instant,
    /// One reading per metric of the manifest, in its order.
    pub readings: Vec<Reading>,
}

/// Scrapes one instance at an interval until dropped.
#[derive(Debug)]
pub struct Scraper {
    task: JoinHandle<()>,
}

impl Scraper {
    /// Begins to scrape at once, then at a random point of the next interval and
    /// every interval from there (give each instance its own `seed`).
    ///
    /// A report that finds the queue full is dropped. Whoever needs the values at
    /// ticks only does best to fetch them there with `try_recv` from a queue with
    /// room for two reports per instance: then no thread is woken for each.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn start(
        id: u32,
        client: GuestClient,
        target: ScrapeTarget,
        interval: Duration,
        seed: u64,
        reports: mpsc::Sender<ScrapeReport>,
    ) -> Self {
        Self { task: tokio::spawn(run(id, client, target, interval, seed, reports)) }
    }
}

impl Drop for Scraper {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run(
    id: u32,
    client: GuestClient,
    target: ScrapeTarget,
    interval: Duration,
    seed: u64,
    reports: mpsc::Sender<ScrapeReport>,
) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let interval = interval.max(Duration::from_millis(1));
    let mut slot = Instant::now() + interval.mul_f64(rng.random_range(0.0..1.0));
    loop {
        let readings = target.scrape(&client).await;
        let at = std::time::Instant::now();
        match reports.try_send(ScrapeReport { id, at, readings }) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => tracing::debug!(id, "scrape dropped, nobody reads them"),
            Err(TrySendError::Closed(_)) => return,
        }
        tokio::time::sleep_until(slot).await;
        // On a grid, so that the jitter does not add up; slots that a slow
        // instance has missed are skipped.
        slot += interval.mul_f64(rng.random_range(1.0 - JITTER..=1.0 + JITTER));
        slot = slot.max(Instant::now());
    }
}
