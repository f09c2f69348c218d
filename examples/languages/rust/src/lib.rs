//! Policy `tolerant-target`: keeps a metric at its target, within a tolerance.
//!
//! Scales out at once, scales in only when the metric was below its target for three ticks in a row and nothing is
//! warming up.

use regatta_sdk::{Aggregate, Describe, Outcome, Policy, Problems, Reason, Tick};
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
        let sum = match tick.sum(&params.metric).fresh() {
            Some(sum) if in_service > 0 && desired > 0 => sum,
            // Never act on no data: it is not the same as no load.
            _ => return Ok(Outcome::keep(tick).because(Reason::new("no-data", "there is nothing to go by"))),
        };

        // How many instances the measured load needs. Those that were never measured, as they have just come into
        // service, take their load from the others: to count them as busy would ask for that load twice.
        let demand = sum / params.target;
        let share = |demand: f64| demand / f64::from(desired);
        if share(demand) - 1.0 > params.tolerance + ROUNDING {
            let reason = Reason::new("above-target", "the load is above its target").number("demand", demand);
            return Ok(Outcome::capacity(whole(demand)).because(reason));
        }

        // Towards a scale-in they count as busy.
        let demand = demand + f64::from(tick.aggregate(&params.metric).map_or(0, Aggregate::unmeasured));
        let because = |code, text| Reason::new(code, text).number("demand", demand);
        if 1.0 - share(demand) <= params.tolerance + ROUNDING {
            return Ok(
                Outcome::keep(tick).because(because("within-tolerance", "the load is close to its target"))
            );
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
    fn instances_without_a_value_yet_are_not_taken_for_busy() {
        let grown = TestTick::new().instances(InstanceState::InService, 20);
        assert_eq!(policy().tick(&grown.clone().metric("load", &[1.0; 10])).unwrap().capacity, 20);
        assert_eq!(policy().tick(&grown.metric("load", &[1.5; 10])).unwrap().capacity, 30);
    }

    #[test]
    fn it_keeps_its_size_without_data() {
        let blind = TestTick::new().instances(InstanceState::InService, 10);
        assert_eq!(policy().tick(&blind).unwrap().capacity, 10);
    }
}
