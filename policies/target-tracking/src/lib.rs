//! Built-in policy `target-tracking`: keeps a metric at its target.
//!
//! The load is counted in *instances' worth*: the sum of the metric over the
//! instances in service, divided by the target. That number does not change when
//! instances come or go, so warming instances are neither in the way (they are
//! not in the sum) nor asked for twice (the demand is compared with the capacity
//! already in force, not with what happens to be in service).
//!
//! * Scale-out: when the demand exceeds the capacity in force by more than the
//!   tolerance. Instances whose value is not known count as idle.
//! * Scale-in: when the demand falls short of it by more than the tolerance, and
//!   never while instances are warming. Instances whose value is not known, or
//!   that should be in service and are not, count as if they were at the target.
//! * No fresh value, or nothing in service: the capacity stays.
//!
//! These are the rules of the Kubernetes HPA and of AWS target tracking.

mod demand;
mod params;

use regatta_sdk::{Aggregate, Describe, MetricValue, Outcome, Policy, Problems, Reason, Tick, short};

pub use params::Params;

/// The policy.
#[derive(Debug)]
pub struct TargetTracking;

impl Policy for TargetTracking {
    type Params = Params;
    type State = ();

    fn describe() -> Describe {
        Describe::new("target-tracking", env!("CARGO_PKG_VERSION"), "Keeps a metric at its target.")
            .metric("/metric")
    }

    fn params_schema() -> String {
        include_str!("../params.schema.json").to_owned()
    }

    fn validate(params: &Params, problems: &mut Problems) {
        params.check(problems);
    }

    fn decide(tick: &Tick<'_>, params: &Params, _state: &mut ()) -> Result<Outcome, String> {
        Ok(decide(tick, params))
    }
}

fn decide(tick: &Tick<'_>, params: &Params) -> Outcome {
    let metric = params.metric.as_str();
    let keep = |code: &str, text: String| {
        let reason = Reason::new(code, text).with("desired", tick.desired);
        Outcome::keep(tick)
            .because(reason.with("in-service", tick.counts.in_service).with("warming", tick.warming()))
    };
    if tick.counts.in_service == 0 {
        return keep("nothing-in-service", format!("no instance is in service, so {metric} says nothing"));
    }
    let Some(aggregate) = tick.aggregate(metric) else {
        return keep("metric-missing", format!("{metric} was never measured"));
    };
    let (mean, sum) = match (aggregate.mean, aggregate.sum) {
        (MetricValue::Fresh(mean), MetricValue::Fresh(sum)) => (mean, sum),
        (MetricValue::Stale(mean), _) => {
            let age_s = short(ms_as_s(mean.age_ms));
            return keep("metric-stale", format!("the last value of {metric} is {age_s} s old"));
        }
        _ => return keep("metric-missing", format!("{metric} has no value")),
    };
    if !mean.is_finite() || !sum.is_finite() || sum < 0.0 {
        return keep("metric-not-a-number", format!("{metric} is {mean}, which is no load"));
    }

    let load = demand::Load { sum, unmeasured: unmeasured(aggregate) };
    let capacity = demand::Capacity {
        desired: tick.desired,
        in_service: tick.counts.in_service,
        warming: tick.warming(),
        min: tick.min,
    };
    let answer = demand::answer(load, capacity, params);
    let target = short(params.target);
    let now = short(mean);
    let (code, text) = match answer.why {
        demand::Why::Above => ("above-target", format!("{metric} is {now}, above its target {target}")),
        demand::Why::AboveCapped => {
            ("above-target", format!("{metric} is {now}, above its target {target}; one step out is limited"))
        }
        demand::Why::Below => ("below-target", format!("{metric} is {now}, below its target {target}")),
        demand::Why::Within => {
            ("within-tolerance", format!("the load is within the tolerance of what {} carry", tick.desired))
        }
        demand::Why::Coming => {
            ("capacity-coming", format!("{metric} is {now}; the capacity for it is on its way"))
        }
        demand::Why::Warming => {
            ("warming", format!("{metric} is {now}; no scale-in while {} are warming", tick.warming()))
        }
        demand::Why::ScaleInOff => ("scale-in-off", format!("{metric} is {now}; scale-in is switched off")),
        demand::Why::AtMin => ("at-minimum", format!("{metric} is {now}; the set is at its minimum")),
    };
    let reason = Reason::new(code, text)
        .number("mean", mean)
        .number("target", params.target)
        .number("ratio", mean / params.target)
        .number("demand", answer.demand)
        .with("desired", tick.desired)
        .with("in-service", tick.counts.in_service)
        .with("warming", tick.warming());
    let reason = if load.unmeasured > 0 { reason.with("unmeasured", load.unmeasured) } else { reason };
    Outcome::capacity(answer.capacity).because(reason)
}

/// Instances in service whose value is not known. (A metric of the whole set has
/// one value and so none unmeasured.)
fn unmeasured(aggregate: &Aggregate) -> u32 {
    aggregate.stale.saturating_add(aggregate.missing)
}

#[expect(clippy::cast_precision_loss, reason = "an age for people, rounded anyway")]
fn ms_as_s(ms: u64) -> f64 {
    ms as f64 / 1000.0
}

regatta_sdk::export!(TargetTracking);

#[cfg(test)]
mod tests;
