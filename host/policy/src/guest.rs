//! What one call of a policy has on the host's side: the observation, its
//! limits, and what it logged.

use std::sync::Arc;

use regatta_core::decision::{LogLevel, LogLine};
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::metrics::MetricWish;
use regatta_core::observation::{MetricScope, Observation};

use crate::bindings::regatta::policy::observe;
pub(crate) use crate::limiter::{Limiter, Refused};
use crate::observe::state_of;
use crate::text;
use crate::wasi::{Stream, Wasi};

/// Bytes of one logged line.
pub(crate) const LOG_LINE_BYTES: usize = 1024;

/// Data of the store of one call.
pub(crate) struct Guest {
    /// None while a policy describes itself or checks parameters.
    observation: Option<Arc<Observation>>,
    wishes: Vec<MetricWish>,
    pub(crate) limiter: Limiter,
    pub(crate) wasi: Wasi,
    /// Deadlines of the pollables that the guest has made, monotonic ns.
    pub(crate) pollables: Vec<u64>,
    /// What the JSON door's imports have made ready to be read.
    pub(crate) answer: Vec<u8>,
    log: Log,
}

/// Lines, up to a number.
struct Log {
    lines: Vec<LogLine>,
    limit: usize,
    dropped: u64,
}

impl Log {
    fn push(&mut self, level: LogLevel, message: String) {
        if self.lines.len() >= self.limit {
            self.dropped += 1;
            return;
        }
        self.lines.push(LogLine { level, message: text::said(message, LOG_LINE_BYTES) });
    }
}

impl Guest {
    pub(crate) fn new(
        observation: Option<Arc<Observation>>,
        wishes: Vec<MetricWish>,
        limits: &PolicyLimits,
    ) -> Self {
        let limit = usize::try_from(limits.log_lines).unwrap_or(usize::MAX);
        Self {
            wasi: Wasi::new(observation.as_deref()),
            observation,
            wishes,
            limiter: Limiter::new(limits),
            pollables: Vec::new(),
            answer: Vec::new(),
            log: Log { lines: Vec::new(), limit, dropped: 0 },
        }
    }

    pub(crate) fn log(&mut self, level: LogLevel, message: String) {
        self.log.push(level, message);
    }

    /// Output of WASI, as lines of the log.
    pub(crate) fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let log = &mut self.log;
        self.wasi.write(stream, bytes, |level, line| log.push(level, line));
    }

    /// Takes what was logged; the last line tells of those that were dropped.
    pub(crate) fn take_log(&mut self) -> Vec<LogLine> {
        let log = &mut self.log;
        self.wasi.flush(|level, line| log.push(level, line));
        let mut lines = std::mem::take(&mut log.lines);
        if log.dropped > 0 {
            let message = format!("{} more lines dropped", log.dropped);
            lines.push(LogLine { level: LogLevel::Warn, message: message.into() });
        }
        lines
    }

    /// The last line logged as an error: what the SDK's panic hook says.
    pub(crate) fn last_error(&self) -> Option<&str> {
        let last = self.log.lines.last().filter(|line| line.level == LogLevel::Error);
        last.map(|line| line.message.as_str())
    }

    pub(crate) fn instances(&self) -> observe::InstanceTable {
        let Some(observation) = &self.observation else {
            return observe::InstanceTable {
                id: Vec::new(),
                state: Vec::new(),
                state_since_ms: Vec::new(),
                created_ms: Vec::new(),
                generation: Vec::new(),
                protected: Vec::new(),
            };
        };
        let table = &observation.instances;
        observe::InstanceTable {
            id: table.id.clone(),
            state: table.state.iter().map(|&state| state_of(state)).collect(),
            state_since_ms: table.state_since_ms.clone(),
            created_ms: table.created_ms.clone(),
            generation: table.generation.clone(),
            protected: table.protected.clone(),
        }
    }

    pub(crate) fn metric(&self, name: &str) -> observe::MetricColumn {
        let metric = self.observation.as_ref().and_then(|observation| observation.metric(name));
        let values =
            metric.filter(|metric| metric.scope == MetricScope::Instance).map(|metric| &metric.values);
        let (value, status) = values
            .into_iter()
            .flatten()
            .map(|value| match *value {
                MetricValue::Fresh(value) => (value, observe::Freshness::Fresh),
                MetricValue::Stale { value, .. } => (value, observe::Freshness::Stale),
                MetricValue::Missing => (f64::NAN, observe::Freshness::Missing),
            })
            .unzip();
        observe::MetricColumn { value, status }
    }

    pub(crate) fn window(&self, name: &str) -> observe::MetricWindow {
        let reach_ms = self.wishes.iter().filter(|wish| wish.name == name).map(|wish| wish.window_ms).max();
        let metric = self.observation.as_ref().and_then(|o| Some((o.now_ms, o.metric(name)?)));
        let (Some((now_ms, metric)), Some(reach_ms @ 1..)) = (metric, reach_ms) else {
            return observe::MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        };
        let from_ms = now_ms.saturating_sub(reach_ms);
        let samples = metric.window.iter().filter(|sample| sample.at_ms >= from_ms);
        let (at_ms, value) = samples.map(|sample| (sample.at_ms, sample.value)).unzip();
        observe::MetricWindow { at_ms, value }
    }
}
