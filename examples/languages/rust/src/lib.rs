//! Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//!
//! Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
//! warming up.

use regatta_sdk::{Describe, Outcome, Policy, Problems, Reason, Tick};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Ticks in a row below the target before it scales in.
const PATIENCE: u32 = 3;
/// What rounding may add to a quotient of floats; it must not cost an instance.
const ROUNDING: f64 = 1e-9;

/// The policy.
pub struct TolerantTarget;

/// What users write under `policy.params`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Params {
    /// Name of the metric. It must fall when instances are added.
    pub metric: String,
    /// Value to keep per instance, above 0.
    pub target: f64,
    /// Deviation from the target that is left alone, as a share of it, 0 to 1.
    #[serde(default = "default_tolerance")]
    pub tolerance: f64,
}

fn default_tolerance() -> f64 {
    0.1
}

/// What is carried from one tick to the next.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    /// Ticks in a row below the target, at most [`PATIENCE`].
    streak: u32,
}

impl Policy for TolerantTarget {
    type Params = Params;
    type State = State;

    fn describe() -> Describe {
        Describe::new("tolerant-target", "1.0.0", "Keeps a metric at its target, within a tolerance.")
            .metric("/metric")
    }

    fn validate(params: &Params, problems: &mut Problems) {
        problems.require(!params.metric.is_empty(), "/metric", "must name a metric");
        problems.require(params.target > 0.0, "/target", "must be a number above 0");
        problems.require(
            (0.0..=1.0).contains(&params.tolerance),
            "/tolerance",
            "must be a number from 0 to 1",
        );
    }

    fn decide(tick: &Tick<'_>, params: &Params, state: &mut State) -> Result<Outcome, String> {
        let streak = std::mem::take(&mut state.streak);
        let (in_service, desired) = (tick.counts.in_service, tick.desired);
        let mean = match tick.mean(&params.metric).fresh() {
            Some(mean) if in_service > 0 && desired > 0 => mean,
            // Never act on no data: it is not the same as no load.
            _ => return Ok(Outcome::keep(tick).because(Reason::new("no-data", "there is nothing to go by"))),
        };

        // How many instances the load needs, and that as a share of those in force.
        let demand = mean * f64::from(in_service) / params.target;
        let ratio = demand / f64::from(desired);
        let because = |code, text| Reason::new(code, text).number("demand", demand);

        if (ratio - 1.0).abs() <= params.tolerance + ROUNDING {
            return Ok(
                Outcome::keep(tick).because(because("within-tolerance", "the load is close to its target"))
            );
        }
        if ratio > 1.0 {
            let reason = because("above-target", "the load is above its target");
            return Ok(Outcome::capacity(whole(demand)).because(reason));
        }
        let streak = PATIENCE.min(streak + 1);
        if streak < PATIENCE || tick.warming() > 0 {
            state.streak = streak;
            return Ok(Outcome::keep(tick).because(because("waiting", "the load may come back")));
        }
        let reason = because("below-target", "the load is below its target");
        Ok(Outcome::capacity(whole(demand)).because(reason))
    }
}

/// Whole instances for a demand: at least one, and no more than a host accepts.
fn whole(demand: f64) -> u32 {
    (demand - ROUNDING).clamp(1.0, f64::from(regatta_sdk::MAX_CAPACITY)).ceil() as u32
}

regatta_sdk::export!(TolerantTarget);

#[cfg(test)]
mod tests {
    use regatta_sdk::InstanceState;
    use regatta_sdk::testing::{TestPolicy, TestTick};

    use super::TolerantTarget;

    /// Ten instances at `load`; the target is 0.5.
    fn at(load: f64) -> TestTick {
        TestTick::new().instances(InstanceState::InService, 10).metric("load", &[load; 10])
    }

    fn policy() -> TestPolicy<TolerantTarget> {
        TestPolicy::new(r#"{"metric": "load", "target": 0.5}"#).expect("the parameters are valid")
    }

    #[test]
    fn it_scales_out_at_once() {
        assert_eq!(policy().tick(&at(0.55)).unwrap().capacity, 10);
        assert_eq!(policy().tick(&at(0.75)).unwrap().capacity, 15);
    }

    #[test]
    fn it_scales_in_on_the_third_quiet_tick() {
        let mut policy = policy();
        let sizes = [0.2, 0.2, 0.5, 0.2, 0.2, 0.2].map(|load| policy.tick(&at(load)).unwrap().capacity);
        assert_eq!(sizes, [10, 10, 10, 10, 10, 4]);
    }

    #[test]
    fn it_keeps_its_size_without_data() {
        let blind = TestTick::new().instances(InstanceState::InService, 10);
        assert_eq!(policy().tick(&blind).unwrap().capacity, 10);
    }
}
