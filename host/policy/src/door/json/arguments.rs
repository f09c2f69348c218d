//! What a module of the JSON door is given.

use regatta_core::decision::{FailureKind, PolicyFailure};
use serde::Serialize;
use serde_json::value::RawValue;

use super::text::raw;
use crate::bindings::regatta::policy::types;
use crate::failure::failed;

/// The stored state as JSON, null when there is none; and false when it is not JSON.
pub(super) fn state(state: &[u8]) -> (Option<&RawValue>, bool) {
    if state.is_empty() {
        return (None, true);
    }
    let text = std::str::from_utf8(state).ok();
    let json = text.and_then(|text| raw(text).ok());
    (json, json.is_some())
}

/// The argument of `regatta_decide`.
pub(super) fn decide(
    tick: &types::Tick,
    params: &str,
    state: Option<&RawValue>,
) -> Result<String, PolicyFailure> {
    let params = raw(params);
    let params =
        params.map_err(|error| host(format!("the parameters of the policy are not JSON: {error}")))?;
    written(&Decide { tick: Tick::from(tick), params, state })
}

/// The argument of `regatta_migrate`.
pub(super) fn migrate(from_version: u32, state: Option<&RawValue>) -> Result<String, PolicyFailure> {
    written(&Migrate { from_version, state })
}

fn written(argument: &impl Serialize) -> Result<String, PolicyFailure> {
    serde_json::to_string(argument).map_err(|error| host(format!("cannot write the argument: {error}")))
}

fn host(message: String) -> PolicyFailure {
    failed(FailureKind::Host, message)
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Decide<'a> {
    tick: Tick<'a>,
    /// The parameters, as the manifest gives them.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    params: &'a RawValue,
    /// What the last decision gave; null at first.
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    state: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Migrate<'a> {
    from_version: u32,
    #[cfg_attr(test, schemars(with = "serde_json::Value"))]
    state: Option<&'a RawValue>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Tick<'a> {
    now_ms: u64,
    number: u64,
    set: &'a str,
    generation: u64,
    min: u32,
    max: u32,
    desired: u32,
    counts: Counts,
    last: Option<Last<'a>>,
    schedule: &'a [String],
    metrics: Vec<Aggregate<'a>>,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Counts {
    pending: u32,
    creating: u32,
    booting: u32,
    initializing: u32,
    in_service: u32,
    standby: u32,
    unhealthy: u32,
    draining: u32,
    terminating: u32,
    failed: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Last<'a> {
    tick: u64,
    wanted: Option<u32>,
    granted: u32,
    reasons: Vec<Reason<'a>>,
    narrowed_by: &'a [String],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Reason<'a> {
    code: &'a str,
    text: &'a str,
    evidence: &'a [(String, String)],
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
struct Aggregate<'a> {
    name: &'a str,
    mean: MetricValue,
    sum: MetricValue,
    min: MetricValue,
    max: MetricValue,
    fresh: u32,
    stale: u32,
    missing: u32,
}

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(tag = "status", rename_all = "lowercase")]
enum MetricValue {
    Fresh { value: f64 },
    Stale { value: f64, age_ms: u64 },
    Missing,
}

impl<'a> From<&'a types::Tick> for Tick<'a> {
    fn from(tick: &'a types::Tick) -> Self {
        let counts = &tick.counts;
        Self {
            now_ms: tick.now_ms,
            number: tick.number,
            set: &tick.set,
            generation: tick.generation,
            min: tick.min,
            max: tick.max,
            desired: tick.desired,
            counts: Counts {
                pending: counts.pending,
                creating: counts.creating,
                booting: counts.booting,
                initializing: counts.initializing,
                in_service: counts.in_service,
                standby: counts.standby,
                unhealthy: counts.unhealthy,
                draining: counts.draining,
                terminating: counts.terminating,
                failed: counts.failed,
            },
            last: tick.last.as_ref().map(last),
            schedule: &tick.schedule,
            metrics: tick.metrics.iter().map(aggregate).collect(),
        }
    }
}

fn last(last: &types::LastDecision) -> Last<'_> {
    Last {
        tick: last.tick,
        wanted: last.wanted,
        granted: last.granted,
        reasons: last.reasons.iter().map(reason).collect(),
        narrowed_by: &last.narrowed_by,
    }
}

fn reason(reason: &types::Reason) -> Reason<'_> {
    Reason { code: &reason.code, text: &reason.text, evidence: &reason.evidence }
}

fn aggregate(fold: &types::Aggregate) -> Aggregate<'_> {
    Aggregate {
        name: &fold.name,
        mean: value(fold.mean),
        sum: value(fold.sum),
        min: value(fold.min),
        max: value(fold.max),
        fresh: fold.fresh,
        stale: fold.stale,
        missing: fold.missing,
    }
}

/// JSON has no NaN and no infinity: such a value is missing.
fn value(value: types::MetricValue) -> MetricValue {
    match value {
        types::MetricValue::Fresh(value) if value.is_finite() => MetricValue::Fresh { value },
        types::MetricValue::Stale(types::StaleValue { value, age_ms }) if value.is_finite() => {
            MetricValue::Stale { value, age_ms }
        }
        _ => MetricValue::Missing,
    }
}
