//! Whole plans: how the steps play together. Each step has tests of its own beside it.

use std::collections::HashSet;

use proptest::prelude::*;
use regatta_core::manifest::{Repair, RepairAction};
use regatta_core::node::{FaultDomain, NodeId, Placement};
use regatta_core::phase::{PHASES, Phase as P};
use regatta_core::plan::{
    Action, Budget, CreateCause, Plan, PlanInput, PlanNote, PlannedInstance, RemovalCause, ScaleInOrder, plan,
};
use regatta_core::protection::Protection;
use regatta_core::record::NodeCapacity;

const REPAIR: Repair = Repair {
    action: RepairAction::Replace,
    enabled: true,
    grace_ms: 10_000,
    max_percent: 5,
    max_unhealthy_percent: 100,
    hold_after_apply_ms: 0,
};

/// An instance that owns its placement.
#[derive(Debug, Clone)]
struct Instance {
    id: u32,
    phase: P,
    in_phase_ms: u64,
    placement: Placement,
    generation: u64,
    protection: Protection,
    drained: bool,
    connections: u32,
}

fn instance(id: u32, phase: P) -> Instance {
    let placement = Placement::default();
    Instance {
        id,
        phase,
        in_phase_ms: 60_000,
        placement,
        generation: 1,
        protection: Protection::None,
        drained: false,
        connections: 0,
    }
}

fn local(launches: u32, why: Option<&str>) -> NodeCapacity {
    NodeCapacity { placement: Placement::default(), launches, why: why.map(str::to_owned).map(Into::into) }
}

/// What may differ between the plans of these tests.
struct Given<'a> {
    victims: &'a [u32],
    order: ScaleInOrder,
    next_id: u32,
    launches_resume_in_ms: u64,
    nodes: &'a [NodeCapacity],
    hold: Option<&'a str>,
    budget: Budget,
}

impl Given<'_> {
    fn plan(&self, fleet: &[Instance], capacity: u32) -> Plan {
        let instances: Vec<PlannedInstance<'_>> = fleet
            .iter()
            .map(|i| PlannedInstance {
                id: i.id,
                phase: i.phase,
                in_phase_ms: i.in_phase_ms,
                placement: &i.placement,
                generation: i.generation,
                protection: i.protection,
                requested: None,
                repaired: false,
                drained: i.drained,
                connections: i.connections,
            })
            .collect();
        plan(&PlanInput {
            instances: &instances,
            capacity,
            victims: self.victims,
            scale_in_order: self.order,
            generation: 1,
            next_id: self.next_id,
            repair: REPAIR,
            repair_memory: Default::default(),
            drain_timeout_ms: 30_000,
            launches_resume_in_ms: self.launches_resume_in_ms,
            one_at_a_time: false,
            suspended: &Default::default(),
            nodes: self.nodes,
            hold: self.hold,
            since_change_ms: None,
            budget: self.budget,
            upgrade: None,
        })
    }
}

fn given(nodes: &[NodeCapacity]) -> Given<'_> {
    Given {
        victims: &[],
        order: ScaleInOrder::Default,
        next_id: 100,
        launches_resume_in_ms: 0,
        nodes,
        hold: None,
        budget: Budget::UNLIMITED,
    }
}

fn planned(fleet: &[Instance], capacity: u32) -> Plan {
    given(&[local(10_000, None)]).plan(fleet, capacity)
}

fn created(id: u32, cause: CreateCause) -> Action {
    Action::Create { id, cause, generation: 1, placement: Placement::default() }
}

fn notes(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(ToString::to_string).collect()
}

#[test]
fn creates_what_is_missing_with_ids_never_used() {
    let plan = planned(&[instance(1, P::InService), instance(2, P::Booting)], 4);
    assert_eq!(plan.actions, [100, 101].map(|id| created(id, CreateCause::ScaleOut)));
}

#[test]
fn a_full_host_gets_no_more_than_it_has_capacity_for_and_the_plan_says_why() {
    let nodes = [local(1, Some("the host is out of memory"))];
    let short = |capacity| given(&nodes).plan(&[instance(1, P::InService)], capacity);
    let plan = short(4);
    assert_eq!(plan.actions, [created(100, CreateCause::ScaleOut)]);
    assert_eq!(notes(&plan), ["2 instances short: the host is out of memory"]);
    assert_eq!(plan.short.as_deref(), Some("the host is out of memory"));
    assert_eq!(short(2).short, None, "there is capacity for all that are wanted");
    assert_eq!(short(1), Plan::default(), "what is there stays");
}

#[test]
fn held_launches_wait_and_the_plan_says_for_what_but_everything_else_continues() {
    let nodes = [local(10, None)];
    let held = Given { hold: Some("the snapshot is being made"), ..given(&nodes) };
    let plan = held.plan(&[instance(1, P::InService), instance(2, P::Failed)], 3);
    assert_eq!(plan.actions, [Action::Terminate { id: 2, cause: RemovalCause::Failed }]);
    assert_eq!(notes(&plan), ["2 instances short: the snapshot is being made"]);
    let plan = held.plan(&[instance(1, P::InService), instance(2, P::InService)], 1);
    assert_eq!(plan.actions, [Action::Drain { id: 2, cause: RemovalCause::ScaleIn }]);
    assert_eq!(plan.notes, [], "nothing is missing");
}

#[test]
fn does_nothing_when_all_is_as_wanted() {
    let plan = planned(&[instance(1, P::InService), instance(2, P::Pending)], 2);
    assert_eq!(plan, Plan::default());
}

#[test]
fn gives_up_what_is_not_in_service_first_then_the_policys_victims_then_the_newest() {
    let fleet = [
        instance(1, P::InService),
        instance(2, P::InService),
        instance(3, P::InService),
        instance(4, P::Booting),
        instance(5, P::Unhealthy),
    ];
    let nodes = [local(10, None)];
    let order = |capacity| -> Vec<u32> {
        let plan = Given { victims: &[1], ..given(&nodes) }.plan(&fleet, capacity);
        let scale_in = plan.actions.iter().filter_map(|action| match action {
            Action::Drain { id, cause: RemovalCause::ScaleIn }
            | Action::Terminate { id, cause: RemovalCause::ScaleIn } => Some(*id),
            _ => None,
        });
        scale_in.collect()
    };
    // One of the five would be repaired, for 5 is unhealthy beyond its grace, but 4 is warming.
    assert_eq!(order(4), [4]);
    assert_eq!(order(3), [4, 5]);
    assert_eq!(order(2), [4, 5, 1]);
    assert_eq!(order(1), [4, 5, 1, 3]);
}

#[test]
fn a_protected_instance_stays_and_the_plan_says_so() {
    let protected = Instance { protection: Protection::ScaleIn, ..instance(1, P::InService) };
    let plan = planned(&[protected], 0);
    assert!(plan.actions.is_empty());
    assert_eq!(notes(&plan), ["1 surplus instance kept: protected from scale-in"]);
}

#[test]
fn broken_instances_go_and_are_replaced_in_the_same_plan() {
    let plan = planned(&[instance(1, P::InService), instance(2, P::Failed), instance(3, P::Unhealthy)], 4);
    let expected = [
        Action::Terminate { id: 2, cause: RemovalCause::Failed },
        Action::Terminate { id: 3, cause: RemovalCause::Unhealthy },
        created(100, CreateCause::Replacement),
        created(101, CreateCause::Replacement),
        created(102, CreateCause::ScaleOut),
    ];
    assert_eq!(plan.actions, expected);
}

#[test]
fn launches_wait_after_failures() {
    let nodes = [local(10, None)];
    let plan = Given { launches_resume_in_ms: 2_500, ..given(&nodes) }.plan(&[], 3);
    assert!(plan.actions.is_empty());
    assert_eq!(notes(&plan), ["3 instances short: launches failed, retrying in 2.5 s"]);
}

#[test]
fn a_draining_instance_goes_when_it_is_empty_or_its_time_is_up() {
    let busy = Instance { in_phase_ms: 1_000, ..instance(1, P::Draining) };
    let empty = Instance { drained: true, ..busy.clone() };
    assert!(planned(&[busy], 0).actions.is_empty());
    let gone = |cause| vec![Action::Terminate { id: 1, cause }];
    assert_eq!(planned(&[empty], 0).actions, gone(RemovalCause::Drained));
    assert_eq!(planned(&[instance(1, P::Draining)], 0).actions, gone(RemovalCause::DrainTimeout));
}

#[test]
fn repairs_after_the_grace_period_one_share_at_a_time() {
    let mut fleet: Vec<_> = (1..=40).map(|id| instance(id, P::Unhealthy)).collect();
    let plan = planned(&fleet, 40);
    let removed = plan.actions.iter().filter(|a| matches!(a, Action::Terminate { .. })).count();
    assert_eq!(removed, 2, "5% of 40");
    assert_eq!(notes(&plan), ["40 instances unhealthy: replacing 2 now, at most 2 at a time"]);
    fleet[0].phase = P::Booting;
    fleet[1].phase = P::Booting;
    assert!(planned(&fleet, 40).actions.is_empty(), "the earlier repairs are not finished");
    let fresh = Instance { in_phase_ms: 9_999, ..instance(1, P::Unhealthy) };
    assert!(planned(&[fresh], 1).actions.is_empty(), "still within its grace");
}

#[test]
fn a_guard_that_freezes_the_budget_stops_repair_and_launches_but_no_removal() {
    let nodes = [local(10, None)];
    let frozen = Given { budget: Budget::NONE, ..given(&nodes) };
    let plan = frozen.plan(&[instance(1, P::Unhealthy), instance(2, P::Failed)], 2);
    assert_eq!(plan.actions, [Action::Terminate { id: 2, cause: RemovalCause::Failed }]);
    let expected = [
        PlanNote::RepairLimited { unhealthy: 1, now: 0, at_once: 0 },
        PlanNote::CreatesLimited { short: 1, now: 0 },
    ];
    assert_eq!(plan.notes, expected);
    let plan = frozen.plan(&[instance(1, P::InService)], 0);
    assert_eq!(plan.actions, [Action::Drain { id: 1, cause: RemovalCause::ScaleIn }]);
}

fn placement(node: u8, domain: u8) -> Placement {
    Placement {
        node: NodeId::from(format!("node-{node}")),
        domain: FaultDomain::from(format!("rack-{domain}")),
    }
}

prop_compose! {
    fn any_instance(id: u32)(
        phase in prop::sample::select(&PHASES[..PHASES.len() - 1]),
        in_phase_ms in 0u64..100_000,
        placement in (0u8..5, 0u8..3).prop_map(|(node, domain)| placement(node, domain)),
        generation in 0u64..3,
        protection in prop_oneof![8 => Just(Protection::None), 1 => Just(Protection::ScaleIn), 1 => Just(Protection::All)],
        drained: bool,
        connections in 0u32..4,
    ) -> Instance {
        Instance { id, phase, in_phase_ms, placement, generation, protection, drained, connections }
    }
}

fn any_fleet() -> impl Strategy<Value = Vec<Instance>> {
    (0u32..60).prop_flat_map(|n| (0..n).map(any_instance).collect::<Vec<_>>())
}

fn any_order() -> impl Strategy<Value = ScaleInOrder> {
    prop::sample::select(&ScaleInOrder::ALL[..])
}

/// Up to four nodes in up to three racks, each with little capacity or plenty.
fn any_nodes() -> impl Strategy<Value = Vec<NodeCapacity>> {
    let node = |(index, (domain, launches)): (usize, (u8, u32))| NodeCapacity {
        placement: placement(u8::try_from(index).expect("few nodes"), domain),
        launches,
        why: (launches < 100).then(|| format!("node-{index} is out of memory")).map(Into::into),
    };
    let capacity = (0u8..3, prop_oneof![0u32..10, Just(1_000)]);
    prop::collection::vec(capacity, 0..5)
        .prop_map(move |nodes| nodes.into_iter().enumerate().map(node).collect())
}

fn any_budget() -> impl Strategy<Value = Budget> {
    let limit = || prop_oneof![2 => Just(u32::MAX), 1 => 0u32..20];
    (limit(), limit(), limit(), limit()).prop_map(|(unavailable, surge, in_flight, creates)| Budget {
        unavailable,
        surge,
        in_flight,
        creates,
    })
}

/// What the world looks like once the actions are done and everything has settled.
fn carried_out(fleet: &[Instance], plan: &Plan) -> Vec<Instance> {
    let mut next: Vec<Instance> = Vec::new();
    for i in fleet {
        let mut i = i.clone();
        match plan.actions.iter().find(|action| action.id() == i.id) {
            Some(Action::Terminate { .. }) => continue,
            Some(Action::Drain { .. }) => i.phase = P::Draining,
            Some(Action::Create { .. } | Action::Restart { .. }) => panic!("{} is there already", i.id),
            None if i.phase == P::Terminating => continue,
            None if i.phase.is_warming() => i.phase = P::InService,
            None => {}
        }
        i.drained = i.phase == P::Draining;
        i.in_phase_ms += 100_000;
        next.push(i);
    }
    for action in &plan.actions {
        if let Action::Create { id, placement, .. } = action {
            next.push(Instance { placement: placement.clone(), ..instance(*id, P::InService) });
        }
    }
    next
}

fn count(fleet: &[Instance], wanted: impl Fn(&Instance) -> bool) -> u32 {
    u32::try_from(fleet.iter().filter(|i| wanted(i)).count()).expect("few")
}

proptest! {
    #[test]
    fn a_plan_never_overshoots_names_each_instance_once_and_removes_only_what_is_there(
        fleet in any_fleet(), nodes in any_nodes(), budget in any_budget(), capacity in 0u32..80,
        victims in prop::collection::vec(0u32..60, 0..5), order in any_order()
    ) {
        let plan = Given { victims: &victims, order, budget, ..given(&nodes) }.plan(&fleet, capacity);
        let mut named = HashSet::new();
        let counted = count(&fleet, |i| i.phase.counts_as_capacity());
        let (mut after, mut creates, mut repairs) = (counted, 0, 0);
        for action in &plan.actions {
            prop_assert!(named.insert(action.id()), "{} is named twice", action.id());
            let target = fleet.iter().find(|i| i.id == action.id());
            match action {
                Action::Create { id, generation, placement, .. } => {
                    prop_assert!(*id >= 100 && *generation == 1);
                    prop_assert!(nodes.iter().any(|node| node.placement == *placement));
                    after += 1;
                    creates += 1;
                }
                Action::Restart { .. } => prop_assert!(false, "nobody asked for that"),
                Action::Drain { cause, .. } | Action::Terminate { cause, .. } => {
                    let target = target.expect("removes what is there");
                    prop_assert!(!(*cause == RemovalCause::ScaleIn && target.protection.from_scale_in()));
                    let left_alone = target.protection.from_actions() && !matches!(target.phase, P::Draining | P::Refused);
                    prop_assert!(!left_alone, "{} is protected from all actions", target.id);
                    after -= u32::from(target.phase.counts_as_capacity());
                    repairs += u32::from(*cause == RemovalCause::Unhealthy);
                }
            }
        }
        // Never beyond the capacity plus surge, which is none; what was there before or is protected aside.
        let protected = count(&fleet, |i| i.protection.from_scale_in() && i.phase.counts_as_capacity());
        prop_assert!(after <= capacity.max(protected));
        // Never below, but for what the budget, the nodes or the repair leave to later ticks.
        let room: u32 = nodes.iter().map(|node| node.launches).sum();
        let warming = count(&fleet, |i| i.phase.is_warming());
        let may_create = budget.creates.min(budget.in_flight.saturating_sub(warming)).min(room);
        prop_assert!(after >= capacity.min((counted - repairs) + may_create));
        // The budget holds, and so does the capacity of the nodes: of each, and of all together.
        let share = (capacity * REPAIR.max_percent / 100).max(1).min(budget.unavailable);
        prop_assert!(repairs <= share.saturating_sub(warming));
        prop_assert!(creates <= may_create);
        for node in &nodes {
            let here = plan.actions.iter().filter(|action| {
                matches!(action, Action::Create { placement, .. } if *placement == node.placement)
            });
            prop_assert!(u32::try_from(here.count()).expect("few") <= node.launches);
        }
        // What is short is said, and a shortage of the nodes is one of them.
        prop_assert!(after >= capacity || !plan.notes.is_empty());
        prop_assert_eq!(plan.short.is_some(), plan.notes.iter().any(|note| matches!(note, PlanNote::NodesFull { .. })));
    }

    /// An instance in service is only ever given up when there are more than wanted, and then no more than are too many.
    #[test]
    fn never_below_the_minimum_available(
        fleet in any_fleet(), nodes in any_nodes(), capacity in 0u32..80, order in any_order()
    ) {
        let plan = Given { order, ..given(&nodes) }.plan(&fleet, capacity);
        let available = |i: &Instance| i.phase == P::InService;
        let kept = |i: &Instance| available(i) && plan.actions.iter().all(|action| action.id() != i.id);
        // Protected ones that do not serve yet stay as well, and take the place of others.
        let instead = count(&fleet, |i| i.protection.from_scale_in() && i.phase.counts_as_capacity() && !available(i));
        let least = count(&fleet, available).min(capacity.saturating_sub(instead));
        prop_assert!(count(&fleet, kept) >= least);
    }

    /// Whatever the order: as many go as are too many, none that is protected, and no exchange of one that serves and goes for
    /// one that serves and stays would leave the fault domains more even.
    #[test]
    fn a_scale_in_is_exact_spares_the_protected_and_keeps_fault_domains_even(
        fleet in any_fleet(), capacity in 0u32..60, victims in prop::collection::vec(0u32..60, 0..5), order in any_order()
    ) {
        let plan = Given { victims: &victims, order, budget: Budget::NONE, ..given(&[]) }.plan(&fleet, capacity);
        let gone = |i: &Instance| plan.actions.iter().any(|action| match action {
            Action::Drain { id, cause } | Action::Terminate { id, cause } => *id == i.id && *cause == RemovalCause::ScaleIn,
            Action::Create { .. } | Action::Restart { .. } => false,
        });
        let counted = |i: &Instance| i.phase.counts_as_capacity();
        let surplus = count(&fleet, counted).saturating_sub(capacity);
        let candidates = count(&fleet, |i| counted(i) && !i.protection.from_scale_in());
        prop_assert_eq!(count(&fleet, gone), surplus.min(candidates));
        let left = |of: &Instance| {
            count(&fleet, |i| counted(i) && !gone(i) && i.placement.domain == of.placement.domain)
        };
        let serves = |i: &&Instance| i.phase == P::InService && !i.protection.from_scale_in();
        for victim in fleet.iter().filter(serves).filter(|i| gone(i)) {
            for kept in fleet.iter().filter(serves).filter(|i| !gone(i)) {
                prop_assert!(left(kept) <= left(victim) + 1, "{} instead of {}", kept.id, victim.id);
            }
        }
        for removed in fleet.iter().filter(|i| gone(i)) {
            prop_assert!(counted(removed) && !removed.protection.from_scale_in());
        }
    }

    #[test]
    fn carried_out_again_and_again_the_fleet_comes_to_rest_at_the_capacity(
        fleet in any_fleet(), capacity in 0u32..80, domains in prop::collection::vec(0u8..3, 1..5)
    ) {
        let node = |(index, domain): (usize, &u8)| NodeCapacity {
            placement: placement(u8::try_from(index).expect("few nodes"), *domain), launches: 100, why: None,
        };
        let nodes: Vec<_> = domains.iter().enumerate().map(node).collect();
        let mut fleet = fleet;
        let mut rest = false;
        for round in 0..200 {
            let plan = Given { next_id: 1_000 + round * 100, ..given(&nodes) }.plan(&fleet, capacity);
            let kept = |i: &Instance| i.protection.from_actions() && matches!(i.phase, P::Failed | P::Unhealthy);
            let settled = fleet.iter().all(|i| matches!(i.phase, P::InService | P::Standby) || kept(i));
            rest = plan.actions.is_empty() && settled;
            if rest {
                break;
            }
            fleet = carried_out(&fleet, &plan);
        }
        prop_assert!(rest, "it does not come to rest");
        let serving = count(&fleet, |i| i.phase.counts_as_capacity());
        let protected = count(&fleet, |i| i.protection.from_scale_in() && i.phase.counts_as_capacity());
        prop_assert!(serving == capacity || (serving == protected && serving > capacity));
    }
}
