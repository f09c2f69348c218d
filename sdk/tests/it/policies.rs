//! Policies of the tests.

use regatta_sdk::old_state;
use regatta_sdk::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// As many as the load fills to the target; scales in after three ticks in a row below.
pub(crate) struct Proportional;

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Params {
    /// Name of the metric.
    metric: String,
    /// Value to keep.
    target: f64,
    /// Ticks in a row below the target before it scales in.
    #[serde(default)]
    patience: u32,
}

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct State {
    below: u32,
}

#[derive(Deserialize)]
struct StateV1 {
    ticks_below: u32,
}

impl Policy for Proportional {
    type Params = Params;
    type State = State;

    fn describe() -> Describe {
        Describe::new("proportional", "2.0.0", "Keeps a metric at its target.")
            .metric("/metric")
            .state_version(2)
    }

    fn validate(params: &Params, problems: &mut Problems) {
        problems.require(params.target > 0.0, "/target", "must be above 0");
    }

    fn decide(tick: &Tick<'_>, params: &Params, state: &mut State) -> Result<Outcome, String> {
        let sum = match tick.sum(&params.metric).known(&params.metric) {
            Ok(sum) => sum,
            Err(why) => return Ok(Outcome::keep(tick).because(why)),
        };
        let wanted = instances_for(sum / params.target).unwrap_or(tick.desired).max(1);
        state.below = if wanted < tick.desired { state.below + 1 } else { 0 };
        let waits = tick.warming() > 0 || state.below <= params.patience;
        if wanted < tick.desired && waits {
            return Ok(Outcome::keep(tick).because(Reason::new("waiting", "not for long enough")));
        }
        let code = if wanted > tick.desired { "above-target" } else { "at-target" };
        Ok(Outcome::capacity(wanted).because(Reason::new(code, "as much as is needed").number("sum", sum)))
    }

    fn migrate(from_version: u32, state: &[u8]) -> Result<State, String> {
        match from_version {
            1 => Ok(State { below: old_state::<StateV1>(state)?.ticks_below }),
            other => Err(format!("version {other} is not known")),
        }
    }
}

pub(crate) const PARAMS: &str = r#"{"metric": "load", "target": 0.5}"#;

/// Makes a policy of a closure over the mean of `load`; its state is the number of the tick.
macro_rules! rule {
    ($name:ident, |$tick:ident, $mean:ident| $decide:expr) => {
        pub(crate) struct $name;
        impl Policy for $name {
            type Params = NoParams;
            type State = u32;
            fn describe() -> Describe {
                Describe::new("rule", "1.0.0", "One rule.").metric("load")
            }
            fn decide($tick: &Tick<'_>, _: &NoParams, ticks: &mut u32) -> Result<Outcome, String> {
                *ticks += 1;
                let $mean = $tick.mean("load");
                #[allow(clippy::redundant_closure_call, reason = "an early return from the rule")]
                (|| -> Result<u32, String> { $decide })().map(Outcome::capacity)
            }
        }
    };
}

// One more above its threshold, one less below, and the two overlap.
rule!(Flapping, |tick, mean| {
    Ok(match mean.fresh() {
        Some(mean) if mean > 0.5 => tick.desired + 1,
        Some(_) => tick.desired.saturating_sub(1).max(1),
        None => tick.desired,
    })
});

// Takes the absence of a metric for the absence of load.
rule!(Blind, |tick, mean| {
    let sum = mean.fresh().unwrap_or(0.0) * f64::from(tick.counts.in_service);
    Ok(instances_for(sum / 0.5).unwrap_or(tick.desired).max(1))
});

// Takes instances without a sample for as busy as the others.
rule!(Hasty, |tick, mean| {
    Ok(match mean.fresh() {
        Some(mean) => {
            instances_for(mean * f64::from(tick.counts.in_service) / 0.5).unwrap_or(tick.desired).max(1)
        }
        None => tick.desired,
    })
});

// One more each tick, whatever the load.
rule!(Growing, |tick, _mean| Ok(tick.desired + 1));

// Panics scale in.
rule!(Contrary, |tick, mean| {
    Ok(match mean.fresh() {
        Some(mean) if mean > 1.5 => 1,
        Some(mean) if mean > 0.5 => tick.desired + 1,
        _ => tick.desired,
    })
});

rule!(ToZero, |tick, mean| {
    Ok(mean.fresh().map_or(tick.desired, |mean| if mean < 0.1 { 0 } else { tick.desired }))
});

rule!(Silent, |_tick, mean| mean.fresh().map(|_| 3).ok_or_else(|| "no load is known".to_owned()));
