//! Host rules between what the policies want and what happens.
//!
//! A guard may only narrow: what it returns lies between the capacity in force
//! and what was proposed to it. [`judge`] holds every guard to that. The set's
//! limits come last and are not a guard: they bind whatever came before.

use serde::{Deserialize, Serialize};

use crate::combine::Combined;
use crate::decision::Reason;
use crate::manifest::{Guards, MissingData, OnFailure};
use crate::observation::Observation;

/// What a guard may look at.
#[derive(Debug, Clone, Copy)]
pub struct GuardContext<'a> {
    /// The tick's observation.
    pub observation: &'a Observation,
    /// Names of the metrics that the active policies want and that have no fresh
    /// value for at least one instance in service (or for the set).
    pub metrics_without_data: &'a [String],
}

/// A host rule that may narrow a proposal.
pub trait Guard {
    /// Stable name, as it stands in the record.
    fn name(&self) -> GuardName;

    /// The capacity to go on with and why, or none to let `proposed` pass.
    /// Never called with `proposed` equal to the capacity in force.
    fn narrow(&self, context: &GuardContext<'_>, proposed: u32) -> Option<(u32, Reason)>;
}

/// One change of the capacity on its way from policy to plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuardStep {
    /// Who changed it.
    pub guard: GuardName,
    /// Capacity before; none when the policies gave none.
    pub before: Option<u32>,
    /// Capacity after.
    pub after: u32,
    /// Why.
    pub reason: Reason,
}

/// What the guards of a set remember from tick to tick.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct GuardMemory {}

/// Who may change a capacity on its way from policy to plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GuardName {
    /// `on_failure`: no policy returned a decision.
    OnFailure,
    /// `missing_data`: a wanted metric has no fresh value.
    MissingData,
    /// The set's `min` and `max`.
    Limits,
    /// The set is being deleted.
    Delete,
}

impl GuardName {
    /// The name that users read.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OnFailure => "on-failure",
            Self::MissingData => "missing-data",
            Self::Limits => "limits",
            Self::Delete => "delete",
        }
    }
}

impl std::fmt::Display for GuardName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.as_str())
    }
}

/// What the guards made of a decision.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GuardTrail {
    /// Every change, in order; empty when the decision passed untouched.
    pub steps: Vec<GuardStep>,
    /// The capacity that the plan works towards.
    pub granted: u32,
    /// What the guards remember after this tick.
    #[serde(default)]
    pub memory: GuardMemory,
}

/// Forbids what missing data makes unsafe.
#[derive(Debug, Clone, Copy)]
struct MissingDataGuard(MissingData);

impl Guard for MissingDataGuard {
    fn name(&self) -> GuardName {
        GuardName::MissingData
    }

    fn narrow(&self, context: &GuardContext<'_>, proposed: u32) -> Option<(u32, Reason)> {
        let desired = context.observation.desired;
        let blocked = match self.0 {
            MissingData::Ignore => false,
            MissingData::NoScaleIn => proposed < desired,
            MissingData::Hold | MissingData::Default { .. } => true,
        };
        if !blocked || context.metrics_without_data.is_empty() {
            return None;
        }
        let what = if proposed < desired { "scale-in" } else { "scale-out" };
        Some((
            desired,
            Reason {
                code: "missing-data".into(),
                text: format!("{what} refused: not every instance in service has fresh data"),
                evidence: vec![("metrics".into(), context.metrics_without_data.join(", "))],
            },
        ))
    }
}

/// The guards of a set, in the order in which they judge.
#[must_use]
pub fn guards_of(settings: &Guards) -> Vec<Box<dyn Guard + Send + Sync>> {
    vec![Box::new(MissingDataGuard(settings.missing_data))]
}

/// Takes what the policies want through `guards` to what the plan works towards.
///
/// `settings` supplies a capacity where the policies cannot: `on_failure` when
/// all of them failed, `missing_data: {default}` when a wanted metric has no data.
#[must_use]
pub fn judge(
    settings: &Guards,
    guards: &[Box<dyn Guard + Send + Sync>],
    context: &GuardContext<'_>,
    combined: &Combined,
) -> GuardTrail {
    let observation = context.observation;
    let desired = observation.desired;
    let mut steps = Vec::new();

    let mut capacity = combined.capacity.unwrap_or_else(|| {
        let (after, text) = match settings.on_failure {
            OnFailure::Hold => (desired, "no policy gave a decision: the size is held".to_owned()),
            OnFailure::Static { capacity } => (
                capacity.max(desired),
                format!("no policy gave a decision: at least the static capacity {capacity}"),
            ),
        };
        steps.push(GuardStep {
            guard: GuardName::OnFailure,
            before: None,
            after,
            reason: Reason { code: "policy-failed".into(), text, evidence: Vec::new() },
        });
        after
    });

    for guard in guards {
        if capacity == desired {
            break;
        }
        if let Some((wish, reason)) = guard.narrow(context, capacity) {
            let after = wish.clamp(capacity.min(desired), capacity.max(desired));
            if after != capacity {
                steps.push(GuardStep { guard: guard.name(), before: Some(capacity), after, reason });
                capacity = after;
            }
        }
    }

    if let MissingData::Default { capacity: fallback } = settings.missing_data
        && !context.metrics_without_data.is_empty()
        && fallback > capacity
    {
        steps.push(GuardStep {
            guard: GuardName::MissingData,
            before: Some(capacity),
            after: fallback,
            reason: Reason {
                code: "missing-data-default".into(),
                text: "not every instance in service has fresh data: the default capacity stands in".into(),
                evidence: vec![("metrics".into(), context.metrics_without_data.join(", "))],
            },
        });
        capacity = fallback;
    }

    let granted = capacity.max(observation.min).min(observation.max);
    if granted != capacity {
        let (name, limit) =
            if granted > capacity { ("min", observation.min) } else { ("max", observation.max) };
        steps.push(GuardStep {
            guard: GuardName::Limits,
            before: Some(capacity),
            after: granted,
            reason: Reason {
                code: format!("capped-at-{name}"),
                text: format!("the set's {name} is {limit}"),
                evidence: vec![(name.into(), limit.to_string())],
            },
        });
    }
    GuardTrail { steps, granted, memory: GuardMemory::default() }
}

/// The metrics among `wanted` that have no fresh value for at least one instance
/// in service, or for the set. A metric that the observation lacks counts as such.
#[must_use]
pub fn metrics_without_data(observation: &Observation, wanted: &[String]) -> Vec<String> {
    let lacks_data = |name: &&String| {
        observation.metric(name).is_none_or(|metric| {
            let aggregate = observation.aggregate(metric);
            aggregate.missing > 0 || aggregate.stale > 0
        })
    };
    wanted.iter().filter(lacks_data).cloned().collect()
}
