//! What is told of a set when something lasts: when it begins, and when it ends.

use super::testing::{Rig, update};
use crate::event::EventKind;
use crate::phase::InstanceEvent;

#[test]
fn a_host_that_is_full_is_told_once_for_each_resource_that_runs_short() {
    let mut rig = Rig::serving("");
    rig.facts.nodes[0].why = Some("no memory: 1 of 4 is free".into());
    rig.wish = 5;
    rig.facts.nodes[0].launches = 0;
    rig.tick();
    assert_eq!(rig.store.told(EventKind::HostFull).len(), 1, "told once");
    rig.facts.nodes[0].why = Some("no CPUs: none of 4 is free".into());
    rig.tick();
    assert_eq!(rig.store.told(EventKind::HostFull).len(), 2, "of another resource");
    rig.facts.nodes[0].why = Some("no CPUs: 1 of 4 is free".into());
    rig.tick();
    assert_eq!(rig.store.told(EventKind::HostFull).len(), 2);
}

#[test]
fn a_repair_that_waits_is_told_when_it_begins_and_ends() {
    let mut rig = Rig::serving("repair: { max_unhealthy: 50, grace: 1s }");
    for id in [1, 2] {
        rig.probed(id, InstanceEvent::BecameUnhealthy, Some("refused"));
    }
    rig.tick();
    rig.tick();
    rig.tick();
    assert_eq!(rig.store.told(EventKind::RepairHeld).len(), 1);
    rig.probed(1, InstanceEvent::BecameHealthy, None);
    rig.tick();
    assert_eq!(rig.store.told(EventKind::RepairResumed), ["repair no longer waits"]);
    assert_eq!(rig.store.told(EventKind::RepairHeld).len(), 1);
}

#[test]
fn a_repair_that_waits_after_an_apply_is_told_and_goes_on_after_it() {
    let mut rig = Rig::serving("repair: { max_unhealthy: 100, grace: 0s, hold_after_apply: 3s }");
    rig.command(update(rig.machine.manifest().as_ref().clone())).expect("applied");
    rig.probed(1, InstanceEvent::BecameUnhealthy, Some("refused"));
    rig.tick();
    rig.tick();
    assert!(rig.stops().is_empty(), "it was healthy under the manifest before");
    let told = rig.store.told(EventKind::RepairHeld);
    assert!(matches!(told[..], [text] if text.contains("repair.hold_after_apply")), "{told:?}");
    rig.tick();
    rig.tick();
    assert!(!rig.stops().is_empty());
    assert_eq!(rig.store.told(EventKind::RepairResumed).len(), 1);
}

#[test]
fn the_logs_of_an_instance_that_is_repaired_are_kept() {
    let mut rig = Rig::serving("repair: { max_unhealthy: 100, grace: 1s }");
    rig.probed(1, InstanceEvent::BecameUnhealthy, Some("connection refused"));
    rig.tick();
    rig.tick();
    let stops = rig.stops();
    let [(1, order)] = stops.as_slice() else { panic!("{stops:?}") };
    assert_eq!(order.failure.as_deref(), Some("unhealthy: connection refused"));
}
