//! A tick as one policy sees it.

use super::TestTick;
use super::fold::resolve;
use crate::tick::Source;
use crate::{InstanceTable, MetricColumn, MetricRequest, MetricWindow, TickData};

/// A tick, and what the policy that sees it has asked for.
pub(super) struct Seen<'a> {
    tick: &'a TestTick,
    requests: Vec<MetricRequest>,
}

impl<'a> Seen<'a> {
    pub(super) fn new(tick: &'a TestTick, metrics: &[MetricRequest], params: &serde_json::Value) -> Self {
        Self { tick, requests: resolve(metrics, params) }
    }

    pub(super) fn data(&self) -> TickData {
        let metrics = self.requests.iter().map(|request| self.tick.aggregate(&request.name)).collect();
        TickData { metrics, ..self.tick.data() }
    }
}

impl Source for Seen<'_> {
    fn instances(&self) -> InstanceTable {
        Source::instances(self.tick)
    }

    fn metric(&self, name: &str) -> MetricColumn {
        Source::metric(self.tick, name)
    }

    /// What the host gives: as far back as the policy asked, nothing if it did not.
    fn window(&self, name: &str) -> MetricWindow {
        let of_it = self.requests.iter().filter(|request| request.name == name);
        let Some(reach_ms @ 1..) = of_it.map(|request| request.window_ms).max() else {
            return MetricWindow { at_ms: Vec::new(), value: Vec::new() };
        };
        let MetricWindow { at_ms, value } = Source::window(self.tick, name);
        let from_ms = self.tick.data().now_ms.saturating_sub(reach_ms);
        let (at_ms, value) = at_ms.into_iter().zip(value).filter(|&(at_ms, _)| at_ms >= from_ms).unzip();
        MetricWindow { at_ms, value }
    }
}
