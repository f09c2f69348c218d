use std::net::Ipv4Addr;

use regatta_core::combine::CombineRule;
use regatta_core::decision::{Decision, FailureKind, PolicyFailure, PolicyRun, Reason};
use regatta_core::explain::explain;
use regatta_core::instance_state::{InstanceEvent, InstanceState};
use regatta_core::manifest::*;
use regatta_core::metric::MetricValue;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_core::record::{Direction, InstanceChange, PlanFacts, TickRecord};
use regatta_core::tick::{TickInput, conclude, last_decision};

fn set() -> ScaleSet {
    ScaleSet {
        name: "web".into(),
        tick_ms: 1_000,
        capacity: Capacity { min: 1, max: 5, initial: 2 },
        image: Image {
            name: None,
            overlay: None,
            size_bytes: None,
            disk: None,
            kernel: None,
            initramfs: None,
            cmdline: String::new(),
            firmware: None,
        },
        instance: InstanceTemplate {
            vcpus: 1,
            memory_bytes: 64 << 20,
            boot_timeout_ms: 30_000,
            ..InstanceTemplate::default()
        },
        network: Network::Loopback { base: Ipv4Addr::new(127, 40, 0, 0), prefix: 24, port: 8080 },
        health: Health {
            probe: None,
            interval_ms: 1_000,
            timeout_ms: 500,
            healthy_threshold: 2,
            unhealthy_threshold: 3,
        },
        load_balancer: None,
        metrics: Vec::new(),
        policies: vec![PolicySpec {
            name: "load".into(),
            module: "target-tracking".into(),
            params: serde_json::json!({}),
            limits: PolicyLimits::default(),
            follow: false,
        }],
        combine: CombineRule::default(),
        guards: Guards::default(),
        repair: Repair { enabled: true, grace_ms: 10_000, max_percent: 5 },
    }
}

fn observation() -> Observation {
    let mut instances = InstanceTable::default();
    for (id, state) in
        [(1, InstanceState::InService), (2, InstanceState::InService), (3, InstanceState::Booting)]
    {
        instances.push(InstanceRow {
            id,
            state,
            state_since_ms: 1_000,
            created_ms: 500,
            generation: 1,
            protected: false,
        });
    }
    Observation {
        set: "web".into(),
        tick: 42,
        now_ms: 60_000,
        generation: 1,
        min: 1,
        max: 5,
        desired: 3,
        instances,
        metrics: vec![MetricObservation {
            name: "utilization".into(),
            scope: MetricScope::Instance,
            // The booting instance is idle: it must not distort the mean.
            values: vec![MetricValue::Fresh(0.9), MetricValue::Fresh(0.8), MetricValue::Fresh(0.0)],
            window: Vec::new(),
        }],
        last: None,
        schedule: Vec::new(),
    }
}

fn run(result: Result<u32, PolicyFailure>) -> PolicyRun {
    PolicyRun {
        slot: "load".into(),
        name: "target-tracking".into(),
        version: "0.1.0".into(),
        digest: "0123456789abcdef".into(),
        params: "{}".into(),
        state_in: String::new(),
        result: result.map(|capacity| Decision {
            capacity,
            standby: None,
            victims: Vec::new(),
            wake_after_ms: None,
            reasons: vec![Reason {
                code: "above-target".into(),
                text: "utilization is above its target".into(),
                evidence: vec![("mean".into(), "0.85".into()), ("target".into(), "0.3".into())],
            }],
        }),
        fuel: 1,
        duration_us: 1,
        log: Vec::new(),
    }
}

fn tick(result: Result<u32, PolicyFailure>, facts: PlanFacts) -> TickRecord {
    conclude(
        &set(),
        TickInput {
            canaries: Vec::new(),
            shadows: Vec::new(),
            observation: observation(),
            changes: vec![InstanceChange {
                id: 3,
                at_ms: 59_000,
                event: InstanceEvent::Booted,
                from: InstanceState::Creating,
                to: InstanceState::Booting,
                detail: None,
            }],
            operator: Vec::new(),
            facts,
            runs: vec![run(result)],
            wanted_metrics: vec!["utilization".into()],
        },
    )
}

#[test]
fn a_scale_out_explained() {
    let record = tick(Ok(6), PlanFacts { next_id: 4, ..PlanFacts::default() });
    assert_eq!(record.direction(), Direction::ScaleOut);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
    let last = last_decision(&record);
    assert_eq!((last.wanted, last.granted, last.narrowed_by), (Some(6), 5, vec!["limits".to_owned()]));
}

#[test]
fn a_failed_policy_explained() {
    let failure = PolicyFailure { kind: FailureKind::OutOfFuel, message: "used up 50000000 fuel".into() };
    let record = tick(Err(failure), PlanFacts::default());
    assert_eq!(record.direction(), Direction::None);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
}

#[test]
fn a_deleted_set_goes_to_zero_whatever_the_policy_wants() {
    let record = tick(Ok(5), PlanFacts { deleting: true, ..PlanFacts::default() });
    assert_eq!(record.guards.granted, 0);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
}

#[test]
fn a_record_survives_json_and_concludes_the_same_again() {
    let record = tick(Ok(6), PlanFacts { next_id: 4, ..PlanFacts::default() });
    let again: TickRecord = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
    assert_eq!(again, record);
    let replayed = conclude(
        &set(),
        TickInput {
            canaries: Vec::new(),
            shadows: Vec::new(),
            observation: again.observation.clone(),
            changes: again.changes.clone(),
            operator: again.operator.clone(),
            facts: again.facts.clone(),
            runs: again.runs.clone(),
            wanted_metrics: vec!["utilization".into()],
        },
    );
    assert_eq!(replayed, record);
}
