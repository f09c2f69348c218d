//! User ids for VMMs: one that no other live VMM of this data directory has.

use std::collections::hash_map::DefaultHasher;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::Containment;
use crate::instance::InstanceDir;
use crate::process::procfs;
use regatta_util::chain;

/// Hands out the ids of a range, each to one instance at a time. What is in use is what the records in the instances' directories say.
#[derive(Debug)]
pub(crate) struct Uids {
    range: RangeInclusive<u32>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Every id that was ever seen in use, and where.
    owners: HashMap<u32, Owner>,
    /// Instance directories that were searched for the records of earlier daemons.
    searched: HashSet<PathBuf>,
    /// Ids that processes had when the first one was asked for; none before.
    processes: Option<HashSet<u32>>,
    /// Where the search for the next one begins.
    next: Option<u32>,
}

#[derive(Debug)]
struct Owner {
    dir: InstanceDir,
    launching: Weak<()>,
}

impl Owner {
    fn holds(&self, uid: u32) -> bool {
        self.launching.strong_count() > 0
            // What cannot be read may say so.
            || Containment::load(&self.dir).map_or(true, |found| found.is_some_and(|it| it.uid == Some(uid)))
    }
}

/// An id that is reserved until the record in the instance's directory says that it is in use, and this is dropped.
#[derive(Clone, Debug)]
pub(crate) struct Lease {
    pub(crate) uid: u32,
    _launching: Arc<()>,
}

impl Uids {
    pub(crate) fn new(range: RangeInclusive<u32>) -> Self {
        Self { range, state: Mutex::default() }
    }

    /// Reserves an id for an instance. Ids come round as late as possible: a file that was forgotten somewhere must not find a new owner soon.
    ///
    /// # Errors
    /// In words: every id is in use.
    pub(crate) fn lease(&self, dir: &InstanceDir) -> Result<Lease, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let state = &mut *state;
        let instances = dir.path().ancestors().nth(2).unwrap_or(Path::new("/"));
        if state.searched.insert(instances.to_path_buf()) {
            recover(instances, &mut state.owners);
        }
        let (first, last) = (*self.range.start(), *self.range.end());
        let start = state.next.unwrap_or_else(|| self.start_for(instances));
        let candidates = (start..=last).chain(first..start);
        for uid in candidates {
            if state.owners.get(&uid).is_some_and(|owner| owner.holds(uid)) {
                continue;
            }
            // A process of an earlier owner may have outlived its VMM. New ones only appear after a lease.
            let processes = state.processes.get_or_insert_with(procfs::users);
            if state.owners.contains_key(&uid) || processes.contains(&uid) {
                *processes = procfs::users();
            }
            if processes.contains(&uid) {
                tracing::warn!(
                    uid,
                    "a process has this user id that no VMM has; it is not given to a new one"
                );
                continue;
            }
            let launching = Arc::new(());
            let owner = Owner { dir: dir.clone(), launching: Arc::downgrade(&launching) };
            state.owners.insert(uid, owner);
            state.next = Some(if uid < last { uid + 1 } else { first });
            return Ok(Lease { uid, _launching: launching });
        }
        Err(format!("every user id from {first} to {last} is in use by another VMM or process"))
    }

    /// Daemons with different data directories share the range, but not its beginning.
    fn start_for(&self, instances: &Path) -> u32 {
        let mut hasher = DefaultHasher::new();
        instances.hash(&mut hasher);
        let count = u64::from(self.range.end() - self.range.start()) + 1;
        // Below the range's length, which is that of a u32.
        self.range.start() + u32::try_from(hasher.finish() % count).unwrap_or(0)
    }
}

fn recover(instances: &Path, owners: &mut HashMap<u32, Owner>) {
    match InstanceDir::list(instances) {
        Ok(dirs) => {
            for dir in dirs {
                match Containment::load(&dir) {
                    Ok(found) => {
                        if let Some(uid) = found.and_then(|found| found.uid) {
                            owners.insert(uid, Owner { dir, launching: Weak::new() });
                        }
                    }
                    Err(error) => {
                        let error = chain(&error);
                        tracing::warn!(instance = dir.id(), error, "whose user id it has is not known");
                    }
                }
            }
        }
        Err(error) => {
            tracing::warn!(dir = %instances.display(), %error, "user ids of running VMMs are not known");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn record(dir: &InstanceDir, uid: u32) {
        dir.prepare().expect("dir");
        Containment { uid: Some(uid), ..Containment::none("test") }.save(dir).expect("saved");
    }

    #[test]
    fn ids_are_unique_come_back_when_free_and_survive_the_daemon() {
        let data = tempfile::tempdir().expect("temp dir");
        let dir = |id: &str| InstanceDir::new(data.path(), "set", id).expect("dir");
        let uids = Uids::new(1000..=1002);
        let leases: Vec<Lease> = ["a", "b", "c"].map(|id| uids.lease(&dir(id)).expect("free")).to_vec();
        let all: BTreeSet<u32> = leases.iter().map(|lease| lease.uid).collect();
        assert_eq!(all, BTreeSet::from([1000, 1001, 1002]));
        let why = uids.lease(&dir("d")).expect_err("none left");
        assert!(why.contains("1000 to 1002"), "{why}");

        // "a" is launched and written down, the others fail.
        record(&dir("a"), leases[0].uid);
        let kept = leases[0].uid;
        drop(leases);
        let again: BTreeSet<u32> = ["d", "e"]
            .map(|id| uids.lease(&dir(id)).expect("free again"))
            .iter()
            .map(|lease| lease.uid)
            .collect();
        assert!(again.len() == 1 || !again.contains(&kept), "{again:?}");

        // Nobody is given the id of a process.
        let mut sleeper = std::process::Command::new("sleep");
        sleeper.arg("600");
        if rustix::process::geteuid().is_root() {
            std::os::unix::process::CommandExt::uid(&mut sleeper, 1003);
            let mut sleeper = sleeper.spawn().expect("a process");
            let uids = Uids::new(1003..=1004);
            assert_eq!([uids.lease(&dir("x")).map(|it| it.uid).ok()], [Some(1004)]);
            sleeper.kill().expect("killed");
            sleeper.wait().expect("its end");
            assert_eq!(uids.lease(&dir("y")).map(|it| it.uid).ok(), Some(1003));
        }

        // The next daemon finds the record.
        let uids = Uids::new(1000..=1002);
        let (first, second) = (uids.lease(&dir("f")).expect("free"), uids.lease(&dir("g")).expect("free"));
        assert!(first.uid != kept && second.uid != kept && first.uid != second.uid);
        uids.lease(&dir("h")).expect_err("the recorded one is not free");
        dir("a").remove().expect("removed");
        assert_eq!(uids.lease(&dir("h")).expect("free with its directory gone").uid, kept);
    }
}
