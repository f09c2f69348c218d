//! An operator holds the size: policies are asked and recorded, and change nothing.

use super::{Guard, GuardContext, GuardMemory, GuardName};
use crate::decision::Reason;
use crate::mutant::{self, Mutant};

/// Refuses every change while the size is held.
#[derive(Debug, Clone, Copy)]
pub(super) struct HoldGuard;

impl Guard for HoldGuard {
    fn name(&self) -> GuardName {
        GuardName::Hold
    }

    fn narrow(&self, context: &GuardContext<'_>, _: &GuardMemory, proposed: u32) -> Option<(u32, Reason)> {
        let hold = context.in_force.hold.as_ref()?;
        let desired = context.observation.desired;
        if mutant::is(Mutant::HoldLetsScaleOutThrough) && proposed > desired {
            return None;
        }
        let until = hold.told(context.at(), &format!("regatta resume {}", context.observation.set));
        let reason = Reason {
            code: "held".into(),
            text: format!("the size is held {until}").into(),
            evidence: vec![("wanted".into(), proposed.to_string().into())],
        };
        Some((desired, reason))
    }
}

#[cfg(test)]
mod tests {
    use crate::combine::Combined;
    use crate::event::Actor;
    use crate::guard::testing::{context, observation};
    use crate::guard::{GuardContext, GuardName, guards_of, judge};
    use crate::manifest::{Guards, MissingData, OnFailure};
    use crate::metric::MetricValue;
    use crate::metrics::CONNECTIONS_WAITING;
    use crate::observation::{MetricObservation, MetricScope, Observation};
    use crate::sizing::{InForce, Term};
    use crate::state::Moment;

    fn held() -> InForce {
        let hold = Some(Term::begin(Moment::default(), None, Actor::User("ann".into()), ""));
        InForce { hold, ..InForce::NONE }
    }

    #[test]
    fn nothing_moves_a_held_size_but_the_limits() {
        let metric = MetricObservation {
            name: CONNECTIONS_WAITING.into(),
            scope: MetricScope::Set,
            values: vec![MetricValue::Fresh(3.0)],
            window: Vec::new(),
        };
        let waiting = Observation { metrics: vec![metric], ..observation(0, 10, 0) };
        let settings = Guards {
            on_failure: OnFailure::Static { capacity: 8 },
            missing_data: MissingData::Default { capacity: 9 },
            ..Guards::default()
        };
        let missing = ["load".to_owned()];
        for observation in [observation(0, 10, 5), waiting] {
            for wanted in [None, Some(0), Some(7)] {
                let in_force = held();
                let context = GuardContext {
                    in_force: &in_force,
                    metrics_without_data: &missing,
                    ..context(&observation)
                };
                let combined = Combined { capacity: wanted, ..Combined::default() };
                let trail = judge(&settings, &guards_of(&settings), &context, &combined);
                assert_eq!(trail.granted, observation.desired, "{wanted:?}: {trail:?}");
            }
        }
        let (in_force, low) = (held(), observation(6, 10, 5));
        let context = GuardContext { in_force: &in_force, ..context(&low) };
        let combined = Combined { capacity: Some(9), ..Combined::default() };
        let trail = judge(&Guards::default(), &guards_of(&Guards::default()), &context, &combined);
        let steps: Vec<_> = trail.steps.iter().map(|step| (step.guard, step.after)).collect();
        assert_eq!(steps, [(GuardName::Hold, 5), (GuardName::Limits, 6)]);
        assert_eq!(trail.steps[0].reason.text, "the size is held until `regatta resume web` (by ann)");
    }
}
