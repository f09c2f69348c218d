//! A policy decides the same natively, through the SDK, and in the sandbox.

use std::sync::Arc;

use proptest::prelude::*;
use regatta_core::decision::{Decision, FailureKind, Reason};
use regatta_core::instance_state::{INSTANCE_STATES, InstanceState};
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_policy_host::CompiledPolicy;
use regatta_sdk::testing::{self, TestTick};
use regatta_sdk::{Instance, Policy, StaleValue};

use crate::fixtures::{compiled, limits};

fn value() -> impl Strategy<Value = MetricValue> {
    prop_oneof![
        8 => (0.0..2.0_f64).prop_map(MetricValue::Fresh),
        1 => any::<f64>().prop_map(MetricValue::Fresh),
        1 => (1e300..f64::MAX).prop_map(MetricValue::Fresh),
        2 => (0.0..2.0_f64, 0..1_000_000_u64).prop_map(|(value, age_ms)| MetricValue::Stale { value, age_ms }),
        2 => Just(MetricValue::Missing),
    ]
}

fn state() -> impl Strategy<Value = InstanceState> {
    let listed = |state: &InstanceState| *state != InstanceState::Gone;
    let all: Vec<_> = INSTANCE_STATES.into_iter().filter(listed).collect();
    prop_oneof![6 => Just(InstanceState::InService), 2 => proptest::sample::select(all)]
}

prop_compose! {
    fn observation()(
        rows in proptest::collection::vec((state(), value(), any::<bool>()), 0..20),
        set_value in proptest::option::weighted(0.2, value()),
        absent in proptest::bool::weighted(0.05),
        desired in 0..25_u32,
        min in 0..3_u32,
        max in 10..100_u32,
        now_ms in 1_000_000..2_000_000_u64,
        tick in 1..1_000_u64,
    ) -> Observation {
        let mut instances = InstanceTable::default();
        for (id, &(state, _, protected)) in (1..).zip(&rows) {
            let row = InstanceRow { id, state, state_since_ms: 2, created_ms: 1, generation: 3, protected };
            instances.push(row);
        }
        let (scope, values) = match set_value {
            Some(value) => (MetricScope::Set, vec![value]),
            None => (MetricScope::Instance, rows.iter().map(|&(_, value, _)| value).collect()),
        };
        let name = if absent { "another" } else { "load" }.to_owned();
        let metrics = vec![MetricObservation { name, scope, values, window: Vec::new() }];
        Observation {
            set: "web".to_owned(), tick, now_ms, generation: 3, min, max, desired, instances, metrics,
            last: None, schedule: vec!["night".to_owned()],
        }
    }
}

fn native_value(value: MetricValue) -> regatta_sdk::MetricValue {
    match value {
        MetricValue::Fresh(value) => regatta_sdk::MetricValue::Fresh(value),
        MetricValue::Stale { value, age_ms } => regatta_sdk::MetricValue::Stale(StaleValue { value, age_ms }),
        MetricValue::Missing => regatta_sdk::MetricValue::Missing,
    }
}

fn native_state(state: InstanceState) -> regatta_sdk::InstanceState {
    use regatta_sdk::InstanceState as To;
    match state {
        InstanceState::Pending => To::Pending,
        InstanceState::Creating => To::Creating,
        InstanceState::Booting => To::Booting,
        InstanceState::Initializing => To::Initializing,
        InstanceState::InService => To::InService,
        InstanceState::Standby => To::Standby,
        InstanceState::Unhealthy => To::Unhealthy,
        InstanceState::Draining => To::Draining,
        InstanceState::Terminating | InstanceState::Gone => To::Terminating,
        InstanceState::Failed => To::Failed,
    }
}

/// The same tick for the SDK's native harness.
fn native(observation: &Observation) -> TestTick {
    let mut tick = TestTick::new()
        .at(observation.now_ms, observation.tick)
        .set(&observation.set, observation.generation)
        .bounds(observation.min, observation.max)
        .desired(observation.desired)
        .schedule(&["night"]);
    for row in observation.instances.rows() {
        tick = tick.instance(Instance {
            id: row.id,
            state: native_state(row.state),
            state_since_ms: row.state_since_ms,
            created_ms: row.created_ms,
            generation: row.generation,
            protected: row.protected,
        });
    }
    for metric in &observation.metrics {
        let values: Vec<_> = metric.values.iter().map(|&value| native_value(value)).collect();
        tick = match metric.scope {
            MetricScope::Set => tick.set_metric(&metric.name, values[0]),
            MetricScope::Instance => tick.metric_rows(&metric.name, &values),
        };
    }
    tick
}

fn same<P: Policy>(
    policy: &CompiledPolicy,
    params: &str,
    history: Vec<Observation>,
) -> Result<(), TestCaseError> {
    prop_assert_eq!(testing::validate::<P>(params), Ok(()));
    policy.validate(params, &limits()).map_err(|error| TestCaseError::fail(error.to_string()))?;
    let (mut native_state, mut wasm_state) = (Vec::new(), Vec::new());
    for observation in history {
        let expected = testing::decide::<P>(&native(&observation), params, &native_state);
        let call = policy.decide(&Arc::new(observation), params, &wasm_state, &limits());
        // Values at the end of what a number holds are refused, in the same words.
        let expected = match expected {
            Ok(expected) => expected,
            Err(why) => {
                let said = call.run.result.err().map(|failure| (failure.kind, failure.message.to_string()));
                prop_assert_eq!(said, Some((FailureKind::Refused, why)));
                continue;
            }
        };
        let reason = |reason: regatta_sdk::Reason| Reason {
            code: reason.code.into(),
            text: reason.text.into(),
            evidence: reason.evidence.into_iter().map(|(name, value)| (name.into(), value.into())).collect(),
        };
        let wanted = Decision {
            capacity: expected.capacity,
            standby: expected.standby,
            victims: expected.victims,
            wake_after_ms: expected.wake_after_ms,
            reasons: expected.reasons.into_iter().map(reason).collect(),
        };
        prop_assert_eq!(call.run.result, Ok(wanted));
        wasm_state = call.state.unwrap_or_default();
        native_state = expected.state;
        prop_assert_eq!(&wasm_state, &native_state);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn target_tracking(
        history in proptest::collection::vec(observation(), 1..4),
        target in 0.1..1.0_f64,
        tolerance in 0.0..0.5_f64,
        factor in proptest::option::of(1.1..4.0_f64),
        scale_in in any::<bool>(),
    ) {
        let policy = compiled("target-tracking");
        let factor = factor.map_or("null".to_owned(), |factor| factor.to_string());
        let params = format!(
            r#"{{"metric": "load", "target": {target}, "tolerance": {tolerance}, "max_scale_out_factor": {factor},
                "scale_in": {scale_in}}}"#
        );
        same::<target_tracking::TargetTracking>(&policy, &params, history)?;
    }

    #[test]
    fn step(
        history in proptest::collection::vec(observation(), 1..6),
        above in 0.5..1.0_f64,
        below in 0.1..0.5_f64,
        for_ticks in 1..3_u32,
        cooldown_ms in 0..1_000_000_u64,
        statistic in proptest::sample::select(vec!["mean", "sum", "min", "max"]),
    ) {
        let policy = compiled("step");
        let params = format!(
            r#"{{"metric": "load", "statistic": "{statistic}", "for_ticks": {for_ticks},
                "scale_out": [{{"above": {above}, "add": 2}}, {{"above": 1.2, "add_percent": 50}}],
                "scale_in": [{{"below": {below}, "remove": 1}}, {{"below": 0.05, "set": 2}}],
                "scale_out_cooldown_ms": {cooldown_ms}, "scale_in_cooldown_ms": {cooldown_ms}}}"#
        );
        same::<step::Step>(&policy, &params, history)?;
    }
}
