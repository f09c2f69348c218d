//! Having a set again without the store: from what the directories of its instances say, and the manifests kept beside them.

mod stored;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::agent::Identity;
use crate::batch::Batch;
use crate::digest::Digest;
use crate::event::{Actor, Event, EventKind};
use crate::machine::{NewSet, create, manifest_blob};
use crate::manifest::ScaleSet;
use crate::orphan::first_free_id;
use crate::phase::Phase;
use crate::protection::Protection;
use crate::state::{ImageDigests, InstanceRecord, Moment, PolicyActivation, SetState};
use crate::time::Time;

pub use self::stored::{Adoption, adopt};

/// What the instances of one generation are made of. Kept beside them, by digest, before the first of them starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The manifest.
    pub manifest: ScaleSet,
    /// What it starts from.
    pub image: ImageDigests,
}

impl Origin {
    /// As it is kept, as JSON.
    #[must_use]
    pub fn file(&self) -> (Digest, Vec<u8>) {
        // Structs, enums and strings: none can fail.
        let json = serde_json::to_vec(self).unwrap_or_default();
        (Digest::of(&json), json)
    }
}

/// Who an instance is and what it is made of, as its own directory says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// Who it is.
    #[serde(flatten)]
    pub identity: Identity,
    /// SHA-256 of its [`Origin`]; empty when an earlier version launched it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub origin: String,
}

/// An orphan that may come back.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Name of its directory.
    pub id: String,
    /// Who it is, when its directory says so.
    pub identity: Option<Identity>,
    /// What it is made of, or why that cannot be told.
    pub origin: Result<Origin, String>,
    /// Its VMM runs.
    pub runs: bool,
}

/// A set as it can be had again.
#[derive(Debug, Clone, PartialEq)]
pub struct Recovery {
    /// Of the newest generation.
    pub origin: Origin,
    /// The newest generation whose manifest can be read.
    pub generation: u64,
    /// Instances that are adopted, by id.
    pub adopted: Vec<Identity>,
    /// Orphans that stay, each with the reason.
    pub left: Vec<(String, String)>,
    /// Capacity of the set.
    pub capacity: u32,
    /// There are more instances than the manifest's maximum: all are protected from scale-in.
    pub protect: bool,
    incarnation: u64,
    manifests: BTreeMap<u64, ScaleSet>,
    next_instance_id: u32,
}

/// Plans to have the set of this name again from its orphans.
///
/// # Errors
/// No manifest of it can be read: why, for people.
pub fn plan(set: &str, candidates: &[Candidate]) -> Result<Recovery, String> {
    let mut left = Vec::new();
    let mut known = Vec::new();
    for candidate in candidates {
        match who(set, candidate) {
            Ok(identity) => known.push((candidate, identity)),
            Err(why) => left.push((candidate.id.clone(), why.to_owned())),
        }
    }
    // Sets of one name that followed each other: the youngest is the one that was lost.
    let newest = known.iter().max_by_key(|(_, identity)| (identity.created_ms, identity.id));
    let Some(incarnation) = newest.and_then(|(_, identity)| incarnation_of(identity)) else {
        return Err("no directory says which set it belongs to".to_owned());
    };
    let (mut manifests, mut newest, mut adopted) = (BTreeMap::new(), None::<(u64, &Origin)>, Vec::new());
    let mut unread = BTreeSet::new();
    for (candidate, identity) in known {
        if incarnation_of(identity) != Some(incarnation) {
            left.push((candidate.id.clone(), "it belongs to an earlier set of this name".to_owned()));
            continue;
        }
        match &candidate.origin {
            Ok(origin) if origin.manifest.name == set => {
                manifests.insert(identity.generation, origin.manifest.clone());
                newest = newest
                    .filter(|(known, _)| *known >= identity.generation)
                    .or(Some((identity.generation, origin)));
            }
            Ok(origin) => {
                unread.insert(format!("the manifest is that of set {}", origin.manifest.name));
            }
            Err(why) => {
                unread.insert(why.clone());
            }
        }
        if candidate.runs {
            adopted.push(identity.clone());
        } else {
            left.push((candidate.id.clone(), "its VMM has ended; its directory is kept".to_owned()));
        }
    }
    let Some((generation, origin)) = newest else {
        return Err(unread.into_iter().collect::<Vec<_>>().join("; "));
    };
    adopted.sort_by_key(|identity| identity.id);
    let limits = origin.manifest.capacity;
    let count = u32::try_from(adopted.len()).unwrap_or(u32::MAX);
    Ok(Recovery {
        origin: origin.clone(),
        generation,
        left,
        capacity: count.clamp(limits.min, limits.max),
        protect: count > limits.max,
        incarnation,
        manifests,
        next_instance_id: first_free_id(1, candidates.iter().map(|candidate| candidate.id.as_str())),
        adopted,
    })
}

fn who<'a>(set: &str, candidate: &'a Candidate) -> Result<&'a Identity, &'static str> {
    let Ok(id) = candidate.id.parse::<u32>() else { return Err("its directory is not that of an instance") };
    let identity = candidate.identity.as_ref().ok_or("its directory does not say who it is")?;
    if identity.set != set || identity.id != id {
        return Err("its directory says that it is another instance");
    }
    incarnation_of(identity).ok_or("its unique id is not one of Regatta's")?;
    Ok(identity)
}

/// The set's share of an instance's unique id.
fn incarnation_of(identity: &Identity) -> Option<u64> {
    let (incarnation, id) = identity.uid.split_once('-')?;
    (id.parse() == Ok(identity.id)).then(|| u64::from_str_radix(incarnation, 16).ok())?
}

/// The set that a recovery comes to, with its policies anew, and the batch that stores it.
#[must_use]
pub fn recovered(
    recovery: &Recovery,
    policies: Vec<PolicyActivation>,
    now: Time,
    actor: &Actor,
) -> (SetState, Vec<InstanceRecord>, Batch) {
    let Recovery { origin, generation, adopted, capacity, protect, incarnation, .. } = recovery;
    let new = NewSet {
        set: origin.manifest.clone(),
        image: origin.image.clone(),
        policies,
        incarnation: *incarnation,
    };
    let (mut state, mut batch) = create(new, now, actor.clone());
    let blobs: BTreeMap<u64, (Digest, Vec<u8>)> =
        recovery.manifests.iter().map(|(generation, set)| (*generation, manifest_blob(set))).collect();
    state.generation = *generation;
    state.desired = *capacity;
    state.next_instance_id = recovery.next_instance_id;
    state.epoch = adopted.iter().map(|identity| identity.epoch).max().unwrap_or(0);
    state.manifests = blobs.iter().map(|(generation, (digest, _))| (*generation, digest.clone())).collect();
    let at = Moment { wall_ms: now.wall_ms, lived_ms: state.clock.lived_ms };
    let records: Vec<InstanceRecord> =
        adopted.iter().map(|identity| record(identity, at, *protect)).collect();
    let name = &state.set.name;
    let event = |kind, instance, text: String| Event {
        at_ms: now.wall_ms,
        set: name.clone(),
        kind,
        instance,
        text: text.into(),
        actor: actor.clone(),
        policy: None,
    };
    let text = format!(
        "{name} recovered from the directories of its instances: generation {generation}, {} adopted, capacity {capacity}",
        records.len()
    );
    batch.history.events = vec![event(EventKind::SetRecovered, None, text)];
    let adoptions = records.iter().map(|it| {
        event(EventKind::InstanceAdopted, Some(it.id), format!("{name}-{} adopted: it was an orphan", it.id))
    });
    batch.history.events.extend(adoptions);
    batch.blobs = blobs.into_values().collect();
    batch.state.instances = records.iter().map(|record| (name.clone(), record.clone())).collect();
    batch.state.sets = vec![state.clone()];
    (state, records, batch)
}

/// It runs, and nobody knows how well: it has the time of a boot to pass its probes, and is asked to shut down like one that served.
fn record(identity: &Identity, at: Moment, protected: bool) -> InstanceRecord {
    InstanceRecord {
        uid: identity.uid.clone(),
        epoch: identity.epoch,
        phase: Phase::Booting,
        created_ms: identity.created_ms,
        address: Some(identity.address),
        protection: if protected { Protection::ScaleIn } else { Protection::None },
        served: true,
        ..InstanceRecord::pending(identity.id, at, identity.generation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::testing::manifest;
    use crate::state::instance_uid;

    fn origin(more: &str) -> Origin {
        Origin { manifest: manifest(more), image: ImageDigests::default() }
    }

    fn candidate(id: u32, generation: u64) -> Candidate {
        let identity = Identity {
            set: "web".to_owned(),
            id,
            uid: instance_uid(7, id),
            epoch: generation + 1,
            generation,
            created_ms: u64::from(id) * 100,
            address: [127, 40, 0, u8::try_from(id).unwrap()].into(),
        };
        let origin = origin(&format!("tick: {generation}s"));
        Candidate { id: id.to_string(), identity: Some(identity), origin: Ok(origin), runs: true }
    }

    const NOW: Time = Time { wall_ms: 9_000, mono_ms: 1 };

    #[test]
    fn a_set_comes_back_with_its_newest_manifest_and_instances_of_their_own_generations() {
        let recovery = plan("web", &[candidate(4, 2), candidate(1, 1), candidate(7, 3)]).expect("a plan");
        assert_eq!((recovery.generation, recovery.capacity, recovery.protect), (3, 3, false));
        assert_eq!(recovery.left, []);
        let (state, records, batch) = recovered(&recovery, Vec::new(), NOW, &"ann".into());
        assert_eq!((state.generation, state.desired, state.next_instance_id), (3, 3, 8));
        assert_eq!((state.incarnation, state.epoch, state.set.tick_ms), (7, 4, 3_000));
        let seen: Vec<_> = records.iter().map(|it| (it.id, it.generation, it.phase, it.served)).collect();
        let booting = Phase::Booting;
        assert_eq!(seen, [(1, 1, booting, true), (4, 2, booting, true), (7, 3, booting, true)]);
        assert_eq!(records[0].uid, instance_uid(7, 1));
        let ticks: Vec<u64> = state
            .manifests
            .values()
            .map(|digest| batch.blobs.iter().find(|(it, _)| it == digest).expect("a blob"))
            .map(|(_, json)| serde_json::from_slice::<ScaleSet>(json).expect("a manifest").tick_ms)
            .collect();
        assert_eq!(ticks, [1_000, 2_000, 3_000]);
        let kinds: Vec<_> = batch.history.events.iter().map(|event| (event.kind, event.instance)).collect();
        let adopted = |id| (EventKind::InstanceAdopted, Some(id));
        assert_eq!(kinds, [(EventKind::SetRecovered, None), adopted(1), adopted(4), adopted(7)]);
        assert_eq!(batch.expect.len(), 1, "refused when there is a set of that name");
    }

    #[test]
    fn what_cannot_come_back_stays_with_its_reason() {
        let nobody = Candidate { identity: None, ..candidate(2, 1) };
        let template = Candidate { id: "template".to_owned(), ..candidate(3, 1) };
        let misplaced = Candidate { id: "9".to_owned(), ..candidate(4, 1) };
        let dead = Candidate { runs: false, ..candidate(5, 1) };
        let mut earlier = candidate(1, 9);
        earlier.identity.as_mut().expect("one").uid = instance_uid(6, 1);
        let recovery =
            plan("web", &[nobody, template, misplaced, dead, earlier, candidate(6, 1)]).expect("a plan");
        let left: Vec<&str> = recovery.left.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(left, ["2", "template", "9", "5", "1"]);
        assert_eq!(recovery.adopted.iter().map(|it| it.id).collect::<Vec<_>>(), [6]);
        assert_eq!(recovery.generation, 1, "not that of the earlier set");
        let (state, ..) = recovered(&recovery, Vec::new(), NOW, &"ann".into());
        assert_eq!(state.next_instance_id, 10, "no directory is met by a new instance");
    }

    #[test]
    fn an_older_manifest_will_do_and_none_is_told_with_every_reason() {
        let lost = |id, why: &str| Candidate { origin: Err(why.to_owned()), ..candidate(id, 5) };
        let recovery = plan("web", &[lost(1, "gone"), candidate(2, 4)]).expect("a plan");
        assert_eq!((recovery.generation, recovery.adopted.len()), (4, 2));
        let why = plan("web", &[lost(1, "gone"), lost(2, "gone"), lost(3, "damaged")]).expect_err("none");
        assert_eq!(why, "damaged; gone");
        let other = Candidate { origin: Ok(origin("name: db")), ..candidate(1, 1) };
        assert!(plan("web", &[other]).expect_err("another set's").contains("set db"));
        assert!(plan("web", &[Candidate { identity: None, ..candidate(1, 1) }]).is_err());
    }

    #[test]
    fn capacity_stays_within_the_limits_and_nobody_is_removed_for_it() {
        let with = |limits: &str, count: u32| {
            let of =
                |id| Candidate { origin: Ok(origin(&format!("capacity: {limits}"))), ..candidate(id, 1) };
            plan("web", &(1..=count).map(of).collect::<Vec<_>>()).expect("a plan")
        };
        let many = with("{ min: 1, max: 2 }", 4);
        assert_eq!((many.capacity, many.protect, many.adopted.len()), (2, true, 4));
        let (_, records, _) = recovered(&many, Vec::new(), NOW, &"ann".into());
        assert!(records.iter().all(|record| record.protection == Protection::ScaleIn));
        let few = with("{ min: 3, max: 5 }", 1);
        assert_eq!((few.capacity, few.protect), (3, false));
    }

    #[test]
    fn what_a_directory_says_is_read_back_and_earlier_versions_said_less() {
        let birth = Birth { identity: candidate(1, 1).identity.expect("one"), origin: "ab".to_owned() };
        let json = serde_json::to_string(&birth).expect("JSON");
        assert_eq!(serde_json::from_str::<Birth>(&json).expect("read"), birth);
        let earlier = serde_json::to_string(&birth.identity).expect("JSON");
        let read: Birth = serde_json::from_str(&earlier).expect("read");
        assert_eq!((read.identity, read.origin.as_str()), (birth.identity, ""));
        let (digest, json) = origin("").file();
        assert_eq!((digest.len(), serde_json::from_slice::<Origin>(&json).expect("read")), (64, origin("")));
    }
}
