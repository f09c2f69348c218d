//! Removes what is broken beyond repair.

use super::budget::count;
use super::draft::Draft;
use super::{Action, RemovalCause, Report};
use crate::phase::Phase;

/// Removes instances whose launch failed, whose VMM exited, or that their node refused. Costs no budget: they serve
/// nobody.
pub(super) fn remove(draft: &mut Draft<'_>) -> Report {
    let gone = draft.take(|i| matches!(i.phase, Phase::Failed | Phase::Refused));
    draft.lost += count(gone.iter().filter(|i| i.phase == Phase::Failed).count());
    let cause = |phase| if phase == Phase::Refused { RemovalCause::Refused } else { RemovalCause::Failed };
    let actions = gone.iter().map(|i| Action::Terminate { id: i.id, cause: cause(i.phase) }).collect();
    Report { actions, ..Report::default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::testing::{fleet, input};

    #[test]
    fn failed_and_refused_instances_go() {
        let instances = fleet(&[Phase::InService, Phase::Failed, Phase::Refused]);
        let input = input(&instances, 3);
        let mut draft = Draft::new(&input);
        let expected = [
            Action::Terminate { id: 2, cause: RemovalCause::Failed },
            Action::Terminate { id: 3, cause: RemovalCause::Refused },
        ];
        assert_eq!(remove(&mut draft).actions, expected);
        assert_eq!(draft.lost, 1, "a refused one never was there");
    }
}
