//! What the host makes of the parts of an observation.

use crate::{Aggregate, Counts, InstanceState, MetricRequest, MetricValue, StaleValue};

/// The requests that `metrics` stand for, with JSON pointers looked up in `params`.
pub(super) fn resolve(metrics: &[MetricRequest], params: &serde_json::Value) -> Vec<MetricRequest> {
    let mut requests = Vec::new();
    for request in metrics {
        let named = |name: &str| MetricRequest { name: name.to_owned(), window_ms: request.window_ms };
        if !request.name.starts_with('/') {
            requests.push(request.clone());
            continue;
        }
        match params.pointer(&request.name) {
            Some(serde_json::Value::String(name)) => requests.push(named(name)),
            Some(serde_json::Value::Array(list)) => {
                requests.extend(list.iter().filter_map(|name| name.as_str()).map(named));
            }
            _ => {}
        }
    }
    requests
}

pub(super) fn count_of(counts: &mut Counts, state: InstanceState) -> &mut u32 {
    match state {
        InstanceState::Pending => &mut counts.pending,
        InstanceState::Creating => &mut counts.creating,
        InstanceState::Booting => &mut counts.booting,
        InstanceState::Initializing => &mut counts.initializing,
        InstanceState::InService => &mut counts.in_service,
        InstanceState::Standby => &mut counts.standby,
        InstanceState::Unhealthy => &mut counts.unhealthy,
        InstanceState::Draining => &mut counts.draining,
        InstanceState::Terminating => &mut counts.terminating,
        InstanceState::Failed => &mut counts.failed,
    }
}

/// What the host does: fresh values, or the stale ones when none is fresh.
pub(super) fn fold(name: &str, values: impl Iterator<Item = MetricValue>) -> Aggregate {
    let (mut fresh, mut stale, mut missing, mut oldest_ms) = (Vec::new(), Vec::new(), 0, 0);
    for value in values {
        match value {
            MetricValue::Fresh(value) => fresh.push(value),
            MetricValue::Stale(StaleValue { value, age_ms }) => {
                stale.push(value);
                oldest_ms = u64::max(oldest_ms, age_ms);
            }
            MetricValue::Missing => missing += 1,
        }
    }
    let count = |values: &[f64]| u32::try_from(values.len()).unwrap_or(u32::MAX);
    let used = if fresh.is_empty() { &stale } else { &fresh };
    let wrap = |value: f64| match (fresh.is_empty(), stale.is_empty()) {
        (false, _) => MetricValue::Fresh(value),
        (true, false) => MetricValue::Stale(StaleValue { value, age_ms: oldest_ms }),
        (true, true) => MetricValue::Missing,
    };
    let mut sum = 0.0;
    for value in used {
        sum += value;
    }
    Aggregate {
        name: name.to_owned(),
        mean: wrap(sum / f64::from(count(used).max(1))),
        sum: wrap(sum),
        min: wrap(used.iter().copied().fold(f64::INFINITY, f64::min)),
        max: wrap(used.iter().copied().fold(f64::NEG_INFINITY, f64::max)),
        fresh: count(&fresh),
        stale: count(&stale),
        missing,
    }
}
