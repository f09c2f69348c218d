use std::net::Ipv4Addr;

use regatta_core::combine::CombineRule;
use regatta_core::decision::{Decision, FailureKind, PolicyFailure, PolicyRun, Reason};
use regatta_core::explain::explain;
use regatta_core::instance_state::InstanceState;
use regatta_core::manifest::*;
use regatta_core::metric::MetricValue;
use regatta_core::narrate::events_of;
use regatta_core::node::Placement;
use regatta_core::observation::{InstanceRow, InstanceTable, MetricObservation, MetricScope, Observation};
use regatta_core::phase::{InstanceEvent, Phase};
use regatta_core::record::{CanaryRun, Direction, InstanceChange, NodeCapacity, PlanFacts, TickRecord};
use regatta_core::tick::{TickInput, conclude, last_decision};

pub(crate) fn set() -> ScaleSet {
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
        schedules: Vec::new(),
        guards: Guards::default(),
        upgrade: UpgradePolicy::default(),
        scale_in: Default::default(),
        repair: Repair {
            action: Default::default(),
            enabled: true,
            grace_ms: 10_000,
            max_percent: 5,
            max_unhealthy_percent: 100,
            hold_after_apply_ms: 0,
        },
    }
}

pub(crate) fn observation() -> Observation {
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

pub(crate) fn run(result: Result<u32, PolicyFailure>) -> PolicyRun {
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

/// What the plan of that observation rests on: one node with capacity for plenty.
pub(crate) fn facts() -> PlanFacts {
    PlanFacts {
        next_id: 4,
        lived_ms: 60_000,
        phase: vec![Phase::InService, Phase::InService, Phase::Booting],
        phase_since_ms: vec![1_000; 3],
        placement: std::iter::repeat_n(&Placement::default(), 3).collect(),
        nodes: vec![NodeCapacity { placement: Placement::default(), launches: 100, why: None }],
        ..PlanFacts::default()
    }
}

pub(crate) fn tick(result: Result<u32, PolicyFailure>, facts: PlanFacts) -> TickRecord {
    conclude(
        &set(),
        TickInput {
            wall_ms: 60_000,
            manifest: "0123".into(),
            canaries: Vec::new(),
            shadows: Vec::new(),
            observation: observation(),
            changes: vec![InstanceChange {
                id: 3,
                at_ms: 59_000,
                event: InstanceEvent::Booted,
                from: Phase::Creating,
                to: Phase::Booting,
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
    let record = tick(Ok(6), facts());
    assert_eq!(record.direction(), Direction::ScaleOut);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
    let last = last_decision(&record);
    assert_eq!((last.wanted, last.granted, last.narrowed_by), (Some(6), 5, vec!["limits".to_owned()]));
}

#[test]
fn a_failed_policy_explained() {
    let failure = PolicyFailure { kind: FailureKind::OutOfFuel, message: "used up 50000000 fuel".into() };
    let record = tick(Err(failure), facts());
    assert_eq!(record.direction(), Direction::None);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
}

#[test]
fn words_of_a_policy_stay_within_their_row() {
    let mut record = tick(Ok(6), facts());
    let forged = "fine\n  guards    none changed the decision\u{202e}\u{9b}2J";
    let decision = record.runs[0].result.as_mut().expect("a decision");
    let reason =
        Reason { code: "a\nb".into(), text: forged.into(), evidence: vec![("x\ny".into(), "\r1".into())] };
    decision.reasons = vec![reason];
    let honest = explain(&tick(Ok(6), facts()), "now").lines().filter(|row| row.contains("guards")).count();
    let told = explain(&record, "now");
    let guards = told.lines().filter(|row| row.trim_start().starts_with("guards")).count();
    assert_eq!(guards, honest, "{told}");
    assert!(told.contains(r"a\nb: fine\n  guards    none changed the decision\u{202e}\u{9b}2J"), "{told}");
    assert!(!told.contains(|c: char| c != '\n' && regatta_util::steers(c)), "{told}");
}

#[test]
fn a_deleted_set_goes_to_zero_whatever_the_policy_wants() {
    let record = tick(Ok(5), PlanFacts { deleting: true, ..facts() });
    assert_eq!(record.guards.granted, 0);
    insta::assert_snapshot!(explain(&record, "2026-11-23 12:00:00"));
}

#[test]
fn a_canary_explained() {
    let mut input = tick(Ok(3), facts()).input();
    input.canaries = vec![CanaryRun { within: 1, run: PolicyRun { version: "0.2.0".into(), ..run(Ok(9)) } }];
    insta::assert_snapshot!(explain(&conclude(&set(), input), "2026-11-23 12:00:00"));
}

#[test]
fn what_happens_to_instances_as_operators_read_it() {
    let mut input = tick(Ok(3), facts()).input();
    let change = |event, to| InstanceChange {
        id: 3,
        at_ms: 59_000,
        event,
        from: Phase::InService,
        to,
        detail: Some("why".into()),
    };
    input.changes = vec![
        change(InstanceEvent::LaunchFailed, Phase::Failed),
        change(InstanceEvent::Refused, Phase::Refused),
        change(InstanceEvent::BootTimedOut, Phase::Failed),
        change(InstanceEvent::VmmExited, Phase::Failed),
        change(InstanceEvent::GuestPanicked, Phase::Failed),
        change(InstanceEvent::GuestRebooted, Phase::Booting),
        change(InstanceEvent::BecameHealthy, Phase::InService),
        change(InstanceEvent::BecameUnhealthy, Phase::Unhealthy),
        change(InstanceEvent::Cleaned, Phase::Gone),
        change(InstanceEvent::LaunchStarted, Phase::Creating),
    ];
    input.runs = vec![run(Err(PolicyFailure { kind: FailureKind::Trap, message: "unreachable".into() }))];
    input.canaries = vec![CanaryRun { within: 1, run: input.runs[0].clone() }];
    let events = events_of(&conclude(&set(), input), None);
    let lines: Vec<_> = events.iter().map(|event| format!("{:<17} {}", event.kind, event.text)).collect();
    insta::assert_snapshot!(lines.join("\n"));
}
