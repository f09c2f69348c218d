//! What a starting daemon makes of the instance directories that it finds: those of stored instances are taken up again, and what
//! no stored set knows is an orphan. An orphan is kept until an operator adopts or deletes it: the store may be the one
//! that has lost something.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::agent::Identity;
use crate::state::{InstanceRecord, SetState, instance_uid};

/// The directory of an instance, as it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDir {
    /// Name of the set's directory.
    pub set: String,
    /// Name of the instance's directory.
    pub id: String,
    /// Who the instance is, when that can be read.
    pub identity: Option<Identity>,
    /// A VMM runs for it.
    pub runs: bool,
    /// An earlier daemon has noted that it is an orphan.
    pub noted: bool,
}

/// Whose a directory is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// A stored instance's.
    Instance(u32),
    /// The stored set's, whose golden snapshots are made there.
    Template,
    /// The stored set's, which has removed the instance: a leftover of a removal that was cut off.
    Removed,
    /// Nobody's who is stored.
    Nobody(Why),
}

/// Why something is an orphan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Why {
    /// No set of that name is stored.
    SetNotStored,
    /// The set is stored, but not this instance.
    InstanceNotStored,
    /// The set is stored, but the instance belongs to another set of the same name.
    OtherSet,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::SetNotStored => "its set is not in the store",
            Self::InstanceNotStored => "its set is in the store, this instance is not",
            Self::OtherSet => "it belongs to another set of the same name",
        })
    }
}

/// Whose this directory is, as far as the stored set of its name says. `template` is the name of directories that golden
/// snapshots are made in.
#[must_use]
pub fn owner_of(found: &FoundDir, stored: Option<(&SetState, &[InstanceRecord])>, template: &str) -> Owner {
    let Some((state, instances)) = stored else { return Owner::Nobody(Why::SetNotStored) };
    if found.id == template {
        return Owner::Template;
    }
    let Ok(id) = found.id.parse::<u32>() else { return Owner::Nobody(Why::InstanceNotStored) };
    // Earlier versions knew instances by their number alone.
    let uid = found.identity.as_ref().map(|identity| identity.uid.as_str()).filter(|uid| !uid.is_empty());
    let is_another = |expected: &str| !expected.is_empty() && uid.is_some_and(|uid| uid != expected);
    match instances.iter().find(|instance| instance.id == id) {
        Some(instance) if is_another(&instance.uid) => Owner::Nobody(Why::OtherSet),
        Some(_) => Owner::Instance(id),
        None if is_another(&instance_uid(state.incarnation, id)) => Owner::Nobody(Why::OtherSet),
        None if !found.runs && !found.noted && id < state.next_instance_id => Owner::Removed,
        None => Owner::Nobody(Why::InstanceNotStored),
    }
}

/// The first number that a set may give to a new instance when these directories of its name are orphans.
#[must_use]
pub fn first_free_id<'a>(next: u32, orphans: impl IntoIterator<Item = &'a str>) -> u32 {
    let taken = orphans.into_iter().filter_map(|id| id.parse::<u32>().ok());
    taken.map(|id| id.saturating_add(1)).fold(next, u32::max)
}

/// The stored instances whose directories are those of orphans: nothing of them is left, and their number is not to be used.
#[must_use]
pub fn displaced<'a>(instances: &[InstanceRecord], orphans: impl IntoIterator<Item = &'a str>) -> Vec<u32> {
    let taken = orphans.into_iter().filter_map(|id| id.parse::<u32>().ok());
    taken.filter(|id| instances.iter().any(|instance| instance.id == *id)).collect()
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::machine::testing::manifest;
    use crate::machine::{NewSet, create};
    use crate::state::{ImageDigests, Moment};
    use crate::time::Time;

    fn stored() -> SetState {
        let set = manifest("");
        let new = NewSet { set, image: ImageDigests::default(), policies: Vec::new(), incarnation: 7 };
        let (state, _) = create(new, Time { wall_ms: 1_000, mono_ms: 0 }, "ann".into());
        SetState { next_instance_id: 3, ..state }
    }

    fn found(id: &str, uid: &str) -> FoundDir {
        let identity = Identity {
            set: "web".to_owned(),
            id: id.parse().unwrap_or_default(),
            uid: uid.to_owned(),
            epoch: 1,
            generation: 1,
            created_ms: 5,
            address: Ipv4Addr::UNSPECIFIED,
        };
        FoundDir {
            set: "web".to_owned(),
            id: id.to_owned(),
            identity: Some(identity),
            runs: true,
            noted: false,
        }
    }

    fn instance(id: u32, uid: &str) -> InstanceRecord {
        InstanceRecord { uid: uid.to_owned(), ..InstanceRecord::pending(id, Moment::default(), 1) }
    }

    #[test]
    fn a_directory_belongs_to_the_instance_of_its_number_and_unique_id() {
        let state = stored();
        let (ours, theirs) = (instance_uid(7, 1), instance_uid(8, 1));
        let instances = [instance(1, &ours)];
        let owner = |found: &FoundDir| owner_of(found, Some((&state, &instances)), "template");

        assert_eq!(owner(&found("1", &ours)), Owner::Instance(1));
        assert_eq!(owner(&found("1", &theirs)), Owner::Nobody(Why::OtherSet));
        assert_eq!(owner(&FoundDir { identity: None, ..found("1", "") }), Owner::Instance(1));
        assert_eq!(owner(&found("template", "")), Owner::Template);
        assert_eq!(owner(&found("junk", "")), Owner::Nobody(Why::InstanceNotStored));
        assert_eq!(owner_of(&found("1", &ours), None, "template"), Owner::Nobody(Why::SetNotStored));
        assert_eq!(owner_of(&found("template", ""), None, "template"), Owner::Nobody(Why::SetNotStored));
    }

    #[test]
    fn only_a_dead_leftover_that_the_set_itself_removed_may_go() {
        let state = stored();
        let owner = |found: FoundDir| owner_of(&found, Some((&state, &[])), "template");
        let dead = |id: u32| FoundDir { runs: false, ..found(&id.to_string(), &instance_uid(7, id)) };

        assert_eq!(owner(dead(2)), Owner::Removed);
        assert_eq!(owner(FoundDir { runs: true, ..dead(2) }), Owner::Nobody(Why::InstanceNotStored));
        assert_eq!(owner(FoundDir { noted: true, ..dead(2) }), Owner::Nobody(Why::InstanceNotStored));
        assert_eq!(owner(dead(3)), Owner::Nobody(Why::InstanceNotStored), "younger than the store");
        let other = FoundDir { runs: false, ..found("2", &instance_uid(8, 2)) };
        assert_eq!(owner(other), Owner::Nobody(Why::OtherSet));
    }

    #[test]
    fn numbers_of_orphans_are_not_given_again() {
        assert_eq!(first_free_id(3, ["1", "template"]), 3);
        assert_eq!(first_free_id(3, ["3", "7", "2"]), 8);
        assert_eq!(first_free_id(3, ["4294967295"]), u32::MAX);
        let stored = [instance(1, ""), instance(2, "")];
        assert_eq!(displaced(&stored, ["2", "9", "template"]), [2]);
    }
}
