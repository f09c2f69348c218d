//! What keeps a VMM that its guest has broken out of from the rest of the host, and the record of what of that is in force.
//!
//! The directory of an instance belongs to us, with the sticky bit and the VMM's group: the VMM makes its sockets there, but cannot
//! replace, remove or rename a file of ours. What it could make there itself is why we open files in it by [`crate::guarded`] alone, and
//! why the record is in `ctl/`, where it cannot make any.

#[allow(clippy::disallowed_methods, reason = "/proc/sys")]
mod access;
mod files;
mod isolation;
mod uids;
mod verify;

use serde::{Deserialize, Serialize};

pub(crate) use access::userfaultfd;
pub(crate) use files::{hand_over, make_logs};
pub use isolation::{Isolation, IsolationOptions};
pub(crate) use isolation::{Needs, Plan};

use crate::instance::{CONTAINMENT, DirError, InstanceDir};

/// One way of containing a VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// A user and a group of its own, unprivileged, shared with no other VMM.
    OwnUser,
    /// No capabilities, and no way to get any (`no_new_privs`, empty bounding set).
    NoPrivileges,
    /// Its own seccomp filters on its threads.
    Seccomp,
    /// Landlock: it can open the files that it needs, and no others.
    Landlock,
    /// Limits on memory and processes and a share of CPU time, by a cgroup of its own.
    Cgroup,
    /// No core dumps (they would hold guest memory), a bound on open files.
    ResourceLimits,
    /// No descriptor of the daemon is inherited.
    NoInheritedDescriptors,
    /// A network namespace of its own, in which is nothing but its guest's network.
    OwnNetwork,
    /// PID and IPC namespaces of its own: what it starts ends with it.
    OwnProcesses,
}

impl Measure {
    /// Every measure.
    pub const ALL: [Self; 9] = [
        Self::OwnUser,
        Self::NoPrivileges,
        Self::Seccomp,
        Self::Landlock,
        Self::Cgroup,
        Self::ResourceLimits,
        Self::NoInheritedDescriptors,
        Self::OwnNetwork,
        Self::OwnProcesses,
    ];

    /// Its name in records and messages, such as `own-user`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::OwnUser => "own-user",
            Self::NoPrivileges => "no-privileges",
            Self::Seccomp => "seccomp",
            Self::Landlock => "landlock",
            Self::Cgroup => "cgroup",
            Self::ResourceLimits => "resource-limits",
            Self::NoInheritedDescriptors => "no-inherited-descriptors",
            Self::OwnNetwork => "own-network",
            Self::OwnProcesses => "own-processes",
        }
    }

    /// Whether only the VMM could tell that it is in force: the kernel shows nobody which Landlock rules a process has.
    const fn is_claim(self) -> bool {
        matches!(self, Self::Landlock)
    }
}

impl std::fmt::Display for Measure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A measure, and whether it is in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasureState {
    /// The measure.
    pub measure: Measure,
    /// The VMM was told to do it itself, and nobody can see whether it did: not in force as far as anyone knows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub requested: bool,
    /// Why it is not in force, and how to get it; `None` when it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missing: Option<String>,
}

/// How one VMM is contained. It is written down in the instance's directory, so that it survives the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Containment {
    /// The user and group id that only this VMM has; `None` when it runs as the daemon's user. A tap that it shall open must have this owner.
    pub uid: Option<u32>,
    /// Every measure, in the order of [`Measure::ALL`].
    pub measures: Vec<MeasureState>,
}

impl Containment {
    /// Nothing in force, each measure for the same reason.
    pub(crate) fn none(why: &str) -> Self {
        let state = |measure| MeasureState { measure, requested: false, missing: Some(why.to_owned()) };
        Self { uid: None, measures: Measure::ALL.map(state).to_vec() }
    }

    /// Whether a measure is in force, and the kernel says so or we did it.
    #[must_use]
    pub fn has(&self, measure: Measure) -> bool {
        self.measures
            .iter()
            .any(|state| state.measure == measure && state.missing.is_none() && !state.requested)
    }

    /// The measures that the VMM was told to take, of which nobody can see whether it did.
    pub fn requested(&self) -> impl Iterator<Item = Measure> {
        self.measures.iter().filter(|state| state.requested).map(|state| state.measure)
    }

    /// The measures that are not in force, with the reason and what to do about it.
    pub fn missing(&self) -> impl Iterator<Item = (Measure, &str)> {
        self.measures.iter().filter_map(|state| Some((state.measure, state.missing.as_deref()?)))
    }

    /// Everything that is missing in one line; empty when nothing is.
    pub(crate) fn missing_text(&self) -> String {
        let texts: Vec<String> = self.missing().map(|(measure, why)| format!("{measure} ({why})")).collect();
        texts.join("; ")
    }

    pub(crate) fn set(&mut self, measure: Measure, state: Result<(), String>) {
        let state =
            MeasureState { measure, requested: measure.is_claim() && state.is_ok(), missing: state.err() };
        match self.measures.iter_mut().find(|known| known.measure == measure) {
            Some(known) => *known = state,
            None => self.measures.push(state),
        }
    }

    /// Takes back a measure that turned out not to work; never makes a missing one appear to be there.
    pub(crate) fn withdraw(&mut self, measure: Measure, why: String) {
        if self.has(measure) || self.requested().any(|requested| requested == measure) {
            self.set(measure, Err(why));
        }
    }

    /// Writes the record for an instance, whole or not at all.
    pub(crate) fn save(&self, dir: &InstanceDir) -> Result<(), DirError> {
        dir.write_note_as(CONTAINMENT, self)
    }

    /// The record in an instance's directory, if there is one.
    ///
    /// # Errors
    /// It is there, and cannot be read or understood.
    pub(crate) fn load(dir: &InstanceDir) -> Result<Option<Self>, DirError> {
        let mut found: Option<Self> = dir.note_as(CONTAINMENT)?;
        // Earlier versions wrote down what they had asked for as if it were in force.
        for state in found.iter_mut().flat_map(|record| &mut record.measures) {
            state.requested = state.measure.is_claim() && state.missing.is_none();
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_only_the_vmm_could_tell_is_requested_and_never_in_force() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        dir.prepare().expect("dir");
        let mut containment = Containment::none("x");
        containment.set(Measure::Landlock, Ok(()));
        let check = |containment: &Containment| {
            assert!(!containment.has(Measure::Landlock));
            assert!(containment.missing().all(|(measure, _)| measure != Measure::Landlock));
            assert_eq!(containment.requested().collect::<Vec<_>>(), [Measure::Landlock]);
        };
        check(&containment);
        containment.save(&dir).expect("saved");
        check(&Containment::load(&dir).expect("loaded").expect("there"));
        let text = serde_json::to_value(&containment).expect("JSON");
        assert!(
            text["measures"].to_string().contains(r#"{"measure":"landlock","requested":true}"#),
            "{text}"
        );

        // As an earlier version wrote it.
        let old = serde_json::json!({ "uid": null, "measures": [{ "measure": "landlock" }] });
        dir.write_note_as(CONTAINMENT, &old).expect("written");
        check(&Containment::load(&dir).expect("loaded").expect("there"));

        containment.withdraw(Measure::Landlock, "it said no".to_owned());
        assert_eq!(containment.requested().count(), 0);
    }

    #[test]
    fn the_record_reads_back_and_what_is_missing_is_told() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = InstanceDir::new(data.path(), "s", "i").expect("dir");
        assert_eq!(Containment::load(&dir).expect("nothing there"), None);
        dir.prepare().expect("dir");
        let mut containment = Containment::none("never asked for");
        containment.uid = Some(500_000);
        containment.set(Measure::OwnUser, Ok(()));
        containment.set(Measure::Landlock, Err("the kernel has none".to_owned()));
        containment.save(&dir).expect("saved");
        let found = Containment::load(&dir).expect("loaded").expect("there");
        assert_eq!(found, containment);
        assert!(found.has(Measure::OwnUser) && !found.has(Measure::Landlock));
        assert_eq!(found.missing().count(), Measure::ALL.len() - 1);
        assert!(
            found.missing_text().contains("; landlock (the kernel has none); "),
            "{}",
            found.missing_text()
        );

        containment.withdraw(Measure::Landlock, "never overwrites the first reason".to_owned());
        assert_eq!(containment, found);
        containment.withdraw(Measure::OwnUser, "it runs as another".to_owned());
        assert!(!containment.has(Measure::OwnUser));
    }
}
