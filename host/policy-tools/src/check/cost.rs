//! What a decision costs at worst.

use std::sync::Arc;
use std::time::Instant;

use regatta_core::decision::FailureKind;
use regatta_core::metric::MetricValue;
use regatta_core::observation::Observation;
use regatta_policy_host::{Call, CompiledPolicy};
use serde::Serialize;

use super::report::{Finding, Status};
use super::subject::patient;
use super::{CheckOptions, NOT_DONE};
use crate::bench::observations;

/// Different ticks of each size, each of them in four moods.
const TICKS: u64 = 4;
/// From this share of a limit on it is said aloud.
const CLOSE: f64 = 0.5;

/// The most that a decision took in a set of that size. Fuel and memory are the same on every machine; time is not.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cost {
    /// Instances in the set.
    pub instances: u32,
    /// Decisions that were looked at.
    pub decisions: u32,
    /// Fuel.
    pub fuel: u64,
    /// That, as a share of the limit.
    pub fuel_share: f64,
    /// Linear memory, bytes.
    pub memory_bytes: u64,
    /// That, as a share of the limit.
    pub memory_share: f64,
    /// State that it handed on, bytes.
    pub state_bytes: usize,
    /// Wall clock of the whole call, microseconds.
    pub time_us: u64,
    /// That, as a share of the deadline.
    pub time_share: f64,
}

/// The worst of each size, and what is to be said of it.
pub(super) fn worst(
    policy: &CompiledPolicy,
    params: &str,
    options: &CheckOptions,
    until: Instant,
    step: &mut dyn FnMut(&str),
) -> (Finding, Vec<Cost>) {
    let (mut costs, mut failed, mut close) = (Vec::new(), Vec::new(), Vec::new());
    for &instances in &options.instances {
        step(&format!("looking for the worst case of {instances} instances"));
        match of_size(policy, params, options, instances, until) {
            Ok(cost) => {
                let shares = [("fuel", cost.fuel_share), ("memory", cost.memory_share)];
                close.extend(shares.into_iter().filter(|(_, share)| *share >= CLOSE).map(|(what, share)| {
                    format!("with {instances} instances it takes {:.0} % of its {what}", share * 100.0)
                }));
                costs.push(cost);
            }
            Err(text) => {
                failed.extend(format!("with {instances} instances: {text}").lines().map(str::to_owned));
            }
        }
        if Instant::now() >= until {
            break;
        }
    }
    let finding = match (failed.is_empty(), close.is_empty()) {
        (false, _) => Finding::new("worst-case", Status::Failed, failed),
        (true, false) => Finding::new("worst-case", Status::Warning, close),
        (true, true) => Finding::new("worst-case", Status::Ok, vec!["well within its limits".to_owned()]),
    };
    (finding, costs)
}

fn of_size(
    policy: &CompiledPolicy,
    params: &str,
    options: &CheckOptions,
    instances: u32,
    until: Instant,
) -> Result<Cost, String> {
    let deadline_ms = options.limits.deadline_ms;
    let limits = patient(&options.limits, Some(until));
    let share = |used: u64, limit: u64| {
        #[expect(clippy::cast_precision_loss, reason = "a share for people")]
        let share = used as f64 / limit.max(1) as f64;
        share
    };
    let ticks = observations(instances, TICKS, &policy.wishes(params));
    let mut cost = Cost {
        instances,
        decisions: 0,
        fuel: 0,
        fuel_share: 0.0,
        memory_bytes: 0,
        memory_share: 0.0,
        state_bytes: 0,
        time_us: 0,
        time_share: 0.0,
    };
    let mut state = Vec::new();
    // The first call in an engine pays for pages that no later one pays for.
    let _ = policy.decide(&ticks[0], params, &state, &limits);
    for observation in ticks.iter().flat_map(moods) {
        let call = policy.decide(&observation, params, &state, &limits);
        let again = policy.decide(&observation, params, &state, &limits);
        // What was cut off says nothing.
        if Instant::now() >= until {
            return Err(NOT_DONE.to_owned());
        }
        if !same(&call, &again) {
            return Err(format!(
                "the same bytes in gave other bytes out at tick {}: fuel {} and {}",
                observation.tick, call.run.fuel, again.run.fuel
            ));
        }
        if let Err(failure) = &call.run.result
            && failure.kind != FailureKind::Refused
        {
            let log: String = call.run.log_tail().iter().map(|line| format!("\n  {line}")).collect();
            return Err(format!("{}: {}{log}", failure.kind.as_str(), failure.message));
        }
        // Twice the same: the quicker one is what the policy takes, the rest is the machine's.
        let time_us = call.run.duration_us.min(again.run.duration_us);
        cost.decisions += 1;
        cost.fuel = cost.fuel.max(call.run.fuel);
        cost.memory_bytes = cost.memory_bytes.max(call.memory_bytes);
        cost.time_us = cost.time_us.max(time_us);
        state = call.state.unwrap_or(state);
        cost.state_bytes = cost.state_bytes.max(state.len());
    }
    cost.fuel_share = share(cost.fuel, limits.fuel);
    cost.memory_share = share(cost.memory_bytes, limits.memory_bytes);
    cost.time_share = share(cost.time_us, deadline_ms.saturating_mul(1_000));
    Ok(cost)
}

/// A tick as it is, under ten times the load, idle, and without any metric.
fn moods(tick: &Arc<Observation>) -> Vec<Arc<Observation>> {
    let with = |change: fn(MetricValue) -> MetricValue| {
        let mut observation = Observation::clone(tick);
        for metric in &mut observation.metrics {
            metric.values.iter_mut().for_each(|value| *value = change(*value));
        }
        Arc::new(observation)
    };
    vec![
        Arc::clone(tick),
        with(|value| scaled(value, 10.0)),
        with(|value| scaled(value, 0.01)),
        with(|_| MetricValue::Missing),
    ]
}

fn scaled(value: MetricValue, factor: f64) -> MetricValue {
    match value {
        MetricValue::Fresh(value) => MetricValue::Fresh(value * factor),
        other => other,
    }
}

/// Bit for bit, except for the time.
fn same(one: &Call, other: &Call) -> bool {
    let parts =
        |call: &Call| (call.run.result.clone(), call.run.fuel, call.run.log.clone(), call.memory_bytes);
    one.state == other.state && parts(one) == parts(other)
}
