//! Built-in policy `step`: thresholds with steps.
//!
//! * A value above one or more `scale_out` thresholds takes the step of the highest
//!   of them; below one or more `scale_in` thresholds, that of the lowest. A value
//!   *at* a threshold does nothing.
//! * It must be so for `for_ticks` ticks in a row, and the cooldown of that
//!   direction must be over. A scale-out starts both cooldowns, a scale-in only its
//!   own: a scale-out never waits for a scale-in.
//! * While instances are warming, a step counts from the capacity without them, so
//!   that the same step asked for twice does not add up, but a higher step adds the
//!   difference. There is no scale-in while instances are warming. One that serves
//!   and has no sample yet is still warming, for at most five minutes.
//! * A scale-in stops short of where a scale-out threshold would be crossed again.
//! * No fresh value, or nothing in service that could have one: the capacity stays, and the ticks in a
//!   row start over.
//!
//! These are the rules of AWS step scaling and of Azure's flapping check.

mod params;
mod state;
mod steps;

use regatta_sdk::{Describe, MetricValue, Outcome, Policy, Problems, Reading, Reason, Tick, short};

pub use params::{InStep, OutStep, Params, Statistic};
pub use state::State;

/// How long an instance in service without a sample counts as warming: what AWS gives
/// an instance to warm up. One that never reports must not hold the set for ever.
const FIRST_SAMPLE_MS: u64 = 300_000;

/// The policy.
#[derive(Debug)]
pub struct Step;

impl Policy for Step {
    type Params = Params;
    type State = State;

    fn describe() -> Describe {
        Describe::new("step", env!("CARGO_PKG_VERSION"), "Thresholds with steps.").metric("/metric")
    }

    fn params_schema() -> String {
        include_str!("../params.schema.json").to_owned()
    }

    fn validate(params: &Params, problems: &mut Problems) {
        params.check(problems);
    }

    fn decide(tick: &Tick<'_>, params: &Params, state: &mut State) -> Result<Outcome, String> {
        state.see(tick.desired, tick.now_ms);
        Ok(decide(tick, params, state))
    }
}

fn decide(tick: &Tick<'_>, params: &Params, state: &mut State) -> Outcome {
    let metric = params.metric.as_str();
    let warming = tick.warming() + unmeasured(tick, metric);
    let facts = |reason: Reason| {
        let reason = reason.with("desired", tick.desired).with("in-service", tick.counts.in_service);
        reason.with("warming", warming)
    };
    let value = match value(tick, params) {
        Ok(value) => value,
        Err(why) => {
            state.count(false, false);
            return Outcome::keep(tick).because(facts(why));
        }
    };
    let (out, inward) = (params.out_step(value), params.in_step(value));
    state.count(out.is_some(), inward.is_some());
    let shown = short(value);
    let statistic = params.statistic.name();
    let keep = |code: &str, text: String| {
        let reason = Reason::new(code, text).number(statistic, value);
        Outcome::keep(tick).because(facts(reason))
    };

    if let Some(step) = out {
        let above = short(step.above);
        if state.above_ticks < params.for_ticks {
            let text = format!("{metric} is {shown}, above {above}, for {} ticks so far", state.above_ticks);
            return keep("not-long-enough", text);
        }
        if let Some(left_ms) = state.out_cooldown_ms(params, tick.now_ms) {
            return keep(
                "cooldown",
                format!("{metric} is {shown}, above {above}; cooling down for {left_ms} ms"),
            );
        }
        let base = tick.desired.saturating_sub(warming);
        let wanted = steps::out(step, base).max(tick.desired);
        if wanted == tick.desired {
            let code = if warming > 0 { "capacity-coming" } else { "at-step" };
            return keep(code, format!("{metric} is {shown}, above {above}; the step is taken already"));
        }
        let reason = Reason::new("above-threshold", format!("{metric} is {shown}, above {above}"));
        let reason = reason
            .number(statistic, value)
            .number("threshold", step.above)
            .with("step", steps::out_text(step));
        return Outcome::capacity(wanted).because(facts(reason));
    }

    if let Some(step) = inward {
        let below = short(step.below);
        if warming > 0 {
            return keep(
                "warming",
                format!("{metric} is {shown}, below {below}; no scale-in while {warming} are warming"),
            );
        }
        if state.below_ticks < params.for_ticks {
            let text = format!("{metric} is {shown}, below {below}, for {} ticks so far", state.below_ticks);
            return keep("not-long-enough", text);
        }
        if let Some(left_ms) = state.in_cooldown_ms(params, tick.now_ms) {
            return keep(
                "cooldown",
                format!("{metric} is {shown}, below {below}; cooling down for {left_ms} ms"),
            );
        }
        let aimed = steps::inward(step, tick.desired).max(tick.min).min(tick.desired);
        let wanted = params.without_flapping(value, tick.desired, aimed);
        let reason = |code, text| {
            let reason = Reason::new(code, text).number(statistic, value).number("threshold", step.below);
            facts(reason.with("step", steps::in_text(step)))
        };
        if wanted == tick.desired {
            let (code, why) = if aimed < wanted {
                ("would-flap", "fewer instances would be above a scale-out threshold")
            } else {
                ("at-minimum", "the step is taken already")
            };
            return Outcome::keep(tick)
                .because(reason(code, format!("{metric} is {shown}, below {below}; {why}")));
        }
        let why = reason("below-threshold", format!("{metric} is {shown}, below {below}"));
        let outcome = Outcome::capacity(wanted).because(why);
        return if wanted > aimed {
            let text = format!("{aimed} would be above a scale-out threshold, {wanted} are not");
            outcome.because(Reason::new("would-flap", text))
        } else {
            outcome
        };
    }

    keep("within-thresholds", format!("{metric} is {shown}, within the thresholds"))
}

/// Instances that have come into service and of which there is no sample yet.
fn unmeasured(tick: &Tick<'_>, metric: &str) -> u32 {
    if tick.aggregate(metric).is_none_or(|aggregate| aggregate.missing == 0) {
        return 0;
    }
    let column = tick.metric(metric);
    let new = tick.instances().rows().zip(column.readings()).filter(|(row, reading)| {
        row.is_in_service()
            && *reading == Reading::Missing
            && tick.now_ms.saturating_sub(row.state_since_ms) < FIRST_SAMPLE_MS
    });
    u32::try_from(new.count()).unwrap_or(u32::MAX)
}

/// The value that is compared with the thresholds, or why there is none.
fn value(tick: &Tick<'_>, params: &Params) -> Result<f64, Reason> {
    let metric = params.metric.as_str();
    // A metric of the whole set has a value without any instance.
    if tick.counts.in_service == 0 && tick.aggregate(metric).is_none_or(|it| it.fresh == 0) {
        let text = format!("no instance is in service, so {metric} says nothing");
        return Err(Reason::new("nothing-in-service", text));
    }
    let value = tick.aggregate(metric).map_or(MetricValue::Missing, |aggregate| match params.statistic {
        Statistic::Mean => aggregate.mean,
        Statistic::Sum => aggregate.sum,
        Statistic::Min => aggregate.min,
        Statistic::Max => aggregate.max,
    });
    value.known(metric)
}

regatta_sdk::export!(Step);

#[cfg(test)]
mod tests;
