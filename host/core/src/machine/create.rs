//! The beginning of a set.

use std::collections::BTreeMap;

use crate::batch::{Batch, History, Revision, StateChange};
use crate::event::{Actor, Event, EventKind};
use crate::guard::GuardMemory;
use crate::manifest::ScaleSet;
use crate::sizing::Sizing;
use crate::state::{ImageDigests, PolicyActivation, PolicySlot, SetState};
use crate::time::{SetClock, Time};

use super::{manifest_blob, slots};

/// A set that shall be created: a checked manifest and what it names.
#[derive(Debug, Clone)]
pub struct NewSet {
    /// The manifest.
    pub set: ScaleSet,
    /// What its instances start from.
    pub image: ImageDigests,
    /// Its policies, one for each spec of the manifest, in its order.
    pub policies: Vec<PolicyActivation>,
    /// Tells it from an earlier set of the same name: a random number.
    pub incarnation: u64,
}

/// The state of a new set, and the batch that creates it.
#[must_use]
pub fn create(new: NewSet, now: Time, actor: Actor) -> (SetState, Batch) {
    let NewSet { set, image, policies, incarnation } = new;
    let slots: Vec<PolicySlot> = set
        .policies
        .iter()
        .zip(policies)
        .enumerate()
        .map(|(index, (spec, activation))| PolicySlot {
            name: spec.name.clone(),
            active: PolicyActivation { number: index as u64 + 1, ..activation },
            previous: None,
            earlier: Vec::new(),
            canary: None,
        })
        .collect();
    let blob = manifest_blob(&set);
    let state = SetState {
        generation: 1,
        desired: set.capacity.initial,
        next_instance_id: 1,
        last_tick: 0,
        deleting: false,
        suspended: Default::default(),
        repair: Default::default(),
        activations: slots.len() as u64,
        policies: slots,
        shadows: Vec::new(),
        launch_failures_in_a_row: 0,
        launches_resume_ms: 0,
        early_deaths: 0,
        launch_failure: String::new(),
        early_death_ms: 0,
        images: BTreeMap::from([(1, image.clone())]),
        image,
        upgrade: None,
        incarnation,
        epoch: 0,
        clock: SetClock::starting_at(now.wall_ms),
        guard_memory: GuardMemory::default(),
        changed_ms: None,
        manifests: BTreeMap::from([(1, blob.0.clone())]),
        sizing: Sizing::default(),
        set,
    };
    let name = state.set.name.clone();
    let event = Event {
        at_ms: now.wall_ms,
        set: name.clone(),
        kind: EventKind::SetCreated,
        instance: None,
        text: format!("{name} created, initial capacity {}", state.desired).into(),
        actor,
        policy: None,
    };
    let events = std::iter::once(event.clone())
        .chain(state.policies.iter().map(|slot| Event {
            kind: EventKind::PolicyApplied,
            text: slots::applied(None, &slot.active).into(),
            policy: Some(slot.active.as_ref_in(&slot.name)),
            ..event.clone()
        }))
        .collect();
    let batch = Batch {
        expect: vec![(name, Revision(0))],
        state: StateChange { sets: vec![state.clone()], ..StateChange::default() },
        history: History { records: Vec::new(), events },
        blobs: vec![blob],
    };
    (state, batch)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{activation, manifest};
    use super::*;

    #[test]
    fn a_set_begins_with_its_policies_its_manifest_and_an_event() {
        let set = manifest("policies: [{ module: a, name: load }, { module: b, name: night }]");
        let new = NewSet {
            set: set.clone(),
            image: ImageDigests::default(),
            policies: vec![activation("load", 1), activation("night", 1)],
            incarnation: 7,
        };
        let now = Time { wall_ms: 1_000, mono_ms: 5 };
        let (state, batch) = create(new, now, Actor::User("ann".into()));
        assert_eq!(
            (state.desired, state.generation, state.next_instance_id, state.activations),
            (2, 1, 1, 2)
        );
        assert_eq!(state.clock, SetClock { lived_ms: 0, steady_ms: 1_000 });
        let slots: Vec<_> = state.policies.iter().map(|it| (it.name.as_str(), it.active.number)).collect();
        assert_eq!(slots, [("load", 1), ("night", 2)]);
        assert_eq!(batch.expect, [("web".to_owned(), Revision(0))], "refused when there is one of that name");
        assert_eq!(batch.state.sets, std::slice::from_ref(&state));
        let [(digest, json)] = batch.blobs.as_slice() else { panic!("one manifest") };
        assert_eq!(state.manifests, BTreeMap::from([(1, digest.clone())]));
        assert_eq!(serde_json::from_slice::<ScaleSet>(json).expect("a manifest"), set);
        let [event, load, night] = batch.history.events.as_slice() else { panic!("three events") };
        assert_eq!((load.kind, night.kind), (EventKind::PolicyApplied, EventKind::PolicyApplied));
        assert_eq!(night.text, "night 1.0 from the manifest");
        assert_eq!(night.policy, Some(state.policies[1].active.as_ref_in("night")));
        assert_eq!(
            (event.kind, event.text.as_str()),
            (EventKind::SetCreated, "web created, initial capacity 2")
        );
        assert_eq!((event.at_ms, &event.actor), (1_000, &Actor::User("ann".into())));
    }
}
