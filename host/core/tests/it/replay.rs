//! A record decides its tick again.

use proptest::prelude::*;
use regatta_core::decision::{FailureKind, PolicyFailure, PolicyRun};
use regatta_core::manifest::{FlapRule, Guards, MaxCost, MissingData, OnFailure, RateLimit, ScaleSet};
use regatta_core::metric::MetricValue;
use regatta_core::node::{FaultDomain, NodeId, Placement};
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_core::phase::{PHASES, Phase};
use regatta_core::plan::{Action, CreateCause, PlanNote};
use regatta_core::record::{CanaryRun, NodeCapacity, PlanFacts, TickRecord};
use regatta_core::tick::{TickInput, conclude, last_decision};

use crate::tick::{facts, observation, run, set, tick};

fn again(set: &ScaleSet, record: &TickRecord) -> Result<(), TestCaseError> {
    prop_assert_eq!(&conclude(set, record.input()), record);
    let json = serde_json::to_string(record).expect("writes");
    let read: TickRecord = serde_json::from_str(&json).expect("reads");
    prop_assert_eq!(&read, record);
    prop_assert_eq!(serde_json::to_string(&conclude(set, read.input())).expect("writes"), json);
    Ok(())
}

#[test]
fn a_record_survives_json_and_concludes_the_same_again() {
    again(&set(), &tick(Ok(6), facts())).unwrap();
}

fn failure() -> PolicyFailure {
    PolicyFailure { kind: FailureKind::Trap, message: "trapped".into() }
}

fn any_run(digest: &'static str) -> impl Strategy<Value = PolicyRun> {
    let outcome = (proptest::option::weighted(0.9, 0u32..30), prop::collection::vec(0u32..40, 0..4));
    outcome.prop_map(move |(capacity, victims)| {
        let mut run = run(capacity.ok_or_else(failure));
        run.digest = digest.into();
        if let Ok(decision) = &mut run.result {
            decision.victims = victims;
        }
        run
    })
}

fn any_placement() -> impl Strategy<Value = Placement> {
    (0u8..4, 0u8..2).prop_map(|(node, domain)| Placement {
        node: NodeId::from(format!("node-{node}")),
        domain: FaultDomain::from(format!("rack-{domain}")),
    })
}

fn any_value() -> impl Strategy<Value = MetricValue> {
    prop_oneof![
        4 => (0.0..2.0).prop_map(MetricValue::Fresh),
        1 => (0.0..2.0, 1u64..9_999).prop_map(|(value, age_ms)| MetricValue::Stale { value, age_ms }),
        1 => Just(MetricValue::Missing),
    ]
}

type Row = (Phase, u64, u64, u64, bool, Placement, MetricValue, bool);

fn any_row() -> impl Strategy<Value = Row> {
    (
        prop::sample::select(&PHASES[..PHASES.len() - 1]),
        0u64..1_000_000,
        0u64..1_000_000,
        0u64..3,
        any::<bool>(),
        any_placement(),
        any_value(),
        any::<bool>(),
    )
}

prop_compose! {
    fn any_nodes()(
        nodes in prop::collection::vec((any_placement(), 0u32..50, proptest::option::of("[a-z ]{1,20}")), 0..4)
    ) -> Vec<NodeCapacity> {
        nodes.into_iter().map(|(placement, launches, why)| NodeCapacity { placement, launches, why: why.map(Into::into) }).collect()
    }
}

prop_compose! {
    fn any_tick()(
        rows in prop::collection::vec(any_row(), 0..40),
        passed_ms in 0u64..200_000,
        next_id in prop_oneof![10 => 40u32..1_000, 1 => Just(u32::MAX - 3)],
        resume_ms in prop_oneof![Just(0), 0u64..1_000_000],
        deleting in prop::bool::weighted(0.05),
        hold in proptest::option::weighted(0.1, "[a-z ]{1,20}"),
        nodes in any_nodes(),
        active in any_run("active"),
        canary in proptest::option::of((any_run("canary"), 0u32..5)),
        wall_ms in any::<u64>(),
    ) -> (TickInput, u64) {
        let observation = observation();
        let (mut instances, mut values) = (InstanceTable::default(), Vec::new());
        let mut facts = PlanFacts { next_id, launches_resume_ms: resume_ms, deleting, hold: hold.map(Into::into), nodes, ..PlanFacts::default() };
        for (id, (phase, since_ms, since_lived_ms, generation, protected, placement, value, drained)) in (0..).zip(rows) {
            let state = phase.state();
            instances.push(InstanceRow { id, state, state_since_ms: since_ms, created_ms: 0, generation, protected });
            values.push(value);
            facts.phase.push(phase);
            facts.phase_since_ms.push(since_lived_ms);
            facts.placement.push(&placement);
            facts.drained.extend(drained.then_some(id));
        }
        let metrics = vec![MetricObservation {
            name: "utilization".into(), scope: MetricScope::Instance, values, window: Vec::new(),
        }];
        let canaries = canary.map(|(run, within)| CanaryRun { within, run }).into_iter().collect();
        let input = TickInput {
            wall_ms, manifest: "0123".into(), observation: Observation { instances, metrics, ..observation },
            changes: Vec::new(), operator: vec!["scale 3".into()], facts, runs: vec![active], canaries,
            shadows: Vec::new(), wanted_metrics: vec!["utilization".into()],
        };
        (input, passed_ms)
    }
}

fn any_guards() -> impl Strategy<Value = Guards> {
    let on_failure =
        prop_oneof![Just(OnFailure::Hold), (1u32..5).prop_map(|capacity| OnFailure::Static { capacity })];
    let missing_data = prop_oneof![
        Just(MissingData::NoScaleIn),
        Just(MissingData::Hold),
        Just(MissingData::Ignore),
        (1u32..5).prop_map(|capacity| MissingData::Default { capacity }),
    ];
    let window_ms = || prop_oneof![Just(0), 1u64..600_000];
    let limit =
        || {
            let given = (0u32..200, 1u32..9, 1u64..60_000)
                .prop_map(|(percent, count, period_ms)| RateLimit { percent, count, period_ms });
            prop_oneof![Just(RateLimit::NONE), given]
        };
    let cost = (0.1..9.0_f64).prop_map(|per_hour| Some(MaxCost { per_instance_hour: 1.0, per_hour })).boxed();
    let more = (0u32..40, window_ms(), window_ms(), prop_oneof![Just(None).boxed(), cost], any::<bool>());
    (on_failure, missing_data, window_ms(), window_ms(), limit(), limit(), more).prop_map(
        |(
            on_failure,
            missing_data,
            warm_up_ms,
            scale_in_stabilization_ms,
            scale_out_limit,
            scale_in_limit,
            (tolerance_percent, scale_out_cooldown_ms, scale_in_cooldown_ms, max_cost, flaps),
        )| Guards {
            tolerance_percent,
            scale_out_cooldown_ms,
            scale_in_cooldown_ms,
            max_cost,
            flapping: Vec::from_iter(flaps.then(|| FlapRule { metric: "utilization".into(), above: 0.7 })),
            on_failure,
            missing_data,
            warm_up_ms,
            scale_in_stabilization_ms,
            scale_out_limit,
            scale_in_limit,
        },
    )
}

proptest! {
    /// Tick after tick, with what each leaves to the next: every record decides its tick again, also read from JSON.
    #[test]
    fn every_record_decides_its_tick_again(
        guards in any_guards(), ticks in prop::collection::vec(any_tick(), 1..6)
    ) {
        let set = ScaleSet { guards, ..set() };
        let mut last: Option<TickRecord> = None;
        for (mut input, passed_ms) in ticks {
            if let Some(last) = &last {
                input.observation.tick = last.observation.tick + 1;
                input.observation.desired = last.guards.granted;
                input.observation.last = Some(last_decision(last));
                input.facts.lived_ms = last.facts.lived_ms + passed_ms;
                input.facts.guard_memory = last.guards.memory.clone();
            }
            let record = conclude(&set, input);
            again(&set, &record)?;
            last = Some(record);
        }
    }
}

#[test]
fn what_the_guards_remember_is_carried_from_tick_to_tick() {
    let guards = Guards { scale_in_stabilization_ms: 60_000, ..Guards::default() };
    let set = ScaleSet { guards, ..set() };
    let (mut memory, mut desired) = (Default::default(), 3);
    let mut granted = Vec::new();
    for (lived_ms, wanted) in [(0, 5), (1_000, 2), (60_000, 2), (60_001, 2)] {
        let mut input = tick(Ok(wanted), PlanFacts { lived_ms, guard_memory: memory, ..facts() }).input();
        input.observation.desired = desired;
        let record = conclude(&set, input);
        again(&set, &record).unwrap();
        desired = record.guards.granted;
        granted.push(desired);
        memory = record.guards.memory;
    }
    assert_eq!(granted, [5, 5, 5, 2]);
}

/// As version 1 wrote it: no phases, nodes or memory; notes are text, and a create is nothing but an id.
#[test]
fn a_record_of_version_1_is_read() {
    let mut record = serde_json::to_value(tick(Ok(6), facts())).unwrap();
    let fields = record.as_object_mut().unwrap();
    fields.insert("v".into(), 1.into());
    for new in ["wall_ms", "manifest", "wanted_metrics"] {
        fields.remove(new).expect("it is a field");
    }
    fields["facts"] = serde_json::json!({
        "drained": [1], "next_id": 4, "launches_resume_ms": 0, "deleting": false,
    });
    fields["guards"].as_object_mut().unwrap().remove("memory").expect("it is a field");
    fields["plan"] = serde_json::json!({
        "actions": [
            { "do": "create", "id": 4 }, { "do": "drain", "id": 2, "cause": "scale-in" },
            { "do": "terminate", "id": 1, "cause": "drain-timeout" },
        ],
        "notes": ["3 missing: launches failed, the next try is in 2500 ms"],
    });
    let record: TickRecord = serde_json::from_value(record).unwrap();
    assert_eq!((record.v, record.facts.next_id, record.facts.drained.as_slice()), (1, 4, &[1][..]));
    let placement = Placement::default();
    let create = Action::Create { id: 4, cause: CreateCause::ScaleOut, generation: 0, placement };
    assert_eq!(record.plan.actions[0], create);
    let text = "3 missing: launches failed, the next try is in 2500 ms";
    assert_eq!(record.plan.notes, [PlanNote::Text(text.into())]);
}
