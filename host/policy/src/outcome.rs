//! What is made of a guest's outcome before anyone acts on it.

use std::collections::HashSet;

use regatta_core::decision::{Decision, FailureKind, PolicyFailure, Reason};
use regatta_core::manifest::PolicyLimits;
use regatta_core::observation::Observation;

use crate::bindings::regatta::policy::types;
use crate::text::said;

/// More instances than this are nonsense, not a wish that the set's bounds cut.
pub const MAX_CAPACITY: u32 = 1_000_000;

const MAX_REASONS: usize = 32;
const MAX_EVIDENCE: usize = 32;
const CODE_BYTES: usize = 64;
const TEXT_BYTES: usize = 1024;
const EVIDENCE_BYTES: usize = 256;

/// The decision and the new state.
///
/// Refused: a capacity that no set can have, victims that do not exist, more bytes
/// than the limit. Merely cut: texts, and reasons past the thirty-second.
pub(crate) fn check(
    outcome: types::Outcome,
    observation: &Observation,
    limits: &PolicyLimits,
) -> Result<(Decision, Vec<u8>), PolicyFailure> {
    let refuse = |message: String| Err(PolicyFailure { kind: FailureKind::Output, message: message.into() });
    for (what, wanted) in [("capacity", Some(outcome.capacity)), ("standby", outcome.standby)] {
        if let Some(wanted) = wanted.filter(|&wanted| wanted > MAX_CAPACITY) {
            return refuse(format!(
                "it wants a {what} of {wanted}; no set has more than {MAX_CAPACITY} instances"
            ));
        }
    }
    let bytes = size(&outcome);
    if bytes > limits.output_bytes {
        return refuse(format!(
            "its outcome has {bytes} bytes, more than the {} that it may have",
            limits.output_bytes
        ));
    }
    // The table is ordered by id.
    let unknown = outcome.victims.iter().find(|id| observation.instances.id.binary_search(id).is_err());
    if let Some(id) = unknown {
        return refuse(format!("it names instance {id} as a victim, and there is no such instance"));
    }
    let mut seen = HashSet::new();
    let victims = outcome.victims.into_iter().filter(|&id| seen.insert(id)).collect();
    let decision = Decision {
        capacity: outcome.capacity,
        standby: outcome.standby,
        victims,
        wake_after_ms: outcome.wake_after_ms,
        reasons: outcome.reasons.into_iter().take(MAX_REASONS).map(reason).collect(),
    };
    Ok((decision, outcome.state))
}

fn reason(reason: types::Reason) -> Reason {
    let evidence = reason.evidence.into_iter().take(MAX_EVIDENCE);
    let evidence = evidence.map(|(name, value)| (said(name, CODE_BYTES), said(value, EVIDENCE_BYTES)));
    Reason {
        code: said(reason.code, CODE_BYTES),
        text: said(reason.text, TEXT_BYTES),
        evidence: evidence.collect(),
    }
}

/// Bytes of state, victims and reasons.
fn size(outcome: &types::Outcome) -> u64 {
    let evidence = |(name, value): &(String, String)| name.len() + value.len();
    let reason = |reason: &types::Reason| {
        reason.code.len() + reason.text.len() + reason.evidence.iter().map(evidence).sum::<usize>()
    };
    let reasons: usize = outcome.reasons.iter().map(reason).sum();
    let bytes = outcome.state.len() + outcome.victims.len() * size_of::<u32>() + reasons;
    u64::try_from(bytes).unwrap_or(u64::MAX)
}
