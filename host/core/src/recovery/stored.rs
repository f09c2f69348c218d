//! Orphans of a set that is stored: an older copy of the state was restored, which does not know its newer instances.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::{Candidate, incarnation_of, record, who};
use crate::agent::Identity;
use crate::batch::{Batch, History, Revision, StateChange};
use crate::digest::Digest;
use crate::event::{Actor, Event, EventKind};
use crate::machine::manifest_blob;
use crate::phase::Phase;
use crate::state::{InstanceRecord, Moment, SetState};
use crate::time::Time;

/// A stored set with the orphans that become its instances again.
#[derive(Debug, Clone, PartialEq)]
pub struct Adoption {
    /// The set as it shall be stored.
    pub state: SetState,
    /// Instances that are adopted, by id.
    pub adopted: Vec<Identity>,
    /// Orphans that stay, each with the reason.
    pub left: Vec<(String, String)>,
    /// The newest generation of theirs, when the store knows only older ones: its manifest is not in force.
    pub newer: Option<u64>,
    /// There are more instances than the manifest's maximum: the adopted ones are protected from scale-in.
    pub protect: bool,
    blobs: Vec<(Digest, Vec<u8>)>,
}

/// Plans to give a stored set its orphans back. Its manifest stays in force, and instances keep those that they were made from.
/// `taken` are the addresses of what else runs on the host.
///
/// # Errors
/// None of them can be adopted: why, for people.
pub fn adopt(
    state: &SetState,
    instances: &[InstanceRecord],
    candidates: &[Candidate],
    taken: &BTreeSet<Ipv4Addr>,
) -> Result<Adoption, String> {
    if state.deleting {
        return Err("the set is being deleted".to_owned());
    }
    let mut taken: BTreeSet<Ipv4Addr> =
        taken.iter().copied().chain(instances.iter().filter_map(|it| it.address)).collect();
    let mut next = state.clone();
    let (mut adopted, mut left, mut blobs) = (Vec::new(), Vec::new(), BTreeMap::new());
    for candidate in candidates {
        let fits = || -> Result<(Identity, (Digest, Vec<u8>)), String> {
            let identity = who(&state.set.name, candidate)?;
            if incarnation_of(identity) != Some(state.incarnation) {
                return Err("it belongs to another set of this name".to_owned());
            }
            if !candidate.runs {
                return Err("its VMM has ended; its directory is kept".to_owned());
            }
            if instances.iter().any(|it| it.id == identity.id) {
                return Err("the set has another instance of this number".to_owned());
            }
            if taken.contains(&identity.address) {
                return Err(format!("another instance has its address {}", identity.address));
            }
            let origin = candidate.origin.as_ref().map_err(Clone::clone)?;
            if origin.manifest.name != state.set.name {
                return Err(format!("the manifest is that of set {}", origin.manifest.name));
            }
            let generation = identity.generation;
            let known = next
                .manifests
                .get(&generation)
                .cloned()
                .or_else(|| (generation == state.generation).then(|| manifest_blob(&state.set).0));
            let blob = manifest_blob(&origin.manifest);
            if known.is_some_and(|known| known != blob.0) {
                return Err(format!("generation {generation} of the set has another manifest"));
            }
            Ok((identity.clone(), blob))
        };
        match fits() {
            Ok((identity, blob)) => {
                taken.insert(identity.address);
                next.manifests.insert(identity.generation, blob.0.clone());
                blobs.insert(blob.0, blob.1);
                adopted.push(identity);
            }
            Err(why) => left.push((candidate.id.clone(), why)),
        }
    }
    if adopted.is_empty() {
        let reasons: Vec<String> =
            left.iter().map(|(id, why)| format!("{}/{id}: {why}", state.set.name)).collect();
        return Err(reasons.join("; "));
    }
    adopted.sort_by_key(|identity| identity.id);
    let newest = adopted.iter().map(|identity| identity.generation).max().unwrap_or_default();
    let newer = (newest > state.generation).then_some(newest);
    if let Some(newest) = newer {
        // The manifest in force follows theirs: no generation may mean two manifests.
        let (digest, json) = manifest_blob(&state.set);
        next.manifests.entry(state.generation).or_insert_with(|| digest.clone());
        next.generation = newest + 1;
        next.manifests.insert(next.generation, digest.clone());
        blobs.insert(digest, json);
    }
    let id_after = |identity: &Identity| identity.id.saturating_add(1);
    next.next_instance_id = adopted.iter().map(id_after).fold(next.next_instance_id, u32::max);
    next.epoch = adopted.iter().map(|identity| identity.epoch).fold(next.epoch, u64::max);
    let counted = instances.iter().filter(|it| it.phase.counts_as_capacity()).count() + adopted.len();
    let counted = u32::try_from(counted).unwrap_or(u32::MAX);
    let limits = state.set.capacity;
    next.desired = next.desired.max(counted.clamp(limits.min, limits.max));
    Ok(Adoption {
        protect: counted > limits.max,
        state: next,
        adopted,
        left,
        newer,
        blobs: blobs.into_iter().collect(),
    })
}

impl Adoption {
    /// What stores it: beside the adopted instances those that the set has, with what is known of them now.
    #[must_use]
    pub fn batch(&self, instances: &[InstanceRecord], revision: Revision, now: Time, actor: &Actor) -> Batch {
        let name = &self.state.set.name;
        let at = Moment { wall_ms: now.wall_ms, lived_ms: self.state.clock.lived_ms };
        let kept = instances.iter().filter(|it| it.phase != Phase::Gone).cloned();
        let adopted = self.adopted.iter().map(|identity| record(identity, at, self.protect));
        let event = |identity: &Identity| Event {
            at_ms: now.wall_ms,
            set: name.clone(),
            kind: EventKind::InstanceAdopted,
            instance: Some(identity.id),
            text: format!("{name}-{} adopted: it was an orphan", identity.id).into(),
            actor: actor.clone(),
            policy: None,
        };
        Batch {
            expect: vec![(name.clone(), revision)],
            state: StateChange {
                sets: vec![self.state.clone()],
                instances: kept.chain(adopted).map(|record| (name.clone(), record)).collect(),
                ..StateChange::default()
            },
            history: History { records: Vec::new(), events: self.adopted.iter().map(event).collect() },
            blobs: self.blobs.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;
    use crate::machine::testing::manifest;
    use crate::machine::{NewSet, create};
    use crate::manifest::ScaleSet;
    use crate::state::{ImageDigests, instance_uid};

    const NOW: Time = Time { wall_ms: 9_000, mono_ms: 1 };

    fn of_tick(seconds: u64) -> ScaleSet {
        manifest(&format!("tick: {seconds}s\ncapacity: {{ min: 1, max: 5 }}"))
    }

    /// Generation 2, with the instances 1 and 2.
    fn stored() -> (SetState, Vec<InstanceRecord>) {
        let new =
            NewSet { set: of_tick(2), image: ImageDigests::default(), policies: Vec::new(), incarnation: 7 };
        let (state, _) = create(new, NOW, "ann".into());
        let manifests = [(1, manifest_blob(&of_tick(1)).0), (2, manifest_blob(&of_tick(2)).0)].into();
        let state = SetState { generation: 2, next_instance_id: 3, epoch: 1, desired: 2, manifests, ..state };
        let instance = |id: u32| InstanceRecord {
            uid: instance_uid(7, id),
            phase: Phase::InService,
            address: Some(address(id)),
            ..InstanceRecord::pending(id, Moment::default(), u64::from(id))
        };
        (state, vec![instance(1), instance(2)])
    }

    fn address(id: u32) -> Ipv4Addr {
        [127, 40, 0, u8::try_from(id).unwrap()].into()
    }

    fn orphan(id: u32, generation: u64, seconds: u64) -> Candidate {
        let identity = Identity {
            set: "web".to_owned(),
            id,
            uid: instance_uid(7, id),
            epoch: 4,
            generation,
            created_ms: 5,
            address: address(id),
        };
        let origin = Ok(Origin { manifest: of_tick(seconds), image: ImageDigests::default() });
        Candidate { id: id.to_string(), identity: Some(identity), origin, runs: true }
    }

    fn plan(candidates: &[Candidate]) -> Result<Adoption, String> {
        let (state, instances) = stored();
        adopt(&state, &instances, candidates, &[address(99)].into())
    }

    #[test]
    fn newer_instances_come_back_into_their_set_with_their_own_manifests() {
        let adoption = plan(&[orphan(4, 3, 9), orphan(3, 2, 2)]).expect("a plan");
        let state = &adoption.state;
        assert_eq!((state.generation, state.desired, state.next_instance_id), (4, 4, 5));
        assert_eq!((state.epoch, adoption.newer, adoption.protect), (4, Some(3), false));
        assert_eq!(state.set.tick_ms, 2_000, "the stored manifest stays in force");
        let (_, instances) = stored();
        let batch = adoption.batch(&instances, Revision(6), NOW, &"ann".into());
        assert_eq!(batch.expect, [("web".to_owned(), Revision(6))]);
        let seen: Vec<_> =
            batch.state.instances.iter().map(|(_, it)| (it.id, it.generation, it.phase)).collect();
        let (serves, boots) = (Phase::InService, Phase::Booting);
        assert_eq!(seen, [(1, 1, serves), (2, 2, serves), (3, 2, boots), (4, 3, boots)]);
        let expected =
            [(1, 1), (2, 2), (3, 9), (4, 2)].map(|(of, seconds)| (of, manifest_blob(&of_tick(seconds)).0));
        assert_eq!(state.manifests, expected.into());
        for generation in [3, 4] {
            let digest = &state.manifests[&generation];
            assert!(batch.blobs.iter().any(|(it, _)| it == digest), "{generation}");
        }
        let told: Vec<_> = batch.history.events.iter().map(|it| (it.kind, it.instance)).collect();
        assert_eq!(told, [3, 4].map(|id| (EventKind::InstanceAdopted, Some(id))));
    }

    #[test]
    fn what_conflicts_with_the_store_stays_with_its_reason() {
        let mut other_set = orphan(3, 2, 2);
        other_set.identity.as_mut().expect("one").uid = instance_uid(8, 3);
        let taken = |id: u32, by: u32| {
            let mut orphan = orphan(id, 2, 2);
            orphan.identity.as_mut().expect("one").address = address(by);
            orphan
        };
        let unread = Candidate { origin: Err("it is damaged".to_owned()), ..orphan(9, 2, 2) };
        let candidates = [
            other_set,
            orphan(2, 2, 2),
            taken(4, 1),
            taken(5, 99),
            orphan(6, 2, 7),
            Candidate { runs: false, ..orphan(7, 2, 2) },
            orphan(8, 3, 3),
            taken(10, 8),
            orphan(11, 3, 4),
            unread,
        ];
        let adoption = plan(&candidates).expect("a plan");
        assert_eq!(adoption.adopted.iter().map(|it| it.id).collect::<Vec<_>>(), [8]);
        let left: Vec<_> = adoption.left.iter().map(|(id, why)| (id.as_str(), why.as_str())).collect();
        assert_eq!(
            left,
            [
                ("3", "it belongs to another set of this name"),
                ("2", "the set has another instance of this number"),
                ("4", "another instance has its address 127.40.0.1"),
                ("5", "another instance has its address 127.40.0.99"),
                ("6", "generation 2 of the set has another manifest"),
                ("7", "its VMM has ended; its directory is kept"),
                ("10", "another instance has its address 127.40.0.8"),
                ("11", "generation 3 of the set has another manifest"),
                ("9", "it is damaged"),
            ]
        );
        let why = plan(&candidates[..2]).expect_err("none");
        assert!(why.starts_with("web/3: ") && why.contains("; web/2: "), "{why}");
    }

    #[test]
    fn nobody_is_removed_for_those_that_come_back() {
        let all = plan(&[3, 4, 5, 6].map(|id| orphan(id, 2, 2))).expect("a plan");
        assert_eq!((all.state.desired, all.protect), (5, true));
        let (mut state, instances) = stored();
        let batch = all.batch(&instances, Revision(1), NOW, &"ann".into());
        assert!(batch.state.instances.iter().all(|(_, it)| it.protection.from_scale_in() == (it.id > 2)));
        state.deleting = true;
        assert!(adopt(&state, &instances, &[orphan(3, 2, 2)], &BTreeSet::new()).is_err());
    }
}
