//! The metrics that policies ask for, against those that their set has.

use regatta_core::manifest::{PolicySpec, ScaleSet};
use regatta_core::metrics::{self, MetricWish, UnknownMetric};
use regatta_core::state::{PolicyActivation, SetState};
use regatta_policy_host::CompiledPolicy;

use super::{Fleet, PolicyProblem};

/// A metric that parameters name and the set does not have is a slip: it never has a value, and the set would never scale.
pub(super) fn has_its_metrics(
    set: &ScaleSet,
    compiled: &CompiledPolicy,
    params: &str,
) -> Result<(), Vec<PolicyProblem>> {
    let problems = named_in_vain(set, compiled, params).map(|(pointer, unknown)| PolicyProblem {
        params_pointer: Some(pointer),
        message: format!("{unknown}; --force takes it anyway"),
    });
    let problems: Vec<PolicyProblem> = problems.collect();
    if problems.is_empty() { Ok(()) } else { Err(problems) }
}

fn named_in_vain<'a>(
    set: &'a ScaleSet,
    compiled: &CompiledPolicy,
    params: &str,
) -> impl Iterator<Item = (String, UnknownMetric)> + use<'a> {
    compiled.metrics_named_by(params).into_iter().flat_map(|(pointer, name)| {
        let unknown = metrics::unknown_metrics(set, &[MetricWish { name, window_ms: 0 }]);
        unknown.into_iter().map(move |unknown| (pointer.clone(), unknown))
    })
}

/// What a policy asks for in vain.
pub(in crate::fleet) fn unknown_metrics(set: &ScaleSet, activation: &PolicyActivation) -> Vec<String> {
    let unknown = metrics::unknown_metrics(set, &activation.wishes);
    unknown.into_iter().map(|unknown| format!("policy {} {unknown}", activation.name)).collect()
}

impl Fleet {
    /// Refuses a manifest that takes away a metric that parameters of the policies name which stay in the slot of `spec`: the one
    /// that is active, its canary and its shadows. What was missing before is not the manifest's doing.
    pub(in crate::fleet) async fn keeps_their_metrics(
        &self,
        spec: &PolicySpec,
        set: &ScaleSet,
        old: &SetState,
    ) -> Result<(), Vec<PolicyProblem>> {
        let mut staying: Vec<(&str, &PolicyActivation)> = Vec::new();
        if let Some(slot) = old.slot(&spec.name) {
            staying.push(("", &slot.active));
            staying.extend(slot.canary.as_ref().map(|canary| ("canary ", &canary.activation)));
        }
        let shadows = old.shadows.iter().filter(|shadow| shadow.slot == spec.name);
        staying.extend(shadows.map(|shadow| ("shadow ", &shadow.activation)));
        staying.retain(|(_, activation)| !metrics::unknown_metrics(set, &activation.wishes).is_empty());
        let mut problems = Vec::new();
        for (role, activation) in staying {
            // One that cannot be loaded has its own condition, and asks for nothing meanwhile.
            let Ok(compiled) = self.reload_policy(&activation.digest).await else { continue };
            let missed: Vec<String> = named_in_vain(&old.set, &compiled, &activation.params)
                .map(|(_, unknown)| unknown.name)
                .collect();
            let lost = named_in_vain(set, &compiled, &activation.params)
                .filter(|(_, unknown)| !missed.contains(&unknown.name));
            problems.extend(lost.map(|(pointer, unknown)| PolicyProblem {
                params_pointer: role.is_empty().then_some(pointer),
                message: format!("{role}policy {} {unknown}; --force applies it anyway", activation.name),
            }));
        }
        if problems.is_empty() { Ok(()) } else { Err(problems) }
    }
}
