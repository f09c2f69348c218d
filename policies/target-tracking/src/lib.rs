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
//! * No fresh value, or nothing in service that could have one: the capacity stays.
//!
//! These are the rules of the Kubernetes HPA and of AWS target tracking.

mod demand;
mod params;

use regatta_sdk::{Aggregate, Describe, Outcome, Policy, Problems, Reason, Tick, short};

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
        decide(tick, params)
    }
}

fn decide(tick: &Tick<'_>, params: &Params) -> Result<Outcome, String> {
    let metric = params.metric.as_str();
    let keep = |reason: Reason| {
        let reason = reason.with("desired", tick.desired).with("in-service", tick.counts.in_service);
        Ok(Outcome::keep(tick).because(reason.with("warming", tick.warming())))
    };
    // A metric of the whole set has a value without any instance.
    if tick.counts.in_service == 0 && tick.aggregate(metric).is_none_or(|it| it.fresh == 0) {
        let text = format!("no instance is in service, so {metric} says nothing");
        return keep(Reason::new("nothing-in-service", text));
    }
    let (mean, sum) = match (tick.mean(metric).known(metric), tick.sum(metric).known(metric)) {
        (Ok(mean), Ok(sum)) => (mean, sum),
        (Err(why), _) | (_, Err(why)) => return keep(why),
    };
    if sum < 0.0 {
        return keep(Reason::new("metric-not-a-number", format!("{metric} is {mean}, which is not a load")));
    }
    // A metric of the whole set has one value and so none unmeasured.
    let unmeasured = tick.aggregate(metric).map_or(0, Aggregate::unmeasured);

    let load = demand::Load { sum, unmeasured };
    let capacity = demand::Capacity {
        desired: tick.desired,
        in_service: tick.counts.in_service,
        warming: tick.warming(),
        min: tick.min,
    };
    let answer = demand::answer(load, capacity, params)?;
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
    Ok(Outcome::capacity(answer.capacity).because(reason))
}

regatta_sdk::export!(TargetTracking);

#[cfg(test)]
mod tests;
