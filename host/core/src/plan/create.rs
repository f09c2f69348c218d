//! Creates what is missing.

use super::budget::count;
use super::draft::Draft;
use super::placement::Spread;
use super::{Action, CreateCause, PlanNote, Report};
use crate::set_process::SetProcess;

/// Creates what is missing, as far as launches may begin, the budget goes and the nodes have capacity.
pub(super) fn missing(draft: &mut Draft<'_>) -> Report {
    let (input, counted) = (draft.input, draft.counted());
    // An upgrade has more for a while.
    let ceiling = input.capacity.saturating_add(draft.surge);
    let short = ceiling.saturating_sub(counted);
    if short == 0 {
        return Report::default();
    }
    let waiting = |note| Report { notes: vec![note], ..Report::default() };
    if input.is_suspended(SetProcess::Launch) {
        return waiting(PlanNote::LaunchSuspended { short });
    }
    if input.launches_resume_in_ms > 0 {
        return waiting(PlanNote::LaunchesFailed { short, retry_in_ms: input.launches_resume_in_ms });
    }
    if let Some(why) = input.hold {
        return waiting(PlanNote::LaunchesHeld { short, why: why.into() });
    }
    if input.nodes.is_empty() {
        return waiting(PlanNote::NoNode { short });
    }
    let budget = draft.budget.creates.min(draft.budget.in_flight);
    let budget = match input.one_at_a_time {
        true if draft.rest().any(|it| it.phase.is_warming()) => 0,
        true => budget.min(1),
        false => budget,
    };
    let capacity = input.nodes.iter().fold(0, |sum: u32, node| sum.saturating_add(node.launches));
    let now = short.min(budget).min(capacity);

    let mut report = Report::default();
    if capacity < short.min(budget) {
        let why = input.nodes.iter().find_map(|node| node.why.clone());
        let why = why.unwrap_or_else(|| "no node has capacity for more".into());
        report.notes.push(PlanNote::NodesFull { short: short - now, why: why.clone() });
        report.short = Some(why.into());
    } else if now < short && input.one_at_a_time {
        report.notes.push(PlanNote::OneAtATime { short });
    } else if now < short {
        report.notes.push(PlanNote::CreatesLimited { short, now });
    }
    let mut spread = Spread::over(input.nodes, draft.rest());
    let mut replacements = draft.lost;
    // What was short before the upgrade gave any up is no part of it.
    let mut upgraded = short - input.capacity.saturating_sub(counted.saturating_add(draft.upgraded));
    for id in (input.next_id..u32::MAX).take(now as usize) {
        let Some(placement) = spread.place() else { break };
        let cause = match (&mut replacements, &mut upgraded) {
            (0, 0) => CreateCause::ScaleOut,
            (0, upgraded) => {
                *upgraded -= 1;
                CreateCause::Upgrade
            }
            (replacements, _) => {
                *replacements -= 1;
                CreateCause::Replacement
            }
        };
        report.actions.push(Action::Create {
            id,
            cause,
            generation: input.generation,
            placement: placement.clone(),
        });
    }
    let created = count(report.actions.len());
    draft.lost = replacements;
    draft.budget.creates -= created;
    draft.budget.in_flight -= created;
    report
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::phase::Phase;
    use crate::plan::Budget;
    use crate::plan::testing::{fleet, input};
    use crate::record::NodeCapacity;

    fn ids(report: &Report) -> Vec<(u32, CreateCause)> {
        let created = report.actions.iter().filter_map(|action| match action {
            Action::Create { id, cause, .. } => Some((*id, *cause)),
            _ => None,
        });
        created.collect()
    }

    #[test]
    fn those_that_this_plan_lost_are_replaced_first() {
        let instances = fleet(&[Phase::InService]);
        let input = input(&instances, 4);
        let mut draft = Draft::new(&input);
        draft.lost = 1;
        let report = missing(&mut draft);
        let expected =
            [(100, CreateCause::Replacement), (101, CreateCause::ScaleOut), (102, CreateCause::ScaleOut)];
        assert_eq!(ids(&report), expected);
        assert_eq!((draft.lost, draft.budget.creates), (0, 997));
    }

    #[test]
    fn the_budget_and_the_nodes_limit_and_the_report_says_which() {
        let mut input = input(&[], 5);
        input.budget = Budget { in_flight: 2, ..Budget::UNLIMITED };
        let report = missing(&mut Draft::new(&input));
        assert_eq!((ids(&report).len(), report.short), (2, None));
        assert_eq!(report.notes, [PlanNote::CreatesLimited { short: 5, now: 2 }]);

        let why = "the host is out of memory";
        let nodes = [NodeCapacity { launches: 1, why: Some(why.into()), ..input.nodes[0].clone() }];
        input.nodes = &nodes;
        let report = missing(&mut Draft::new(&input));
        assert_eq!((ids(&report).len(), report.short.as_deref()), (1, Some(why)));
        assert_eq!(report.notes, [PlanNote::NodesFull { short: 4, why: why.into() }]);

        input.nodes = &[];
        let report = missing(&mut Draft::new(&input));
        assert_eq!((ids(&report).len(), report.short), (0, None));
        assert_eq!(report.notes, [PlanNote::NoNode { short: 5 }]);
    }

    #[test]
    fn while_launches_back_off_one_is_tried_at_a_time() {
        let instances = fleet(&[Phase::InService]);
        let mut input = input(&instances, 5);
        input.one_at_a_time = true;
        let report = missing(&mut Draft::new(&input));
        assert_eq!(ids(&report), [(100, CreateCause::ScaleOut)]);
        assert_eq!(report.notes, [PlanNote::OneAtATime { short: 4 }]);
        let instances = fleet(&[Phase::InService, Phase::Booting]);
        input.instances = &instances;
        let report = missing(&mut Draft::new(&input));
        assert_eq!((ids(&report).len(), report.short), (0, None));
        assert_eq!(report.notes, [PlanNote::OneAtATime { short: 3 }]);
    }

    #[test]
    fn ids_run_out_rather_than_begin_anew() {
        let mut input = input(&[], 5);
        input.next_id = u32::MAX - 2;
        assert_eq!(ids(&missing(&mut Draft::new(&input))).len(), 2);
    }
}
