//! Who decides the size of a set, as the API shows it.

use regatta_core::machine::SetMachine;
use regatta_core::sizing::Term;
use regatta_core::state::Moment;

use crate::api::size_types::{SizeInfo, TermInfo};

/// What operators say about the size of a set now.
pub(super) fn size_info(machine: &SetMachine) -> SizeInfo {
    let (in_force, limits, at) = (machine.in_force(), machine.limits(), machine.at());
    SizeInfo {
        hold: in_force.hold.as_ref().map(|term| term_info(term, at)),
        min_from: limits.min_from.to_string(),
        max_from: limits.max_from.to_string(),
        limits: in_force.overridden.as_ref().map(|it| term_info(&it.term, at)),
        schedules: in_force.schedule.clone(),
        frozen_by: in_force.frozen_by.clone(),
        freeze: in_force.freeze.as_ref().map(|term| term_info(term, at)),
    }
}

fn term_info(term: &Term, at: Moment) -> TermInfo {
    TermInfo {
        since_ms: term.since_ms,
        until_ms: term.until_ms(at),
        actor: term.actor.to_string(),
        reason: term.reason.to_string(),
    }
}
