use std::collections::HashSet;

use proptest::prelude::*;
use regatta_core::admission::Room;
use regatta_core::instance_state::{INSTANCE_STATES, InstanceState as S};
use regatta_core::manifest::Repair;
use regatta_core::plan::{Action, Plan, PlanInput, PlannedInstance, RemovalCause, launch_backoff_ms, plan};

const NOW: u64 = 1_000_000;
const REPAIR: Repair = Repair { enabled: true, grace_ms: 10_000, max_percent: 5 };

fn instance(id: u32, state: S) -> PlannedInstance {
    PlannedInstance {
        id,
        state,
        state_since_ms: NOW - 60_000,
        generation: 1,
        protected: false,
        drained: false,
    }
}

fn planned(instances: &[PlannedInstance], capacity: u32) -> Plan {
    planned_with(instances, capacity, &[], 0)
}

fn planned_with(instances: &[PlannedInstance], capacity: u32, victims: &[u32], resume: u64) -> Plan {
    plan(&PlanInput {
        instances,
        capacity,
        victims,
        generation: 1,
        next_id: 100,
        now_ms: NOW,
        repair: REPAIR,
        drain_timeout_ms: 30_000,
        launches_resume_ms: resume,
        room: None,
        hold: None,
    })
}

#[test]
fn creates_what_is_missing_with_ids_never_used() {
    let plan = planned(&[instance(1, S::InService), instance(2, S::Booting)], 4);
    assert_eq!(plan.actions, [Action::Create { id: 100 }, Action::Create { id: 101 }]);
}

#[test]
fn a_full_host_gets_no_more_than_it_has_room_for_and_the_plan_says_why() {
    let room = Room { launches: 1, why: "the host is out of memory".into() };
    let short = |capacity| {
        plan(&PlanInput {
            instances: &[instance(1, S::InService)],
            capacity,
            victims: &[],
            generation: 1,
            next_id: 100,
            now_ms: NOW,
            repair: REPAIR,
            drain_timeout_ms: 0,
            launches_resume_ms: 0,
            room: Some(&room),
            hold: None,
        })
    };
    let plan = short(4);
    assert_eq!(plan.actions, [Action::Create { id: 100 }]);
    assert_eq!(plan.notes, ["2 missing: the host is out of memory"]);
    assert_eq!(plan.short.as_deref(), Some("the host is out of memory"));
    assert_eq!(short(2).short, None, "there is room for all that is wanted");
    assert_eq!(short(1), Plan::default(), "what is there stays");
}

#[test]
fn held_launches_wait_and_the_plan_says_for_what_but_everything_else_goes_on() {
    let held = |instances: &[PlannedInstance], capacity| {
        plan(&PlanInput {
            instances,
            capacity,
            victims: &[],
            generation: 1,
            next_id: 100,
            now_ms: NOW,
            repair: REPAIR,
            drain_timeout_ms: 0,
            launches_resume_ms: 0,
            room: None,
            hold: Some("the snapshot is being made"),
        })
    };
    let plan = held(&[instance(1, S::InService), instance(2, S::Failed)], 3);
    assert_eq!(plan.actions, [Action::Terminate { id: 2, cause: RemovalCause::Failed }]);
    assert_eq!(plan.notes, ["2 missing: the snapshot is being made"]);
    let plan = held(&[instance(1, S::InService), instance(2, S::InService)], 1);
    assert_eq!(plan.actions, [Action::Drain { id: 2, cause: RemovalCause::ScaleIn }]);
    assert_eq!(plan.notes, Vec::<String>::new(), "nothing is missing");
}

#[test]
fn does_nothing_when_all_is_as_wanted() {
    let plan = planned(&[instance(1, S::InService), instance(2, S::Pending)], 2);
    assert_eq!(plan, Plan::default());
}

#[test]
fn gives_up_what_is_not_in_service_first_then_the_policys_victims_then_the_newest() {
    let fleet = [
        instance(1, S::InService),
        instance(2, S::InService),
        instance(3, S::InService),
        instance(4, S::Booting),
        instance(5, S::Unhealthy),
    ];
    let order = |capacity| -> Vec<u32> {
        planned_with(&fleet, capacity, &[1], 0)
            .actions
            .iter()
            .filter_map(|action| match *action {
                Action::Drain { id, cause: RemovalCause::ScaleIn }
                | Action::Terminate { id, cause: RemovalCause::ScaleIn } => Some(id),
                _ => None,
            })
            .collect()
    };
    // One of the five is repaired anyway: 5 is unhealthy beyond its grace, but 4 is warming.
    assert_eq!(order(4), [4]);
    assert_eq!(order(3), [4, 5]);
    assert_eq!(order(2), [4, 5, 1]);
    assert_eq!(order(1), [4, 5, 1, 3]);
}

#[test]
fn a_protected_instance_stays_and_the_plan_says_so() {
    let protected = PlannedInstance { protected: true, ..instance(1, S::InService) };
    let plan = planned(&[protected], 0);
    assert!(plan.actions.is_empty());
    assert_eq!(plan.notes, ["1 too many stay: 1 protected from scale-in"]);
}

#[test]
fn failed_instances_go_and_are_replaced_in_the_same_plan() {
    let plan = planned(&[instance(1, S::InService), instance(2, S::Failed)], 2);
    let expected = [Action::Terminate { id: 2, cause: RemovalCause::Failed }, Action::Create { id: 100 }];
    assert_eq!(plan.actions, expected);
}

#[test]
fn launches_wait_after_failures() {
    let plan = planned_with(&[], 3, &[], NOW + 2_500);
    assert!(plan.actions.is_empty());
    assert_eq!(plan.notes, ["3 missing: launches failed, the next try is in 2500 ms"]);
    assert_eq!([0, 1, 2, 3, 7, 40].map(launch_backoff_ms), [0, 1_000, 2_000, 4_000, 60_000, 60_000]);
}

#[test]
fn a_draining_instance_goes_when_it_is_empty_or_its_time_is_up() {
    let busy = PlannedInstance { state_since_ms: NOW - 1_000, ..instance(1, S::Draining) };
    let empty = PlannedInstance { drained: true, ..busy };
    assert!(planned(&[busy], 0).actions.is_empty());
    let gone = |cause| vec![Action::Terminate { id: 1, cause }];
    assert_eq!(planned(&[empty], 0).actions, gone(RemovalCause::Drained));
    assert_eq!(planned(&[instance(1, S::Draining)], 0).actions, gone(RemovalCause::DrainTimeout));
}

#[test]
fn repairs_after_the_grace_period_one_share_at_a_time() {
    let mut fleet: Vec<_> = (1..=40).map(|id| instance(id, S::Unhealthy)).collect();
    let plan = planned(&fleet, 40);
    let removed = plan.actions.iter().filter(|a| matches!(a, Action::Terminate { .. })).count();
    assert_eq!(removed, 2, "5 % of 40");
    assert_eq!(plan.notes, ["40 unhealthy, 2 repaired now: at most 2 at a time"]);
    fleet[0].state = S::Booting;
    fleet[1].state = S::Booting;
    assert!(planned(&fleet, 40).actions.is_empty(), "the earlier repairs are still going on");
    let fresh = PlannedInstance { state_since_ms: NOW - 9_999, ..instance(1, S::Unhealthy) };
    assert!(planned(&[fresh], 1).actions.is_empty(), "still within its grace");
}

prop_compose! {
    fn any_instance(id: u32)(
        state in prop::sample::select(&INSTANCE_STATES[..INSTANCE_STATES.len() - 1]),
        age in 0u64..100_000,
        generation in 0u64..3,
        protected in prop::bool::weighted(0.1),
        drained: bool,
    ) -> PlannedInstance {
        PlannedInstance { id, state, state_since_ms: NOW - age, generation, protected, drained }
    }
}

fn any_fleet() -> impl Strategy<Value = Vec<PlannedInstance>> {
    (0u32..60).prop_flat_map(|n| (0..n).map(any_instance).collect::<Vec<_>>())
}

/// What the world looks like once the actions are done and everything has settled.
fn carried_out(fleet: &[PlannedInstance], plan: &Plan) -> Vec<PlannedInstance> {
    let removed: HashSet<u32> = plan
        .actions
        .iter()
        .filter_map(|action| match *action {
            Action::Terminate { id, .. } | Action::Drain { id, .. } => Some(id),
            Action::Create { .. } => None,
        })
        .collect();
    let created = plan.actions.iter().filter_map(|action| match *action {
        Action::Create { id } => Some(instance(id, S::InService)),
        _ => None,
    });
    let kept = fleet.iter().filter(|i| !removed.contains(&i.id)).copied();
    let settled = kept.map(|mut i| {
        if i.state.is_warming() {
            i.state = S::InService;
        }
        if i.state == S::Draining {
            i.drained = true;
        }
        i
    });
    settled.filter(|i| i.state != S::Terminating).chain(created).collect()
}

proptest! {
    #[test]
    fn a_plan_never_overshoots_names_each_instance_once_and_removes_only_what_is_there(
        fleet in any_fleet(), capacity in 0u32..80, victims in prop::collection::vec(0u32..60, 0..5)
    ) {
        let plan = planned_with(&fleet, capacity, &victims, 0);
        let mut named = HashSet::new();
        let mut counted = fleet.iter().filter(|i| i.state.counts_as_capacity()).count();
        for action in &plan.actions {
            let (Action::Create { id } | Action::Drain { id, .. } | Action::Terminate { id, .. }) = *action;
            prop_assert!(named.insert(id), "{id} is named twice");
            match *action {
                Action::Create { .. } => {
                    prop_assert!(id >= 100);
                    counted += 1;
                }
                Action::Drain { id, cause } | Action::Terminate { id, cause } => {
                    let target = fleet.iter().find(|i| i.id == id).expect("removes what is there");
                    prop_assert!(!(cause == RemovalCause::ScaleIn && target.protected));
                    if target.state.counts_as_capacity() {
                        counted -= 1;
                    }
                }
            }
        }
        let kept_by_protection = fleet.iter().filter(|i| i.protected && i.state.counts_as_capacity()).count();
        prop_assert!(counted >= capacity as usize);
        prop_assert!(counted <= (capacity as usize).max(kept_by_protection));
    }

    #[test]
    fn carried_out_again_and_again_the_fleet_comes_to_rest_at_the_capacity(fleet in any_fleet(), capacity in 0u32..80) {
        let mut fleet = fleet;
        for round in 0..200 {
            let plan = plan(&PlanInput {
                instances: &fleet,
                capacity,
                victims: &[],
                generation: 1,
                next_id: 1_000 + round * 100,
                now_ms: NOW + 100_000,
                repair: REPAIR,
                drain_timeout_ms: 30_000,
                launches_resume_ms: 0,
                room: None,
                hold: None,
            });
            if plan.actions.is_empty() && fleet.iter().all(|i| matches!(i.state, S::InService | S::Standby)) {
                break;
            }
            fleet = carried_out(&fleet, &plan);
        }
        let serving = fleet.iter().filter(|i| i.state == S::InService).count();
        let protected = fleet.iter().filter(|i| i.protected && i.state == S::InService).count();
        prop_assert!(serving == capacity as usize || (serving == protected && serving > capacity as usize));
    }
}
