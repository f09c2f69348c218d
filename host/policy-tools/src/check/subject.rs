//! A compiled policy where the SDK's scenarios and properties want a subject.

use std::sync::Arc;
use std::time::{Duration, Instant};

use regatta_core::decision::{self, FailureKind};
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::PolicyLimits;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{
    InstanceRow, InstanceTable, LastDecision, MetricObservation, MetricScope, Observation, WindowSample,
};
use regatta_policy_host::CompiledPolicy;
use regatta_sdk::testing::{Scope, Subject, TestMetric, TestTick, TickParts};
use regatta_sdk::{Outcome, Reason};

use super::early_end;

/// A policy module with parameters and state. The wall clock is left out of its limits: a slow machine is not a property
/// of a policy.
pub struct ModuleSubject<'a> {
    policy: &'a CompiledPolicy,
    params: String,
    limits: PolicyLimits,
    state: Vec<u8>,
    decisions: u64,
    failed: Option<Vec<String>>,
    refused: Option<Vec<String>>,
    overran: u32,
    watch: Option<Watch<'a>>,
}

/// When it ends, and who is told its progress.
struct Watch<'a> {
    until: Instant,
    step: &'a mut dyn FnMut(&str),
}

/// Decisions between two reports of progress.
const TOLD_EVERY: u64 = 50;

impl<'a> ModuleSubject<'a> {
    /// A policy with parameters that it accepts, as JSON text.
    #[must_use]
    pub fn new(policy: &'a CompiledPolicy, params: &str, limits: PolicyLimits) -> Self {
        let limits = patient(&limits, None);
        Self {
            policy,
            params: params.to_owned(),
            limits,
            state: Vec::new(),
            decisions: 0,
            failed: None,
            refused: None,
            overran: 0,
            watch: None,
        }
    }

    /// Decides nothing after `until`, nor after some decisions past a limit; `step` is told the progress.
    #[must_use]
    pub fn watched(self, until: Instant, step: &'a mut dyn FnMut(&str)) -> Self {
        Self { watch: Some(Watch { until, step }), ..self }
    }

    /// Why it decides nothing anymore, when that is so.
    pub(super) fn early_end(&self) -> Option<String> {
        self.watch.as_ref().and_then(|watch| early_end(self.overran, watch.until))
    }

    /// Decisions that were asked of it.
    #[must_use]
    pub fn decisions(&self) -> u64 {
        self.decisions
    }

    /// How it first failed otherwise than by saying so itself: a trap, a limit, an outcome against the contract. Below it,
    /// what it logged then.
    #[must_use]
    pub fn failed(&self) -> Option<&[String]> {
        self.failed.as_deref()
    }

    /// What it first said when it had no decision, with what it logged then; languages refuse for errors that nobody caught.
    #[must_use]
    pub fn refused(&self) -> Option<&[String]> {
        self.refused.as_deref()
    }
}

impl Subject for ModuleSubject<'_> {
    fn reset(&mut self) {
        self.state.clear();
    }

    fn decide(&mut self, tick: &TestTick) -> Result<Outcome, String> {
        if self.has_ended() {
            return Err("not tried anymore".to_owned());
        }
        if let Some(watch) = &mut self.watch {
            self.limits = patient(&self.limits, Some(watch.until));
            if self.decisions.is_multiple_of(TOLD_EVERY) {
                (watch.step)(&format!(
                    "trying the properties of a good policy: {} decisions",
                    self.decisions
                ));
            }
        }
        self.decisions += 1;
        let observation = Arc::new(observation(tick));
        let call = self.policy.decide(&observation, &self.params, &self.state, &self.limits);
        let log = call.run.log_tail();
        match call.run.result {
            Ok(decision) => {
                self.state = call.state.unwrap_or_default();
                Ok(outcome(decision))
            }
            // Cut off by our budget, not by a limit.
            Err(failure) if failure.kind == FailureKind::Deadline && self.has_ended() => {
                Err(failure.message.into())
            }
            Err(failure) => {
                self.overran += u32::from(overruns(failure.kind));
                let told = format!("{}: {}", failure.kind.as_str(), failure.message);
                let first =
                    if failure.kind == FailureKind::Refused { &mut self.refused } else { &mut self.failed };
                first.get_or_insert_with(|| {
                    let (tick, instances) = (observation.tick, observation.instances.len());
                    let first = format!("at tick {tick}, {instances} instances: {told}");
                    std::iter::once(first).chain(log.into_iter().map(|line| format!("  {line}"))).collect()
                });
                Err(told)
            }
        }
    }

    fn metrics(&self) -> Vec<String> {
        let mut names = Vec::new();
        for wish in self.policy.wishes(&self.params) {
            if !names.contains(&wish.name) {
                names.push(wish.name);
            }
        }
        names
    }

    fn has_ended(&self) -> bool {
        self.early_end().is_some()
    }
}

/// Limits for trying: a slow machine is not a property of a policy, so the wall clock only ends what the fuel does not, and
/// what is still running when the time for all is over.
pub(super) fn patient(limits: &PolicyLimits, until: Option<Instant>) -> PolicyLimits {
    const DEADLINE: Duration = Duration::from_secs(60);
    let left = until.map_or(DEADLINE, |until| until.saturating_duration_since(Instant::now()).min(DEADLINE));
    let deadline_ms = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
    PolicyLimits { deadline_ms, ..*limits }
}

/// Whether it went past a limit, which takes as much each time.
pub(super) fn overruns(kind: FailureKind) -> bool {
    matches!(kind, FailureKind::OutOfFuel | FailureKind::Memory | FailureKind::Deadline)
}

/// The same tick as the daemon would have it.
pub(super) fn observation(tick: &TestTick) -> Observation {
    let TickParts {
        now_ms,
        number,
        set,
        generation,
        min,
        max,
        desired,
        instances,
        metrics,
        last,
        schedule,
        ..
    } = tick.parts();
    let mut table = InstanceTable::default();
    for row in instances.rows() {
        table.push(InstanceRow {
            id: row.id,
            state: state(row.state),
            state_since_ms: row.state_since_ms,
            created_ms: row.created_ms,
            generation: row.generation,
            protected: row.protected,
        });
    }
    let mut metrics: Vec<MetricObservation> = metrics.into_iter().map(metric).collect();
    metrics.sort_by(|one, other| one.name.cmp(&other.name));
    let last = last.map(|last| LastDecision {
        tick: last.tick,
        wanted: last.wanted,
        granted: last.granted,
        reasons: last.reasons.into_iter().map(reason).collect(),
        narrowed_by: last.narrowed_by,
    });
    Observation {
        set,
        tick: number,
        now_ms,
        generation,
        min,
        max,
        desired,
        instances: table,
        metrics,
        last,
        schedule,
    }
}

fn metric(metric: TestMetric) -> MetricObservation {
    let samples = metric.window.at_ms.into_iter().zip(metric.window.value);
    MetricObservation {
        name: metric.name,
        scope: match metric.scope {
            Scope::Instance => MetricScope::Instance,
            Scope::Set => MetricScope::Set,
        },
        values: metric.values.into_iter().map(value).collect(),
        window: samples.map(|(at_ms, value)| WindowSample { at_ms, value }).collect(),
    }
}

fn value(value: regatta_sdk::MetricValue) -> MetricValue {
    match value {
        regatta_sdk::MetricValue::Fresh(value) => MetricValue::Fresh(value),
        regatta_sdk::MetricValue::Stale(stale) => {
            MetricValue::Stale { value: stale.value, age_ms: stale.age_ms }
        }
        regatta_sdk::MetricValue::Missing => MetricValue::Missing,
    }
}

fn state(state: regatta_sdk::InstanceState) -> InstanceState {
    use regatta_sdk::InstanceState as From;
    match state {
        From::Pending => InstanceState::Pending,
        From::Creating => InstanceState::Creating,
        From::Booting => InstanceState::Booting,
        From::Initializing => InstanceState::Initializing,
        From::InService => InstanceState::InService,
        From::Standby => InstanceState::Standby,
        From::Unhealthy => InstanceState::Unhealthy,
        From::Draining => InstanceState::Draining,
        From::Terminating => InstanceState::Terminating,
        From::Failed => InstanceState::Failed,
    }
}

fn reason(reason: Reason) -> decision::Reason {
    decision::Reason {
        code: reason.code.into(),
        text: reason.text.into(),
        evidence: reason.evidence.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    }
}

fn outcome(decision: decision::Decision) -> Outcome {
    let reason = |reason: decision::Reason| Reason {
        code: reason.code.into(),
        text: reason.text.into(),
        evidence: reason.evidence.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
    };
    Outcome {
        capacity: decision.capacity,
        standby: decision.standby,
        victims: decision.victims,
        wake_after_ms: decision.wake_after_ms,
        reasons: decision.reasons.into_iter().map(reason).collect(),
    }
}
