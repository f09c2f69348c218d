//! What one call of a policy has on the host's side: the observation, its
//! limits, and what it logged.

use std::sync::Arc;

use regatta_core::decision::{LogLevel, LogLine};
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{MetricScope, Observation};
use wasmtime::{ResourceLimiter, Result};

use crate::bindings::regatta::policy::{log, observe, types};
use crate::engine::MAX_MEMORY_BYTES;
use crate::observe::state_of;
use crate::text;

/// Bytes of one logged line.
const LOG_LINE_BYTES: usize = 1024;

/// A metric that the policy asked for, with the parameter's value put in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MetricWish {
    /// Name of the metric.
    pub name: String,
    /// How far back the policy looks, milliseconds; 0 for no window.
    pub window_ms: u64,
}

/// Data of the store of one call.
pub(crate) struct Guest {
    /// None while a policy describes itself or checks parameters.
    observation: Option<Arc<Observation>>,
    wishes: Vec<MetricWish>,
    pub(crate) limiter: Limiter,
    log: Vec<LogLine>,
    log_lines: usize,
    log_dropped: u64,
}

impl Guest {
    pub(crate) fn new(
        observation: Option<Arc<Observation>>,
        wishes: Vec<MetricWish>,
        limits: &PolicyLimits,
    ) -> Self {
        let memory_bytes = limits.memory_bytes.min(MAX_MEMORY_BYTES);
        Self {
            observation,
            wishes,
            limiter: Limiter {
                left: usize::try_from(memory_bytes).unwrap_or(usize::MAX),
                memory: 0,
                refused: false,
            },
            log: Vec::new(),
            log_lines: usize::try_from(limits.log_lines).unwrap_or(usize::MAX),
            log_dropped: 0,
        }
    }

    /// Takes what was logged; the last line tells of those that were dropped.
    pub(crate) fn take_log(&mut self) -> Vec<LogLine> {
        let mut log = std::mem::take(&mut self.log);
        if self.log_dropped > 0 {
            let message = format!("{} more lines dropped", self.log_dropped);
            log.push(LogLine { level: LogLevel::Warn, message });
        }
        log
    }

    /// The last line logged as an error: what the SDK's panic hook says.
    pub(crate) fn last_error(&self) -> Option<&str> {
        self.log.last().filter(|line| line.level == LogLevel::Error).map(|line| line.message.as_str())
    }
}

/// Counts memory over all linear memories and tables of a call.
pub(crate) struct Limiter {
    /// Bytes that may still be taken.
    left: usize,
    /// Bytes of linear memory that were taken. No memory ever shrinks.
    pub(crate) memory: usize,
    /// Whether something was refused.
    pub(crate) refused: bool,
}

impl Limiter {
    fn take(&mut self, bytes: usize) -> bool {
        match self.left.checked_sub(bytes) {
            Some(left) => {
                self.left = left;
                true
            }
            None => {
                self.refused = true;
                false
            }
        }
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            self.refused = true;
            return Ok(false);
        }
        let more = desired.saturating_sub(current);
        let taken = self.take(more);
        self.memory += if taken { more } else { 0 };
        Ok(taken)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.take(desired.saturating_sub(current).saturating_mul(size_of::<usize>())))
    }

    fn instances(&self) -> usize {
        64
    }

    fn tables(&self) -> usize {
        64
    }

    fn memories(&self) -> usize {
        16
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn log(&mut self, level: log::Level, message: String) {
        if self.log.len() >= self.log_lines {
            self.log_dropped += 1;
            return;
        }
        let level = match level {
            log::Level::Trace => LogLevel::Trace,
            log::Level::Debug => LogLevel::Debug,
            log::Level::Info => LogLevel::Info,
            log::Level::Warn => LogLevel::Warn,
            log::Level::Error => LogLevel::Error,
        };
        self.log.push(LogLine { level, message: text::capped(message, LOG_LINE_BYTES) });
    }
}

impl observe::Host for Guest {
    fn instances(&mut self) -> observe::InstanceTable {
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

    fn metric(&mut self, name: String) -> observe::MetricColumn {
        let metric = self.observation.as_ref().and_then(|observation| observation.metric(&name));
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

    fn window(&mut self, name: String) -> observe::MetricWindow {
        let reach_ms = self.wishes.iter().filter(|wish| wish.name == name).map(|wish| wish.window_ms).max();
        let metric = self.observation.as_ref().and_then(|o| Some((o.now_ms, o.metric(&name)?)));
        let (Some((now_ms, metric)), Some(reach_ms @ 1..)) = (metric, reach_ms) else {
            return observe::MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        };
        let from_ms = now_ms.saturating_sub(reach_ms);
        let samples = metric.window.iter().filter(|sample| sample.at_ms >= from_ms);
        let (at_ms, value) = samples.map(|sample| (sample.at_ms, sample.value)).unzip();
        observe::MetricWindow { at_ms, value }
    }
}
